"""Ctrl-C at every point: what is done next is right, whatever was interrupted."""

from __future__ import annotations

import gc
import random

import numpy as np
import pytest

import dirtytrack
from _lib.interrupts import Storm, at_every_point, interrupted_at, traced
from _lib.support import PAGE_SIZE, in_child
from _lib.tracked import open_cursors
from dirtytrack import Session
from dirtytrack.snapshot import History, Snapshot


@traced
@pytest.mark.parametrize("verb", ["diff", "rollback", "advance", "verify"])
def test_an_interrupted_snapshot_goes_on(verb):
    """A rollback after it brings memory to the copy: that of before, or after an advance that of then."""
    array = dirtytrack.empty((16, 512), np.int64)
    with Session() as session, Snapshot(session, array) as snapshot:
        states = [array.copy()]

        def act(count):
            array[count % 16] += 1
            states.append(array.copy())
            with interrupted_at(count):
                getattr(snapshot, verb)()

        def check():
            assert len(snapshot.verify()) == 0
            array[3, 5] += 1
            snapshot.rollback()
            assert any((array == state).all() for state in (states[0], states[-1]))
            states[:] = [array.copy()]

        at_every_point(act, check)


@traced
def test_an_interrupted_diff_that_advances_advances_nothing():
    """What it would have said is in the next one."""
    array = dirtytrack.empty((16, 512), np.int64)
    replica = np.zeros_like(array)
    with Session() as session, Snapshot(session, array) as snapshot:
        found = []

        def act(count):
            array[count % 16] += 1
            with interrupted_at(count):
                found.append(snapshot.diff(advance=True))

        def check():
            found.append(snapshot.diff(advance=True))
            for one in found:
                one.apply(replica, check=True)
            found.clear()
            assert (replica == array).all()

        at_every_point(act, check)


@traced
@pytest.mark.parametrize("verb", ["save", "restore", "drop", "diff"])
def test_an_interrupted_history_goes_on(verb):
    """Every state that it has is the right one, and so is the next one."""
    array = dirtytrack.empty((16, 512), np.int64)
    with Session() as session, History(session, array) as history:
        copies = {}

        def save():
            copies[len(copies) + 1] = None
            state = history.save()
            copies[state.number] = array.copy()
            return state

        first = save()

        def act(count):
            array[count % 16] += 1
            other = save() if verb != "save" else None
            array[(count + 5) % 16] += 1
            now = array.copy()
            known = {state.number for state in history.states}
            try:
                with interrupted_at(count):
                    if verb == "save":
                        history.save()
                    elif verb == "restore":
                        history.restore(first)
                    elif verb == "drop":
                        history.drop(other)
                    else:
                        history.diff(first, other)
            finally:
                for state in history.states:
                    if state.number not in known:
                        copies[state.number] = now

        def check():
            array[3, 5] += 1
            for state in history.states:
                history.restore(state)
                assert (array == copies[state.number]).all()
                if state is not first:
                    history.drop(state)
            array[7] += 1
            copy = array.copy()
            state = history.save()
            copies[state.number] = copy
            history.restore(first)
            history.restore(state)
            assert (array == copy).all()
            history.drop(state)

        at_every_point(act, check)


@traced
def test_an_interrupted_save_drops_no_more_than_it_has_to():
    """The newest states are there, and right; the next save is within the limit again."""
    array = dirtytrack.empty((16, 512), np.int64)
    array[:] = 1
    with Session() as session, History(session, array, max_nbytes=array.nbytes + 6 * 4500) as history:
        copies = {}

        def save():
            array[len(copies) % 16] += 1
            copies[len(copies) + 1] = array.copy()
            try:
                history.save()
            finally:
                if history.current is None or history.current.number != len(copies):
                    copies.popitem()

        def act(count):
            with interrupted_at(count):
                save()

        def check():
            states = history.states
            assert [state.number for state in states] == list(
                range(len(copies) - len(states) + 1, len(copies) + 1)
            )
            assert len(states) >= min(5, len(copies))
            for state in states:
                history.restore(state)
                assert (array == copies[state.number]).all()
            save()
            assert history.nbytes <= array.nbytes + 6 * 4500

        at_every_point(act, check)


@pytest.mark.slow
def test_a_storm_of_interrupts():
    """Strikes anywhere, hundreds of times: in the end every state is right."""

    def child():
        storm, draw = Storm(1, 2), random.Random(1)
        array = dirtytrack.empty((64, 512), np.int64)
        with Session() as session, History(session, array) as history, Snapshot(session, array) as snapshot:
            first, pristine = history.save(), array.copy()

            def work():
                array[draw.randrange(64)] += 1
                state = history.save()
                snapshot.diff()
                history.restore(first)
                history.drop(state)

            while storm.struck < 300:
                for _ in range(20):
                    storm.round(work)
                history.restore(first)
                assert (array == pristine).all()
                snapshot.rollback()
                assert (array == pristine).all()
                for state in history.states[1:]:
                    history.drop(state)

    in_child(child).check()


@traced
@pytest.mark.parametrize("kind", [Snapshot, History])
def test_an_interrupted_close_is_finished_by_another(kind):
    """Nothing stays tracked, and once it is forgotten nobody holds the memory."""
    memory, ones = bytearray(3 * PAGE_SIZE), []
    with Session() as session:

        def act(count):
            ones[:] = [kind(session, memory)]
            with interrupted_at(count):
                ones[0].close()

        def check():
            ones[0].close()
            assert (session.regions, open_cursors(session)) == ((), 1)

        at_every_point(act, check)
        ones.clear()
        gc.collect()
        memory.clear()
