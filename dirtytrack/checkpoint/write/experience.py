"""What the last saves have taught, for a forecast of the next one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from dirtytrack.checkpoint.format.structures import BLOCK, Kind
from dirtytrack.checkpoint.write.job import Job

_MOST = 16  # saves that are looked back at
_WEIGHT = 0.3  # of a save, beside all before it


@dataclass(frozen=True)
class Forecast:
    """What the next save would be like, were it made now.

    Attributes:
        kind: "base" (everything) or "delta".
        pages: pages that it would copy. Exact, but for what is written from here on.
        nbytes: bytes that its file would have: those of the blocks on these pages, by the share of
            them that the last saves found to be new, and by how far they were compressed.
        pause: seconds, from the speed of the last scan and copy.
        saves: how many saves of this kind it is learned from. Without one, blocks are taken to be new and not
            compressible.
    """

    kind: Literal["base", "delta"]
    pages: int
    nbytes: int
    pause: float
    saves: int


class Experience:
    """The last saves."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque(maxlen=_MOST)

    def add(self, job: Job) -> None:
        """Takes note of one that is captured; what its file has is looked up when it is asked for."""
        self._jobs.append(job)

    def forecast(self, kind: Kind, pages: int, blocks: int, copying: float) -> Forecast:
        """Tells what a save would be like.

        Args:
            kind: of the save.
            pages: that it would copy.
            blocks: of 4096 bytes, on these pages.
            copying: seconds for that.
        """
        # What was to be a delta and turned out to have everything is a base by its file. Not here.
        alike = [
            (job.captured, job.written)
            for job in self._jobs
            if job.kind is kind and job.captured is not None and job.written is not None
        ]
        new = _weighed(
            (one.blocks_stored / captured.blocks for captured, one in alike if captured.blocks), 1.0
        )
        packed = _weighed((one.nbytes / one.stored_bytes for _, one in alike if one.stored_bytes), 1.0)
        beside = _weighed((captured.pause - captured.copying for captured, _ in alike), 0.0)
        nbytes = round(blocks * BLOCK * min(new, 1.0) * packed)
        return Forecast(kind.label, pages, nbytes, copying + max(beside, 0.0), len(alike))


def _weighed(values: Iterable[float], default: float) -> float:
    """The later, the more a value counts; the default if there is none."""
    result = None
    for value in values:
        result = value if result is None else result + _WEIGHT * (value - result)
    return default if result is None else result
