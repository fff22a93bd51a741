"""A save is waited for by itself, tells who asked, and may be retained."""

from __future__ import annotations

import errno
import logging
import threading
from contextlib import contextmanager, suppress
from queue import SimpleQueue

import numpy as np
import pytest

import dirtytrack
from _lib.checkpoint.intercept import COMMITTER, Fault, Gate, by, intercepted
from _lib.support import in_child
from dirtytrack import CheckpointError, ForkedError
from dirtytrack.checkpoint import Chain, Checkpointer

BLOCK = 4096


@contextmanager
def armed(gate):
    """While the block runs, the writer stands before the gate."""
    gate.arm()
    with intercepted(gate):
        try:
            yield
        finally:
            gate.open()


@pytest.fixture
def array():
    array = dirtytrack.empty(20 * BLOCK, np.uint8)
    array[:] = 1
    return array


def _save(checkpoints, array, **keywords):
    array[:1] += 1
    return checkpoints.save(**keywords)


def test_waiting_for_one(place, array):
    """It is committed when that returns, and asking again is no matter."""
    with Checkpointer(place, {"a": array}) as checkpoints:
        save = _save(checkpoints, array)
        save.wait()
        assert (save.done, save.state) == (True, "committed")
        save.wait(0)
    save.wait()


def test_a_disk_that_takes_long(tmp_path, array):
    """A TimeoutError, and then a commit; other threads may wait, too."""
    gate = Gate(by(COMMITTER))
    with Checkpointer(tmp_path, {"a": array}) as checkpoints:
        _save(checkpoints, array, wait=True)
        with armed(gate):
            save = _save(checkpoints, array)
            with pytest.raises(TimeoutError, match="is not done"):
                save.wait(0.01)
            assert not save.done
            thread = threading.Thread(target=save.wait)
            thread.start()
            gate.open()
            thread.join()
        assert save.state == "committed"


def test_a_failure_is_told_to_who_waits_and_not_again(tmp_path, array):
    """A failed write is an answer, not a surprise at the next save; who did not ask is told there."""
    with Checkpointer(tmp_path, {"a": array}) as checkpoints:
        _save(checkpoints, array, wait=True)
        with intercepted(Fault(1, errno.ENOSPC, counts=by(COMMITTER))):
            save = _save(checkpoints, array)
            with pytest.raises(CheckpointError) as told:
                save.wait()
        assert (told.value.errno, told.value.checkpoints, save.state) == (errno.ENOSPC, (2,), "failed")
        with pytest.raises(CheckpointError):
            save.wait(0)
        later = checkpoints.save(wait=True)  # nothing is told here
        assert later.blocks_stored == 1
        with intercepted(Fault(1, errno.EIO, counts=by(COMMITTER))):
            save = _save(checkpoints, array)
            told_at = SimpleQueue()
            save.add_done_callback(told_at.put)
            assert told_at.get() is save
        with pytest.raises(CheckpointError):
            checkpoints.save()
        checkpoints.save(wait=True)


def test_callbacks_come_in_order(place, array):
    """Of each save its own, by whatever thread, once, with what is in the file."""
    told = []
    with Checkpointer(place, {"a": array}) as checkpoints:
        saves = [_save(checkpoints, array) for _ in range(10)]
        for save in saves:
            save.add_done_callback(lambda one: told.append((one, one.state, one.nbytes is None)))
        checkpoints.flush()
        assert told[:10] != []
        late = []
        saves[0].add_done_callback(late.append)
        assert late == [saves[0]]
    assert sorted(told, key=lambda one: one[0].number) == [(save, "committed", False) for save in saves]


def test_a_callback_that_raises_is_logged(place, array, caplog):
    """And nothing else comes of it."""
    with caplog.at_level(logging.ERROR), Checkpointer(place, {"a": array}) as checkpoints:
        save = _save(checkpoints, array)
        save.add_done_callback(lambda one: 1 / 0)
        told = []
        save.add_done_callback(told.append)
        checkpoints.flush()
        _save(checkpoints, array, wait=True)
    assert told == [save]
    assert "a callback of checkpoint 1 failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    with pytest.raises(TypeError, match="callback"):
        save.add_done_callback(5)


