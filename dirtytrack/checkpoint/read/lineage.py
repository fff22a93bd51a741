"""Which checkpoints the files of a chain make up, and which files do not fit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self

from dirtytrack.checkpoint.format.description import Consistency
from dirtytrack.checkpoint.format.layout import Layout
from dirtytrack.checkpoint.format.structures import NO_PARENT, FileName, Kind
from dirtytrack.checkpoint.read.checkpoint_file import CheckpointFile

_SHOWN = 4


class Problem(NamedTuple):
    """A file that is named like one of the chain's and can't be used.

    Attributes:
        file: its name.
        reason: what is wrong with it, or with what it stands on.
    """

    file: str
    reason: str

    @property
    def number(self) -> int:
        """Of the checkpoint, as the name has it."""
        return int(self.file.partition("-")[0])

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A state that the chain can give back.

    Attributes:
        number: grows along the chain.
        id: identifier of the state, 32 hexadecimal digits.
        parent: that of the checkpoint it followed; None for the first one.
        kind: of its own file, "base" (everything) or "delta" (what changed since the parent).
        created: when it was captured, in seconds since 1970.
        consistency: "proven", "paused" or "unproven", as `Save.consistency`.
        statistics: of the save: pause (seconds), rounds, blocks_written, blocks_stored.
        nbytes: length of its own file. (That of a base may have holes, which take no room.)
        regions: what it holds.
    """

    number: int
    id: str
    parent: str | None
    kind: Literal["base", "delta"]
    created: float
    consistency: Consistency
    statistics: Mapping[str, Any] = field(repr=False)
    nbytes: int
    regions: tuple[Layout, ...] = field(repr=False)
    _file: CheckpointFile = field(repr=False)
    _below: Checkpoint | None = field(repr=False)  # what a delta stands on

    @classmethod
    def _of(cls, file: CheckpointFile, below: Checkpoint | None) -> Self:
        header = file.header
        return cls(
            number=header.number,
            id=header.checkpoint.hex(),
            parent=None if header.parent == NO_PARENT else header.parent.hex(),
            kind=header.kind.label,
            created=file.description.created,
            consistency=file.description.consistency,
            statistics=file.description.statistics,
            nbytes=file.nbytes,
            regions=file.layouts,
            _file=file,
            _below=below,
        )

    @property
    def meta(self) -> Any:
        """The meta that was given to the save; a new copy at each access."""
        return json.loads(self._file.description.meta)

    @property
    def consistent(self) -> bool:
        """Whether it is known to be the state of one instant."""
        return self.consistency != "unproven"

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that make it up, the base first."""
        return tuple(str(file.name) for file in self._way())

    def _way(self) -> list[CheckpointFile]:
        files = []
        at: Checkpoint | None = self
        while at is not None:
            files.append(at._file)
            at = at._below
        return files[::-1]


Checkpoints = dict[str, Checkpoint]  # by identifier, in the order of their numbers


def arrange(files: list[CheckpointFile]) -> tuple[Checkpoints, dict[FileName, str]]:
    """The checkpoints of which all files are there, and why other files can't be used."""
    checkpoints: Checkpoints = {}
    misfits: dict[FileName, str] = {}
    by_checkpoint = {file.header.checkpoint: file for file in files}
    # A parent has a smaller number, so it comes before what stands on it. Of two files for one checkpoint the
    # base comes first.
    for file in sorted(files, key=lambda file: (file.name.number, file.name.kind)):
        header, key = file.header, file.header.checkpoint.hex()
        reason = _misfit(file, checkpoints, by_checkpoint)
        if reason is not None:
            misfits[file.name] = reason
        elif key not in checkpoints:
            below = checkpoints[header.parent.hex()] if header.kind is Kind.DELTA else None
            checkpoints[key] = Checkpoint._of(file, below)
    return checkpoints, misfits


def _misfit(
    file: CheckpointFile, checkpoints: Checkpoints, by_checkpoint: dict[bytes, CheckpointFile]
) -> str | None:
    # Why a file can't be used although it is intact.
    header = file.header
    twin, below = checkpoints.get(header.checkpoint.hex()), checkpoints.get(header.parent.hex())
    if twin is not None:
        other = twin._file
        theirs = other.header.number, other.header.parent, other.table
        same = theirs == (header.number, header.parent, file.table)
        return None if same else f"it claims to be the same state as {other.name}, and differs from it"
    parent = by_checkpoint.get(header.parent) if below is None else below._file
    if parent is not None and parent.name.number >= header.number:
        return f"its number is not greater than that of its parent {parent.name}"
    if header.kind is Kind.BASE:
        return None
    if parent is None:
        return f"its parent, checkpoint {header.parent.hex()}, is damaged or not there"
    if below is None:
        return f"its parent {parent.name} can't be used"
    if parent.table != file.table:
        return f"its table of regions differs from that of its parent {parent.name}"
    return None


def few(items: Iterable[object]) -> str:
    """The first of them, as part of a message."""
    shown = [str(item) for item in items]
    more = len(shown) - _SHOWN
    return ", ".join(shown[:_SHOWN]) + (f", and {more} more" if more > 0 else "")
