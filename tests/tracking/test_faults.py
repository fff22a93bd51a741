"""When the kernel refuses: nothing stays registered, nobody loses a page. By filters, and for real."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dirtytrack
from _lib import seccomp
from _lib.raw import Raw, is_free, is_registered, open_descriptors, taken
from _lib.support import PAGE_SIZE, PMD_SIZE, Memory, in_child, require, require_root
from _lib.syscalls import Advice
from dirtytrack import BusyError, KernelError, Session

SCAN, REGISTER = seccomp.PAGEMAP_SCAN, seccomp.UFFDIO_REGISTER


def one_shot(request: int, code: int, act: Callable[[], Any]) -> Any:
    """Run *act* in a thread for which the ioctl fails, and for it alone: a filter belongs to its thread."""
    import threading

    outcome: list[Any] = []

    def run() -> None:
        seccomp.install(seccomp.refuse_ioctl(request, code))
        try:
            outcome.append(act())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcome[0]


@pytest.mark.parametrize(
    ("request_", "code", "kind"),
    [
        (REGISTER, errno.ENOMEM, KernelError),
        (REGISTER, errno.EBUSY, BusyError),
        (REGISTER, errno.EPERM, PermissionError),
        (SCAN, errno.ENOMEM, KernelError),
        (SCAN, errno.EFAULT, KernelError),
        (SCAN, errno.EPERM, PermissionError),
    ],
)
def test_a_track_that_fails_leaves_nothing(request_: int, code: int, kind: type[Exception]) -> None:
    """Whichever call fails: an error with its errno, nothing registered, neighbours complete."""

    def child() -> None:
        with Session() as session, Raw(8) as memory:
            # A refusal that means "not yours" is believed of what is tracked already, too.
            meeting = code not in (errno.EBUSY, errno.EPERM)
            neighbour = session.track(memory.piece(0, 3 if meeting else 2))
            memory.write(0, 1)
            error = one_shot(request_, code, lambda: session.track(memory.piece(2, 8)))
            assert isinstance(error, kind), error
            assert isinstance(error, KernelError)
            assert error.errno == code
            assert is_free(*memory.at(3, 8))
            assert session.regions == (neighbour,)
            assert {0, 1} <= set(session.collect()[neighbour])
            memory.write(1)
            assert set(session.collect()[neighbour]) == {1}
            again = session.track(memory.piece(2, 8))
            memory.write(5)
            assert set(session.collect()[again]) == {3}

    in_child(child).check()


def test_shared_huge_pages_that_cannot_be_armed() -> None:
    """A track leaves nothing behind, a collect that finds them huge again loses nothing."""

    def child() -> str:
        nbytes, protect = 2 * PMD_SIZE, seccomp.UFFDIO_WRITEPROTECT
        with Session() as session, os.fdopen(os.memfd_create("faults"), "w+b", buffering=0) as file:
            file.truncate(nbytes)
            flags = mmap.MAP_SHARED
            memory = Memory(2, fd=file.fileno(), flags=flags, page_size=PMD_SIZE, aligned=True)
            memory.fill(1)
            try:
                memory.advise(Advice.COLLAPSE)
            except OSError:
                return "the kernel puts no shared memory on huge pages"
            error = one_shot(protect, errno.ENOMEM, lambda: session.track(memory.map))
            assert isinstance(error, KernelError), error
            assert error.errno == errno.ENOMEM
            assert session.regions == ()
            assert is_free(memory.address, memory.address + nbytes)
            region = session.track(memory.map)
            memory.fill(2)
            memory.advise(Advice.DONTNEED)
            assert memory.read(0)[0] == memory.read(1)[0] == 2
            outcome = one_shot(protect, errno.ENOMEM, session.collect)  # some kernels map them by small pages
            epoch = session.collect() if isinstance(outcome, KernelError) else outcome
            assert epoch[region].nbytes == nbytes
        return ""

    missing = in_child(child).check()
    require(not missing, missing)


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EFAULT])
@pytest.mark.parametrize("verb", ["collect", "peek", "reset"])
def test_a_scan_that_fails_loses_nothing(code: int, verb: str) -> None:
    """The error names the call; every page is in the next epoch, of every cursor and every region."""

    def child() -> None:
        with Session() as session, Raw(8) as memory:
            region, overlap = session.track(memory.pair), session.track(memory.piece(4, 8))
            second = session.cursor("second")
            memory.write(1, 5)
            error = one_shot(SCAN, code, getattr(session, verb))
            assert isinstance(error, KernelError), error
            assert (error.errno, error.call) == (code, "PAGEMAP_SCAN")
            assert f"[{memory.start:#x}, {memory.stop:#x})" in str(error)
            for consumer in (session, second):
                epoch = consumer.collect()
                assert {1, 5} <= set(epoch[region])
                assert {1} <= set(epoch[overlap])
                assert epoch.number == 1
            memory.write(2)
            for consumer in (session, second):
                assert set(consumer.collect()[region]) == {2}

    in_child(child).check()


def test_a_narrowed_scan_that_fails_loses_nothing() -> None:
    """The same for a slice: what lies outside of it is not over-reported."""

    def child() -> None:
        with Session() as session, Raw(8) as memory:
            region = session.track(memory.pair)
            memory.write(1, 5)
            narrow = region[: 4 * PAGE_SIZE]
            error = one_shot(SCAN, errno.ENOMEM, lambda: session.collect(narrow))
            assert isinstance(error, KernelError)
            pages = set(session.collect()[region])
            assert {1, 5} <= pages <= {0, 1, 2, 3, 5}

    in_child(child).check()


def test_healthy_regions_survive_a_failed_scan_of_others() -> None:
    """Every region asked for comes next time, complete, in whichever order they failed."""

    def child() -> None:
        with Session() as session, Raw(4) as a, Raw(4) as b:
            first, last = session.track(a.pair), session.track(b.pair)
            a.write(1)
            b.write(2)
            assert isinstance(one_shot(SCAN, errno.ENOMEM, session.collect), KernelError)
            epoch = session.collect()
            assert 1 in epoch[first]
            assert 2 in epoch[last]

    in_child(child).check()


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EFAULT])
def test_a_cursor_that_cannot_begin_does_not(code: int) -> None:
    """cursor() fails, its name stays free, and the older cursors have every write."""

    def child() -> None:
        with Session() as session, Raw(8) as memory:
            region = session.track(memory.pair)
            memory.write(1)
            error = one_shot(SCAN, code, lambda: session.cursor("second"))
            assert isinstance(error, KernelError), error
            assert error.errno == code
            second = session.cursor("second")
            assert second.collect().pages == 0
            assert 1 in session.collect()[region]
            memory.write(2)
            assert set(second.collect()[region]) == {2}

    in_child(child).check()


def test_a_collect_without_memory_loses_nothing() -> None:
    """No memory for the runs: an error before the scan, and everything in the next epoch, exactly."""

    def child() -> None:
        with Session() as session, Memory(40_000) as memory:
            region = session.track(memory.map)
            memory.touch(1)
            limited(lambda: expect_enomem(session.collect))
            assert set(session.collect()[region]) == {1}
            session.untrack(region)
            del region

    in_child(child).check()


def test_a_track_without_memory_leaves_nothing() -> None:
    """No memory for a region's books, at each step of making them: nothing registered, nothing broken."""

    def child() -> None:
        with Session() as session, Raw(1 << 20) as memory:
            cursors = [session.cursor(f"cursor {i}") for i in range(3)]
            limited(lambda: expect_enomem(lambda: session.track(memory.pair)))
            assert is_free(memory.start, memory.stop)
            region = session.track(memory.pair)
            limited(lambda: expect_enomem(lambda: session.cursor("one more")))
            memory.write(1)
            for consumer in (session, *cursors):
                assert set(consumer.collect()[region]) == {1}

    in_child(child).check()


