"""Adds up what each collect finds, in bounded memory, and makes a `Recording` of it.

The totals are exact, however long it takes: by area and phase, with a bit for each page of an area that a
phase wrote. What is over time is thinned: columns next to each other are put together, so that there are
never more than a few hundred.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal, NamedTuple

from dirtytrack.native import ffi, lib
from dirtytrack.profile import _limits
from dirtytrack.profile._limits import clean
from dirtytrack.profile.recording import Area, Column, Count, Phase, Recording, Share, Tally, WorkingSet

_FEWEST_COLUMNS = 16
_OTHERS = "(others)"

_new = ffi.new_allocator(lib.dt_block_new, lib.dt_block_free, should_clear_after_alloc=True)


class Written(NamedTuple):
    """What a collect found in one area.

    Attributes:
        area: its index.
        runs: a native list of half-open runs of pages.
        length: the number of runs.
        pages: the pages in them.
        nbytes: bytes of the area on these pages.
    """

    area: int
    runs: Any
    length: int
    pages: int
    nbytes: int


class _Bitmap:
    """A bit for each page of an area; memory of the library's own, so that a user can't track it."""

    def __init__(self, pages: int) -> None:
        self._words = _new("uint64_t[]", (pages + 63) // 64)
        self._is_empty = True

    def add(self, written: Written) -> int:
        """Sets the bits of pages; returns how many were not set."""
        self._is_empty = False
        return int(lib.dt_tally_new(written.runs, written.length, self._words))

    def clear(self) -> None:
        if not self._is_empty:
            nbytes = ffi.sizeof(self._words)
            ffi.memmove(self._words, bytes(nbytes), nbytes)
            self._is_empty = True


class _Cells:
    """How often the pages of an area were written, by cell."""

    def __init__(self, pages: int, cell: int) -> None:
        self.shift = cell.bit_length() - 1
        self._length = ((pages - 1) >> self.shift) + 1
        self.counts = _new("uint32_t[]", self._length)

    def add(self, written: Written) -> None:
        lib.dt_tally(written.runs, written.length, self.shift, self.counts)

    def runs(self) -> tuple[Count, ...]:
        return _counts([int(count) for count in ffi.unpack(self.counts, self._length)])


def _cell(pages: int, most: int) -> int:
    # Pages in a cell, a power of two, so that there are at most so many cells.
    return 1 << max(0, (-(-pages // most) - 1).bit_length())


def _counts(numbers: Sequence[int]) -> tuple[Count, ...]:
    found: list[Count] = []
    for cell, writes in enumerate(numbers):
        if not writes:
            continue
        if found and found[-1].stop == cell and found[-1].writes == writes:
            found[-1] = Count(found[-1].start, cell + 1, writes)
        else:
            found.append(Count(cell, cell + 1, writes))
    return tuple(found)


def _summed(counts: Sequence[Count], factor: int) -> tuple[Count, ...]:
    # Of runs in any order, in cells that are so many times as large.
    numbers = [0] * -(-max((count.stop for count in counts), default=0) // factor)
    for start, stop, writes in counts:
        for cell in range(start, stop):
            numbers[cell // factor] += writes
    return _counts(numbers)


@dataclass
class _AreaSums:
    area: Area
    cells: _Cells
    distinct: _Bitmap
    writes: int = 0
    seen: int = 0


@dataclass
class _Pair:
    """A phase and an area."""

    seen: _Bitmap
    writes: int = 0
    nbytes: int = 0
    distinct: int = 0


@dataclass
class _PhaseSums:
    index: int
    name: str
    collects: int = 0
    seconds: float = 0.0
    pairs: dict[int, _Pair] = field(default_factory=dict)


@dataclass
class _Window:
    """The current window of a working set, and those before it."""

    total: WorkingSet
    began: float = 0.0
    nbytes: int = 0
    seen: dict[int, _Bitmap] = field(default_factory=dict)


@dataclass
class _OpenColumn:
    """The column that is still added to."""

    start: float
    stop: float
    shares: dict[int, Share] = field(default_factory=dict)
    cells: dict[int, _Cells] = field(default_factory=dict)

    def add(self, share: Share) -> None:
        before = self.shares.get(share.phase, Share(share.phase, 0.0, 0))
        self.shares[share.phase] = _sum(before, share)

    def closed(self) -> Column:
        """It as it is."""
        counts = {area: cells.runs() for area, cells in self.cells.items()}
        return Column(self.start, self.stop, tuple(self.shares.values()), counts)


class Ledger:
    """The sums of everything found so far. Not for several threads at a time."""

    def __init__(self, intervals: Iterable[float]) -> None:
        self._areas: list[_AreaSums] = []
        self._phases: dict[str, _PhaseSums] = {}
        self._columns: list[Column] = []
        self._most_columns = _limits.COLUMNS - 1  # one is open
        self._column_factor = 1  # by which cells in columns are larger than they would have to be
        self._pairs = 0
        self._windows = [_Window(WorkingSet(interval, 0, 0.0, 0, 0)) for interval in sorted(set(intervals))]
        self._until = 0.0
        self._open = _OpenColumn(0.0, 0.0)
        self.collects = 0
        self.last = 0  # page-writes of the last collect

    @property
    def phases(self) -> tuple[str, ...]:
        """The names of the phases that were charged."""
        return tuple(self._phases)

    def area(self, area: Area) -> int | None:
        """Begins to count an area; its index, or None if there are too many already."""
        if len(self._areas) >= _limits.AREAS:
            return None
        pages = area.page_count
        cell = _cell(pages, _limits.CELLS)
        column_cell = _cell(pages, _limits.COLUMN_CELLS) * self._column_factor
        described = replace(area, name=clean(area.name, _limits.NAME), cell=cell, column_cell=column_cell)
        self._areas.append(_AreaSums(described, _Cells(pages, cell), _Bitmap(pages)))
        return len(self._areas) - 1

    def rename(self, index: int, area: Area) -> None:
        """Says better what an area is: another name, kind, shape."""
        sums = self._areas[index]
        cell, column_cell = sums.area.cell, sums.area.column_cell
        sums.area = replace(area, name=clean(area.name, _limits.NAME), cell=cell, column_cell=column_cell)

    def add(self, phase: str, until: float, found: Iterable[Written]) -> None:
        """Charges what a collect found to the phase that was the current one since the collect before it.

        Args:
            phase: its name.
            until: seconds from the beginning, of the collect.
            found: by area, each at most once.
        """
        since, self._until = self._until, max(until, self._until)
        seconds = self._until - since
        sums = self._phase(phase)
        sums.collects += 1
        sums.seconds += seconds
        self.collects += 1
        if self._until - self._open.start > 2 * self._until / self._most_columns:
            self._columns.append(self._open.closed())
            self._open = _OpenColumn(since, self._until)
            self._thin()
        self._open.stop = self._until
        pages = 0
        for written in found:
            pages += written.pages
            self._add(sums, written)
        self._open.add(Share(sums.index, seconds, pages))
        self.last = pages
        for window in self._windows:
            self._close(window)

    def _phase(self, name: str) -> _PhaseSums:
        name = clean(name)
        if name not in self._phases and len(self._phases) >= _limits.PHASES - 1:
            name = _OTHERS
        return self._phases.setdefault(name, _PhaseSums(len(self._phases), name))

    def _add(self, phase: _PhaseSums, written: Written) -> None:
        area = self._areas[written.area]
        page_count = area.area.page_count
        area.writes += written.pages
        area.seen += area.distinct.add(written)
        area.cells.add(written)
        pair = self._pair(phase, written.area)
        pair.writes += written.pages
        pair.nbytes += written.nbytes
        pair.distinct += pair.seen.add(written)
        for window in self._windows:
            seen = window.seen.get(written.area)
            if seen is None:
                seen = window.seen[written.area] = _Bitmap(page_count)
            window.nbytes += seen.add(written) * area.area.page_size
        column = self._open.cells.get(written.area)
        if column is None:
            column = self._open.cells[written.area] = _Cells(page_count, area.area.column_cell)
        column.add(written)

    def _pair(self, phase: _PhaseSums, area: int) -> _Pair:
        if area not in phase.pairs:
            if self._pairs >= _limits.TALLIES - _limits.AREAS:
                phase = self._phases.setdefault(_OTHERS, _PhaseSums(len(self._phases), _OTHERS))
            else:
                self._pairs += 1
        if area not in phase.pairs:
            phase.pairs[area] = _Pair(_Bitmap(self._areas[area].area.page_count))
        return phase.pairs[area]

    def _close(self, window: _Window) -> None:
        took = self._until - window.began
        if took < window.total.interval:
            return
        total = window.total
        window.total = WorkingSet(
            total.interval,
            total.windows + 1,
            total.seconds + took,
            total.nbytes + window.nbytes,
            max(total.peak, window.nbytes),
        )
        window.began, window.nbytes = self._until, 0
        for seen in window.seen.values():
            seen.clear()

    def _thin(self) -> None:
        # Fewer columns; where there are few already, larger cells in them.
        while len(self._columns) > self._most_columns or _runs(self._columns) > _limits.COLUMN_COUNTS:
            if len(self._columns) <= self._most_columns:
                if self._most_columns <= _FEWEST_COLUMNS:
                    self._columns = [*map(_coarser_column, self._columns)]
                    self._column_factor *= 2
                    for one in self._areas:
                        one.area = _with_coarser_columns(one.area)
                    continue
                self._most_columns //= 2
            self._columns = _joined(self._columns, 4 * self._until / self._most_columns)

    def recording(
        self,
        kind: Literal["profile", "record"],
        *,
        program: str,
        started: float,
        overhead: float,
        watched: int,
        assumed: int = 0,
        python: str = "",
        notes: Iterable[str] = (),
    ) -> Recording:
        """Returns everything so far."""
        areas = [
            replace(one.area, writes=one.writes, distinct=one.seen, counts=one.cells.runs())
            for one in self._areas
        ]
        columns = [one for one in (*self._columns, self._open.closed()) if one.shares]
        while _runs(columns) > _limits.COLUMN_COUNTS:
            areas, columns = [*map(_with_coarser_columns, areas)], [*map(_coarser_column, columns)]
        return Recording(
            kind=kind,
            program=clean(program),
            started=started,
            duration=self._until,
            collects=self.collects,
            overhead=overhead,
            watched=watched,
            assumed=assumed,
            python=clean(python or platform.python_version()),
            kernel=clean(platform.release()),
            areas=_bounded(areas),
            phases=tuple(
                Phase(
                    one.name,
                    one.collects,
                    one.seconds,
                    tuple(
                        Tally(area, pair.writes, pair.nbytes, pair.distinct)
                        for area, pair in sorted(one.pairs.items())
                    ),
                )
                for one in self._phases.values()
            ),
            columns=tuple(columns),
            working_sets=tuple(window.total for window in self._windows),
            notes=tuple(clean(note) for note in islice(notes, _limits.NOTES)),
        )


def _bounded(areas: list[Area]) -> tuple[Area, ...]:
    # Larger cells for the areas with the most runs, as long as there are too many.
    while sum(len(area.counts) for area in areas) > _limits.COUNTS:
        most = max(len(area.counts) for area in areas)
        areas = [_coarser(area) if len(area.counts) > most // 2 else area for area in areas]
    return tuple(areas)


def _coarser(area: Area) -> Area:
    return replace(area, cell=area.cell * 2, counts=_summed(area.counts, 2))


def _with_coarser_columns(area: Area) -> Area:
    return replace(area, column_cell=area.column_cell * 2)


def _coarser_column(column: Column) -> Column:
    return replace(column, counts={area: _summed(runs, 2) for area, runs in column.counts.items()})


def _runs(columns: Iterable[Column]) -> int:
    return sum(len(runs) for column in columns for runs in column.counts.values())


def _joined(columns: Iterable[Column], longest: float) -> list[Column]:
    # Columns next to each other are put together as long as they are short: at most half of them stay.
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
        shares[share.phase] = _sum(shares.get(share.phase, Share(share.phase, 0.0, 0)), share)
    counts = dict(one.counts)
    for area, runs in other.counts.items():
        counts[area] = _summed((*counts[area], *runs), 1) if area in counts else runs
    return Column(one.start, other.stop, tuple(shares.values()), counts)


def _sum(one: Share, other: Share) -> Share:
    return Share(one.phase, one.seconds + other.seconds, one.writes + other.writes)
