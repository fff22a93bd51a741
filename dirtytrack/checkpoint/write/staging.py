"""Memory between the capture, which must be quick, and the disk, which is not."""

from __future__ import annotations

import itertools
import threading
from contextlib import suppress
from typing import Any

from dirtytrack.checkpoint.format.structures import BLOCK
from dirtytrack.checkpoint.read.buffers import own_memory
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

    `give_back` and `give_back_all` are for the second one, all other methods for the first. An interrupt does
    them no harm, and they may be called in the middle of one another. So the loans are a tuple that is never
    changed, but replaced, where it is still the one that was looked at. And whoever waits does so at a gate:
    a lock that is held until something is given back, so that one who has waited takes nothing from another.
    """

    def __init__(self, nbytes: int) -> None:
        """Allocates whole blocks, at least one; nothing of them is touched."""
        self.blocks = max(1, nbytes // BLOCK)
        self._mapping = own_memory(self.blocks * BLOCK)
        self._memory = ffi.from_buffer("uint8_t[]", self._mapping)
        self._base = ffi.cast("uint8_t *", self._memory)
        self._lent: tuple[Loan, ...] = ()
        self._gate = _shut_gate()

    def touch(self, nbytes: int) -> None:
        """Touches so many bytes, or all, so that no capture has to wait for pages."""
        with suppress(OSError):  # before Linux 5.14
            self._mapping.madvise(_MADV_POPULATE_WRITE, 0, min(nbytes, self.blocks * BLOCK))

    def lend(self, owner: object, wanted: int, most: int) -> Loan:
        """Waits for room for *wanted* blocks (or for all there is), and lends up to *most*."""
        while True:
            lent, segments = self._wait_for(wanted)
            loan = Loan(owner, _limit(segments, most), self._base)
            more = (*lent, loan)
            if self._lent is lent:  # no call: nobody comes in between
                self._lent = more
                return loan

    def wait_for(self, wanted: int) -> None:
        """Waits until there is room for so many blocks, or for as many as there are."""
        self._wait_for(wanted)

    def give_back(self, loan: Loan) -> None:
        """The loan's memory is free again."""
        loan.is_free = True
        self._open_gate()

    def give_back_all(self, owner: object) -> None:
        """All that was lent to the owner is free again; nobody else has anything of it."""
        for loan in self._lent:
            if loan.owner is owner:
                loan.is_free = True
        self._open_gate()

    def _open_gate(self) -> None:
        gate, self._gate = self._gate, _shut_gate()
        gate.release()

    def _wait_for(self, wanted: int) -> tuple[tuple[Loan, ...], list[tuple[int, int]]]:
        # The loans, and what is free beside them.
        while True:
            gate, lent = self._gate, self._lent
            held = tuple(itertools.dropwhile(_is_free, lent))
            if self._lent is lent:  # no call: nobody comes in between
                self._lent = held
            segments = self._free(held)
            if sum(stop - start for start, stop in segments) >= min(wanted, self.blocks):
                return held, segments
            with gate:
                pass

    def _free(self, lent: tuple[Loan, ...]) -> list[tuple[int, int]]:
        used = [piece for loan in lent for piece in loan.pieces if piece.blocks]
        if not used:
            return [(0, self.blocks)]
        first = self._at(used[0])
        last = self._at(used[-1]) + used[-1].blocks
        if last > first:
            return [(start, stop) for start, stop in ((last, self.blocks), (0, first)) if start < stop]
        return [(last, first)] if last < first else []

    def _at(self, piece: Any) -> int:
        return int(piece.data - self._base) // BLOCK


def _is_free(loan: Loan) -> bool:
    return loan.is_free


def _shut_gate() -> threading.Lock:
    gate = threading.Lock()
    gate.acquire()
    return gate


def _limit(segments: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    limited = []
    for start, stop in segments:
        stop = min(stop, start + most)
        most -= stop - start
        if start < stop:
            limited.append((start, stop))
    return limited
