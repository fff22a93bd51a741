"""The thread behind a writer: in order, and never waited for in vain."""

from __future__ import annotations

import threading

import pytest

from _lib.interrupts import at_every_point, interrupted_at, traced
from dirtytrack._lifetime.background import Background

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


def test_it_knows_itself():
    """It is current within its own acts alone."""
    background, seen = Background("test"), []
    background.start()
    background.put(lambda: seen.append(background.is_current))
    background.stop()
    assert seen == [True]
    assert not background.is_current


@traced
def test_what_was_started_halfway_can_be_stopped():
    """Whatever an interrupt left of the start, no thread stays."""
    ones = []

    def act(count):
        ones[:] = [Background("test of a start")]
        with interrupted_at(count, among=lambda frame: frame.f_code.co_name == "start"):
            ones[0].start()
        ones[0].stop()

    def check():
        ones[0].stop()
        for thread in threading.enumerate():
            if thread.name == "test of a start" and thread.ident:
                thread.join()

    at_every_point(act, check)
    names = [thread.name for thread in threading.enumerate() if thread.ident]
    assert "test of a start" not in names
