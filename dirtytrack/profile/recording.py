"""What a profile, or a recording of a program, has found: the data, and the numbers that follow from it.

Everything that shows or writes a result is made from a `Recording`, and `docs/profile.md` describes its file.
Counts are of pages unless they say bytes. A *page-write* is a page found written by one collect: a page that
is written between each two of ten collects has ten.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

OUTSIDE = ""  # the phase in which no phase is open


class Count(NamedTuple):
    """Cells [start, stop) of an area, each with the same number of page-writes, at least one."""

    start: int
    stop: int
    writes: int


@dataclass(frozen=True)
class Area:
    """A stretch of memory: a region of a session, or a mapping of a recorded program.

    Attributes:
        name: of the region, of the array that was found there, or of the mapping.
        kind: "region", "array" (found in the recorded program), "mapping", or "recorder" (made by the
            recorder itself in the recorded program).
        address: of its first byte.
        nbytes: its length in bytes.
        offset: bytes between the start of its page 0 and its first byte.
        page_size: bytes in a page.
        shape: lengths of the axes of the array that it is, in C order; empty if it is none.
        itemsize: bytes in one element; 1 if it is no array.
        writes: page-writes over all phases.
        distinct: how many of its pages were written at least once.
        cell: pages in a cell of `counts`, a power of two.
        counts: page-writes by cell, ascending; cells without any are left out.
        column_cell: pages in a cell of the columns' counts, a power of two.
    """

    name: str
    kind: Literal["region", "array", "mapping", "recorder"]
    address: int
    nbytes: int
    offset: int
    page_size: int
    shape: tuple[int, ...] = ()
    itemsize: int = 1
    writes: int = 0
    distinct: int = 0
    cell: int = 1
    counts: tuple[Count, ...] = ()
    column_cell: int = 1

    @property
    def page_count(self) -> int:
        """The number of pages that it touches."""
        return -(-(self.offset + self.nbytes) // self.page_size)

    def bytes_of(self, start: int, stop: int) -> tuple[int, int]:
        """Returns the bytes of the area that lie on pages [start, stop)."""
        first, end = start * self.page_size - self.offset, stop * self.page_size - self.offset
        return max(first, 0), min(end, self.nbytes)

    def place(self, start: int, stop: int) -> str:
        """Says in the terms of its elements where pages [start, stop) are: rows, elements or bytes."""
        first, end = self.bytes_of(start, stop)
        if not self.shape:
            return f"bytes [{first:,}, {end:,})"
        rows = self.shape[0] if len(self.shape) > 1 else math.prod(self.shape)
        width = self.nbytes // rows
        return f"{'rows' if len(self.shape) > 1 else 'elements'} [{first // width:,}, {-(-end // width):,})"


@dataclass(frozen=True)
class Tally:
    """What one phase wrote to one area.

    Attributes:
        area: index of the area.
        writes: page-writes.
        nbytes: bytes of the area on those pages, counted as often.
        distinct: how many different pages they were.
    """

    area: int
    writes: int
    nbytes: int
    distinct: int

    @property
    def rewritten(self) -> float:
        """How often each of its pages was found written, on average."""
        return self.writes / self.distinct if self.distinct else 0.0


@dataclass(frozen=True)
class Phase:
    """A part of the program's time.

    Attributes:
        name: its names from the outermost one on, joined by "/"; those of phases that were open in several
            threads at a time, joined by " + "; "" outside of all phases. What was written in an inner phase
            is the inner one's. In a forked child it begins with that, as in "process 4711/step".
        collects: how many collects were charged to it.
        seconds: how long it was the current one.
        tallies: by area, in which it wrote something.
        process: index of the process that it was in.
    """

    name: str
    collects: int
    seconds: float
    tallies: tuple[Tally, ...] = ()
    process: int = 0

    @property
    def title(self) -> str:
        """Its name, for people."""
        return self.name or "(outside)"

    @property
    def writes(self) -> int:
        """Its page-writes, over all areas."""
        return sum(tally.writes for tally in self.tallies)

    @property
    def nbytes(self) -> int:
        """Bytes on the pages that it wrote, counted as often as they were found written."""
        return sum(tally.nbytes for tally in self.tallies)

    @property
    def distinct(self) -> int:
        """How many different pages it wrote."""
        return sum(tally.distinct for tally in self.tallies)


class Share(NamedTuple):
    """A phase within a column: index of the phase, seconds and page-writes of it."""

    phase: int
    seconds: float
    writes: int


@dataclass(frozen=True)
class Column:
    """A stretch of time: one collect, or several next to each other.

    Attributes:
        start: seconds from the beginning of the recording.
        stop: the same.
        shares: by phase.
        counts: page-writes by area and cell, of `Area.column_cell` pages each.
    """

    start: float
    stop: float
    shares: tuple[Share, ...] = ()
    counts: dict[int, tuple[Count, ...]] = field(default_factory=dict)

    @property
    def writes(self) -> int:
        """Its page-writes."""
        return sum(share.writes for share in self.shares)


@dataclass(frozen=True)
class Process:
    """One of the processes of a program that forks.

    Attributes:
        pid: its number.
        parent: its parent's.
        start: seconds from the beginning of the recording, when it began to be recorded.
        stop: the same, when it ended.
        collects: how often it was looked at.
        writes: page-writes.
        distinct: how many different pages it wrote: of a forked child that many have come apart from its
            parent's, or are new.
        nbytes: bytes on these pages.
    """

    pid: int
    parent: int
    start: float
    stop: float
    collects: int = 0
    writes: int = 0
    distinct: int = 0
    nbytes: int = 0


@dataclass(frozen=True)
class WorkingSet:
    """How much is written within a time, as a cursor that is collected as often would see it.

    Of a program that forks it is that of its first process.

    Attributes:
        interval: seconds. A window ends at the first collect after it.
        windows: how many whole windows there were.
        seconds: how long they were, together.
        nbytes: bytes on the pages written in each, summed over all windows.
        peak: bytes in the largest one.
    """

    interval: float
    windows: int
    seconds: float
    nbytes: int
    peak: int

    @property
    def mean(self) -> float:
        """Bytes written within one window, on average."""
        return self.nbytes / self.windows if self.windows else 0.0


@dataclass(frozen=True)
class Recording:
    """Who wrote which memory, and when.

    Attributes:
        kind: "profile" of a session, or "record" of a program.
        program: what ran.
        started: seconds since 1970.
        duration: seconds.
        collects: how often it looked.
        overhead: seconds that the program waited for that. Its write faults come on top: one for each
            page-write, but those of pages that were left open.
        watched: bytes of the memory that was watched, at most at a time; of a program that forks, that of its
            first process.
        assumed: page-writes that an adaptive session reported without proof.
        python: version.
        kernel: release.
        areas: the memory. Forked children have an area in common with their parent where it is at the same
            addresses, though it is not the same memory: the phases tell them apart.
        phases: those that were the current one at some time.
        columns: what was written over time, one after the other.
        working_sets: by interval, ascending.
        notes: what a reader has to know.
        processes: the program itself, and the forked children that were recorded; empty where no forks were
            followed.
    """

    kind: Literal["profile", "record"]
    program: str
    started: float
    duration: float
    collects: int
    overhead: float
    watched: int
    assumed: int
    python: str
    kernel: str
    areas: tuple[Area, ...]
    phases: tuple[Phase, ...]
    columns: tuple[Column, ...]
    working_sets: tuple[WorkingSet, ...]
    notes: tuple[str, ...] = ()
    processes: tuple[Process, ...] = ()

    @property
    def writes(self) -> int:
        """Page-writes, over all areas."""
        return sum(area.writes for area in self.areas)

    def hottest(self, limit: int) -> list[tuple[Area, int, int, int]]:
        """Returns the ranges that were written most often, those of memory with a name of its own first.

        Returns:
            At most *limit* times an area, half-open pages of it, and their page-writes, the most written
            first. What lies next to each other and was written about equally often is one range.
        """
        ranges = [found for area in self.areas if area.kind != "recorder" for found in _ranges(area)]
        # What has a name first: in memory without one Python's own pages are the hottest.
        ranges.sort(
            key=lambda one: (one[0].kind == "mapping", -one[3] / (one[2] - one[1]), one[0].name, one[1])
        )
        return ranges[:limit]


def _ranges(area: Area) -> list[tuple[Area, int, int, int]]:
    # Cells next to each other of which the most written has less than twice the writes of the least written.
    found: list[tuple[Area, int, int, int]] = []
    least = most = 0
    for start, stop, writes in area.counts:
        pages = min(stop * area.cell, area.page_count)
        total = writes * (stop - start)
        low, high = min(least, writes), max(most, writes)
        if found and found[-1][2] == start * area.cell and high < 2 * low:
            _, first, _, sum_ = found[-1]
            found[-1] = (area, first, pages, sum_ + total)
            least, most = low, high
        else:
            found.append((area, start * area.cell, pages, total))
            least = most = writes
    return found
