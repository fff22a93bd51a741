"""Raw mappings to be torn apart, and questions to the kernel about who tracks what."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from _lib import seccomp
from _lib.support import PAGE_SIZE
from dirtytrack import BusyError
from dirtytrack.kernel.pagemap import Category, ScanFlags, scan
from dirtytrack.kernel.userfaultfd import Userfaultfd

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = _libc.mremap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

_MAP_FIXED = 0x10
_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2


def _mmap(address: int | None, nbytes: int, fixed: int = 0) -> int:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | fixed
    found = _libc.mmap(address, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if found in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "mmap")
    return int(found)


class Raw:
    """Anonymous memory by address, whose pages can be unmapped, replaced and moved away.

    The page on either side of it is inaccessible, so its mapping never merges with a neighbour's.

    Attributes:
        pages: its size in pages.
        start: the first address.
        stop: the address after the last one.
    """

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self._reserve = _mmap(None, (pages + 2) * PAGE_SIZE)
        _libc.mprotect(ctypes.c_void_p(self._reserve), PAGE_SIZE, 0)
        _libc.mprotect(ctypes.c_void_p(self._reserve + (pages + 1) * PAGE_SIZE), PAGE_SIZE, 0)
        self.start = self._reserve + PAGE_SIZE
        self.stop = self.start + pages * PAGE_SIZE

    @property
    def pair(self) -> tuple[int, int]:
        """What ``track`` takes: address and length."""
        return self.start, self.pages * PAGE_SIZE

    def at(self, first: int, last: int | None = None) -> tuple[int, int]:
        """The addresses [start, stop) of pages [first, last); of one page by default."""
        last = first + 1 if last is None else last
        return self.start + first * PAGE_SIZE, self.start + last * PAGE_SIZE

    def piece(self, first: int, last: int) -> tuple[int, int]:
        """Address and length of pages [first, last)."""
        start, stop = self.at(first, last)
        return start, stop - start

    def write(self, *pages: int) -> None:
        """Store a byte to each of the pages, never the one that is there: contents change."""
        for page in pages:
            byte = ctypes.c_ubyte.from_address(self.start + page * PAGE_SIZE)
            byte.value = (byte.value + 1) % 256

    def unmap(self, first: int, last: int) -> None:
        """Unmap pages [first, last)."""
        assert _libc.munmap(*self.piece(first, last)) == 0

    def map_over(self, first: int, last: int) -> None:
        """Replace pages [first, last) by fresh memory, with MAP_FIXED."""
        _mmap(*self.piece(first, last), _MAP_FIXED)

    def protect(self, first: int, last: int, protection: int) -> None:
        """Let pages [first, last) be touched as *protection* (``mmap.PROT_...``) has it."""
        address, nbytes = self.piece(first, last)
        assert _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), protection) == 0

    def move_away(self, first: int, last: int) -> int:
        """Move pages [first, last) elsewhere with mremap; the new address."""
        start, nbytes = self.piece(first, last)
        target = _mmap(None, nbytes)
        moved = _libc.mremap(start, nbytes, nbytes, _MREMAP_MAYMOVE | _MREMAP_FIXED, target)
        assert moved == target
        return target

    def __enter__(self) -> Raw:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _libc.munmap(self._reserve, (self.pages + 2) * PAGE_SIZE)


def unmap(address: int, pages: int) -> None:
    """Unmap what `Raw.move_away` has moved."""
    _libc.munmap(address, pages * PAGE_SIZE)


def is_free(start: int, stop: int) -> bool:
    """Whether no userfaultfd at all has a part of [start, stop): a fresh one can register it."""
    with Userfaultfd() as fresh:
        try:
            fresh.register(start, stop)
        except BusyError:
            return False
        fresh.unregister(start, stop)
        return True


def is_registered(start: int, stop: int) -> bool:
    """Whether every mapping in [start, stop) is registered for asynchronous write-protection, by anybody."""
    nothing = Category.WPALLOWED  # with its own inverse: no page matches, so none ends the walk early
    try:
        scan(start, stop, flags=ScanFlags.CHECK_WPASYNC, category_mask=nothing, category_inverted=nothing)
    except PermissionError:
        return False
    return True


@contextmanager
def taken(start: int, stop: int) -> Iterator[Userfaultfd]:
    """A userfaultfd of somebody else's that owns [start, stop)."""
    with Userfaultfd() as other:
        other.register(start, stop)
        yield other


def userfaultfds() -> list[int]:
    """The userfaultfd descriptors that are open in this process."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if "userfaultfd" in os.readlink(entry):
                found.append(int(entry.name))
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return found


def unregister_behind_the_back(start: int, stop: int) -> None:
    """UFFDIO_UNREGISTER through whatever userfaultfd of this process owns [start, stop)."""
    for fd in userfaultfds():
        try:
            fcntl.ioctl(fd, seccomp.UFFDIO_UNREGISTER, struct.pack("QQ", start, stop - start))
        except OSError:
            continue  # another's, which Linux 6.17 and later refuse


def open_descriptors() -> int:
    """How many descriptors are open."""
    return len(os.listdir("/proc/self/fd"))
