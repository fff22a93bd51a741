"""The thread behind a writer: in order, and never waited for in vain."""

from __future__ import annotations

import threading

import pytest

from dirtytrack._lifetime.background import Background

pytestmark = pytest.mark.anywhere


def test_acts_are_done_in_order_by_one_thread():
    """Whoever puts them; drain waits for what was put before it."""
    background, done = Background("test"), []
    for number in range(100):
        background.put(lambda number=number: done.append((number, threading.current_thread().name)))
    background.drain()
    assert done == [(number, "test") for number in range(100)]
    background.stop()


def test_stop_does_what_was_put_and_ends_the_thread():
    """It can be repeated, and nothing waits for a thread that has ended."""
    background, done = Background("test to stop"), []
    background.put(lambda: done.append(1))
    for _ in range(2):
        background.stop()
        background.drain()
    assert done == [1]
    assert "test to stop" not in {thread.name for thread in threading.enumerate()}


def test_it_knows_itself():
    """It is current within its own acts alone."""
    background, seen = Background("test"), []
    background.put(lambda: seen.append(background.is_current))
    background.stop()
    assert seen == [True]
    assert not background.is_current
