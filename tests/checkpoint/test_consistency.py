"""Beside writers: proven, made so by a pause, or said not to be."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager

import numpy as np
import pytest

import dirtytrack
from _lib.checkpoint.world import BLOCK
from _lib.support import PAGE_SIZE
from dirtytrack.checkpoint import Chain, Checkpointer, load

PAGES = 256


class Writers:
    """Threads that store the same number to two pages far from each other, all the time; stopped by a gate.

    So in the state of one instant, with the writers between two steps, every pair holds equal numbers.
    """

    def __init__(self, array, count=2):
        self.array = array
        self.gates = [threading.Lock() for _ in range(count)]
        self._stop = False
        self._threads = [threading.Thread(target=self._work, args=(i,)) for i in range(count)]
        self.steps = [0] * count

    def _work(self, me):
        words = self.array.view(np.uint64).reshape(PAGES, -1)
        draw = np.random.default_rng(me)
        while not self._stop:
            with self.gates[me]:
                pair = int(draw.integers(0, PAGES // 2))
                words[pair, me] += 1
                words[PAGES - 1 - pair, me] = words[pair, me]
                self.steps[me] += 1

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.wait(100)
        return self

    def wait(self, steps):
        """Return when every writer has done so many more steps."""
        goals = [done + steps for done in self.steps]
        while any(done < goal for done, goal in zip(self.steps, goals, strict=True)):
            os.sched_yield()

    def __exit__(self, *exc):
        self._stop = True
        for thread in self._threads:
            thread.join()

    @contextmanager
    def paused(self):
        """Nobody writes in the block."""
        for gate in self.gates:
            gate.acquire()
        try:
            yield
        finally:
            for gate in self.gates:
                gate.release()


def _is_one_instant(array):
    words = array.view(np.uint64).reshape(PAGES, -1)[:, :2]
    return bool((words[: PAGES // 2] == words[PAGES // 2 :][::-1]).all())


@pytest.fixture
def array():
    """Page-aligned memory of PAGES pages."""
    return dirtytrack.empty(PAGES * PAGE_SIZE, np.uint8)


@pytest.mark.parametrize("max_pause", [None, 0.0, 0.05])
def test_a_pause_makes_it_consistent(tmp_path, array, max_pause):
    """Beside writers at full speed every save under their pause is one instant, and says so."""
    saves = []
    with Writers(array) as writers:
        with Checkpointer(tmp_path, {"a": array}, max_pause=max_pause) as checkpoints:
            for _ in range(8):
                saves.append(checkpoints.save(pause=writers.paused()))
                writers.wait(20)
        assert sum(writers.steps) > 0
    assert [save.consistency for save in saves] == ["paused"] * 8
    assert all((save.pause_met is None) == (max_pause is None) for save in saves)
    assert saves[0].rounds >= 2  # a base is copied before the pause
    with Chain(tmp_path) as chain:
        for save in saves:
            assert chain[save.number].consistent
            assert _is_one_instant(np.frombuffer(chain.read("a", at=save.number), np.uint8))


@pytest.mark.slow
def test_without_a_pause_it_says_what_it_is(tmp_path, array):
    """Beside writers a save is proven only if it is one instant; the others say so in result and file."""
    with Writers(array) as writers, Checkpointer(tmp_path, {"a": array}) as checkpoints:
        saves = []
        for _ in range(30):
            saves.append(checkpoints.save())
            writers.wait(5)
    with Chain(tmp_path) as chain:
        for save in saves:
            assert save.consistency == ("proven" if save.consistent else "unproven")
            assert chain[save.number].consistency == save.consistency
            if save.consistent:
                # Each writer may have been in the middle of a step, at one page of a pair.
                words = np.frombuffer(chain.read("a", at=save.number), np.uint64).reshape(PAGES, -1)[:, :2]
                assert ((words[: PAGES // 2] != words[PAGES // 2 :][::-1]).sum(axis=0) <= 1).all()


def test_what_an_unproven_save_missed_is_in_the_next(tmp_path, array):
    """Nothing is lost between saves, whatever they were; the last one, without writers, is exact."""
    with Checkpointer(tmp_path, {"a": array}) as checkpoints:
        with Writers(array) as writers:
            for _ in range(20):
                checkpoints.save()
                writers.wait(5)
        save = checkpoints.save()
        assert save.consistency == "proven"
    assert (load(tmp_path)["a"] == array).all()


@pytest.mark.slow
def test_another_cursor_that_collects_in_between_hides_nothing(tmp_path, array):
    """A page that another cursor has collected and re-armed during the copy still counts as written."""
    with (
        dirtytrack.Session() as session,
        Checkpointer(tmp_path, {"a": array}, session=session) as checkpoints,
        Writers(array) as writers,
    ):
        other, stop = session.cursor("other"), threading.Event()

        def collect():
            while not stop.is_set():
                with other.collect() as epoch:
                    epoch.pages  # noqa: B018

        thread = threading.Thread(target=collect)
        thread.start()
        saves = []
        for _ in range(15):
            saves.append(checkpoints.save(pause=writers.paused()))
            saves.append(checkpoints.save())
            writers.wait(5)
        stop.set()
        thread.join()
    assert {save.consistency for save in saves[::2]} == {"paused"}
    with Chain(tmp_path) as chain:
        for save in saves[::2]:
            assert _is_one_instant(np.frombuffer(chain.read("a", at=save.number), np.uint8))
    assert (load(tmp_path)["a"] != array).any()  # the writers went on


class _Scripted:
    """A pause in whose block something happens."""

    def __init__(self, act):
        self._act = act

    def __enter__(self):
        self._act()

    def __exit__(self, *exc):
        return None


def test_a_pause_that_does_not_stop_everybody(tmp_path, array, monkeypatch):
    """Stores between the scan and the proof make the save unproven, also within the pause."""
    with Checkpointer(tmp_path, {"a": array}, staging_bytes=8 * PAGE_SIZE) as checkpoints:
        checkpoints.save(wait=True)
        array[:] = 1
        take = checkpoints._pipeline.committer.take

        def store_and_take(job, capture, loan, is_last):
            array[:] += 1  # while the copy is under way: it takes several steps
            take(job, capture, loan, is_last)

        monkeypatch.setattr(checkpoints._pipeline.committer, "take", store_and_take)
        save = checkpoints.save(pause=_Scripted(lambda: None))
        assert (save.consistency, save.consistent) == ("unproven", False)
        monkeypatch.undo()
        assert checkpoints.save().consistency == "proven"
    assert (load(tmp_path)["a"] == array).all()


def test_a_little_written_meanwhile_is_copied_once_more(tmp_path, array, monkeypatch):
    """Such as by a neighbour on the same page: the save is the state at its end, proven in another round."""
    with Checkpointer(tmp_path, {"a": array}, staging_bytes=8 * PAGE_SIZE) as checkpoints:
        checkpoints.save(wait=True)
        array[:] = 1
        take, stores = checkpoints._pipeline.committer.take, iter([1])

        def store_once_and_take(job, capture, loan, is_last):
            array[0] += next(stores, 0)
            take(job, capture, loan, is_last)

        monkeypatch.setattr(checkpoints._pipeline.committer, "take", store_once_and_take)
        save = checkpoints.save(wait=True)
        assert (save.consistency, save.rounds) == ("proven", 2)
        assert array[0] == 2
    assert (load(tmp_path)["a"] == array).all()


def test_rounds_go_on_until_the_rest_fits(tmp_path, array):
    """What does not fit the bound is copied outside of the pause; what fits, at once within it."""
    with Checkpointer(tmp_path, {"a": array}, max_pause=10.0) as checkpoints:
        checkpoints.save(wait=True)
        array[:] = 1
        save = checkpoints.save(pause=_Scripted(lambda: None))
        assert (save.rounds, save.pause_met) == (1, True)  # it fits at once
    with Checkpointer.resume(tmp_path, {"a": array}, max_pause=0.0) as checkpoints:
        array[:] = 2
        entered, consumer = [], checkpoints._pipeline.capturer._consumer
        save = checkpoints.save(pause=_Scripted(lambda: entered.append(consumer.peek().pages)))
        assert entered == [0]  # all was copied before
        assert (save.consistency, save.pause_met) == ("paused", False)
        assert save.rounds >= 2


def test_what_is_written_between_the_rounds_counts_as_it_is_last(tmp_path, array):
    """A block copied in two rounds has the content of the second, also if that is zeros or the old one."""
    array[:] = 5
    with Checkpointer(tmp_path, {"a": array}, max_pause=0.0) as checkpoints:
        checkpoints.save(wait=True)
        array[:] = 6

        def rewrite():
            array[:PAGE_SIZE] = 5
            array[PAGE_SIZE : 2 * PAGE_SIZE] = 0
            array[2 * PAGE_SIZE : 3 * PAGE_SIZE] = 7

        checkpoints.save(pause=_Scripted(rewrite))
    assert (load(tmp_path)["a"] == array).all()
    with Chain(tmp_path) as chain:
        assert [checkpoint.kind for checkpoint in chain] == ["base", "delta"]
        assert chain.verify() == ()


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_base_takes_what_is_written_while_it_is_copied(tmp_path, array, compression):
    """Under a pause the base holds what was there at its end, in the places of a linear region too."""
    array[:] = np.random.default_rng(0).integers(1, 256, len(array), np.uint8)

    def rewrite():
        array[5 * PAGE_SIZE : 7 * PAGE_SIZE] = 0
        array[9 * PAGE_SIZE] += 1

    with Checkpointer(tmp_path, {"a": array}, compression=compression) as checkpoints:
        save = checkpoints.save(pause=_Scripted(rewrite))
        assert (save.consistency, save.rounds) == ("paused", 2)
    assert (load(tmp_path)["a"] == array).all()
    if compression == "none":
        assert (load(tmp_path, lazy=True)["a"] == array).all()


@pytest.mark.parametrize("where", ["enter", "exit"])
def test_a_pause_that_raises(tmp_path, array, where):
    """Its error comes out, nothing was saved, and nothing is lost."""

    class Broken:
        def __enter__(self):
            if where == "enter":
                raise OSError("broken")

        def __exit__(self, *exc):
            raise OSError("broken")

    with Checkpointer(tmp_path, {"a": array}) as checkpoints:
        checkpoints.save(wait=True)
        array[:BLOCK] = 9
        with pytest.raises(OSError, match="broken"):
            checkpoints.save(pause=Broken())
        checkpoints.flush()
        assert len(list(tmp_path.glob("*.delta"))) == 0
        assert checkpoints.save(wait=True).blocks_stored == 1
    assert (load(tmp_path)["a"] == array).all()


def test_a_pause_that_swallows_exceptions(tmp_path, array, monkeypatch):
    """What went wrong within is an error all the same, and nothing is lost."""

    class Deaf:
        def __enter__(self):
            monkeypatch.setattr(checkpoints._pipeline.capturer, "_prove", None)

        def __exit__(self, *exc):
            monkeypatch.undo()
            return True

    with Checkpointer(tmp_path, {"a": array}) as checkpoints:
        checkpoints.save(wait=True)
        array[:BLOCK] = 9
        with pytest.raises(RuntimeError, match="swallowed an exception"):
            checkpoints.save(pause=Deaf())
        assert checkpoints.save(wait=True).blocks_stored == 1
    assert (load(tmp_path)["a"] == array).all()


def test_a_base_of_a_sparse_region_is_proven(tmp_path):
    """Though its copy touches pages that were not there, which counts as writing."""
    with dirtytrack.Session() as session:
        region = session.track(dirtytrack.alloc(2000 * PAGE_SIZE), sparse=True)
        region.view[:3] = b"abc"
        with Checkpointer(tmp_path, {"a": region}) as checkpoints:
            assert checkpoints.save(wait=True).consistency == "proven"
            save = checkpoints.save(wait=True)
            assert (save.consistency, save.blocks_written) == ("proven", 0)


@pytest.mark.parametrize("max_pause", [None, 0.0])
def test_a_save_within_the_pause_of_another(tmp_path, array, max_pause):
    """Both are whole. The outer one begins anew within its pause, which is entered once."""
    inner, left = [], []

    @contextmanager
    def pause():
        array[5] += 1
        inner.append(checkpoints.save(wait=True))
        array[5 * PAGE_SIZE] += 1
        yield
        left.append(True)

    with Checkpointer(tmp_path, {"a": array}, max_pause=max_pause) as checkpoints:
        outer = checkpoints.save(pause=pause(), wait=True)
        assert left == [True]
        assert (outer.consistency, inner[0].consistency) == ("paused", "proven")
        assert inner[0].state == outer.state == "committed"
        assert outer.number > inner[0].number
        assert (outer.kind, outer.blocks_stored) == ("delta", 1)
    assert (load(tmp_path)["a"] == array).all()
