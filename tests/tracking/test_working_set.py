"""Which pages were used: where the kernel has it (Linux 7.3), exactly; elsewhere a clear error."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import threading

import pytest

import dirtytrack
from _lib.support import in_child, optional
from dirtytrack import BusyError, ClosedError, ForkedError, RegionLostError, UnsupportedError, WorkingSet
from dirtytrack.kernel.support import support
from dirtytrack.kernel.userfaultfd import Feature

PAGE = mmap.PAGESIZE
_HAS_IT = Feature.RWP_ASYNC in support().features


@pytest.fixture
def memory():
    """A hundred pages that were written."""
    memory = dirtytrack.alloc(100 * PAGE)
    memory[:] = b"x" * len(memory)
    return memory


@pytest.fixture
def used(memory):
    """The working set of that memory."""
    optional(_HAS_IT, "the kernel has no read-write protection (Linux 7.3)")
    with WorkingSet(memory) as used:
        yield used


def test_where_the_kernel_lacks_it_the_error_says_so(memory):
    """Nothing is registered by it: a session tracks the memory afterwards."""
    optional(not _HAS_IT, "the kernel has it")
    with pytest.raises(UnsupportedError, match=r"takes Linux 7\.3; this kernel lacks RWP_ASYNC"):
        WorkingSet(memory)
    with dirtytrack.Session() as session:
        session.track(memory)


@pytest.mark.parametrize(
    ("wrong", "error"), [(b"bytes", ValueError), ([1, 2], TypeError), (bytearray(), ValueError)]
)
def test_what_can_not_be_tracked_is_refused(wrong, error):
    """As by a session, and before any system call."""
    with pytest.raises(error):
        WorkingSet(wrong)


def test_reading_and_writing_are_use(memory, used):
    """And nothing else is: not what was done before, not the collect itself."""
    assert used.collect() == set()
    memory[3 * PAGE] = 1
    assert memory[50 * PAGE + 7] == ord("x")
    assert used.collect() == {3, 50}
    assert used.collect() == set()


def test_the_kernel_uses_pages_for_the_process(memory, used):
    """What a system call reads or fills is used."""
    reading, writing = os.pipe()
    view = memoryview(memory)
    os.write(writing, view[7 * PAGE : 7 * PAGE + 10])
    os.readv(reading, [view[9 * PAGE : 9 * PAGE + 10]])
    os.close(reading)
    os.close(writing)
    view.release()
    assert used.collect() == {7, 9}


def test_against_a_list_of_what_was_used(memory, used):
    """A hundred rounds of random uses, each of them reported, and no page besides."""
    chance = random.Random(1)
    for _ in range(100):
        pages = set(chance.choices(range(100), k=chance.randrange(20)))
        for page in pages:
            if chance.random() < 0.5:
                memory[page * PAGE + chance.randrange(PAGE)] = chance.randrange(256)
            else:
                assert memory[page * PAGE + chance.randrange(PAGE)] >= 0
        assert used.collect() == pages


def test_no_use_is_lost_beside_a_thread(memory, used):
    """Each use is in the result of the collect that it raced with, or in the next one."""
    done, counts, seen = threading.Event(), [0] * 100, [0] * 100

    def use():
        for turn in range(20_000):
            counts[turn % 100] += memory[turn % 100 * PAGE] == ord("x")
        done.set()

    thread = threading.Thread(target=use)
    thread.start()
    while not done.is_set():
        for page in used.collect():
            seen[page] += 1
    thread.join()
    for page in used.collect():
        seen[page] += 1
    assert counts == [200] * 100
    assert all(found > 0 for found in seen)


def test_unaligned_memory_has_its_own_pages(memory):
    """Pages count from that of the first byte."""
    optional(_HAS_IT, "the kernel has no read-write protection (Linux 7.3)")
    with memoryview(memory) as whole, WorkingSet(whole[PAGE + 10 : 3 * PAGE + 20]) as used:
        assert used.geometry.page_count == 3
        memory[3 * PAGE] = 1
        assert used.collect() == {2}


def test_a_session_and_a_working_set_exclude_each_other(memory, used):
    """The kernel notes writes of a mapping or its uses."""
    with dirtytrack.Session() as session, pytest.raises(BusyError):
        session.track(memory)


def test_memory_that_was_mapped_over_is_lost(memory, used):
    """What is found there is no longer what was looked at."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype, libc.mmap.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long],
    )
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fixed = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10
    assert (
        libc.mmap(address + 10 * PAGE, PAGE, mmap.PROT_READ | mmap.PROT_WRITE, fixed, -1, 0)
        == address + 10 * PAGE
    )
    with pytest.raises(RegionLostError):
        used.collect()


def test_closed_and_forked(memory, used):
    """Both are told, and closing twice is fine."""

    def child():
        with pytest.raises(ForkedError):
            used.collect()
        used.close()

    assert in_child(child).status == 0
    memory[0] = 1
    assert used.collect() == {0}
    used.close()
    used.close()
    with pytest.raises(ClosedError):
        used.collect()
