"""What the tests share: conditions, child processes, huge pages, and memory with a shadow copy.

Nothing here uses dirtytrack: these are the oracles that it is measured against.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import importlib
import mmap
import os
import pickle
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import pytest

from _lib import limits
from _lib.syscalls import madvise, map_aligned, munmap

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
PMD_SIZE = PAGE_SIZE * (PAGE_SIZE // 8)  # what one page table maps: the size of a transparent huge page


def require(condition: object, reason: str) -> None:
    """Skip the test unless *condition* holds; with DIRTYTRACK_TEST_STRICT=1 fail it instead.

    For what a complete test machine has: a recent kernel, swap, huge pages.
    """
    if condition:
        return
    if os.environ.get("DIRTYTRACK_TEST_STRICT") == "1":
        pytest.fail(f"required under DIRTYTRACK_TEST_STRICT: {reason}")
    pytest.skip(reason, allow_module_level=True)


def optional(condition: object, reason: str) -> None:
    """Skip the test unless *condition* holds, also under DIRTYTRACK_TEST_STRICT=1.

    For what a complete test machine may lack: root privileges, an optional dependency.
    """
    if not condition:
        pytest.skip(reason, allow_module_level=True)


def library(name: str, suite: Literal["torch", "engines", "mpi"] = "torch") -> Any:
    """Import a module that only a make target of its suite installs, or skip the test or file.

    It may not be missing there under DIRTYTRACK_TEST_STRICT=1. Tests that need one are marked like the suite.
    """
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        missing = require if os.environ.get(f"DIRTYTRACK_TEST_{suite.upper()}") == "1" else optional
        has_it = {"torch": "make test-torch", "engines": "make engines", "mpi": "make test-mpi"}[suite]
        missing(False, f"{name} is not installed: {has_it} has it")
    if name == "torch":
        module.set_num_threads(1)  # a forked child has none of its parent's threads
    return module


def require_root(reason: str) -> None:
    """Skip the test, and say why it needs root, where it runs as a plain user."""
    optional(os.geteuid() == 0, f"needs root: {reason}")


@dataclass(frozen=True)
class Child:
    """How a child process ended."""

    status: int  # exit status; negative: the signal that killed it
    value: Any  # what the function returned, if it returned
    error: str  # the traceback, or what else went wrong; empty if the function returned

    def check(self) -> Any:
        """Return the function's value, or fail the test with the child's own traceback."""
        if self.status != 0 or self.error:
            pytest.fail(f"child ended with status {self.status}\n{self.error}", pytrace=False)
        return self.value


def in_child(function: Callable[[], Any]) -> Child:
    """Run *function* in a forked child, within the limits of a test, and report how that ended.

    The child leaves by ``os._exit``, so none of the parent's clean-up runs in it. Its result has to be
    picklable.

    Args:
        function: what to run. SystemExit becomes the exit status, any other exception status 1 and ``error``.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _run_and_exit(function, writer)
    os.close(writer)
    with open(reader, "rb", buffering=0) as pipe:
        report, hung = _read_until_exit(pid, reader, limits.CHILD_HANG_SECONDS)
        rest = b"" if hung else _drain(pipe.fileno())
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if hung:
        return Child(status, None, f"still running after {limits.CHILD_HANG_SECONDS} s: killed")
    report += rest
    if not report:
        return Child(status, None, "" if status >= 0 else _fate(signal.Signals(-status)))
    value, error = pickle.loads(report)
    return Child(status, value, error)


@contextmanager
def idle_threads(count: int) -> Iterator[None]:
    """So many threads of Python's, which do nothing: the library behaves otherwise beside some."""
    done = threading.Event()
    threads = [threading.Thread(target=done.wait) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def _fate(killer: signal.Signals) -> str:
    why = f": it computed for {limits.TEST_SECONDS} s" if killer is signal.SIGXCPU else ""
    return f"killed by {killer.name}{why}"


def _run_and_exit(function: Callable[[], Any], writer: int) -> NoReturn:
    status = 1
    limits.limit_child()
    gc.freeze()  # what earlier tests left is not this child's to look at, or to destroy
    try:
        try:
            report = pickle.dumps((function(), ""))
            status = 0
        except SystemExit as exit_:
            report = b""
            status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        except BaseException:
            report = pickle.dumps((None, traceback.format_exc()))
        sys.stdout.flush()
        sys.stderr.flush()
        with open(writer, "wb") as pipe:
            pipe.write(report)
    finally:
        os._exit(status)


def _read_until_exit(pid: int, pipe: int, timeout: float) -> tuple[bytes, bool]:
    """Read the pipe until the child is gone: grandchildren may hold its other end for longer."""
    report = b""
    deadline = time.monotonic() + timeout
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(pipe, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)}
            if not ready:
                os.kill(pid, signal.SIGKILL)
                return report, True
            if pipe in ready:
                piece = os.read(pipe, 1 << 16)
                report += piece
                if not piece:
                    poll.unregister(pipe)
            elif pidfd in ready:
                return report, False
    finally:
        os.close(pidfd)


def _drain(pipe: int) -> bytes:
    """What was written between the last poll and the child's exit."""
    os.set_blocking(pipe, False)
    report = b""
    try:
        while piece := os.read(pipe, 1 << 16):
            report += piece
    except BlockingIOError:
        pass  # a grandchild keeps the pipe open
    return report


