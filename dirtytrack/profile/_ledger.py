"""Adds up what each collect finds, in bounded memory, and makes a `Recording` of it.

The totals are exact, however long it takes: by area and phase, with a bit for each page of an area that a
phase wrote. What is over time is thinned: columns next to each other are put together, so that there are
never more than a few hundred.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from dirtytrack.native import ffi, lib
from dirtytrack.profile.recording import Area, Column, Count, Phase, Recording, Share, Tally, WorkingSet

_CELLS = 1 << 16  # of an area's counts, at most
_COLUMN_CELLS = 128  # of an area, in a column
_COLUMNS = 240  # at most, before they are thinned to half as many
_FEWEST_COLUMNS = 16
_ENTRIES = 1 << 20  # runs of counts of all areas together
_COLUMN_ENTRIES = 1 << 18  # counts in all columns together
_AREAS = 4096
_PHASES = 512
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

    def __init__(self, pages: int, most: int) -> None:
        self.shift = max(0, (-(-pages // most) - 1).bit_length())
        self._length = ((pages - 1) >> self.shift) + 1
        self.counts = _new("uint32_t[]", self._length)

    def add(self, written: Written) -> None:
        lib.dt_tally(written.runs, written.length, self.shift, self.counts)

    def runs(self) -> tuple[Count, ...]:
        return _counts([int(count) for count in ffi.unpack(self.counts, self._length)])


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


def _added(one: tuple[Count, ...], other: tuple[Count, ...]) -> tuple[Count, ...]:
    numbers = [0] * max(one[-1].stop, other[-1].stop)
    for start, stop, writes in (*one, *other):
        for cell in range(start, stop):
            numbers[cell] += writes
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
        counts = {area: cells.runs() for area, cells in self.cells.items()}
        return Column(self.start, self.stop, tuple(self.shares.values()), counts)


class Ledger:
    """The sums of everything found so far. Not for several threads at a time."""

    def __init__(self, intervals: Iterable[float]) -> None:
        self._areas: list[_AreaSums] = []
        self._phases: dict[str, _PhaseSums] = {}
        self._columns: list[Column] = []
        self._most_columns = _COLUMNS
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
        if len(self._areas) >= _AREAS:
            return None
        pages = area.page_count
        cells, column_cells = _Cells(pages, _CELLS), _Cells(pages, _COLUMN_CELLS)
        described = replace(area, cell=1 << cells.shift, column_cell=1 << column_cells.shift)
        self._areas.append(_AreaSums(described, cells, _Bitmap(pages)))
        return len(self._areas) - 1

    def rename(self, index: int, area: Area) -> None:
        """Says better what an area is: another name, kind, shape."""
        sums = self._areas[index]
        cell, column_cell = sums.area.cell, sums.area.column_cell
        sums.area = replace(area, cell=cell, column_cell=column_cell)

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
            if len(self._columns) > self._most_columns:
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
        if name not in self._phases and len(self._phases) >= _PHASES:
            name = _OTHERS
        return self._phases.setdefault(name, _PhaseSums(len(self._phases), name))

    def _add(self, phase: _PhaseSums, written: Written) -> None:
        area = self._areas[written.area]
        page_count = area.area.page_count
        area.writes += written.pages
        area.seen += area.distinct.add(written)
        area.cells.add(written)
        pair = phase.pairs.get(written.area)
        if pair is None:
            pair = phase.pairs[written.area] = _Pair(_Bitmap(page_count))
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
            column = self._open.cells[written.area] = _Cells(page_count, _COLUMN_CELLS)
        column.add(written)

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
        # Columns next to each other are put together as long as they are short: at most half of them stay.
        while True:
            longest = 4 * self._until / self._most_columns
            thinned: list[Column] = []
            for column in self._columns:
                if thinned and column.stop - thinned[-1].start <= longest:
                    thinned[-1] = _together(thinned[-1], column)
                else:
                    thinned.append(column)
            self._columns = thinned
            entries = sum(len(runs) for column in thinned for runs in column.counts.values())
            if entries <= _COLUMN_ENTRIES or self._most_columns <= _FEWEST_COLUMNS:
                return
            self._most_columns //= 2

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
        return Recording(
            kind=kind,
            program=program,
            started=started,
            duration=self._until,
            collects=self.collects,
            overhead=overhead,
            watched=watched,
            assumed=assumed,
            python=python or platform.python_version(),
            kernel=platform.release(),
            areas=_bounded(
                [
                    replace(one.area, writes=one.writes, distinct=one.seen, counts=one.cells.runs())
                    for one in self._areas
                ]
            ),
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
            columns=tuple(one for one in (*self._columns, self._open.closed()) if one.shares),
            working_sets=tuple(window.total for window in self._windows),
            notes=tuple(notes),
        )


def _bounded(areas: list[Area]) -> tuple[Area, ...]:
    # Larger cells for the areas with the most entries, until a file of them can be read again.
    while sum(len(area.counts) for area in areas) > _ENTRIES:
        most = max(len(area.counts) for area in areas)
        areas = [_coarser(area) if len(area.counts) > most // 2 else area for area in areas]
    return tuple(areas)


def _coarser(area: Area) -> Area:
    # Two cells become one.
    numbers = [0] * (-(-area.counts[-1].stop // 2))
    for start, stop, writes in area.counts:
        for cell in range(start, stop):
            numbers[cell // 2] += writes
    return replace(area, cell=area.cell * 2, counts=_counts(numbers))


def _together(one: Column, other: Column) -> Column:
    shares = {share.phase: share for share in one.shares}
    for share in other.shares:
        shares[share.phase] = _sum(shares.get(share.phase, Share(share.phase, 0.0, 0)), share)
    counts = dict(one.counts)
    for area, runs in other.counts.items():
        counts[area] = _added(counts[area], runs) if area in counts else runs
    return Column(one.start, other.stop, tuple(shares.values()), counts)


def _sum(one: Share, other: Share) -> Share:
    return Share(one.phase, one.seconds + other.seconds, one.writes + other.writes)
