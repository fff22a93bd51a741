"""Trees of states: branches, what they cost, and what is refused."""

from __future__ import annotations

import random

import numpy as np
import pytest

import dirtytrack
from _lib.raw import Raw
from _lib.support import PAGE_SIZE
from dirtytrack import RegionLostError, Session
from dirtytrack.snapshot import History

PAGES = 64 * 64 + 100  # so that the tree has three levels


@pytest.fixture
def array():
    """So many pages, each with its number."""
    array = dirtytrack.empty((PAGES, PAGE_SIZE // 8), np.int64)
    array[:] = np.arange(PAGES)[:, None]
    return array


@pytest.fixture
def history(array):
    """Of the array, in a session of its own."""
    with Session() as session, History(session, array) as history:
        yield history


def test_branches(history, array):
    """Any state from any other; parents are where memory was."""
    draw, states = random.Random(1), []
    for number in range(30):
        if states and number % 3 == 0:
            parent, copy = draw.choice(states)
            history.restore(parent)
            assert (array == copy).all()
            assert history.current is parent
        parent = history.current
        array[draw.sample(range(PAGES), 20)] += 1
        state = history.save()
        assert state.parent is parent
        states.append((state, array.copy()))
    assert list(history.states) == [state for state, _ in states]
    draw.shuffle(states)
    for state, copy in states:
        history.restore(state)
        assert (array == copy).all()


def test_it_costs_what_differs(history, array):
    """A save keeps the pages that are new; a restore writes those that differ, however long the way."""
    first = history.save()
    whole = history.nbytes
    assert whole >= (PAGES - 1) * PAGE_SIZE  # the first page is zeros
    for _ in range(100):  # the same ten pages again and again
        array[100:110] += 1
        history.save()
    assert history.nbytes - whole < 100 * (10 * PAGE_SIZE + 4096)
    assert history.restore(first) == 10
    assert history.restore(history.states[-1]) == 10
    assert history.restore(history.states[-1]) == 0
    array[500] += 0  # written, and as it was
    assert history.restore(history.states[-1]) == 1
    before = history.nbytes
    array[500] += 0
    history.save()
    assert history.nbytes == before  # nothing is new in it


def test_dropped_states_are_freed(history, array):
    """What no other state needs; in the end what memory is compared with, and no more."""
    states = [history.save()]
    for number in range(10):
        array[number * 100 : number * 100 + 50] = -1 - number
        states.append(history.save())
    full = history.nbytes
    for state in states[1:-1]:
        history.drop(state)
    assert full - 9 * 50 * PAGE_SIZE - 100_000 < history.nbytes <= full
    history.drop(states[0])
    assert history.nbytes < full - 450 * PAGE_SIZE
    assert history.restore(states[-1]) == 0
    array[:] = 0
    zeros = history.save()
    history.drop(states[-1])
    assert history.nbytes < PAGES * 16  # nodes
    array[:] = 1
    history.restore(zeros)
    assert not array.any()
    assert repr(states[0]).endswith("dropped>")
    assert "1 states" in repr(history)


def test_states_that_can_not_be_restored(history, array):
    """Of another history, dropped, or none at all: refused, and memory is as it was."""
    array[0] = 5
    state = history.save()
    array[0] = 6
    with History(None, history.regions[0]) as other:
        foreign = other.save()
        for act in (history.restore, history.drop):
            with pytest.raises(ValueError, match="another history"):
                act(foreign)
            with pytest.raises(TypeError, match="what save"):
                act(1)
    assert foreign.dropped
    history.drop(state)
    for act in (history.restore, history.drop):
        with pytest.raises(ValueError, match="was dropped"):
            act(state)
    assert history.current is None
    assert history.save().parent is None
    assert (array[0] == 6).all()


def test_an_identifier_is_used_again_by_another_state(history, array):
    """A state that was dropped does not come back to life."""
    first = history.save()
    history.drop(first)
    second = history.save()
    assert first.dropped
    assert not second.dropped
    assert second.number == 2
    with pytest.raises(ValueError, match="state 1 was dropped"):
        history.restore(first)


def test_lost_memory_on_the_way_back():
    """Told, as by any look."""
    with Raw(8) as memory, Session() as session:
        history = History(session, memory.pair)
        state = history.save()
        memory.write(1)
        memory.map_over(1, 2)
        with pytest.raises(RegionLostError):
            history.restore(state)
        history.close()
