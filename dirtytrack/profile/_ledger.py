"""Adds up what each collect finds, in bounded memory, and makes a `Recording` of it.

The totals are exact, however long it takes: by area and phase, with a bit for each page of an area that a
phase wrote. What is over time is thinned: columns next to each other are put together, so that there are
never more than a few hundred.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

from dirtytrack.profile import _limits
from dirtytrack.profile._counters import Bitmap, Cells, Written, cell_of
from dirtytrack.profile._limits import clean
from dirtytrack.profile._thinning import (
    bounded,
    coarser_column,
    joined,
    runs_in,
    sum_of,
    with_coarser_columns,
)
from dirtytrack.profile.recording import Area, Column, Phase, Process, Recording, Share, Tally, WorkingSet

_FEWEST_COLUMNS = 16
_OTHERS = "(others)"


@dataclass
class _AreaSums:
    area: Area
    cells: Cells
    distinct: Bitmap
    writes: int = 0
    seen: int = 0


@dataclass
class _Pair:
    """A phase and an area."""

    seen: Bitmap
    writes: int = 0
    nbytes: int = 0
    distinct: int = 0


@dataclass
class _PhaseSums:
    index: int
    name: str
    process: int = 0
    collects: int = 0
    seconds: float = 0.0
    pairs: dict[int, _Pair] = field(default_factory=dict)


@dataclass
class _ProcessSums:
    pid: int
    parent: int
    start: float
    until: float
    is_over: bool = False
    collects: int = 0
    writes: int = 0
    distinct: int = 0
    nbytes: int = 0
    seen: dict[int, Bitmap] = field(default_factory=dict)


@dataclass
class _Window:
    """The current window of a working set, and those before it."""

    total: WorkingSet
    began: float = 0.0
    nbytes: int = 0
    seen: dict[int, Bitmap] = field(default_factory=dict)


@dataclass
class _OpenColumn:
    """The column that is still added to."""

    start: float
    stop: float
    shares: dict[int, Share] = field(default_factory=dict)
    cells: dict[int, Cells] = field(default_factory=dict)

    def add(self, share: Share) -> None:
        before = self.shares.get(share.phase, Share(share.phase, 0.0, 0))
        self.shares[share.phase] = sum_of(before, share)

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
        self._processes: list[_ProcessSums] = []
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
        cell = cell_of(pages, _limits.CELLS)
        column_cell = cell_of(pages, _limits.COLUMN_CELLS) * self._column_factor
        described = replace(area, name=clean(area.name, _limits.NAME), cell=cell, column_cell=column_cell)
        self._areas.append(_AreaSums(described, Cells(pages, cell), Bitmap(pages)))
        return len(self._areas) - 1

    def rename(self, index: int, area: Area) -> None:
        """Says better what an area is: another name, kind, shape."""
        sums = self._areas[index]
        cell, column_cell = sums.area.cell, sums.area.column_cell
        sums.area = replace(area, name=clean(area.name, _limits.NAME), cell=cell, column_cell=column_cell)

    def process(self, pid: int, parent: int, start: float) -> int | None:
        """Begins to count a process; its index, or None if there are too many already."""
        if len(self._processes) >= _limits.PROCESSES:
            return None
        self._processes.append(_ProcessSums(pid, parent, start, start))
        return len(self._processes) - 1

    def end(self, process: int, until: float) -> None:
        """A process has ended, so many seconds from the beginning: its pages are not told apart any more."""
        self._processes[process].until = max(until, self._processes[process].until)
        self._processes[process].is_over = True
        self._processes[process].seen.clear()

    def add(self, phase: str, until: float, found: Iterable[Written], process: int | None = None) -> None:
        """Charges what a collect found to the phase that was the current one since the collect before it.

        Args:
            phase: its name.
            until: seconds from the beginning, of the collect.
            found: by area, each at most once.
            process: index of the process, whose phases have names that no other one's have. None: there is
                one alone.
        """
        since, self._until = self._until, max(until, self._until)
        of = None if process is None else self._processes[process]
        seconds = self._until - (since if of is None else of.until)
        sums = self._phase(phase, process or 0)
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
            self._add(sums, written, self._windows if not process else [])
            if of is not None:
                self._add_to_process(of, written)
        self._open.add(Share(sums.index, seconds, pages))
        self.last = pages
        if of is not None:
            of.until = self._until
            of.collects += 1
        for window in self._windows if not process else ():
            self._close(window)

    def _add_to_process(self, process: _ProcessSums, written: Written) -> None:
        area = self._areas[written.area].area
        if written.area not in process.seen:
            process.seen[written.area] = Bitmap(area.page_count)
        new = process.seen[written.area].add(written)
        process.writes += written.pages
        process.distinct += new
        process.nbytes += new * area.page_size

    def _phase(self, name: str, process: int) -> _PhaseSums:
        name = clean(name)
        if name not in self._phases and len(self._phases) >= _limits.PHASES - 1:
            name = _OTHERS
            process = 0
        return self._phases.setdefault(name, _PhaseSums(len(self._phases), name, process))

    def _add(self, phase: _PhaseSums, written: Written, windows: list[_Window]) -> None:
        area = self._areas[written.area]
        page_count = area.area.page_count
        area.writes += written.pages
        area.seen += area.distinct.add(written)
        area.cells.add(written)
        pair = self._pair(phase, written.area)
        pair.writes += written.pages
        pair.nbytes += written.nbytes
        pair.distinct += pair.seen.add(written)
        for window in windows:
            seen = window.seen.get(written.area)
            if seen is None:
                seen = window.seen[written.area] = Bitmap(page_count)
            window.nbytes += seen.add(written) * area.area.page_size
        column = self._open.cells.get(written.area)
        if column is None:
            column = self._open.cells[written.area] = Cells(page_count, area.area.column_cell)
        column.add(written)

    def _pair(self, phase: _PhaseSums, area: int) -> _Pair:
        if area not in phase.pairs:
            if self._pairs >= _limits.TALLIES - _limits.AREAS:
                phase = self._phases.setdefault(_OTHERS, _PhaseSums(len(self._phases), _OTHERS))
            else:
                self._pairs += 1
        if area not in phase.pairs:
            phase.pairs[area] = _Pair(Bitmap(self._areas[area].area.page_count))
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
        while len(self._columns) > self._most_columns or runs_in(self._columns) > _limits.COLUMN_COUNTS:
            if len(self._columns) <= self._most_columns:
                if self._most_columns <= _FEWEST_COLUMNS:
                    self._columns = [*map(coarser_column, self._columns)]
                    self._column_factor *= 2
                    for one in self._areas:
                        one.area = with_coarser_columns(one.area)
                    continue
                self._most_columns //= 2
            self._columns = joined(self._columns, 4 * self._until / self._most_columns)

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
        while runs_in(columns) > _limits.COLUMN_COUNTS:
            areas, columns = [*map(with_coarser_columns, areas)], [*map(coarser_column, columns)]
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
            areas=bounded(areas),
            phases=tuple(
                Phase(
                    one.name,
                    one.collects,
                    one.seconds,
                    tuple(
                        Tally(area, pair.writes, pair.nbytes, pair.distinct)
                        for area, pair in sorted(one.pairs.items())
                    ),
                    one.process,
                )
                for one in self._phases.values()
            ),
            columns=tuple(columns),
            working_sets=tuple(window.total for window in self._windows),
            processes=tuple(
                Process(
                    one.pid,
                    one.parent,
                    one.start,
                    one.until if one.is_over else self._until,
                    one.collects,
                    one.writes,
                    one.distinct,
                    one.nbytes,
                )
                for one in self._processes
            ),
            notes=tuple(clean(note) for note in islice(notes, _limits.NOTES)),
        )
