"""Memory shared between processes: each process sees its own stores, through the mapping that it tracks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.shared_memory import SharedMemory

import pytest

import dirtytrack
from _lib.support import PAGE_SIZE, in_child
from _lib.syscalls import MAP_ANONYMOUS, MAP_SHARED, Advice, mlock
from _lib.tracked import Tracked
from dirtytrack import BlindSpot


@contextmanager
def shared(session: dirtytrack.Session) -> Iterator[Tracked]:
    """Shared anonymous memory, tracked."""
    with Tracked(session, flags=MAP_SHARED | MAP_ANONYMOUS) as memory:
        yield memory


def test_shared_anonymous_memory(session: dirtytrack.Session) -> None:
    """Our own stores are reported, also those to memory that was never populated."""
    with shared(session) as memory:
        memory.touch(3)
        memory.expect({3})
        assert memory.region.blind_spots == {
            BlindSpot.DMA,
            BlindSpot.OTHER_MAPPING,
            BlindSpot.HOLE_PUNCHING,
        }
    with Tracked(session, flags=MAP_SHARED | MAP_ANONYMOUS, populate=False) as fresh:
        fresh.read(4)
        fresh.write(5, 9)
        fresh.expect({5})


def test_a_childs_stores_are_missed(session: dirtytrack.Session) -> None:
    """What a forked child stores in shared memory is not reported to the parent: mark it."""
    with shared(session) as memory:
        in_child(lambda: memory.write(3, 9)).check()
        memory.expect_unseen({3}, BlindSpot.OTHER_MAPPING)
        memory.touch(4)
        memory.expect({4})


def test_a_child_tracks_its_own_stores(session: dirtytrack.Session) -> None:
    """The remedy on the other side: the child opens a session, tracks its mapping and says what it wrote."""
    with shared(session) as memory:

        def child() -> list[int]:
            with dirtytrack.Session() as own:
                region = own.track(memory.map)
                memory.write(3, 9)
                memory.write(7, 9)
                return list(own.collect()[region])

        written = in_child(child).check()
        assert written == [3, 7]
        memory.expect_unseen(set(written), BlindSpot.OTHER_MAPPING)


def test_holes_in_shared_anonymous_memory_are_missed(session: dirtytrack.Session) -> None:
    """MADV_REMOVE empties pages unreported: mark them."""
    with shared(session) as memory:
        memory.advise(Advice.REMOVE, 4, 6)
        memory.expect_unseen({4, 5}, BlindSpot.HOLE_PUNCHING)


def test_dropping_shared_anonymous_memory(session: dirtytrack.Session) -> None:
    """MADV_DONTNEED keeps the contents of shared memory: neither a write, nor the end of one."""
    with shared(session) as memory:
        memory.touch(2)
        memory.advise(Advice.DONTNEED)
        memory.expect({2})
        memory.advise(Advice.DONTNEED, 4, 6)
        memory.expect()
        memory.touch(4)
        memory.expect({4})


@pytest.mark.forked
def test_locking_shared_memory_is_no_write() -> None:
    """Mlock of a shared mapping reads it in: not reported, other than with private memory."""
    with dirtytrack.Session() as session, shared(session) as memory:
        mlock(memory.at(2), 2 * PAGE_SIZE)
        memory.expect()
        memory.touch(2)
        memory.expect({2})


def test_python_shared_memory(session: dirtytrack.Session) -> None:
    """SharedMemory reports its own stores, and misses those of another process: mark them."""
    ours = SharedMemory(create=True, size=16 * PAGE_SIZE)
    try:
        region = session.track(ours.buf)
        ours.buf[3 * PAGE_SIZE] = 1
        assert set(session.collect(region)[region]) == {3}

        def child() -> None:
            ours.buf[5 * PAGE_SIZE] = 1

        in_child(child).check()
        assert ours.buf[5 * PAGE_SIZE] == 1
        assert set(session.collect(region)[region]) == set()
        assert {BlindSpot.OTHER_MAPPING, BlindSpot.FILE_WRITES, BlindSpot.HOLE_PUNCHING} < region.blind_spots
        session.mark(region, 5 * PAGE_SIZE, 6 * PAGE_SIZE)
        assert set(session.collect(region)[region]) == {5}
        session.untrack(region)
    finally:
        ours.close()
        ours.unlink()


def test_a_shared_memory_file(session: dirtytrack.Session) -> None:
    """A file below /dev/shm is shared memory too, to a private mapping of it as to a shared one."""
    path = f"/dev/shm/dirtytrack-{os.getpid()}"
    with open(path, "w+b", buffering=0) as file:
        os.unlink(path)
        file.write(b"\x01" * 16 * PAGE_SIZE)
        with Tracked(session, fd=file.fileno(), flags=MAP_SHARED) as memory:
            memory.touch(3)
            memory.expect({3})
            os.pwrite(file.fileno(), b"\xee", 5 * PAGE_SIZE)
            memory.expect_unseen({5}, BlindSpot.FILE_WRITES)
