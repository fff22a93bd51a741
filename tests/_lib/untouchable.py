"""Memory of which one page becomes inaccessible, in every way that there is.

Each kind has `given`, what is tracked, the `address` of its first byte, and the means to `spoil` page `BAD`
(and what follows it, where it is the end of a file) and to `mend` it.
"""

from __future__ import annotations

import ctypes
import mmap
import os

from _lib.raw import Raw
from _lib.support import PAGE_SIZE, address_of, require
from _lib.syscalls import Advice

PAGES, BAD = 16, 5
_libc = ctypes.CDLL(None, use_errno=True)


class Anonymous:
    """Private memory."""

    def __init__(self, pages: int = PAGES, bad: int = BAD) -> None:
        self.raw = Raw(pages)
        self.pages, self.bad = pages, bad
        self.given = self.raw.pair
        self.address = self.raw.start

    def spoil(self) -> None:
        """Makes the page inaccessible."""
        raise NotImplementedError

    def mend(self) -> None:
        """Makes it accessible again."""
        raise NotImplementedError

    def advise(self, advice: int) -> None:
        """Calls madvise for the page."""
        start, nbytes = self.raw.piece(self.bad, self.bad + 1)
        done = _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(nbytes), advice)
        require(done == 0, "the kernel has no guard pages (Linux 6.13)")


class Guarded(Anonymous):
    """Has a guard page."""

    def spoil(self) -> None:
        self.advise(Advice.GUARD_INSTALL)

    def mend(self) -> None:
        self.advise(Advice.GUARD_REMOVE)


class Inaccessible(Anonymous):
    """PROT_NONE."""

    protection = 0

    def spoil(self) -> None:
        self.raw.protect(self.bad, self.bad + 1, self.protection)

    def mend(self) -> None:
        self.raw.protect(self.bad, self.bad + 1, mmap.PROT_READ | mmap.PROT_WRITE)


class ReadOnly(Inaccessible):
    """PROT_READ."""

    protection = mmap.PROT_READ


class Unmapped(Anonymous):
    """Has a hole."""

    def spoil(self) -> None:
        self.raw.unmap(self.bad, self.bad + 1)

    def mend(self) -> None:
        self.raw.map_over(self.bad, self.bad + 1)


class Truncated:
    """A memfd that ends before the page."""

    flags = mmap.MAP_SHARED

    def __init__(self, pages: int = PAGES, bad: int = BAD) -> None:
        self.pages, self.bad = pages, bad
        self.file = os.memfd_create("truncated")
        os.ftruncate(self.file, pages * PAGE_SIZE)
        self.given = mmap.mmap(self.file, pages * PAGE_SIZE, flags=self.flags)
        self.address = address_of(self.given)

    def spoil(self) -> None:
        """Cuts it off."""
        os.ftruncate(self.file, self.bad * PAGE_SIZE)

    def mend(self) -> None:
        """Makes it as long as it was; what it had there is zeros now."""
        os.ftruncate(self.file, self.pages * PAGE_SIZE)


class TruncatedPrivate(Truncated):
    """The same, copied on write."""

    flags = mmap.MAP_PRIVATE


Untouchable = Anonymous | Truncated

# Those that stay tracked when they are spoiled.
KINDS: list[type[Untouchable]] = [Guarded, Inaccessible, ReadOnly, Truncated, TruncatedPrivate]


def write(memory: Untouchable, page: int, value: int) -> None:
    """Stores a byte to a page."""
    ctypes.memset(memory.address + page * PAGE_SIZE + 9, value, 1)


def byte(memory: Untouchable, page: int) -> int:
    """That byte of a page."""
    return ctypes.string_at(memory.address + page * PAGE_SIZE + 9, 1)[0]


def contents(memory: Untouchable) -> bytes:
    """All bytes."""
    return ctypes.string_at(memory.address, memory.pages * PAGE_SIZE)


def can_be_read(memory: Untouchable) -> bool:
    """Whether the page can be, when it is spoiled."""
    return isinstance(memory, ReadOnly)


def is_protected(memory: Untouchable) -> bool:
    """Whether it is spoiled by mprotect."""
    return isinstance(memory, Inaccessible)
