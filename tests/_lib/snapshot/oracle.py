"""Memory of regions that share pages, and what is different in two copies of it, found byte by byte."""

from __future__ import annotations

import numpy as np

import dirtytrack
from _lib.support import PAGE_SIZE

SIZES = (5 * PAGE_SIZE + 100, 1, 3000)  # each begins where the one before it ends

Written = set[tuple[int, int]]  # region and page


class Pieces:
    """Three arrays in one mapping.

    Attributes:
        arrays: they.
        first: number of the page of the mapping on which each begins.
    """

    def __init__(self, offset: int) -> None:
        whole = np.frombuffer(dirtytrack.alloc(9 * PAGE_SIZE), np.uint8)
        self.arrays, self._starts = [], []
        for nbytes in SIZES:
            self.arrays.append(whole[offset : offset + nbytes])
            self._starts.append(offset)
            offset += nbytes

    def copy(self) -> list[bytes]:
        """The contents."""
        return [array.tobytes() for array in self.arrays]

    def write(self, place: int, start: int, length: int, value: int | None) -> Written:
        """Stores a value, or adds one to each byte; returns the pages, of all regions that share them."""
        array = self.arrays[place]
        start %= len(array)
        piece = array[start : start + length]
        piece[:] = piece + np.uint8(1) if value is None else value
        begin = self._starts[place] + start
        return self._on(range(begin // PAGE_SIZE, (begin + len(piece) - 1) // PAGE_SIZE + 1))

    def sharing(self, written: Written) -> Written:
        """The same pages, of all regions that share them."""
        return self._on({page + self._starts[place] // PAGE_SIZE for place, page in written})

    def _on(self, pages: range | set[int]) -> Written:
        found = set()
        for place, (start, nbytes) in enumerate(zip(self._starts, SIZES, strict=True)):
            own = range(start // PAGE_SIZE, (start + nbytes - 1) // PAGE_SIZE + 1)
            found |= {(place, page - own.start) for page in pages if page in own}
        return found


def changes(before: list[bytes], after: list[bytes], gap: int = 0) -> list[tuple[int, int, int]]:
    """Place, start and stop of all that differs, with gaps of up to so many bytes closed."""
    found: list[tuple[int, int, int]] = []
    for place, (old, new) in enumerate(zip(before, after, strict=True)):
        for at in range(len(old)):
            if old[at] == new[at]:
                continue
            if found and found[-1][0] == place and at - found[-1][2] <= gap:
                found[-1] = place, found[-1][1], at + 1
            else:
                found.append((place, at, at + 1))
    return found
