"""PAGEMAP_SCAN across processes: an inherited descriptor is never used; others are scanned by pid."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from _lib.kernel.area import TAKE, WRITTEN, Area, Lab, libc
from _lib.kernel.area import lab as make_lab
from _lib.support import PAGE_SIZE, in_child, optional, require_root
from dirtytrack.errors import KernelError
from dirtytrack.kernel import _descriptor, mappings, pagemap
from dirtytrack.kernel.pagemap import Category, open_pagemap, scan
from dirtytrack.native import lib

PRESENT = Category.PRESENT


@contextmanager
def running(steps: Callable[[], Iterator[None]]) -> Iterator[tuple[int, Callable[[], None]]]:
    """A child that runs *steps*, each when it is told to: its pid, and the function that makes it do one."""
    ours, theirs = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        for _ in steps():
            os.write(theirs[1], b"x")
            if os.read(ours[0], 1) != b"x":
                break
        os._exit(0)
    os.close(theirs[1])

    def step() -> None:
        os.write(ours[1], b"x")
        assert os.read(theirs[0], 1) == b"x", "the child has died"

    try:
        assert os.read(theirs[0], 1) == b"x", "the child has died"
        yield pid, step
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for fd in (*ours, theirs[0]):
            os.close(fd)


def test_a_child_that_tracks_itself(lab: Lab) -> None:
    """The parent takes the written pages of a registered child by pid; its own memory is untouched."""
    area = lab.armed(8)
    area.touch(6)

    def steps() -> Iterator[None]:
        with make_lab() as inner:
            inner.register(area)
            area.touch(1, 5)
            yield
            area.touch(5)
            yield

    with running(steps) as (pid, step):
        assert area.runs(area.take(pid=pid)) == [(1, 2), (5, 6)]
        assert area.take(pid=pid).regions == []
        step()
        assert area.runs(area.take(pid=pid)) == [(5, 6)]
        assert area.runs(pagemap.scan_all(area.address, area.stop, pid=pid, category_mask=PRESENT)) != []
    assert area.runs(area.take()) == [(6, 7)]


def test_looking_at_a_child_that_knows_nothing_of_it() -> None:
    """Without any registration the pages present in another process can be told."""
    area = Area.map(8)

    def steps() -> Iterator[None]:
        area.touch(2, 3)
        yield

    with running(steps) as (pid, _):
        assert area.runs(area.get(PRESENT, returned=PRESENT, pid=pid)) == [(2, 4)]
        with pytest.raises(KernelError, match="not registered"):
            area.take(pid=pid)
    assert area.get(PRESENT, returned=PRESENT).regions == []
    area.unmap()


def test_the_own_pid_is_this_process(lab: Lab) -> None:
    """Naming the own pid is the same as naming none, and leaves no descriptor open."""
    area = lab.armed(4)
    area.touch(2)
    before = os.listdir("/proc/self/fd")
    assert area.get(pid=os.getpid()) == area.get()
    assert os.listdir("/proc/self/fd") == before


def test_a_child_scans_itself_and_not_its_parent(lab: Lab) -> None:
    """With a descriptor inherited, a child's scan reads the child; what the parent wrote stays unread."""
    area = lab.armed(4)
    area.touch(1)
    assert area.runs(area.get()) == [(1, 2)]  # the descriptor is open now
    inherited = _descriptor.own_pagemap()

    def child() -> tuple[list[tuple[int, int]], bool]:
        area.get(flags=1)  # would arm the parent's pages through the inherited descriptor
        with make_lab() as inner:
            inner.register(area)
            area.touch(3)
            runs = area.runs(area.take())
        return runs, list(_descriptor._own) == [lib.dt_address_space()]

    assert in_child(child).check() == ([(3, 4)], True)
    assert _descriptor.own_pagemap() == inherited
    assert area.runs(area.take()) == [(1, 2)]


def test_a_child_forked_behind_pythons_back(lab: Lab) -> None:
    """The same holds for a child forked by C code, of which Python hears nothing."""
    area = lab.armed(4)
    area.touch(1)
    area.get()
    pid = ctypes.PyDLL(None).fork()
    if pid == 0:
        status = 1
        try:
            area.get(flags=1)
            area.touch(2)
            status = 0 if area.runs(area.get(PRESENT)) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert area.runs(area.take()) == [(1, 2)]


