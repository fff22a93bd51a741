"""How often, and whether, the pages of an area were written."""

from __future__ import annotations

from typing import Any, NamedTuple

from dirtytrack.native import ffi, lib
from dirtytrack.profile._thinning import runs_of
from dirtytrack.profile.recording import Count

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


class Bitmap:
    """A bit for each page of an area; memory of the library's own, so that a user can't track it."""

    def __init__(self, pages: int) -> None:
        self._words = _new("uint64_t[]", (pages + 63) // 64)
        self._is_empty = True

    def add(self, written: Written) -> int:
        """Sets the bits of pages; returns how many were not set."""
        self._is_empty = False
        return int(lib.dt_tally_new(written.runs, written.length, self._words))

    def clear(self) -> None:
        """Unsets all of them."""
        if not self._is_empty:
            nbytes = ffi.sizeof(self._words)
            ffi.memmove(self._words, bytes(nbytes), nbytes)
            self._is_empty = True


class Cells:
    """How often the pages of an area were written, by cell."""

    def __init__(self, pages: int, cell: int) -> None:
        self.shift = cell.bit_length() - 1
        self._length = ((pages - 1) >> self.shift) + 1
        self.counts = _new("uint32_t[]", self._length)

    def add(self, written: Written) -> None:
        """Counts each page once more."""
        lib.dt_tally(written.runs, written.length, self.shift, self.counts)

    def runs(self) -> tuple[Count, ...]:
        """The counts that are not zero."""
        return runs_of([int(count) for count in ffi.unpack(self.counts, self._length)])


def cell_of(pages: int, most: int) -> int:
    """Pages in a cell, a power of two, so that an area has at most so many cells."""
    return 1 << max(0, (-(-pages // most) - 1).bit_length())
