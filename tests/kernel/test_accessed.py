"""PAGE_IS_ACCESSED: which pages were read or written since they were read-write protected (Linux 7.3)."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from _lib.kernel.area import Area, Lab
from _lib.support import optional
from dirtytrack.kernel.pagemap import Category
from dirtytrack.kernel.support import support
from dirtytrack.kernel.userfaultfd import Feature
from dirtytrack.native import lib

ACCESSED = Category.ACCESSED

# include/uapi/linux/userfaultfd.h of Linux 7.3. The library itself does not protect against reads.
_API = 0xAA
_UFFDIO_API, _UFFDIO_REGISTER, _UFFDIO_RWPROTECT = 0xC018AA3F, 0xC020AA00, 0xC018AA09
_MODE_REGISTER_RWP, _MODE_RWP = 1 << 3, 1 << 0
_USER_MODE_ONLY = 1


@pytest.fixture(autouse=True)
def _knows_accessed() -> None:
    optional(Feature.RWP_ASYNC in support().features, "the kernel has no read-write protection (Linux 7.3)")


@contextmanager
def protected(area: Area) -> Iterator[None]:
    """Read-write protect the area; each page's first access is let through and noted."""
    fd = lib.dt_uffd_syscall(os.O_CLOEXEC | _USER_MODE_ONLY)
    assert fd >= 0
    try:
        nbytes = area.stop - area.address
        fcntl.ioctl(fd, _UFFDIO_API, struct.pack("=3Q", _API, Feature.RWP | Feature.RWP_ASYNC, 0))
        fcntl.ioctl(fd, _UFFDIO_REGISTER, struct.pack("=4Q", area.address, nbytes, _MODE_REGISTER_RWP, 0))
        fcntl.ioctl(fd, _UFFDIO_RWPROTECT, struct.pack("=3Q", area.address, nbytes, _MODE_RWP))
        yield
    finally:
        os.close(fd)


def test_accessed_pages_are_told_from_idle_ones(lab: Lab) -> None:
    """Reading counts as well as writing; the inverted question finds the pages that nobody used."""
    area = lab.map(8)
    area.write()
    with protected(area):
        assert area.get(ACCESSED, returned=ACCESSED).regions == []
        ctypes.string_at(area.at(2), 1)
        area.touch(5)
        assert area.runs(area.get(ACCESSED, returned=ACCESSED)) == [(2, 3), (5, 6)]
        idle = area.get(ACCESSED, inverted=ACCESSED, returned=0)
        assert area.runs(idle) == [(0, 2), (3, 5), (6, 8)]


def test_nothing_is_accessed_outside_of_such_memory(lab: Lab) -> None:
    """As WRITTEN on these kernels: memory that is registered otherwise, or not at all, never reports it."""
    for area in (lab.map(4), lab.armed(4)):
        area.write()
        assert area.get(ACCESSED, returned=ACCESSED).regions == []