@pytest.mark.slow
def test_many_small_regions_run_out_of_memory_cleanly() -> None:
    """The arrays of regions grow by mappings, too: each failure leaves a session that works."""

    def child() -> int:
        failures = 0
        with Session() as session, Raw(6000) as memory:
            session.cursor("second")
            for page in range(6000):
                try:
                    limited(lambda page=page: session.track(memory.piece(page, page + 1)))
                except (KernelError, MemoryError):
                    failures += 1
                    session.track(memory.piece(page, page + 1))
            memory.write(17, 5999)
            assert session.collect().pages == 2
        return failures

    assert in_child(child).check() > 0


def limited(act: Callable[[], Any]) -> None:
    """Run *act* with hardly any address space left to map: enough for the stack to grow."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE_SIZE
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (96 << 10), before[1]))
    try:
        act()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def expect_enomem(act: Callable[[], Any]) -> None:
    """Assert that *act* fails for want of memory."""
    with pytest.raises((KernelError, MemoryError)) as caught:
        act()
    assert isinstance(caught.value, MemoryError) or caught.value.errno == errno.ENOMEM


def test_a_half_that_belongs_to_another_is_left_alone() -> None:
    """The second half is another userfaultfd's: BusyError, our half free, theirs as it was."""
    with Session() as session, Raw(16) as memory, taken(*memory.at(8, 16)) as other:
        neighbour = session.track(memory.piece(0, 2))
        memory.write(1)
        with pytest.raises(BusyError):
            session.track(memory.pair)
        assert is_registered(*memory.at(8, 16))
        other.register(*memory.at(8, 16))
        assert is_free(*memory.at(2, 8))
        assert set(session.collect()[neighbour]) == {1}


