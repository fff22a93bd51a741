"""Memory that the kernel copies: bytes arrive; where they can't, the error says where and what to do."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform

import pytest

from _lib import seccomp
from _lib.support import PAGE_SIZE, optional
from _lib.untouchable import (
    BAD,
    PAGES,
    Guarded,
    Inaccessible,
    ReadOnly,
    Truncated,
    TruncatedPrivate,
    Unmapped,
    Untouchable,
    can_be_read,
    contents,
    is_protected,
)
from dirtytrack.errors import KernelError, KernelPermissionError
from dirtytrack.kernel.touch import Memory, untouchable

pytestmark = pytest.mark.forked

NBYTES = PAGES * PAGE_SIZE
REMEDIES = {
    Guarded: "There are guard pages: take them down (MADV_GUARD_REMOVE)",
    Inaccessible: "It is protected there: make it {} (mprotect)",
    ReadOnly: "It is protected there: make it {} (mprotect)",
    Unmapped: "Nothing is mapped there any more: map it again, or leave this memory out",
    Truncated: "It lies beyond the end of the file /memfd:truncated (deleted), or that can't be read: "
    "make it longer",
}
REMEDIES[TruncatedPrivate] = REMEDIES[Truncated]


@pytest.fixture(params=list(REMEDIES))
def memory(request: pytest.FixtureRequest) -> Untouchable:
    """Memory to be spoiled."""
    made: Untouchable = request.param()
    return made


def view_of(memory: Untouchable) -> memoryview:
    return memoryview((ctypes.c_char * NBYTES).from_address(memory.address)).cast("B")


@pytest.fixture(params=[False, True])
def pipe(request: pytest.FixtureRequest) -> bool:
    """Whether a filter forbids the calls."""
    if request.param:
        seccomp.install(
            seccomp.Refuse("process_vm_readv", errno.EPERM), seccomp.Refuse("process_vm_writev", errno.ENOSYS)
        )
    return bool(request.param)


@pytest.mark.parametrize("start", [0, 1, PAGE_SIZE - 1, 3 * PAGE_SIZE + 5])
@pytest.mark.parametrize("nbytes", [0, 1, PAGE_SIZE, 300_001])
def test_bytes_arrive(pipe: bool, start: int, nbytes: int) -> None:
    """At any place, of any length, and no others."""
    target = bytearray(os.urandom(400_000))
    expected, data, back = bytearray(target), os.urandom(nbytes), bytearray(nbytes)
    memory = Memory("it", memoryview(target), "")
    memory.write(start, data)
    expected[start : start + nbytes] = data
    assert target == expected
    memory.read(start, back)
    assert back == data


@pytest.mark.parametrize("start", [0, 100, BAD * PAGE_SIZE, BAD * PAGE_SIZE + 100])
@pytest.mark.parametrize("write", [False, True])
def test_what_can_not_be_touched(memory: Untouchable, pipe: bool, start: int, write: bool) -> None:
    """The error begins with the page, and ends where it may be touched again or the access ended."""
    view = view_of(memory)
    view[:] = os.urandom(NBYTES)
    before = contents(memory)[: BAD * PAGE_SIZE]
    memory.spoil()
    touched, data = Memory("it", view, "Nothing is lost"), bytearray(os.urandom(NBYTES - start))
    act = (lambda: touched.write(start, data)) if write else (lambda: touched.read(start, data))
    if can_be_read(memory) and not write:
        act()
        return
    with pytest.raises(KernelError, match=r"^.Errno 1[34]. (read|write to) it on ") as caught:
        act()
    bad, stop = memory.address + BAD * PAGE_SIZE, memory.address + (BAD + 1) * PAGE_SIZE
    stop = memory.address + NBYTES if isinstance(memory, Truncated) else stop
    assert (caught.value.start, caught.value.stop) == (bad, stop)
    assert isinstance(caught.value, KernelPermissionError) == is_protected(memory)
    remedy = REMEDIES[type(memory)].format("writable" if write else "readable")
    assert caught.value.remedy == f"{remedy}. Nothing is lost"
    if write:
        assert contents_before(memory)[:start] == before[:start]
    elif start < BAD * PAGE_SIZE:
        assert bytes(data[: BAD * PAGE_SIZE - start]) == before[start:]


def contents_before(memory: Untouchable) -> bytes:
    return ctypes.string_at(memory.address, BAD * PAGE_SIZE)


def test_what_is_seen_beforehand(memory: Untouchable) -> None:
    """All but the end of a file; and nothing is written."""
    view = view_of(memory)
    touched = Memory("it", view, "")
    touched.check_writable("Nothing was written")
    memory.spoil()
    if isinstance(memory, Truncated):
        touched.check_writable("Nothing was written")
        return
    with pytest.raises(KernelError, match=r"^.Errno 1[34]. write to it on .*Nothing was written$") as caught:
        touched.check_writable("Nothing was written")
    assert caught.value.start == memory.address + BAD * PAGE_SIZE
    memory.mend()
    touched.check_writable("Nothing was written")


def test_what_has_passed_by_the_time_of_the_error() -> None:
    """The errno stays, and the range."""
    memory = Inaccessible()
    error = untouchable(errno.EACCES, "it", memory.address, memory.address + 9, "Save again", write=False)
    assert (error.errno, error.start, error.stop) == (errno.EACCES, memory.address, memory.address + 9)
    assert error.remedy == "It could not be touched at that time, and can be now. Save again"


def test_memory_that_the_kernel_does_not_pin() -> None:
    """A secret one is memory like any other to its own process."""
    number = {"x86_64": 447, "aarch64": 447}.get(platform.machine(), -1)
    fd = ctypes.CDLL(None, use_errno=True).syscall(number, 0)
    optional(fd >= 0, "memfd_secret (Linux 5.14, secretmem.enable)")
    os.ftruncate(fd, 4 * PAGE_SIZE)
    secret = mmap.mmap(fd, 4 * PAGE_SIZE)
    memory, back = Memory("it", memoryview(secret), ""), bytearray(3 * PAGE_SIZE)
    memory.write(100, b"\7" * 3 * PAGE_SIZE)
    memory.read(100, back)
    assert back == b"\7" * 3 * PAGE_SIZE
