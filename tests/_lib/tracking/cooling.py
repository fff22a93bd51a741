"""Memory on huge pages, which a session splits and puts back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import dirtytrack
from _lib.support import PAGE_SIZE, PMD_SIZE, require
from _lib.syscalls import Advice
from _lib.tracked import Tracked
from dirtytrack.kernel.pagemap import Category, scan_all
from dirtytrack.native import ffi, lib

PER_HUGE = PMD_SIZE // PAGE_SIZE
WAIT = 8  # collects that find a huge page unwritten before it is put back, at first


@contextmanager
def eager() -> Iterator[None]:
    """Sessions opened meanwhile put back what one look has found unwritten, however often it was split."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dirtytrack.tracking._core.tracker._FIRST_WAIT", 1)
        patch.setattr("dirtytrack.tracking._core.tracker._MOST_WAIT", 1)
        yield


def huge_bytes(start: int, nbytes: int) -> int:
    """How much of memory is mapped by huge pages."""
    found = scan_all(start, start + nbytes, category_mask=Category.HUGE)
    return sum(one.end - one.start for one in found)


def huge_memory(session: dirtytrack.Session, huge_pages: int = 2, *, sparse: bool = False) -> Tracked:
    """Tracked memory that lies on huge pages."""
    for _ in range(2):
        memory = Tracked(session, huge_pages * PER_HUGE, advice=Advice.HUGEPAGE, aligned=True, sparse=sparse)
        if huge_bytes(memory.address, memory.nbytes) == memory.nbytes:
            return memory
        memory.close()
        with suppress(OSError):  # as root, make some
            Path("/proc/sys/vm/compact_memory").write_text("1")
    require(False, "the kernel gave no huge pages")
    raise AssertionError


def rest(session: dirtytrack.Session) -> None:
    """Wait until what is cold has gone back, or was refused."""
    pages = ffi.new("struct dt_huge_pages *")
    while True:
        assert lib.dt_session_huge_pages(session._tracker._native, 0, (1 << 64) - 1, pages) == 0
        if not pages.cold:
            return
        time.sleep(0.0005)


def come_back(memory: Tracked, collects: int = WAIT, *, number: int | None = None) -> None:
    """Let it, or its huge page of a number, be cold, and wait until it is back.

    Where the kernel has no huge page for it, that is tried again.
    """
    start = memory.address + (number or 0) * PMD_SIZE
    nbytes = memory.nbytes if number is None else PMD_SIZE
    for _ in range(20):
        collect_quietly(memory.session, collects)
        rest(memory.session)
        if huge_bytes(start, nbytes) == nbytes:
            return
    require(False, "the kernel had no huge page to put memory back on")


def collect_quietly(session: dirtytrack.Session, count: int = WAIT) -> None:
    """So many collects, in which nothing is written."""
    for _ in range(count):
        assert session.collect().pages == 0
