"""The promises in a user's words: order, abort, neighbours, rebinding, fork, threads, signals, privileges."""

from __future__ import annotations

import ctypes
import os
import signal
import threading

import numpy as np
import pytest

import dirtytrack
from _lib.support import PAGE_SIZE, in_child
from _lib.tracked import KERNELS, Tracked, session_on

_PR_SET_DUMPABLE = 4


def test_a_store_after_the_collect_is_in_the_next_epoch(session: dirtytrack.Session) -> None:
    """Each store is in the first epoch that ends after it, however often its page was reported before."""
    with Tracked(session) as memory:
        for page in (3, 3, 4, 3):
            memory.touch(page)
            memory.expect({page})


def test_an_exception_gives_the_pages_back(session: dirtytrack.Session) -> None:
    """An epoch whose block raises is aborted: the next one has its pages again, with those written since."""
    with Tracked(session) as memory:
        memory.touch(3)

        def save(epoch: dirtytrack.Epoch) -> None:
            with epoch:
                assert set(epoch[memory.region]) == {3}
                memory.touch(5)
                raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            save(session.collect())
        memory.expect({3, 5})


def test_an_interrupt_between_collect_and_block(session: dirtytrack.Session) -> None:
    """An epoch that nobody looked at gives its pages back when it dies."""
    with Tracked(session) as memory:
        memory.touch(3)
        session.collect()
        memory.expect({3})


def test_neighbours_on_a_shared_page(session: dirtytrack.Session) -> None:
    """A buffer off the page grid is reported in its own bytes, stores to its neighbours included."""
    with Tracked(session) as memory:
        session.untrack(memory.region)
        whole = memoryview(memory.map)
        region = session.track(whole[100 : PAGE_SIZE + 100])
        whole[0] = 9
        assert session.collect(region)[region].slices() == [slice(0, PAGE_SIZE - 100)]
        whole[PAGE_SIZE + 50] = 9
        assert session.collect(region)[region].slices() == [slice(PAGE_SIZE - 100, PAGE_SIZE)]
        whole[2 * PAGE_SIZE] = 9
        assert session.collect(region)[region].slices() == []
        session.untrack(region)
        whole.release()


def test_rebinding_a_name_leaves_the_old_array_tracked(session: dirtytrack.Session) -> None:
    """``w = w - g`` makes an array that nobody tracks; ``w -= g`` and ``w[:] = ...`` are writes."""
    w = dirtytrack.empty(4 * PAGE_SIZE // 8)
    g = np.ones_like(w)
    region = session.track(w)
    w = w - g
    assert session.collect().pages == 0
    w = np.asarray(region.view).view(w.dtype)
    w -= g
    assert session.collect().pages == 4
    w[:] = w - g
    assert session.collect().pages == 4


def test_a_tracked_buffer_cannot_go_away(session: dirtytrack.Session) -> None:
    """What exports a buffer can be neither closed nor resized while it is tracked, and can afterwards."""
    array = bytearray(PAGE_SIZE)
    region = session.track(array)
    with pytest.raises(BufferError):
        array.extend(b"more")
    session.untrack(region)
    array.extend(b"more")
    memory = dirtytrack.alloc(PAGE_SIZE)
    region = session.track(memory)
    with pytest.raises(BufferError):
        memory.close()
    session.untrack(region)
    memory.close()


def test_two_sessions_on_the_same_memory(session: dirtytrack.Session) -> None:
    """A second session on a page is refused with the advice to share one; the first goes on."""
    with Tracked(session) as memory, dirtytrack.Session() as second:
        with pytest.raises(dirtytrack.BusyError, match="default_session"):
            second.track(memory.map)
        memory.touch(3)
        memory.expect({3})


def test_a_forked_child_can_neither_use_nor_harm_the_session(session: dirtytrack.Session) -> None:
    """In a child every call raises ForkedError, close leaves the parent alone, and the parent goes on."""
    with Tracked(session) as memory:
        memory.touch(3)

        def child() -> list[str]:
            refused = []
            for call in (session.collect, session.peek, session.reset, lambda: session.track(bytearray(1))):
                try:
                    call()
                except dirtytrack.ForkedError:
                    refused.append("refused")
            session.close()
            return refused

        assert in_child(child).check() == ["refused"] * 4
        memory.expect({3})
        memory.touch(4)
        memory.expect({4})


def test_a_forked_child_opens_its_own_session(session: dirtytrack.Session) -> None:
    """A child tracks the memory that it inherited with a session of its own, beside the parent."""
    with Tracked(session) as memory:

        def child() -> list[int]:
            with dirtytrack.Session() as own:
                region = own.track(memory.map)
                memory.touch(6)
                return list(own.collect()[region])

        assert in_child(child).check() == [6]
        memory.touch(2)
        memory.expect({2})


def test_collecting_in_several_threads(session: dirtytrack.Session) -> None:
    """Threads that collect at the same time share out the pages: every write is in one of the epochs."""
    with Tracked(session, 64) as memory:
        found: list[set[int]] = []
        done = threading.Event()

        def collect() -> None:
            mine: set[int] = set()
            while not done.is_set():
                mine |= memory.reported()
            found.append(mine)

        threads = [threading.Thread(target=collect) for _ in range(3)]
        for thread in threads:
            thread.start()
        written = set(range(0, 64, 3))
        for page in written:
            memory.touch(page)
        done.set()
        for thread in threads:
            thread.join()
        assert set().union(*found) | memory.reported() == written


def test_a_store_in_a_signal_handler(session: dirtytrack.Session) -> None:
    """What a signal handler stores is reported like any other store."""
    with Tracked(session) as memory:
        before = signal.signal(signal.SIGUSR1, lambda *_: memory.touch(7))
        try:
            signal.raise_signal(signal.SIGUSR1)
        finally:
            signal.signal(signal.SIGUSR1, before)
        memory.expect({7})


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_plain_user_tracks(kernel: str) -> None:
    """No privilege is needed, also for what the kernel stores on behalf of a plain user."""

    def as_nobody() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
        # A process that changed its user may not look into its own /proc until it says so: prctl(2).
        assert ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0) == 0
        with (
            session_on(kernel) as session,
            Tracked(session) as memory,
            open("/dev/zero", "rb", buffering=0) as zeros,
        ):
            memory.touch(3)
            with memory.view(5) as target:
                assert zeros.readinto(target) == PAGE_SIZE
            memory.expect({3, 5})

    in_child(as_nobody).check()
