"""Memory by address and page number, and the questions that these tests ask about it.

Below Python's mmap objects, which cannot do what is needed here: fixed addresses, forbidden pages, System V.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Self

from _lib.support import PAGE_SIZE, PMD_SIZE, require
from dirtytrack.kernel.pagemap import Category, PageRegion, ScanFlags, ScanResult, scan, scan_all
from dirtytrack.kernel.support import HoleReporting, hole_reporting
from dirtytrack.kernel.userfaultfd import Userfaultfd

PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
SHARED = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
MAP_FIXED = 0x10
MAP_HUGETLB = 0x40000
READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
PROT_NONE = 0

WRITTEN = Category.WRITTEN
ALL = Category(0x7F)  # the categories that every kernel with PAGEMAP_SCAN knows
TAKE = ScanFlags.WP_MATCHING | ScanFlags.CHECK_WPASYNC

HUGE_PAGES = PMD_SIZE // PAGE_SIZE  # base pages in a transparent huge page

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.msync.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
libc.shmget.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_int]
libc.shmdt.argtypes = [ctypes.c_void_p]


def check(result: int | None) -> int:
    """The result of a libc call, or the OSError that its -1 stands for."""
    if result in (-1, ctypes.c_void_p(-1).value):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result or 0


class Area:
    """Pages from *address* on. What is said in pages here counts from its first one, half-open."""

    def __init__(self, address: int, pages: int) -> None:
        self.address = address
        self.pages = pages
        self.stop = address + pages * PAGE_SIZE

    @classmethod
    def map(
        cls,
        pages: int,
        *,
        prot: int = READ_WRITE,
        flags: int = PRIVATE,
        fd: int = -1,
        at: int | None = None,
    ) -> Self:
        fixed = 0 if at is None else MAP_FIXED
        return cls(check(libc.mmap(at, pages * PAGE_SIZE, prot, flags | fixed, fd, 0)), pages)

    def at(self, page: int) -> int:
        return self.address + page * PAGE_SIZE

    def part(self, first: int, stop: int) -> Area:
        return Area(self.at(first), stop - first)

    def write(self, first: int = 0, stop: int | None = None, value: int = 1) -> None:
        """Fill the pages."""
        stop = self.pages if stop is None else stop
        ctypes.memset(self.at(first), value, (stop - first) * PAGE_SIZE)

    def touch(self, *pages: int) -> None:
        """Store one byte in the middle of each page."""
        for page in pages:
            ctypes.memset(self.at(page) + PAGE_SIZE // 2, 1, 1)

    def read(self) -> None:
        """Load one byte of each page."""
        for page in range(self.pages):
            ctypes.string_at(self.at(page), 1)

    def bytes(self) -> bytes:
        return ctypes.string_at(self.address, self.pages * PAGE_SIZE)

    def protect(self, prot: int) -> None:
        check(libc.mprotect(self.address, self.stop - self.address, prot))

    def advise(self, advice: int) -> None:
        check(libc.madvise(self.address, self.stop - self.address, advice))

    def unmap(self) -> None:
        check(libc.munmap(self.address, self.stop - self.address))

    # Questions. mask, anyof, inverted, returned stand for the four masks; the rest is as in scan.

    def get(
        self,
        mask: int = WRITTEN,
        anyof: int = 0,
        inverted: int = 0,
        returned: int = WRITTEN,
        **more: Any,
    ) -> ScanResult:
        """Read, arm nothing."""
        return scan(
            self.address,
            self.stop,
            category_mask=mask,
            category_anyof_mask=anyof,
            category_inverted=inverted,
            return_mask=returned,
            **more,
        )

    def take(self, mask: int = WRITTEN, **more: Any) -> ScanResult:
        """Read and arm, on registered memory only."""
        return self.get(mask, flags=TAKE, **more)

    def arm(self) -> None:
        """Arm what is written, and forget it."""
        if hole_reporting() is HoleReporting.BLIND:  # refused there, as it may crash such kernels
            scan_all(self.address, self.stop, flags=1, category_mask=WRITTEN, return_mask=WRITTEN)
        else:
            self.get(flags=ScanFlags.WP_MATCHING, vec_len=0)

    def runs(self, result: ScanResult | list[PageRegion]) -> list[tuple[int, int]]:
        """The regions in pages."""
        regions = result.regions if isinstance(result, ScanResult) else result
        return [
            ((region.start - self.address) // PAGE_SIZE, (region.end - self.address) // PAGE_SIZE)
            for region in regions
        ]

    def written(self) -> list[tuple[int, int]]:
        """Which pages are written, as runs."""
        return self.runs(scan_all(self.address, self.stop, category_mask=WRITTEN, return_mask=WRITTEN))


def count(runs: list[tuple[int, int]]) -> int:
    """Pages in *runs*."""
    return sum(stop - first for first, stop in runs)


class Lab:
    """A userfaultfd, opened when it is used, and areas that end with the test."""

    def __init__(self) -> None:
        self._areas: list[Area] = []

    @cached_property
    def uffd(self) -> Userfaultfd:
        return Userfaultfd()

    def map(self, pages: int, **how: Any) -> Area:
        area = Area.map(pages, **how)
        self._areas.append(area)
        return area

    def register(self, area: Area) -> Area:
        """Register and arm."""
        self.uffd.register(area.address, area.stop)
        self.uffd.write_protect(area.address, area.stop)
        return area

    def armed(self, pages: int, **how: Any) -> Area:
        return self.register(self.map(pages, **how))

    def close(self) -> None:
        if "uffd" in self.__dict__:
            self.uffd.close()
        for area in self._areas:
            area.unmap()


def huge(lab: Lab, number: int) -> Area:
    """*number* transparent huge pages, written, or a skip where the kernel gives none."""
    room = lab.map((number + 1) * HUGE_PAGES)
    first = -room.address % PMD_SIZE // PAGE_SIZE
    area = room.part(first, first + number * HUGE_PAGES)
    area.advise(mmap.MADV_HUGEPAGE)
    area.write()
    result = area.get(Category.HUGE, returned=Category.HUGE)
    require(area.runs(result) == [(0, area.pages)], "the kernel gives no transparent huge pages")
    return area


@contextmanager
def lab() -> Iterator[Lab]:
    """For the tests that need one in a child process."""
    made = Lab()
    try:
        yield made
    finally:
        made.close()
