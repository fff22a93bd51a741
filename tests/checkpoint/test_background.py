"""The thread behind a writer: in order, and never waited for in vain."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from _lib.interrupts import Storm, at_every_point, interrupted_at, traced
from _lib.support import in_child
from dirtytrack._lifetime import background as background_module
from dirtytrack._lifetime.background import Background, others_run
from dirtytrack.native import ffi

pytestmark = pytest.mark.anywhere


def test_acts_are_done_in_order_by_one_thread():
    """Whoever puts them; drain waits for what was put before it."""
    background, done = Background("test"), []
    background.start()
    for number in range(100):
        background.put(lambda number=number: done.append((number, threading.current_thread().name)))
    background.drain()
    assert done == [(number, "test") for number in range(100)]
    background.stop()


def test_stop_does_what_was_put_and_ends_the_thread():
    """It can be repeated, and nothing waits for a thread that has ended."""
    background, done = Background("test to stop"), []
    background.start()
    background.put(lambda: done.append(1))
    for _ in range(2):
        background.stop()
        background.drain()
    assert done == [1]
    assert "test to stop" not in {thread.name for thread in threading.enumerate()}


def test_who_else_runs():
    """The library's own threads do not count, nor does the one that asks."""
    background, seen = Background("test"), []
    background.start()
    assert not others_run()
    background.put(lambda: seen.append(others_run()))  # beside the main thread
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    assert others_run()
    stop.set()
    other.join()
    assert not others_run()
    background.stop()
    assert seen == [True]


def test_it_knows_itself():
    """It is current within its own acts alone."""
    background, seen = Background("test"), []
    background.start()
    background.put(lambda: seen.append(background.is_current))
    background.stop()
    assert seen == [True]
    assert not background.is_current


def test_who_wakes_it_goes_on():
    """It takes no processor from others when it wakes; nobody else is told to."""
    background, seen = Background("test"), []
    policy = os.sched_getscheduler(0)
    background.start()
    background.put(lambda: seen.append(os.sched_getscheduler(0)))
    background.stop()
    assert seen == [os.SCHED_BATCH if policy == os.SCHED_OTHER else policy]
    assert os.sched_getscheduler(0) == policy


def test_an_errand_is_done_without_the_gil():
    """By a thread that is idle, and before the act that it came with."""
    background, errand, seen = Background("test"), ffi.new("struct dt_errand *"), []
    background.start()
    while not background.is_idle:
        time.sleep(0)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        background.put(lambda: seen.append(errand.is_done), errand)
        while not errand.is_done:  # nobody asks for the GIL, which this thread keeps
            assert not seen
    finally:
        sys.setswitchinterval(interval)
    background.stop()
    assert seen == [True]


def test_who_is_busy_does_no_errand():
    """It may need what comes before it: its act sees to it then."""
    background, errand, seen = Background("test"), ffi.new("struct dt_errand *"), []
    background.start()
    gate = threading.Event()
    background.put(gate.wait)
    assert not background.is_idle
    background.put(lambda: seen.append(errand.is_done), errand)
    gate.set()
    background.drain()
    background.stop()
    assert seen == [False]


def test_a_thread_that_ends_before_it_begins_is_not_waited_for(monkeypatch):
    """As one does for which there is no memory: it is an error, and there is nothing to stop."""
    monkeypatch.setattr(background_module, "_START_SECONDS", 0.01)
    monkeypatch.setattr(background_module._thread, "start_new_thread", lambda *_: 1)
    background = Background("test")
    with pytest.raises(RuntimeError, match="no more threads"):
        background.start()
    background.drain()
    background.stop()


@traced
def test_what_was_started_halfway_can_be_stopped():
    """Whatever an interrupt left of the start, no thread stays."""
    ones = []

    def act(count):
        ones.clear()
        with interrupted_at(count):
            ones.append(Background("test of a start"))
            ones[0].start()
        ones[0].stop()

    def check():
        for one in ones:
            one.stop()
        assert "test of a start" not in {thread.name for thread in threading.enumerate()}

    at_every_point(act, check)
    check()


@pytest.mark.slow
def test_a_storm_of_interrupts_tears_no_start():
    """What comes out is the interrupt, and nothing that it has broken; it can be stopped."""

    def child():
        storm, ones = Storm(1, 3), []

        def act():
            ones.append(Background("test of a storm"))
            ones[-1].start()

        while storm.struck < 300:
            storm.round(act)
            while ones:
                ones.pop().stop()
        return [thread.name for thread in threading.enumerate()]

    assert "test of a storm" not in in_child(child).check()