def test_what_a_callback_can_not_do(tmp_path, array):
    """It is told so instead of waiting for itself."""
    errors = []

    def callback(save):
        for call in (checkpoints.save, checkpoints.flush, later[0].wait):
            try:
                call()
            except RuntimeError as error:
                errors.append(str(error))

    gate, later = Gate(by(COMMITTER)), []
    with Checkpointer(tmp_path, {"a": array}) as checkpoints:
        _save(checkpoints, array, wait=True)
        with armed(gate):
            save = _save(checkpoints, array)
            save.add_done_callback(callback)
            later.append(_save(checkpoints, array))
            gate.open()
            later[0].wait()
    assert len(errors) == 3
    assert all("thread that" in error for error in errors)


def test_in_a_forked_child(tmp_path, array):
    """What the parent writes can't be waited for; what is done is done there, too."""
    gate = Gate(by(COMMITTER))
    with Checkpointer(tmp_path, {"a": array}) as checkpoints:
        done = _save(checkpoints, array, wait=True)
        with armed(gate):
            save = _save(checkpoints, array)

            def child():
                done.wait()
                with suppress(ForkedError):
                    save.wait()
                    return False
                return True

            assert in_child(child).check()
        save.wait()


class TestRetain:
    """What keep= must not remove."""

    def test_it_stays_until_told_otherwise(self, place, array):
        """Wherever it lies in the chain, also if it is named before it is committed."""
        with Checkpointer(place, {"a": array}, keep=1) as checkpoints:
            kept = []
            for number in range(12):
                save = _save(checkpoints, array)
                if number in (2, 5):
                    kept.append((save, array.copy()))
                    checkpoints.retain([save.id for save, _ in kept])
            checkpoints.compact(wait=True)
            with Chain(place) as chain:
                assert chain.verify() == ()
                assert [one.number for one in chain if one.id in {save.id for save, _ in kept}] == [3, 6]
                for save, contents in kept:
                    assert chain.read("a", at=save.id) == contents.tobytes()
            checkpoints.retain([kept[1][0].id])
            checkpoints.compact(wait=True)
            with Chain(place) as chain:
                numbers = [one.number for one in chain]
                assert chain.verify() == ()
                assert chain.read("a", at=6) == kept[1][1].tobytes()
            checkpoints.retain([])
            checkpoints.compact(wait=True)
            with Chain(place) as chain:
                assert len(chain) < len(numbers)
                assert [one.number for one in chain] == [12]

    def test_one_that_becomes_the_base_needs_no_other(self, place, array):
        """What it stood on goes, as ever."""
        with Checkpointer(place, {"a": array}) as checkpoints:
            saves = [_save(checkpoints, array) for _ in range(4)]
            checkpoints.retain([saves[-1].id])
            checkpoints.compact(wait=True)
        with Chain(place) as chain:
            assert [one.number for one in chain] == [4]

    def test_all_since_one_stay(self, place, array):
        """Each by a file of its own, on one base."""
        with Checkpointer(place, {"a": array}, keep=1) as checkpoints:
            for number in range(14):
                save = _save(checkpoints, array)
                if number == 3:
                    checkpoints.retain([], since=save.id)
            checkpoints.compact(wait=True)
            with Chain(place) as chain:
                assert [one.number for one in chain] == [*range(4, 15)]
                assert [one.kind for one in chain] == ["base", *["delta"] * 10]
            checkpoints.retain([])
            checkpoints.compact(wait=True)
        with Chain(place) as chain:
            assert [one.number for one in chain] == [14]

    def test_from_a_callback(self, place, array):
        """Which is where a commit of all ranks is known."""
        with Checkpointer(place, {"a": array}, keep=1) as checkpoints:
            first = _save(checkpoints, array)
            first.add_done_callback(lambda save: checkpoints.retain([save.id]))
            for _ in range(8):
                _save(checkpoints, array)
            checkpoints.compact(wait=True)
        with Chain(place) as chain:
            assert first.id in {one.id for one in chain}

    def test_bad_arguments(self, place, array):
        """They are named."""
        with Checkpointer(place, {"a": array}) as checkpoints:
            for bad, error in (
                (5, TypeError),
                ("ab" * 16, TypeError),
                ([3], TypeError),
                (["ab"], ValueError),
            ):
                with pytest.raises(error):
                    checkpoints.retain(bad)
            for bad, error in ((3, TypeError), ("ab", ValueError)):
                with pytest.raises(error):
                    checkpoints.retain([], since=bad)
            checkpoints.retain(["ab" * 16], since="ab" * 16)
        with pytest.raises(dirtytrack.ClosedError):
            checkpoints.retain([])
