"""Data that reaches pinned pages past the page tables: the blind spot of every kind of memory."""

from __future__ import annotations

import os
import threading

import dirtytrack
from _lib.blocker import Blocker
from _lib.iouring import Ring
from _lib.support import PAGE_SIZE, Memory, optional, require
from _lib.tracked import Tracked
from dirtytrack import BlindSpot


def test_registering_buffers_is_reported(session: dirtytrack.Session, ring: Ring) -> None:
    """Pinning memory takes every page of it for writing: false positives, once."""
    with Tracked(session) as memory:
        ring.register(memory.at(4), 4 * PAGE_SIZE)
        assert memory.changed() == set()
        memory.expect({4, 5, 6, 7})


def test_reads_into_registered_buffers_are_missed(session: dirtytrack.Session, ring: Ring, file: int) -> None:
    """What io_uring reads into registered buffers is not reported: mark it when the read is complete."""
    with Tracked(session) as memory:
        ring.register(memory.at(4), 4 * PAGE_SIZE)
        memory.expect({4, 5, 6, 7})
        ring.submit_read(file, memory.at(5), PAGE_SIZE)
        assert ring.wait() == PAGE_SIZE
        memory.expect_unseen({5}, BlindSpot.DMA)


def test_stores_to_pinned_pages_are_reported(session: dirtytrack.Session, ring: Ring) -> None:
    """A page that is pinned still reports what the processor stores in it."""
    with Tracked(session) as memory:
        ring.register(memory.at(4), 4 * PAGE_SIZE)
        memory.expect({4, 5, 6, 7})
        memory.touch(6)
        memory.expect({6})


def test_a_buffered_read_in_flight_is_missed(session: dirtytrack.Session, ring: Ring) -> None:
    """A read from a pipe into a registered buffer that ends after the collect is not reported."""
    reader, writer = os.pipe()
    with Tracked(session) as memory, open(reader, "rb", buffering=0), open(writer, "wb", buffering=0):
        ring.register(memory.at(4), 4 * PAGE_SIZE)
        ring.submit_read(reader, memory.at(7), 100)
        memory.expect({4, 5, 6, 7})
        os.write(writer, b"\xee" * 100)
        assert ring.wait() == 100
        memory.expect_unseen({7}, BlindSpot.DMA)


def test_completions_in_the_callers_own_ring_are_missed(session: dirtytrack.Session) -> None:
    """Rings of io_uring in tracked memory are pinned: what the kernel stores there is not reported."""
    reader, writer = os.pipe()
    with (
        Tracked(session) as memory,
        Memory(1) as target,
        open(reader, "rb", buffering=0),
        open(writer, "wb", buffering=0),
    ):
        memory.write(4, 0)  # some kernels take it for zeros
        memory.write(5, 0)
        try:
            ring = Ring((memory.at(4), memory.view(4)), (memory.at(5), memory.view(5)))
        except OSError as error:
            require(False, f"no io_uring in memory of the caller's here: {error}")
        with ring:
            ring.register(target.address, PAGE_SIZE)
            ring.submit_read(reader, target.address, 100)
            memory.expect({4, 5})
            os.write(writer, b"\xee" * 100)
            ring.await_completion()
            memory.expect_unseen({4}, BlindSpot.DMA)


def test_direct_io_in_flight_is_missed(session: dirtytrack.Session, file: int) -> None:
    """An O_DIRECT read in flight during a collect is in that epoch, before its data, and not in the next.

    The read wants two pages. It has pinned the first, ours, when it stops at the second; then we collect.
    """
    try:
        blocker = Blocker()
    except PermissionError:
        optional(False, "needs root to stop the kernel in the middle of a read")
    with blocker, Tracked(session) as memory, memory.view(6) as target:
        done: list[int] = []
        thread = threading.Thread(target=lambda: done.append(os.preadv(file, [target, blocker.map], 0)))
        thread.start()
        blocker.wait()
        early, landed = memory.reported(), memory.changed()
        blocker.release()
        thread.join()
        assert done == [2 * PAGE_SIZE]
        require(not landed, "the file system serves O_DIRECT from the page cache")
        assert early == {6}
        memory.expect_unseen({6}, BlindSpot.DMA)
