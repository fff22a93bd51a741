"""When a schedule saves, what ends it, and which checkpoints a policy keeps."""

from __future__ import annotations

import os
import random
import signal
import threading
from unittest import mock

import numpy as np
import pytest

import dirtytrack
from _lib.support import in_child
from dirtytrack.checkpoint import Chain, Checkpointer, Keep, compact, load
from dirtytrack.checkpoint import schedule as schedules

BLOCK = 4096


@pytest.fixture
def array():
    array = dirtytrack.empty(20 * BLOCK, np.uint8)
    array[:] = 1
    return array


class TestSchedule:
    def test_by_steps(self, place, array):
        """Every third call saves, with the meta of that call."""
        with Checkpointer(place, {"a": array}) as checkpoints:
            every = checkpoints.save_every(steps=3)
            saves = [every({"step": step}) for step in range(10)]
        assert [save.meta["step"] for save in saves if save] == [2, 5, 8]

    def test_by_seconds(self, place, array):
        """As the clock has it; a save by steps counts, too."""
        with mock.patch.object(schedules, "time") as clock, Checkpointer(place, {"a": array}) as checkpoints:
            clock.monotonic.return_value = 0.0
            every = checkpoints.save_every(seconds=10, steps=4)
            saved = []
            for now in (1, 9, 10, 11, 19, 20, 21, 22, 23, 24):
                clock.monotonic.return_value = float(now)
                assert every.due == (every(now) is not None and bool(saved.append(now) or True))
        assert saved == [10, 20, 24]

    def test_sigterm(self, tmp_path, array):
        """The step is finished, its state is committed, the process ends with 143 by way of its handlers."""

        def child():
            ended = []
            try:
                with Checkpointer(tmp_path, {"a": array}) as checkpoints:
                    every = checkpoints.save_every(steps=1000, sigterm=True)
                    for step in range(100):
                        array[step] = 2
                        if step == 7:
                            os.kill(os.getpid(), signal.SIGTERM)
                            array[step] = 3
                        every({"step": step})
            except SystemExit as end:
                ended.append(end.code)
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            return ended, checkpoints.closed

        assert in_child(child).check() == ([143], True)
        with Chain(tmp_path) as chain:
            assert chain.newest.meta == {"step": 7}
        assert load(tmp_path)["a"][:9].tolist() == [2] * 7 + [3, 1]

    def test_sigterm_after_it_was_closed(self, tmp_path, array):
        """It means what it meant before."""

        def child():
            with Checkpointer(tmp_path, {"a": array}) as checkpoints:
                checkpoints.save_every(sigterm=True)
            os.kill(os.getpid(), signal.SIGTERM)

        assert in_child(child).status == -signal.SIGTERM

    def test_bad_arguments(self, place, array):
        """They are named."""
        with Checkpointer(place, {"a": array}) as checkpoints:
            for bad in ({}, {"steps": 0}, {"steps": 1.5}, {"seconds": -1}, {"seconds": "x"}):
                with pytest.raises(ValueError, match=r"steps|seconds"):
                    checkpoints.save_every(**bad)
            errors = []

            def elsewhere():
                try:
                    checkpoints.save_every(sigterm=True)
                except ValueError as error:
                    errors.append(error)

            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
            assert errors


def _chosen(records, keep):
    """The rule, once more, one checkpoint after the other."""
    found = set()
    for one in records:
        if keep.every and one.number % keep.every == 0:
            found.add(one.number)
        if keep.seconds and not any(
            other.created // keep.seconds == one.created // keep.seconds and other.number < one.number
            for other in records
        ):
            found.add(one.number)
    return found


class TestKeep:
    @pytest.mark.parametrize(
        "keep",
        [
            Keep(2, every=4),
            Keep(1, best="loss"),
            Keep(1, best="loss", highest=True),
            Keep(3, every=5, best="loss"),
        ],
        ids=str,
    )
    def test_what_stays(self, place, array, keep):
        """Of many saves, and each that stays gives back its state."""
        draw, states, losses = random.Random(3), {}, {}
        with Checkpointer(place, {"a": array}, keep=keep) as checkpoints:
            for number in range(1, 24):
                array[draw.randrange(array.size)] ^= 255
                losses[number] = draw.random()
                states[number] = array.copy()
                checkpoints.save({"loss": losses[number]} if number % 7 else None, wait=True)
            checkpoints.compact(wait=True)
        best = (max if keep.highest else min)((n for n in losses if n % 7), key=losses.get)
        wanted = {*range(24 - keep.newest, 24)}
        wanted |= {number for number in range(1, 24) if keep.every and number % keep.every == 0}
        wanted |= {best} if keep.best else set()
        with Chain(place) as chain:
            assert chain.verify() == ()
            there = {one.number for one in chain}
        for number in there:
            assert (load(place, at=number)["a"] == states[number]).all()
        assert wanted == there

    def test_one_in_each_span(self, place, array):
        """By the time of the save; a chain that nobody writes is made short by the same rule."""
        with Checkpointer(place, {"a": array}) as checkpoints:
            for number in range(10):
                array[number] += 1
                checkpoints.save(wait=True)
        with Chain(place) as chain:
            records = [schedules_record(one) for one in chain]
        keep = Keep(2, seconds=(records[-1].created - records[0].created) / 3)
        compact(place, keep)
        with Chain(place) as chain:
            assert {one.number for one in chain} == _chosen(records, keep) | {9, 10}

    def test_bad_arguments(self, place, array):
        """They are named."""
        for bad in ({"newest": 0}, {"every": 0}, {"seconds": 0}, {"every": "x"}):
            with pytest.raises(ValueError, match=next(iter(bad))):
                Keep(**bad)
        with pytest.raises(TypeError, match="best"):
            Keep(best=5)
        with pytest.raises(TypeError, match="keep"):
            Checkpointer(place, {"a": array}, keep="all")


def schedules_record(checkpoint):
    from dirtytrack.checkpoint.write.keep import Candidate

    return Candidate(checkpoint.number, checkpoint.created, checkpoint.meta)
