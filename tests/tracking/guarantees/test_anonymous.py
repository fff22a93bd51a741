"""Private anonymous memory: every way in which its contents change, and those in which they don't."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform

import pytest

import dirtytrack
from _lib.support import PAGE_SIZE, PMD_SIZE, address_of, in_child, optional, require
from _lib.syscalls import PROT_NONE, PROT_READ, PROT_WRITE, Advice, mprotect, pagemap
from _lib.tracked import Tracked, on_one_cpu


def test_only_dma_escapes(session: dirtytrack.Session) -> None:
    """Private anonymous memory has a single blind spot, and a plain store is reported once."""
    with Tracked(session) as memory:
        memory.touch(3)
        memory.expect({3})
        assert memory.region.blind_spots == {dirtytrack.BlindSpot.DMA}


def test_reading_is_no_write(session: dirtytrack.Session) -> None:
    """Neither reading populated memory nor reading memory for the first time is reported."""
    with Tracked(session) as memory, Tracked(session, populate=False) as fresh:
        memory.read(1)
        fresh.read(1)
        memory.expect()
        fresh.expect()


def test_what_was_there_before_is_not_written(session: dirtytrack.Session) -> None:
    """Bytes stored before track are not in the first epoch."""
    with Tracked(session) as memory:
        assert memory.read(0) == bytes([1]) * PAGE_SIZE
        memory.expect()


def test_first_write_to_memory_never_touched(session: dirtytrack.Session) -> None:
    """A store to memory that was not even populated is reported; so is one after it was only read."""
    with Tracked(session, populate=False) as memory:
        memory.write(2, 7)
        memory.read(5)
        memory.write(5, 7)
        memory.expect({2, 5})


def test_zeros_stored_over_the_zero_page(session: dirtytrack.Session) -> None:
    """Storing zeros where the zero page is mapped is a write, although the bytes stay what they were."""
    with Tracked(session, populate=False) as memory:
        memory.read(4)
        memory.write(4, 0)
        assert memory.changed() == set()
        memory.expect({4})


def test_storing_the_same_value_is_reported(session: dirtytrack.Session) -> None:
    """A store counts, not a difference: rewriting a byte with itself is a false positive."""
    with Tracked(session) as memory:
        memory.map[memory.slice(6).start] = 1
        assert memory.changed() == set()
        memory.expect({6})


def test_failed_compare_and_swap_is_reported(session: dirtytrack.Session) -> None:
    """A compare-and-swap that stores nothing still takes the page for writing: a false positive."""
    optional(
        platform.machine() == "x86_64", "machine code for x86-64; elsewhere a failing swap may just load"
    )
    # mov rax, rsi; lock cmpxchg [rdi], rdx; ret
    code = bytes.fromhex("4889f0 f0480fb117 c3")
    with (
        Tracked(session) as memory,
        mmap.mmap(-1, PAGE_SIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as program,
    ):
        program[: len(code)] = code
        swap = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(
            address_of(program)
        )
        assert (
            swap(memory.at(6), 0, 99) == 0x0101010101010101
        )  # what is there, and not the 0 that was expected
        assert memory.changed() == set()
        memory.expect({6})


def test_a_write_across_two_pages(session: dirtytrack.Session) -> None:
    """A store that lies on two pages reports both."""
    with Tracked(session) as memory:
        edge = memory.slice(8).start
        memory.map[edge - 1 : edge + 1] = b"\xff\xff"
        memory.expect({7, 8})


@pytest.mark.parametrize("advice", [Advice.DONTNEED, Advice.DONTNEED_LOCKED])
def test_dropped_pages_are_reported(session: dirtytrack.Session, advice: Advice) -> None:
    """Pages dropped with MADV_DONTNEED read as zeros without a store, and are reported."""
    with Tracked(session) as memory:
        memory.advise(advice, 3, 6)
        memory.expect({3, 4, 5})
        memory.touch(4)
        memory.expect({4})


def test_dropping_memory_never_populated_is_reported(session: dirtytrack.Session) -> None:
    """Dropping armed memory that was never populated changes nothing, and is reported: a false positive."""
    with Tracked(session, populate=False) as memory:
        memory.advise(Advice.DONTNEED, 3, 6)
        assert memory.changed() == set()
        memory.expect({3, 4, 5})


def test_dropped_and_then_read_or_written(session: dirtytrack.Session) -> None:
    """A dropped page stays reported when it is read or written before the collect."""
    with Tracked(session) as memory:
        memory.advise(Advice.DONTNEED, 3, 5)
        memory.read(3)
        memory.write(4, 9)
        memory.expect({3, 4})


@pytest.mark.parametrize("advice", [Advice.NOHUGEPAGE, Advice.HUGEPAGE])
def test_a_dropped_page_table_is_reported(session: dirtytrack.Session, advice: Advice) -> None:
    """Dropping all that one page table maps, which may free the table, reports each of its pages."""
    per_table = PMD_SIZE // PAGE_SIZE
    with Tracked(session, 3 * per_table, advice=advice) as memory:
        first = -memory.address % PMD_SIZE // PAGE_SIZE
        memory.advise(Advice.DONTNEED, first, first + per_table)
        memory.expect(range(first, first + per_table))
        memory.touch(first + 1)
        memory.expect({first + 1})


def test_lazily_freed_pages(session: dirtytrack.Session) -> None:
    """MADV_FREE is not reported until the kernel takes the page; then its contents are gone, and it is."""
    with on_one_cpu(), Tracked(session) as memory:
        memory.advise(Advice.FREE, 2, 4)
        memory.expect()
        memory.advise(Advice.PAGEOUT, 2, 4)
        require(pagemap(memory.at(2), 2) == [0, 0], "the kernel did not reclaim lazily freed pages")
        memory.expect({2, 3})


def test_a_write_after_lazy_free(session: dirtytrack.Session) -> None:
    """A page written after MADV_FREE is reported and keeps its contents."""
    with Tracked(session) as memory:
        memory.advise(Advice.FREE, 2, 4)
        memory.write(2, 9)
        memory.expect({2})


def test_changing_protection_is_no_write(session: dirtytrack.Session) -> None:
    """Mprotect is not reported, in whatever order; a write afterwards is."""
    with Tracked(session) as memory:
        for protection in (PROT_NONE, PROT_READ, PROT_NONE, PROT_READ | PROT_WRITE):
            mprotect(memory.at(2), 4 * PAGE_SIZE, protection)
            assert memory.reported() == set()
        memory.expect()
        memory.touch(3)
        memory.expect({3})


def test_tracking_protected_memory(session: dirtytrack.Session) -> None:
    """Memory tracked and collected while it is read-only or out of reach is armed all the same."""
    with Tracked(session) as memory:
        session.untrack(memory.region)
        mprotect(memory.at(2), PAGE_SIZE, PROT_READ)
        mprotect(memory.at(3), PAGE_SIZE, PROT_NONE)
        memory.region = session.track(memory.map)
        assert memory.reported() == set()
        mprotect(memory.at(2), 2 * PAGE_SIZE, PROT_READ | PROT_WRITE)
        memory.expect()
        memory.touch(2)
        memory.touch(3)
        memory.expect({2, 3})


def test_written_then_protected(session: dirtytrack.Session) -> None:
    """A page written before it was made read-only or inaccessible is still reported."""
    with Tracked(session) as memory:
        memory.touch(2)
        memory.touch(3)
        mprotect(memory.at(2), PAGE_SIZE, PROT_READ)
        mprotect(memory.at(3), PAGE_SIZE, PROT_NONE)
        assert memory.reported() == {2, 3}
        mprotect(memory.at(2), 2 * PAGE_SIZE, PROT_READ | PROT_WRITE)
        memory.copy({2, 3})
        memory.expect()


def test_fork_reports_nothing_and_loses_nothing(session: dirtytrack.Session) -> None:
    """Forking is no write; the parent's first store afterwards, a copy of the shared page, is reported."""
    with Tracked(session) as memory:
        memory.touch(1)
        assert in_child(lambda: memory.read(1)[0]).check() == 2
        memory.expect({1})
        in_child(lambda: None).check()
        memory.touch(2)
        memory.expect({2})


def test_the_childs_writes_are_its_own(session: dirtytrack.Session) -> None:
    """What a forked child stores in private memory changes nothing here, and is not reported here."""
    with Tracked(session) as memory:

        def child() -> int:
            memory.write(4, 9)
            return memory.read(4)[0]

        assert in_child(child).check() == 9
        assert memory.read(4)[0] == 1
        memory.expect()


def test_a_write_while_a_child_shares_the_page(session: dirtytrack.Session) -> None:
    """A store that copies a page, since a child shares it, is reported; the child does not see it."""
    with Tracked(session) as memory:
        go_on, parent = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(parent)
            os.read(go_on, 1)
            os._exit(memory.read(5)[0])
        os.close(go_on)
        memory.write(5, 9)
        memory.expect({5})
        os.close(parent)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
        memory.expect()