def test_too_many_mappings_leave_nothing() -> None:
    """At vm.max_map_count registering a piece fails: the remedy is named, nothing stays registered."""
    limit = int(Path("/proc/sys/vm/max_map_count").read_text())

    def child() -> None:
        with Session() as session, Raw(limit // 2 * 2) as memory, Raw(4) as spare:
            libc = ctypes.CDLL(None, use_errno=True)
            page = 0
            while page < memory.pages:  # every other page read-only: each is a mapping
                if libc.mprotect(ctypes.c_void_p(memory.at(page)[0]), PAGE_SIZE, mmap.PROT_READ):
                    break
                page += 2
            assert page < memory.pages, "never reached the limit"
            with pytest.raises(KernelError, match="max_map_count") as caught:
                session.track(spare.piece(1, 3))
            assert caught.value.errno == errno.ENOMEM
            assert session.regions == ()
            assert libc.mprotect(ctypes.c_void_p(memory.start), memory.pages * PAGE_SIZE, 3) == 0
            assert is_free(spare.start, spare.stop)
            region = session.track(spare.piece(1, 3))
            spare.write(2)
            assert set(session.collect()[region]) == {1}

    in_child(child).check()


def test_a_plain_user_tracks_and_collects() -> None:
    """Without any privilege: writes, kernel writes and drops of its own memory are reported."""
    require_root("to become somebody else")

    def child() -> None:
        become_nobody()
        with Session() as session, Raw(8) as memory:
            region = session.track(memory.pair)
            memory.write(1)
            assert set(session.collect()[region]) == {1}
            with open("/dev/zero", "rb", buffering=0) as zeros:
                zeros.readinto(region.view[3 * PAGE_SIZE : 3 * PAGE_SIZE + 10])
            assert set(session.collect()[region]) == {3}

    in_child(child).check()


def test_a_process_that_cannot_read_its_pagemap_is_told_why() -> None:
    """Not dumpable after setuid: an UnsupportedError, and neither descriptor is left behind."""
    require_root("to become somebody else")

    def child() -> None:
        dirtytrack.support()
        os.setuid(65534)
        before = open_descriptors()
        with pytest.raises(dirtytrack.UnsupportedError) as caught:
            Session()
        assert caught.value.errno == errno.EACCES
        assert open_descriptors() == before

    in_child(child).check()


def become_nobody() -> None:
    """Drop every privilege. A process that changed its user is not dumpable until it says so."""
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    assert ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0  # PR_SET_DUMPABLE


def test_no_userfaultfd_is_unsupported() -> None:
    """Refused by a filter, as in a container: UnsupportedError with errno and a remedy."""

    def child() -> None:
        seccomp.install(seccomp.Refuse("userfaultfd", errno.EPERM), seccomp.refuse_ioctl(0xAA00, errno.EPERM))
        before = open_descriptors()
        with pytest.raises(dirtytrack.UnsupportedError) as caught:
            Session()
        assert caught.value.remedy
        assert open_descriptors() == before

    in_child(child).check()