def test_threads_open_one_descriptor() -> None:
    """Threads that scan for the first time at the same moment end up with one descriptor between them."""

    def child() -> int:
        _descriptor._own.clear()  # a child has none of its own yet; the inherited one stays open and counts
        before = len(os.listdir("/proc/self/fd"))
        barrier = threading.Barrier(8)

        def first() -> None:
            barrier.wait()
            scan(0, 0)

        threads = [threading.Thread(target=first) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(os.listdir("/proc/self/fd")) - before

    assert in_child(child).check() == 1


@pytest.mark.parametrize("call", [scan, pagemap.scan_all, mappings.overlapping])
def test_a_process_that_is_gone(call: Callable[..., object]) -> None:
    """A process that does not exist is ENOENT or ESRCH, and named."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(KernelError, match=f"open /proc/{pid}/") as caught:
        call(0, PAGE_SIZE, pid=pid)
    assert caught.value.errno in (errno.ENOENT, errno.ESRCH)
    assert caught.value.remedy


def test_a_process_that_is_dead_but_not_buried() -> None:
    """A zombie has no memory any more: the scan finds nothing or says that the process is gone."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        with pytest.raises(KernelError, match=r"exited|alive") as caught:
            assert scan(0, 1 << 40, pid=pid, return_mask=WRITTEN).regions != []
        assert caught.value.errno == errno.ESRCH
    finally:
        os.waitpid(pid, 0)


def test_a_thread_of_the_kernel() -> None:
    """A thread of the kernel has no memory: ESRCH, and no crash on the kernels that open its pagemap."""
    require_root("to look at a thread of the kernel")
    optional(Path("/proc/2/comm").read_text() == "kthreadd\n", "no thread of the kernel can be seen here")
    with pytest.raises(KernelError, match="thread of the kernel") as caught:
        scan(0, 1 << 40, pid=2, return_mask=WRITTEN)
    assert caught.value.errno == errno.ESRCH


def test_a_process_of_another_user() -> None:
    """A plain user may not scan a process of root: EACCES or EPERM, with the remedy."""
    require_root("to become nobody")
    pid = os.getpid()

    def child() -> KernelError:
        os.setresuid(65534, 65534, 65534)
        with pytest.raises(KernelError, match="CAP_SYS_PTRACE") as caught:
            scan(0, PAGE_SIZE, pid=pid)
        return caught.value

    error = in_child(child).check()
    assert error.errno in (errno.EACCES, errno.EPERM)
    assert error.call == f"open /proc/{pid}/pagemap"


def test_a_process_that_dropped_its_privileges() -> None:
    """After setuid a process may not look at itself until it is dumpable again, as the remedy says."""
    require_root("to become nobody")

    def child() -> tuple[KernelError, int]:
        os.setresuid(65534, 65534, 65534)
        with pytest.raises(PermissionError, match="PR_SET_DUMPABLE") as caught:
            open_pagemap()
        assert isinstance(caught.value, KernelError)
        assert libc.prctl(4, 1, 0, 0, 0) == 0
        return caught.value, len(scan(0, PAGE_SIZE, return_mask=WRITTEN).regions)

    error, regions = in_child(child).check()
    assert (error.errno, regions) == (errno.EACCES, 0)


def test_a_pid_that_is_none() -> None:
    """A pid has to be an integer."""
    with pytest.raises(TypeError, match="integer"):
        scan(0, PAGE_SIZE, pid="self")  # type: ignore[arg-type]


def test_a_take_reads_and_arms_in_the_other_process_only(lab: Lab) -> None:
    """A checked scan of a child whose memory only the parent registered is refused, and arms nothing here."""
    area = lab.armed(4)
    area.touch(2)

    def steps() -> Iterator[None]:
        area.touch(0)
        yield

    with running(steps) as (pid, _), pytest.raises(KernelError, match="not registered"):
        scan(area.address, area.stop, pid=pid, flags=TAKE, category_mask=WRITTEN, return_mask=WRITTEN)
    assert area.runs(area.get()) == [(2, 3)]
