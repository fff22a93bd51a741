"""Advice, locking, guard pages and merging: what looks like a write to the kernel, and what does not."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import dirtytrack
from _lib.support import PAGE_SIZE, in_child, require, require_root
from _lib.syscalls import MCL_CURRENT, PROT_READ, PROT_WRITE, Advice, mlock, mlockall, mprotect
from _lib.tracked import KERNELS, Tracked, session_on

_KSM = Path("/sys/kernel/mm/ksm")


@pytest.mark.parametrize(
    "advice",
    [
        Advice.NORMAL,
        Advice.RANDOM,
        Advice.SEQUENTIAL,
        Advice.WILLNEED,
        Advice.COLD,
        Advice.PAGEOUT,
        Advice.DONTDUMP,
        Advice.DODUMP,
        Advice.DONTFORK,
        Advice.DOFORK,
        Advice.WIPEONFORK,
        Advice.KEEPONFORK,
        Advice.HUGEPAGE,
        Advice.NOHUGEPAGE,
        Advice.POPULATE_READ,
    ],
)
@pytest.mark.parametrize("populate", [True, False])
def test_harmless_advice(session: dirtytrack.Session, advice: Advice, populate: bool) -> None:
    """Advice that changes no contents is not reported, and a write after it is."""
    with Tracked(session, populate=populate) as memory:
        memory.advise(advice, 2, 6)
        memory.expect()
        memory.touch(3)
        memory.expect({3})


def test_flushing_asking_and_aging_are_no_writes(session: dirtytrack.Session) -> None:
    """msync, and clearing the referenced and soft-dirty bits of the process, are not reported."""
    with Tracked(session) as memory:
        memory.map.flush()
        for what in ("1", "4"):  # Documentation/filesystems/proc.rst: referenced bits, soft-dirty bits
            Path("/proc/self/clear_refs").write_text(what)
        memory.expect()
        memory.touch(3)
        memory.expect({3})


def test_migration_is_no_write(session: dirtytrack.Session) -> None:
    """Pages that the kernel moves in physical memory are not reported."""
    compact = Path("/proc/sys/vm/compact_memory")
    require_root("to compact the memory of the system")
    require(compact.exists(), "the kernel has no compaction")
    with Tracked(session) as memory:
        compact.write_text("1")
        memory.expect()
        memory.touch(3)
        memory.expect({3})


@pytest.mark.parametrize("populate", [True, False])
def test_populating_for_writing_is_reported(session: dirtytrack.Session, populate: bool) -> None:
    """MADV_POPULATE_WRITE takes every page for writing: false positives."""
    with Tracked(session, populate=populate) as memory:
        memory.advise(Advice.POPULATE_WRITE, 2, 6)
        assert memory.changed() == set()
        memory.expect({2, 3, 4, 5})


@pytest.mark.forked
@pytest.mark.parametrize("kernel", KERNELS)
def test_locking_is_reported(kernel: str) -> None:
    """Locking memory takes every page for writing, false positives; locked memory is tracked as before."""
    with session_on(kernel) as session, Tracked(session) as memory, Tracked(session, populate=False) as fresh:
        mlock(memory.at(2), 2 * PAGE_SIZE)
        mlock(fresh.at(2), 2 * PAGE_SIZE)
        memory.expect({2, 3})
        fresh.expect({2, 3})
        memory.touch(2)
        memory.expect({2})
        mlockall(MCL_CURRENT)
        memory.expect(range(16))
        fresh.expect(range(16))


@pytest.mark.forked
def test_tracking_locked_memory() -> None:
    """Memory that was locked before it is tracked reports its writes and nothing else."""
    with dirtytrack.Session() as session, Tracked(session) as memory:
        session.untrack(memory.region)
        mlock(memory.address, memory.nbytes)
        memory.region = session.track(memory.map)
        memory.expect()
        memory.touch(9)
        memory.expect({9})


@pytest.mark.forked
@pytest.mark.parametrize("kernel", KERNELS)
def test_protecting_locked_memory_is_reported(kernel: str) -> None:
    """Mprotect takes locked pages for writing when it permits that again: false positives, of no others."""
    with session_on(kernel) as session, Tracked(session) as memory:
        mlock(memory.address, memory.nbytes)
        memory.expect(range(16))
        mprotect(memory.at(2), 4 * PAGE_SIZE, PROT_READ)
        memory.expect()
        mprotect(memory.at(2), 4 * PAGE_SIZE, PROT_READ | PROT_WRITE)
        memory.expect({2, 3, 4, 5})
        memory.touch(3)
        memory.expect({3})


def test_guard_pages(session: dirtytrack.Session) -> None:
    """Putting up guard pages drops the contents and is reported; taking them down again is reported too."""
    with Tracked(session) as memory:
        try:
            memory.advise(Advice.GUARD_INSTALL, 4, 6)
        except OSError:
            require(False, "the kernel has no guard pages (Linux 6.13)")
        assert memory.reported() == {4, 5}
        assert memory.reported() == set()
        assert in_child(lambda: memory.read(4)).status < 0  # still guarded after a collect
        memory.advise(Advice.GUARD_REMOVE, 4, 6)
        memory.expect({4, 5})
        assert not any(memory.read(4))
        memory.touch(4)
        memory.expect({4})


@pytest.mark.forked
def test_guard_pages_on_armed_shared_memory() -> None:
    """The kernel's loop does not end, or another one's does at once; untracking ends it in any case."""
    memory, session = mmap.mmap(-1, 8 * PAGE_SIZE), dirtytrack.Session()
    memory.write(bytes([1]) * 8 * PAGE_SIZE)
    region = session.track(memory)
    place = ctypes.c_void_p(region.address)
    libc, begun, results = ctypes.CDLL(None), threading.Event(), []

    def guard() -> None:
        begun.set()
        results.append(libc.madvise(place, PAGE_SIZE, Advice.GUARD_INSTALL))

    thread = threading.Thread(target=guard)
    thread.start()
    begun.wait()
    spent = Path(f"/proc/self/task/{thread.native_id}/stat")
    with suppress(OSError):  # the thread has ended
        while thread.is_alive() and int(spent.read_text().rpartition(")")[2].split()[12]) < 5:
            pass  # until it has used some time of the kernel's
    session.untrack(region)
    thread.join()
    require(results == [0], "the kernel has no guard pages (Linux 6.13)")
    session.close()


@contextmanager
def _merging() -> Iterator[None]:
    """Let the kernel's merger run as fast as it can; its settings are put back."""
    require_root("to run KSM")
    require((_KSM / "run").exists(), "the kernel has no KSM")
    wanted = {"run": "1", "sleep_millisecs": "0", "pages_to_scan": "1000"}
    before = {name: (_KSM / name).read_text().strip() for name in wanted}
    try:
        for name, value in wanted.items():
            (_KSM / name).write_text(value)
        yield
    finally:
        for name, value in before.items():
            (_KSM / name).write_text(value)


def _wait_for_merged_pages(pages: int) -> None:
    merged = Path("/proc/self/ksm_merging_pages")
    deadline = time.monotonic() + 20
    while int(merged.read_text()) < pages:
        require(time.monotonic() < deadline, "KSM merged nothing in 20 s")
        os.sched_yield()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.forked
def test_merging_equal_pages_is_reported(kernel: str) -> None:
    """KSM replaces all equal pages but one by that one: false positives. Writes are tracked as ever."""
    with session_on(kernel) as session, Tracked(session) as memory:
        for page in range(4, 8):
            memory.map[memory.slice(page)] = b"merge these four" * (PAGE_SIZE // 16)
        memory.expect({4, 5, 6, 7})
        with _merging():
            memory.advise(Advice.MERGEABLE, 4, 8)
            _wait_for_merged_pages(4)
        assert memory.changed() == set()
        replaced = memory.reported()
        assert replaced < {4, 5, 6, 7}
        assert len(replaced) == 3
        for page in (4, 5, 6, 7):
            memory.map[memory.slice(page).start] = page  # each another value: nothing to merge again
            memory.expect({page})
