"""One call at a time, whatever ends one."""

from __future__ import annotations

import threading

import pytest

from dirtytrack._lifetime.turns import in_turn

pytestmark = pytest.mark.anywhere


class Tally:
    """Its calls count those that are in at once."""

    def __init__(self):
        self._mutex = threading.RLock()
        self._in_turn = self._is_ending = False
        self.ends = 0
        self.inside = self.most = self.calls = 0

    def _end(self):
        assert self.inside == 0
        self._is_ending = False
        self.ends += 1

    @in_turn
    def end(self):
        """Ends itself, if not within another call then when that is done."""
        self._is_ending = True

    @in_turn
    def add(self, act=lambda: None):
        """Counts itself in and out, and calls *act* between."""
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            return act()
        finally:
            self.inside -= 1
            self.calls += 1


def test_threads_take_turns():
    """Never two at once, and none is left out."""
    tally = Tally()
    threads = [threading.Thread(target=lambda: [tally.add() for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tally.most, tally.calls) == (1, 8000)


def test_a_call_within_a_call_is_done_at_once():
    """And the outer one goes on."""
    tally = Tally()
    assert tally.add(lambda: tally.add(lambda: tally.most)) == 2
    assert (tally.calls, tally.inside) == (2, 0)


def test_an_end_within_a_call_waits_for_the_outermost_one():
    """It is done once."""
    tally = Tally()
    tally.add(lambda: tally.add(tally.end))
    assert tally.ends == 1
    tally.end()
    assert tally.ends == 2


def test_an_exception_leaves_it_free():
    """For this thread and for others."""
    tally = Tally()

    def strike():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tally.add(strike)
    thread = threading.Thread(target=tally.add)
    thread.start()
    thread.join()
    assert tally.calls == 2
