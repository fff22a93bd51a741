"""Threads that write while pages are put back, and threads that ask at once."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest

import dirtytrack
from _lib.snapshot.hammer import hammering
from _lib.support import PAGE_SIZE, address_of, in_child
from dirtytrack import ForkedError, Session
from dirtytrack.snapshot import History, Snapshot

ROUNDS = 150


@pytest.mark.parametrize("kind", [Snapshot, History])
@pytest.mark.parametrize("how", ["wp-async", "adaptive", "compare"])
@pytest.mark.parametrize("pages", [16, 200])
def test_a_writer_beside_rollbacks(kind, how, pages):
    """Each store is undone, or stays and is pending: what differs in the end was reported, always."""
    memory = dirtytrack.alloc((pages + 1) * PAGE_SIZE)
    before = bytes(memory)
    backend = "compare" if how == "compare" else "wp-async"
    with Session(backend=backend, adaptive=how == "adaptive") as session, kind(session, memory) as one:
        state = one.save() if kind is History else None
        back = (lambda: one.restore(state)) if kind is History else one.rollback
        other = session.cursor("other")
        for _ in range(ROUNDS if how != "compare" else ROUNDS // 10):
            with hammering(address_of(memory), pages):
                for _ in range(3):
                    back()
            left = {page for page in range(pages) if memory[page * PAGE_SIZE + 7]}
            pending = one._consumer.peek().page_set(0, one.regions[0].geometry)
            assert left <= set(pending)
            assert left <= set(other.collect()[one.regions[0]])
            back()
            assert bytes(memory) == before


def test_a_writer_beside_diffs_that_advance():
    """All diffs, one after the other, make of the first contents the last ones."""
    pages = 100
    memory = dirtytrack.alloc((pages + 1) * PAGE_SIZE)
    replica = bytearray(len(memory))
    with Session() as session, Snapshot(session, memory) as snapshot:
        for _ in range(ROUNDS // 3):
            with hammering(address_of(memory), pages):
                for _ in range(5):
                    snapshot.diff(advance=True).apply(replica, check=True)
            snapshot.diff(advance=True).apply(replica, check=True)
            assert bytes(memory) == replica
            assert not snapshot.diff()
            assert not snapshot.verify()


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
