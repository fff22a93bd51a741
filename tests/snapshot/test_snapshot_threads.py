"""Threads that write while pages are put back, and threads that ask at once."""

from __future__ import annotations

import ctypes
import threading
import warnings

import numpy as np
import pytest

import dirtytrack
from _lib.support import PAGE_SIZE, in_child
from dirtytrack import ForkedError, Session
from dirtytrack.snapshot import History, Snapshot


def test_a_writer_beside_rollbacks():
    """What they write is put back, or it stays: then it is in the next diff, or else verify finds it."""
    array = dirtytrack.empty((2000, PAGE_SIZE // 8), np.int64)
    with Session() as session, Snapshot(session, array) as snapshot:
        other, pages = session.cursor("other"), np.random.default_rng(1).permutation(len(array)).tolist()

        def write(begun: threading.Event) -> None:
            for number, page in enumerate(pages):
                ctypes.memset(array.ctypes.data + page * PAGE_SIZE + 40, 1, 1)  # without the GIL
                if number == 100:
                    begun.set()

        for _ in range(20):
            begun = threading.Event()
            thread = threading.Thread(target=write, args=(begun,))
            thread.start()
            begun.wait()
            while thread.is_alive():
                snapshot.rollback()
            thread.join()
            left = np.flatnonzero(array[:, 5])
            found = [snapshot.diff(), snapshot.verify()]
            starts = sorted(one.start for diff in found for one in diff)
            assert starts == [page * PAGE_SIZE + 40 for page in left.tolist()]
            for one in found[1]:  # the page was open before the store was done
                session.mark(snapshot.regions[0], one.start, one.stop)
            assert snapshot.rollback() == len(left)
            assert not array.any()
            assert set(other.collect()[snapshot.regions[0]]) == set(range(len(array)))


def test_all_methods_at_once():
    """Of a number that only grows: what is after is more than what is before, and nothing is missed."""
    array = dirtytrack.empty(3 * PAGE_SIZE // 8, np.int64)
    with Session() as session, Snapshot(session, array) as snapshot:
        stop, errors = threading.Event(), []

        def work(act) -> None:
            try:
                while not stop.is_set():
                    act()
            except BaseException as error:
                errors.append(error)

        def grows() -> None:
            for one in snapshot.diff(gap=7):
                assert 8 * 700 <= one.start < one.stop <= 8 * 701
                assert int.from_bytes(one.before, "little") < int.from_bytes(one.after, "little")

        def verify() -> None:
            assert len(snapshot.verify()) == 0

        threads = [threading.Thread(target=work, args=(act,)) for act in (grows, snapshot.advance, verify)]
        for thread in threads:
            thread.start()
        for number in range(20_000):
            array[700] = number
        stop.set()
        for thread in threads:
            thread.join()
        assert not errors
        snapshot.advance()
        array[700] = -1
        snapshot.rollback()
        assert array[700] == 19_999


@pytest.mark.parametrize("kind", [Snapshot, History])
def test_a_fork_in_the_middle_of_a_call(kind):
    """The child is refused at once, though the thread that holds the lock is not there."""
    with Session() as session, kind(session, bytearray(10)) as one:
        holds, done = threading.Event(), threading.Event()

        def hold():
            with one._mutex:
                holds.set()
                done.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        holds.wait()

        def child():
            with pytest.raises(ForkedError, match="another process"):
                one.advance() if kind is Snapshot else one.save()
            one.close()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = in_child(child)
        done.set()
        thread.join()
        child.check()