@contextmanager
def reserve_hugepages(count: int, size: int | None = None) -> Iterator[int]:
    """Keep *count* huge pages free while the block runs, and yield the size of one in bytes.

    As root it raises the system's reserve and puts it back afterwards; tests in other processes wait. Without
    root it makes do with what is reserved, or skips the test.

    Args:
        count: how many.
        size: bytes of one. The default is the system's, of which a complete test machine has enough.
    """
    wanted = optional if size else require
    size = size or _meminfo("Hugepagesize") * 1024
    pool = Path(f"/sys/kernel/mm/hugepages/hugepages-{size >> 10}kB")
    require(size and pool.exists(), "the kernel has no hugetlb support")
    if os.geteuid() != 0:
        optional(_free_pages(pool) >= count, f"needs root to reserve {count} huge pages")
        yield size
        return
    with open(pool / "nr_hugepages", "r+b", buffering=0) as reserve:
        fcntl.flock(reserve, fcntl.LOCK_EX)
        before = int(reserve.read())
        try:
            if (missing := count - _free_pages(pool)) > 0:
                os.pwrite(reserve.fileno(), b"%d" % (before + missing), 0)
            wanted(_free_pages(pool) >= count, f"the system has no {count} pages of {size >> 10} KiB")
            yield size
        finally:
            os.pwrite(reserve.fileno(), b"%d" % before, 0)


def _free_pages(pool: Path) -> int:
    """Huge pages that nobody has, and that nobody was promised."""
    free, promised = (int((pool / f"{name}_hugepages").read_text()) for name in ("free", "resv"))
    return free - promised


def _meminfo(key: str) -> int:
    """A line of /proc/meminfo; 0 where this kernel has none of that name."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0])
    return 0


def resident_bytes() -> int:
    """The resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_SIZE


def address_of(buffer: Any) -> int:
    """The address of a writable buffer's first byte. The buffer is free again when this returns."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class Memory:
    """A mapping addressed by page number, with a shadow copy to compare it with.

    It begins as zeros, and so does the shadow, without the memory being read: its pages stay unpopulated.

    Attributes:
        map: the mmap object, or a memoryview; to be tracked.
        pages: its size in pages.
        page_size: bytes per page; the huge page size for hugetlb.
        address: of the first byte.
    """

    map: Any

    def __init__(
        self,
        pages: int,
        *,
        flags: int = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
        fd: int = -1,
        page_size: int = PAGE_SIZE,
        aligned: bool = False,
    ) -> None:
        """Map it, *aligned* to transparent huge pages or as chance has it."""
        self.pages = pages
        self.page_size = page_size
        self._aligned = aligned
        if aligned:
            start = map_aligned(self.nbytes, PMD_SIZE, flags, fd)
            self.map = memoryview((ctypes.c_ubyte * self.nbytes).from_address(start)).cast("B")
        else:
            self.map = mmap.mmap(fd, self.nbytes, flags=flags)
        self.address = address_of(self.map)
        self._shadow = bytearray(pages * page_size)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.pages * self.page_size

    def slice(self, page: int) -> slice:
        """The bytes of *page*, as an index into ``map``."""
        if not 0 <= page < self.pages:
            raise IndexError(f"page {page} of {self.pages}")
        return slice(page * self.page_size, (page + 1) * self.page_size)

    def read(self, page: int) -> bytes:
        """The whole page. Reading one that is not there maps the zero page."""
        return bytes(self.map[self.slice(page)])

    def touch(self, page: int) -> None:
        """Store one byte into the page, never the one that is there: its contents change."""
        first = self.slice(page).start
        self.map[first] = (self.map[first] + 1) % 256

    def write(self, page: int, value: int | None = None) -> None:
        """Fill the page with the byte *value*; without one, with its first byte plus one."""
        where = self.slice(page)
        if value is None:
            value = (self.map[where.start] + 1) % 256
        self.map[where] = bytes([value]) * self.page_size

    def fill(self, value: int) -> None:
        """Write every page."""
        self.map[:] = bytes([value]) * self.nbytes

    def advise(self, advice: int, start: int = 0, stop: int | None = None) -> None:
        """``madvise`` for the pages [start, stop)."""
        stop = self.pages if stop is None else stop
        madvise(self.address + start * self.page_size, (stop - start) * self.page_size, advice)

    def changed(self) -> set[int]:
        """Pages whose contents differ from the shadow. Reads all of the memory."""
        if memoryview(self.map) == self._shadow:
            return set()
        return {page for page in range(self.pages) if self.read(page) != self._shadow[self.slice(page)]}

    def copy(self, pages: Iterator[int] | set[int] | range | list[int]) -> None:
        """Bring the shadow of *pages* up to date; the others keep what they had."""
        for page in pages:
            self._shadow[self.slice(page)] = self.read(page)

    def sync(self) -> None:
        """Bring the whole shadow up to date."""
        self._shadow[:] = self.map[:]

    def close(self) -> None:
        """Unmap the memory."""
        if self._aligned:
            self.map.release()
            munmap(self.address, self.nbytes)
        else:
            self.map.close()

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
