"""Trees of states: branches, what they cost, and what is refused."""

from __future__ import annotations

import gc
import random

import numpy as np
import pytest

import dirtytrack
from _lib.raw import Raw
from _lib.support import PAGE_SIZE
from dirtytrack import DiffError, RegionLostError, Session
from dirtytrack.snapshot import History, State

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


def test_what_differs_between_states(history, array):
    """To the byte, whatever memory is; with a gap over pages in which nothing differs."""
    one = history.save()
    array[5, 7], array[9, 0] = -1, 3
    two = history.save()
    array[:] = 0
    found = history.diff(one, two)
    assert [(change.start // PAGE_SIZE, change.start % PAGE_SIZE) for change in found] == [(5, 7 * 8), (9, 0)]
    assert found.invert() == history.diff(two, one)
    assert not history.diff(two, two)
    joined = history.diff(one, two, gap=4 * PAGE_SIZE)
    assert len(joined) == 1
    history.restore(one)
    found.apply(array, check=True)
    assert not history.diff(history.save(), two)
    history.restore(one)
    joined.apply(array, check=True)
    assert not history.diff(history.save(), two)
    with pytest.raises(DiffError, match="raise max_nbytes"):
        history.diff(one, two, max_nbytes=64)
    with pytest.raises(TypeError, match="what save"):
        history.diff(one, 1)
    history.drop(two)
    for pair in ((one, two), (two, one)):
        with pytest.raises(ValueError, match="state 2 was dropped"):
            history.diff(*pair)


def test_the_oldest_give_way(array):
    """With a limit as many as have to; the newest stays, and what is left can be restored."""
    whole = array.nbytes
    with Session() as session, History(session, array, max_nbytes=whole + 300 * PAGE_SIZE) as history:
        states, copies = [], []
        for number in range(30):
            array[number * 20 : number * 20 + 20] = -number
            states.append(history.save())
            copies.append(array.copy())
            assert history.nbytes <= whole + 300 * PAGE_SIZE
        left = history.states
        assert left == tuple(states[-len(left) :])
        assert 12 <= len(left) <= 16  # each has 20 pages of its own, and the nodes above them
        assert (states[0].dropped, left[0].dropped, left[0].parent) == (True, False, None)
        assert repr(history) == f"<dirtytrack.snapshot.History: {len(left)} states>"
        assert repr(states[0]).endswith("dropped>")
        with pytest.raises(ValueError, match="state 1 was dropped, or gave way to newer ones"):
            history.restore(states[0])
        for state, copy in zip(left, copies[-len(left) :], strict=True):
            history.restore(state)
            assert (array == copy).all()


def test_a_limit_that_is_less_than_memory(array):
    """One state is kept, the newest; a limit has to be a number of bytes."""
    with Session() as session, History(session, array, max_nbytes=0) as history:
        for _ in range(3):
            array[0] += 1
            state = history.save()
            assert history.states == (state,)
        array[0] = 9
        history.restore(state)
        assert (array[0] == 3).all()
        for wrong, error in ((-1, ValueError), ("much", TypeError)):
            with pytest.raises(error):
                History(session, array, max_nbytes=wrong)


def test_many_states_keep_nothing_of_those_before(array):
    """What Python and the library know of states is bounded by those that there are."""
    with Session() as session, History(session, array, max_nbytes=0) as history:
        for number in range(500):
            array[number % 7] += 1
            history.save()
        gc.collect()
        known = [one for one in gc.get_objects() if isinstance(one, State) and one.history is history]
        assert [state.number for state in known] == [500]
        assert history.states == (known[0],)


def test_a_node_takes_four_bytes_a_child(history, array):
    """A save of a page takes the page, and a node on each of three levels."""
    history.save()
    before = history.nbytes
    array[100] += 1
    history.save()
    assert history.nbytes - before == PAGE_SIZE + 8 + 3 * (64 * 4 + 8)


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
