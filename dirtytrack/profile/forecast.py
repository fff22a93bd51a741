"""What a recording tells of incremental checkpoints: how large they would be, and whether they pay."""

from __future__ import annotations

from dataclasses import dataclass

from dirtytrack.profile.recording import Recording

PAYS_BELOW = 0.3  # of the memory written: beyond it a copy of all costs less than faults and a delta
_NEARLY_ALWAYS = 0.9


@dataclass(frozen=True)
class Delta:
    """What a save would hold, if there were one every so many seconds.

    Attributes:
        interval: seconds.
        nbytes: bytes of the pages written within it, on average; blocks that are as they were, and
        compression,
            make a file smaller.
        peak: the most within one interval.
        fraction: of the memory that was watched.
        pays: whether that is little enough for tracking and deltas to cost less than a copy of everything.
    """

    interval: float
    nbytes: float
    peak: int
    fraction: float
    pays: bool


@dataclass(frozen=True)
class Forecast:
    """What checkpoints of a recorded program would be like.

    Attributes:
        base: bytes of the first one, which holds everything.
        deltas: by interval, ascending; those of which the recording has a whole one.
        adaptive: fraction of page-writes that fell on pages which were written between nearly each two looks.
        An
            adaptive session that looks as often leaves such pages open, and spares their faults.
    """

    base: int
    deltas: tuple[Delta, ...]
    adaptive: float


def forecast(recording: Recording) -> Forecast:
    """Returns what checkpoints of a program would be like, from a recording of it."""
    base = recording.watched
    deltas = []
    for one in recording.working_sets:
        if one.windows:
            # Windows end at looks, and so are longer than the interval: by as much they hold more, at most.
            mean = one.nbytes / one.windows
            fraction = mean / base if base else 0.0
            deltas.append(Delta(one.interval, mean, one.peak, fraction, fraction < PAYS_BELOW))
    hot = sum(
        count.writes * (count.stop - count.start)
        for area in recording.areas
        for count in area.counts
        if count.writes >= _NEARLY_ALWAYS * recording.collects * area.cell
    )
    return Forecast(base, tuple(deltas), hot / recording.writes if recording.writes else 0.0)
