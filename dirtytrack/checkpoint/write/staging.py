"""Memory between the capture, which must be quick, and the disk, which is not."""

from __future__ import annotations

import mmap
from collections import deque
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from dirtytrack.checkpoint.format.structures import BLOCK
from dirtytrack.native import ffi

_MADV_POPULATE_WRITE = 23  # which the mmap module of Python 3.11 lacks


class Loan:
    """Up to two pieces of staging memory: room for a copy, and after it what was copied.

    The native pieces say how much that was, so no interrupt can come between the copy and its record.

    Attributes:
        owner: what it was lent for, told apart by its identity.
        pieces: an array of ``struct dt_piece``.
        count: how many pieces.
    """

    def __init__(self, owner: object, segments: list[tuple[int, int]], base: Any) -> None:
        self.owner = owner
        self.count = len(segments)
        self.pieces: Any = ffi.new("struct dt_piece[]", self.count)
        self.is_free = False
        for piece, (start, stop) in zip(self.pieces, segments, strict=True):
            piece.data = base + start * BLOCK
            piece.blocks = stop - start


class Staging:
    """A ring of memory: one thread fills it, and another one empties it in the same order.

    All methods but `give_back` are for the first one. An interrupt does them no harm.
    """

    def __init__(self, nbytes: int) -> None:
        """Allocates whole blocks, at least one; nothing of them is touched."""
        self.blocks = max(1, nbytes // BLOCK)
        self._mapping = mmap.mmap(-1, self.blocks * BLOCK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory = ffi.from_buffer("uint8_t[]", self._mapping)
        self._base = ffi.cast("uint8_t *", self._memory)
        self._lent: deque[Loan] = deque()
        self._given_back: SimpleQueue[None] = SimpleQueue()

    def touch(self, nbytes: int) -> None:
        """Touches so many bytes, or all, so that no capture has to wait for pages."""
        with suppress(OSError):  # before Linux 5.14
            self._mapping.madvise(_MADV_POPULATE_WRITE, 0, min(nbytes, self.blocks * BLOCK))

    def lend(self, owner: object, wanted: int, most: int) -> Loan:
        """Waits for room for *wanted* blocks (or for all there is), and lends up to *most*."""
        loan = Loan(owner, _limit(self._wait_for(wanted), most), self._base)
        self._lent.append(loan)
        return loan

    def wait_for(self, wanted: int) -> None:
        """Waits until there is room for so many blocks, or for as many as there are."""
        self._wait_for(wanted)

    def give_back(self, loan: Loan) -> None:
        """The loan's memory is free again; for the thread that empties."""
        loan.is_free = True
        if self._given_back.empty():  # else it is known that something was
            self._given_back.put(None)

    def give_back_all(self, owner: object) -> None:
        """All that was lent to the owner is free again; nobody else has anything of it."""
        for loan in self._lent:
            if loan.owner is owner:
                loan.is_free = True

    def _wait_for(self, wanted: int) -> list[tuple[int, int]]:
        while True:
            while self._lent and self._lent[0].is_free:
                self._lent.popleft()
            segments = self._free()
            if sum(stop - start for start, stop in segments) >= min(wanted, self.blocks):
                return segments
            self._given_back.get()

    def _free(self) -> list[tuple[int, int]]:
        used = [piece for loan in self._lent for piece in loan.pieces if piece.blocks]
        if not used:
            return [(0, self.blocks)]
        first = self._at(used[0])
        last = self._at(used[-1]) + used[-1].blocks
        if last > first:
            return [(start, stop) for start, stop in ((last, self.blocks), (0, first)) if start < stop]
        return [(last, first)] if last < first else []

    def _at(self, piece: Any) -> int:
        return int(piece.data - self._base) // BLOCK


def _limit(segments: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    limited = []
    for start, stop in segments:
        stop = min(stop, start + most)
        most -= stop - start
        if start < stop:
            limited.append((start, stop))
    return limited
