"""Two recordings beside each other."""

from __future__ import annotations

from dataclasses import dataclass

from dirtytrack.profile.recording import Recording


@dataclass(frozen=True)
class Row:
    """What one phase wrote to memory of one name, in the first recording and in the second.

    Attributes:
        phase: its title.
        area: the name.
        nbytes: bytes written, in each.
        distinct: different pages, in each.
        rates: bytes written in a second, in each.
    """

    phase: str
    area: str
    nbytes: tuple[int, int]
    distinct: tuple[int, int]
    rates: tuple[float, float]


def compare(first: Recording, second: Recording) -> list[Row]:
    """Returns a row for each phase and name that either has, those with the largest difference first.

    Memory without a name of its own, which lies elsewhere in each run, is taken together, and so are forked
    children, which have other numbers.
    """
    one, other = _sums(first), _sums(second)
    rows = []
    for phase, area in {**one, **other}:
        (nbytes, distinct), (nbytes2, distinct2) = (sums.get((phase, area), (0, 0)) for sums in (one, other))
        times = max(first.duration, 1e-9), max(second.duration, 1e-9)
        rates = nbytes / times[0], nbytes2 / times[1]
        rows.append(Row(phase, area, (nbytes, nbytes2), (distinct, distinct2), rates))
    return sorted(rows, key=lambda row: -abs(row.rates[1] - row.rates[0]))


def _sums(recording: Recording) -> dict[tuple[str, str], tuple[int, int]]:
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for phase in recording.phases:
        for tally in phase.tallies:
            name = recording.areas[tally.area].name
            title = phase.title
            if phase.process:
                title = title.replace(f"process {recording.processes[phase.process].pid}", "(children)", 1)
            key = title, "anonymous" if name.startswith("anonymous 0x") else name
            nbytes, distinct = sums.get(key, (0, 0))
            sums[key] = nbytes + tally.nbytes, distinct + tally.distinct
    return sums
