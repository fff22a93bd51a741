"""Puts together what a recording has too much of: cells of areas, and columns of time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from dirtytrack.profile import _limits
from dirtytrack.profile.recording import Area, Column, Count, Share


def runs_of(numbers: Sequence[int]) -> tuple[Count, ...]:
    """Counts of cells as runs of equal ones, those of nothing left out."""
    found: list[Count] = []
    for cell, writes in enumerate(numbers):
        if not writes:
            continue
        if found and found[-1].stop == cell and found[-1].writes == writes:
            found[-1] = Count(found[-1].start, cell + 1, writes)
        else:
            found.append(Count(cell, cell + 1, writes))
    return tuple(found)


def summed(counts: Sequence[Count], factor: int) -> tuple[Count, ...]:
    """Runs in any order added up, in cells that are so many times as large."""
    numbers = [0] * -(-max((count.stop for count in counts), default=0) // factor)
    for start, stop, writes in counts:
        for cell in range(start, stop):
            numbers[cell // factor] += writes
    return runs_of(numbers)


def bounded(areas: list[Area]) -> tuple[Area, ...]:
    """Areas with larger cells, those with the most runs first, as long as there are too many."""
    while sum(len(area.counts) for area in areas) > _limits.COUNTS:
        most = max(len(area.counts) for area in areas)
        areas = [_coarser(area) if len(area.counts) > most // 2 else area for area in areas]
    return tuple(areas)


def _coarser(area: Area) -> Area:
    return replace(area, cell=area.cell * 2, counts=summed(area.counts, 2))


def with_coarser_columns(area: Area) -> Area:
    """An area whose cells in columns are twice as large."""
    return replace(area, column_cell=area.column_cell * 2)


def coarser_column(column: Column) -> Column:
    """A column with cells that are twice as large."""
    return replace(column, counts={area: summed(runs, 2) for area, runs in column.counts.items()})


def runs_in(columns: Iterable[Column]) -> int:
    """How many runs columns have together."""
    return sum(len(runs) for column in columns for runs in column.counts.values())


def joined(columns: Iterable[Column], longest: float) -> list[Column]:
    """Columns next to each other put together as long as they are short: of many at most half stay."""
    found: list[Column] = []
    for column in columns:
        if found and column.stop - found[-1].start <= longest:
            found[-1] = _together(found[-1], column)
        else:
            found.append(column)
    return found


def _together(one: Column, other: Column) -> Column:
    shares = {share.phase: share for share in one.shares}
    for share in other.shares:
        shares[share.phase] = sum_of(shares.get(share.phase, Share(share.phase, 0.0, 0)), share)
    counts = dict(one.counts)
    for area, runs in other.counts.items():
        counts[area] = summed((*counts[area], *runs), 1) if area in counts else runs
    return Column(one.start, other.stop, tuple(shares.values()), counts)


def sum_of(one: Share, other: Share) -> Share:
    """Two shares of one phase as one."""
    return Share(one.phase, one.seconds + other.seconds, one.writes + other.writes)
