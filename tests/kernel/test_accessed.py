"""PAGE_IS_ACCESSED: which pages were read or written since they were read-write protected (Linux 7.3)."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from _lib.kernel.area import Area, Lab
from _lib.support import optional
from dirtytrack import KernelError, UnsupportedError
from dirtytrack.kernel.pagemap import Category
from dirtytrack.kernel.support import support
from dirtytrack.kernel.userfaultfd import Feature, RegisterMode, Userfaultfd

ACCESSED = Category.ACCESSED


@pytest.fixture(autouse=True)
def _knows_accessed() -> None:
    optional(Feature.RWP_ASYNC in support().features, "the kernel has no read-write protection (Linux 7.3)")


@contextmanager
def protected(area: Area) -> Iterator[Userfaultfd]:
    """Read-write protect the area; each page's first access is let through and noted."""
    with Userfaultfd(Feature.RWP | Feature.RWP_ASYNC) as userfaultfd:
        userfaultfd.register(area.address, area.stop, mode=RegisterMode.RWP)
        userfaultfd.rw_protect(area.address, area.stop)
        yield userfaultfd


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


def test_protection_is_lifted(lab: Lab) -> None:
    """Lifted, each page counts as used; armed again, none does."""
    area = lab.map(4)
    area.write()
    with protected(area) as userfaultfd:
        userfaultfd.rw_un_protect(area.at(1), area.at(3))
        assert area.runs(area.get(ACCESSED, returned=ACCESSED)) == [(1, 3)]
        userfaultfd.rw_protect(area.address, area.stop)
        assert area.get(ACCESSED, returned=ACCESSED).regions == []


def test_modes_exclude_each_other(lab: Lab) -> None:
    """A mapping is for its writes or for its uses: both at once, or the other one later, are refused."""
    area = lab.map(4)
    with Userfaultfd(Feature.RWP | Feature.RWP_ASYNC | Feature.WP_ASYNC) as userfaultfd:
        with pytest.raises(KernelError):
            userfaultfd.register(area.address, area.stop, mode=RegisterMode.RWP | RegisterMode.WP)
        userfaultfd.register(area.address, area.stop, mode=RegisterMode.RWP)
        with pytest.raises(KernelError):
            userfaultfd.register(area.address, area.stop)


def test_uses_are_noted_or_wait_as_the_mode_says(lab: Lab) -> None:
    """RWP_ASYNC can be turned off and on again; no other feature can."""
    area = lab.map(4)
    area.write()
    with protected(area) as userfaultfd:
        userfaultfd.set_mode(disable=Feature.RWP_ASYNC)
        userfaultfd.set_mode(enable=Feature.RWP_ASYNC)
        ctypes.string_at(area.at(2), 1)
        assert area.runs(area.get(ACCESSED, returned=ACCESSED)) == [(2, 3)]
        for wrong in (
            {"enable": Feature.WP_ASYNC},
            {"enable": Feature.RWP_ASYNC, "disable": Feature.RWP_ASYNC},
        ):
            with pytest.raises(UnsupportedError, match="only RWP_ASYNC can be turned on and off"):
                userfaultfd.set_mode(**wrong)
