"""A session that stops threads: scan and copy of a save are of one instant, and a base stops nobody."""

from __future__ import annotations

import numpy as np
import pytest

import dirtytrack
from _lib.checkpoint.world import BLOCK
from _lib.native_threads import NativeThread
from _lib.support import PAGE_SIZE
from _lib.syscalls import mprotect
from dirtytrack import KernelError, Session
from dirtytrack.checkpoint import Chain, Checkpointer

PAGES = 64
PATIENT = 30.0  # seconds in which every thread stops, however busy the machine is


@pytest.fixture
def array():
    """Page-aligned memory of PAGES pages."""
    return dirtytrack.empty(PAGES * PAGE_SIZE, np.uint8)


@pytest.fixture(params=["wp-async", "compare"])
def session(request):
    """A session of each backend that waits as long as it takes."""
    with Session(backend=request.param, stop_threads=True, stop_timeout=PATIENT) as session:
        yield session


def gap(state):
    """By how much the last page is ahead of the first one: 0 or 1 at every instant."""
    words = np.frombuffer(state, np.int64)
    return int(words[(PAGES - 1) * PAGE_SIZE // 8] - words[0])


def test_a_save_is_of_one_instant(tmp_path, array, session):
    """A thread stores a number to the last page, then to the first one, then the next number."""
    saves = []
    with (
        NativeThread("write a pair", array) as writer,
        Checkpointer(tmp_path, {"a": array}, session=session) as checkpoints,
    ):
        for _ in range(40):
            saves.append(checkpoints.save())
            writer.go_on(3)
    assert {(save.consistency, save.unstopped, save.rounds) for save in saves[1:]} == {("stopped", (), 1)}
    with Chain(tmp_path) as chain:
        for save in saves[1:]:
            assert (chain[save.number].consistency, chain[save.number].consistent) == ("stopped", True)
            assert gap(chain.read("a", at=save.number)) in (0, 1)


def test_without_it_the_same_thread_is_caught_in_the_middle(tmp_path, array):
    """The writer is fast enough to show a copy that is not of one instant."""
    with (
        NativeThread("write a pair", array) as writer,
        Session() as session,
        Checkpointer(tmp_path, {"a": array}, session=session) as checkpoints,
    ):
        while checkpoints.save().consistency == "proven":
            writer.go_on(3)


def test_a_base_stops_nobody(tmp_path, array, session):
    """Neither for its scan, nor for what was written beside it."""
    with (
        NativeThread("poll") as waiting,
        NativeThread("write a pair", array) as writer,
        Checkpointer(tmp_path, {"a": array}, session=session) as checkpoints,
    ):
        writer.go_on()
        base = checkpoints.save()
        assert base.consistency in ("proven", "unproven")
        assert (base.unstopped, waiting.interrupted) == ((), 0)
        writer.go_on()
        assert checkpoints.save(wait=True).consistency == "stopped"


def test_a_copy_that_does_not_fit(tmp_path, array, session):
    """Threads are stopped for the scan alone; what is said of the copy is what is said without."""
    expected = "proven" if session.backend == "wp-async" else "unproven"
    with Checkpointer(tmp_path, {"a": array}, session=session, staging_bytes=8 * BLOCK) as checkpoints:
        checkpoints.save()
        array[:] = 7
        save = checkpoints.save(wait=True)
        assert (save.consistency, save.unstopped) == (expected, ())
        array[PAGE_SIZE] = 8
        assert checkpoints.save(wait=True).consistency == "stopped"
    with Chain(tmp_path) as chain:
        assert chain.read("a", at=save.number) == bytes([7]) * array.nbytes
        assert chain.read("a") == bytes(array)


@pytest.mark.parametrize("way", ["wp-async", "compare"])
def test_a_thread_that_is_not_stopped_is_named(tmp_path, array, way):
    """And the save is what it is without stopping."""
    with (
        NativeThread("block signals") as thread,
        Session(backend=way, stop_threads=True, stop_timeout=0.05) as session,
        Checkpointer(tmp_path, {"a": array}, session=session) as checkpoints,
    ):
        checkpoints.save()
        thread.go_on(0 if thread.done else 1)
        array[0] = 1
        save = checkpoints.save(wait=True)
        assert thread.id in save.unstopped
        assert save.consistency == ("proven" if way == "wp-async" else "unproven")
        assert checkpoints.save(pause=NativeThread("compute"), wait=True).consistency == "paused"


def test_under_a_pause_of_the_callers(tmp_path, array, session):
    """It is both; stopped says more. The copying before the pause stops nobody."""
    with (
        NativeThread("write a pair", array),
        Checkpointer(tmp_path, {"a": array}, session=session, max_pause=10.0) as checkpoints,
    ):
        checkpoints.save()
        save = checkpoints.save(pause=NativeThread("compute"), wait=True)
        assert (save.consistency, save.unstopped) == ("stopped", ())


def test_the_writer_behind_it_is_not_stopped(tmp_path, array, session):
    """Saves as fast as they can be made, while what was captured before is written: all are committed."""
    with Checkpointer(
        tmp_path, {"a": array}, session=session, staging_bytes=128 * BLOCK, keep=2
    ) as checkpoints:
        for number in range(60):
            array[:] = number
            save = checkpoints.save()
        checkpoints.flush()
        assert save.state == "committed"
    with Chain(tmp_path) as chain:
        assert chain.read("a") == bytes(array)


def test_what_can_not_be_read_is_an_error_and_not_lost(tmp_path):
    """The copy fails while threads are stopped: they go on, and the next save has it."""
    array = dirtytrack.empty(PAGES * PAGE_SIZE, np.uint8)
    address = array.ctypes.data
    with (
        NativeThread("compute") as thread,
        Session(stop_threads=True, stop_timeout=PATIENT) as session,
        Checkpointer(tmp_path, {"a": array}, session=session) as checkpoints,
    ):
        checkpoints.save()
        array[5 * PAGE_SIZE] = 5
        mprotect(address + 5 * PAGE_SIZE, PAGE_SIZE, 0)
        try:
            with pytest.raises(KernelError, match="'a'"):
                checkpoints.save()
        finally:
            mprotect(address + 5 * PAGE_SIZE, PAGE_SIZE, 3)
        thread.go_on()
        assert checkpoints.save(wait=True).consistency == "stopped"
    with Chain(tmp_path) as chain:
        assert chain.read("a") == bytes(array)
