"""Sparse tracking: memory not yet populated is left alone, and that has its price."""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path

import pytest

import dirtytrack
from _lib.support import PAGE_SIZE, PMD_SIZE, require
from _lib.syscalls import MAP_ANONYMOUS, MAP_SHARED, Advice
from _lib.tracked import KERNELS, Tracked, session_on
from dirtytrack import BlindSpot

PER_HUGE = PMD_SIZE // PAGE_SIZE
GIB = 1 << 30


def status(key: str) -> int:
    """A size in bytes from /proc/self/status."""
    match = re.search(rf"^{key}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


def test_populated_memory_is_tracked_as_ever(session: dirtytrack.Session) -> None:
    """What is populated reports its writes exactly, and reading it is no write."""
    with Tracked(session, sparse=True) as memory:
        memory.expect()
        memory.touch(3)
        memory.expect({3})
        assert memory.region.sparse


def test_a_first_touch_counts_as_a_write(session: dirtytrack.Session) -> None:
    """The first touch of a page is reported, also a read: a false positive. Afterwards it is exact."""
    with Tracked(session, sparse=True, populate=False) as memory:
        assert memory.reported() == set()
        memory.write(3, 9)
        memory.read(5)
        assert memory.reported() == {3, 5}
        memory.read(5)
        assert memory.reported() == set()
        memory.write(5, 9)
        assert memory.reported() == {5}


def test_a_dropped_page_is_missed(session: dirtytrack.Session) -> None:
    """MADV_DONTNEED is not reported, until the page is touched again: mark it."""
    with Tracked(session, sparse=True) as memory:
        memory.advise(Advice.DONTNEED, 3, 5)
        assert memory.reported() == set()
        assert BlindSpot.DROPPED_PAGES in memory.region.blind_spots
        session.mark(memory.region, memory.slice(3).start, memory.slice(4).stop)
        assert memory.reported() == {3, 4}
        assert memory.changed() == {3, 4}
        memory.expect({3, 4})  # now they were read: their first touch


def test_huge_pages_form_in_sparse_memory(session: dirtytrack.Session) -> None:
    """A first touch still gets a huge page, and reports all of it; the next store reports one small page."""
    with Tracked(session, 2 * PER_HUGE, sparse=True, advice=Advice.HUGEPAGE, populate=False) as memory:
        require(memory.address % PMD_SIZE == 0, "the kernel does not align large mappings to huge pages")
        memory.write(3, 9)
        require(status("RssAnon") >= PMD_SIZE, "the kernel has no transparent huge pages")
        assert memory.reported() == set(range(PER_HUGE))
        memory.touch(5)
        assert memory.reported() == {5}


@pytest.mark.forked
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sparse", [False, True])
def test_page_tables_of_a_reservation(kernel: str, sparse: bool) -> None:
    """Tracking 1 GiB never touched takes its page tables, one page for each 2 MiB; sparse tracking none."""
    with (
        session_on(kernel) as session,
        mmap.mmap(-1, GIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory,
    ):
        before = status("VmPTE")
        region = session.track(memory, sparse=sparse)
        assert session.collect(region).pages == 0
        taken = status("VmPTE") - before
        expected = 0 if sparse else GIB // PMD_SIZE * PAGE_SIZE
        assert expected <= taken <= expected + 16 * PAGE_SIZE
        session.untrack(region)


@pytest.mark.parametrize("kind", ["anonymous", "memfd", "file"])
def test_shared_memory_is_refused(session: dirtytrack.Session, tmp_path: Path, kind: str) -> None:
    """Written pages of shared memory may be unmapped at any time, and missed: a ValueError says so."""
    with (tmp_path / "data").open("w+b") as file, open(os.memfd_create("dirtytrack"), "w+b") as memfd:
        fd = {"anonymous": -1, "memfd": memfd.fileno(), "file": file.fileno()}[kind]
        if fd != -1:
            os.ftruncate(fd, PAGE_SIZE)
        flags = MAP_SHARED | (MAP_ANONYMOUS if fd == -1 else 0)
        with mmap.mmap(fd, PAGE_SIZE, flags=flags) as memory:
            with pytest.raises(ValueError, match=r"shared memory.*without sparse=True"):
                session.track(memory, sparse=True)
            assert session.regions == ()
            region = session.track(memory)
            memory[0] = 9
            memory.madvise(Advice.PAGEOUT)
            assert set(session.collect(region)[region]) == {0}
            session.untrack(region)


def test_a_private_file_can_be_sparse(session: dirtytrack.Session, tmp_path: Path) -> None:
    """A private mapping of a file, sparse: first touches and stores are reported."""
    path = tmp_path / "data"
    path.write_bytes(b"\x01" * 16 * PAGE_SIZE)
    with (
        path.open("r+b") as file,
        Tracked(session, fd=file.fileno(), flags=mmap.MAP_PRIVATE, sparse=True, populate=False) as memory,
    ):
        memory.touch(3)
        assert 3 in memory.reported()
        memory.touch(3)
        assert memory.reported() == {3}
