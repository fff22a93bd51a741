"""Beside other Python threads a save that is not compressed is written before its thread has the GIL."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import random
import sys
import threading
import time
import weakref

import numpy as np
import pytest

import dirtytrack
from _lib.checkpoint.world import BLOCK, World, restored
from _lib.support import idle_threads, in_child
from dirtytrack import CheckpointError, Session
from dirtytrack.checkpoint import Chain, Checkpointer
from dirtytrack.checkpoint.format.structures import FileName, Kind
from dirtytrack.checkpoint.store import new_file
from dirtytrack.checkpoint.store.new_file import DirectoryNewFile
from dirtytrack.checkpoint.write import committer
from dirtytrack.checkpoint.write.checkpoint_writer import CheckpointWriter
from dirtytrack.checkpoint.write.job import Job

_KEEPING_THE_GIL = ctypes.PyDLL(None)


@pytest.fixture
def prepared(monkeypatch):
    """Whether native code had written it, of each save that was prepared."""
    seen, run = [], new_file._Prepared.run

    def record(self):
        seen.append(self.errand.is_done)
        return run(self)

    monkeypatch.setattr(new_file._Prepared, "run", record)
    return seen


@pytest.fixture
def company():
    """Another thread, which does nothing."""
    with idle_threads(1):
        yield


def _open(path, world, session, **options):
    return Checkpointer(path, world.regions, session=session, **{"compression": "none"} | options)


def _wait_until_idle(checkpoints):
    while not checkpoints._pipeline.committer._thread.is_idle:
        os.sched_yield()


@pytest.mark.parametrize("compression", ["none", "auto"])
@pytest.mark.parametrize("seed", range(4))
def test_every_state_is_that_of_its_save(tmp_path, company, prepared, seed, compression):
    """Waited for or not, of any size, fsync or not; by default some are compressed, others are prepared."""
    draw, states = random.Random(seed), {}
    with Session() as session:
        world = World(40, seed)
        with _open(tmp_path, world, session, fsync=seed % 2 == 0, compression=compression) as checkpoints:
            for _ in range(60):
                world.scribble()
                save = checkpoints.save(wait=draw.random() < 0.6)
                states[save.number] = world.contents()
            for _ in range(2):
                checkpoints.flush()
                _wait_until_idle(checkpoints)
                save = checkpoints.save(wait=True)
                assert (save.blocks_written, save.consistency) == (0, "proven")
        for number, contents in states.items():
            assert restored(tmp_path, world.sizes, at=number) == contents
        with Chain(tmp_path) as chain:
            assert chain.verify() == ()
            assert [one.number for one in chain.checkpoints] == list(range(1, 63))
    assert prepared[-2:] == [True, True]


def test_it_is_done_without_the_gil(tmp_path, company, prepared):
    """The file has its name while the caller keeps the GIL."""
    with Session() as session:
        world = World(4, 1)
        with _open(tmp_path, world, session) as checkpoints:
            checkpoints.save(wait=True)
            _wait_until_idle(checkpoints)
            world.touch()
            interval = sys.getswitchinterval()
            sys.setswitchinterval(1000)
            try:
                save = checkpoints.save()
                name = FileName(save.number, checkpoints._pipeline._in_flight[-1].file, Kind.DELTA)
                while _KEEPING_THE_GIL.access(os.fsencode(tmp_path / str(name)), os.F_OK) != 0:
                    pass
                assert save.state == "captured"
            finally:
                sys.setswitchinterval(interval)
            checkpoints.flush()
            assert save.state == "committed"
    assert prepared == [True]


@pytest.mark.parametrize("compression", ["zstd", "auto"])
def test_what_is_compressed_is_not_prepared(tmp_path, company, prepared, compression):
    """Python is needed for that."""
    with Session() as session:
        world = World(4, 1)
        with _open(tmp_path, world, session, compression=compression) as checkpoints:
            checkpoints.save()
            world.touch()
            checkpoints.save(wait=True)
        assert restored(tmp_path, world.sizes) == world.contents()
    assert prepared == []


def test_what_is_not_worth_it_is_prepared(tmp_path, company, prepared):
    """By default less and less of what becomes no shorter is tried; what does is, from the next try on."""
    noise = random.Random(1)
    array = dirtytrack.empty(64 * BLOCK, np.uint8)
    written = array[:-BLOCK].data
    ratios = []
    with Session() as session, Checkpointer(tmp_path, {"a": array}, session=session) as checkpoints:
        for step in range(40):
            written[:] = noise.randbytes(len(written)) if step < 20 else bytes([step]) * len(written)
            _wait_until_idle(checkpoints)
            ratios.append(checkpoints.save(wait=True).ratio)
    assert restored(tmp_path, {"a": len(array)}) == {"a": array.tobytes()}
    # Of the deltas the 1st, 5th, 13th and 29th are tried, and all after it.
    assert [ratio > 10 for ratio in ratios] == [False] * 29 + [True] * 11
    assert prepared == [True] * (3 + 7 + 15)


def test_what_its_thread_learns_just_then_counts(tmp_path, company, prepared, monkeypatch):
    """So little is left that is not to be tried that the save is to be compressed: nothing is prepared."""
    gate, publish = threading.Event(), DirectoryNewFile.publish
    noise = random.Random(1)
    array = dirtytrack.empty(64 * BLOCK, np.uint8)

    def write(blocks):
        array[: blocks * BLOCK].data[:] = noise.randbytes(blocks * BLOCK)

    def publish_later(self, *args, **keywords):
        gate.wait()
        publish(self, *args, **keywords)

    def others_run():
        gate.set()
        _wait_until_idle(checkpoints)
        return True

    with Session() as session, Checkpointer(tmp_path, {"a": array}, session=session) as checkpoints:
        write(64)
        checkpoints.save(wait=True)
        write(8)
        checkpoints.save(wait=True)  # is tried: the next 24 blocks are not
        monkeypatch.setattr(DirectoryNewFile, "publish", publish_later)
        monkeypatch.setattr(committer, "others_run", bool)
        write(16)
        checkpoints.save()
        monkeypatch.setattr(committer, "others_run", others_run)
        write(20)
        checkpoints.save(wait=True)
    with Chain(tmp_path) as chain:
        assert chain.verify() == ()
    assert restored(tmp_path, {"a": len(array)}) == {"a": array.tobytes()}
    assert prepared == []


def test_nothing_is_prepared_where_no_other_thread_runs(tmp_path, prepared):
    """It would only take the caller's time."""

    def child():
        with Session() as session:
            world = World(4, 1)
            with _open(tmp_path, world, session) as checkpoints:
                checkpoints.save()
                world.touch()
                checkpoints.save(wait=True)
        return prepared

    assert in_child(child).check() == []


def test_a_delta_of_everything_is_filed_as_a_base(tmp_path, company, prepared):
    """Which is known only when it is packed."""
    with Session() as session:
        world = World(4, 1)
        with _open(tmp_path, world, session) as checkpoints:
            checkpoints.save(wait=True)
            for region in world.regions.values():
                region[:] = bytes([7]) * len(region)
            assert checkpoints.save(wait=True).kind == "base"
    assert prepared == []


def test_a_footing_that_is_gone_is_told(tmp_path, company, prepared):
    """Native code finds the base missing, and what is to be done is Python's: the next save is a base."""
    with Session() as session:
        world = World(4, 1)
        with _open(tmp_path, world, session) as checkpoints:
            save = checkpoints.save(wait=True)
            (base,) = tmp_path.glob("*.base")
            base.unlink()
            world.touch()
            _wait_until_idle(checkpoints)
            with pytest.raises(CheckpointError, match="somebody removed a file") as caught:
                checkpoints.save(wait=True)
            assert (caught.value.errno, save.kind) == (errno.ENOENT, "base")
            assert checkpoints.save(wait=True).kind == "base"
        assert restored(tmp_path, world.sizes) == world.contents()
    assert prepared == [True]


def test_saves_in_a_row_wait_for_each_other(tmp_path, company, prepared):
    """Only the first of them finds its thread idle; none is lost."""
    with Session() as session:
        world = World(3000, 1)
        with _open(tmp_path, world, session) as checkpoints:
            checkpoints.save(wait=True)
            saves = []
            for step in range(30):
                world.touch(at=step * BLOCK)
                saves.append((checkpoints.save(), world.contents()))
            checkpoints.flush()
            for save, contents in saves:
                assert save.state == "committed"
                assert restored(tmp_path, world.sizes, at=save.number) == contents
    assert len(prepared) <= 30


def test_nothing_is_prepared_on_a_state_that_is_lost(tmp_path, company, prepared, monkeypatch):
    """Its thread may find just then that the save before can't be written, whose pages this one lacks."""
    gate, publish = threading.Event(), DirectoryNewFile.publish

    def fail(self, *args, **keywords):
        gate.wait()
        monkeypatch.setattr(DirectoryNewFile, "publish", publish)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def others_run():  # the last thing but one that is looked at
        gate.set()
        _wait_until_idle(checkpoints)
        return True

    with Session() as session:
        world = World(4, 1)
        with _open(tmp_path, world, session) as checkpoints:
            checkpoints.save(wait=True)
            contents = world.contents()
            monkeypatch.setattr(DirectoryNewFile, "publish", fail)
            monkeypatch.setattr(committer, "others_run", bool)
            world.touch()
            first = checkpoints.save()
            monkeypatch.setattr(committer, "others_run", others_run)
            world.touch(at=2 * BLOCK)
            second = checkpoints.save()
            with pytest.raises(CheckpointError, match="checkpoint 2, 3 not written"):
                checkpoints.flush()
            assert (first.state, second.state) == ("failed", "failed")
            with Chain(tmp_path) as chain:
                assert [one.number for one in chain.checkpoints] == [1]
            assert restored(tmp_path, world.sizes) == contents
            checkpoints.save(wait=True)
        assert restored(tmp_path, world.sizes) == world.contents()
    assert prepared == [True]


def test_what_fails_after_it_has_its_name_is_not_there(tmp_path, company, prepared, monkeypatch):
    """Native code has written it; and then there is no memory for what Python has to do."""

    def describe(self, table):
        if not list(tmp_path.glob("*.delta")):
            return describe_it(self, table)
        monkeypatch.setattr(Job, "describe", describe_it)
        raise MemoryError

    describe_it = Job.describe
    with Session() as session:
        world = World(4, 1)
        with _open(tmp_path, world, session) as checkpoints:
            checkpoints.save(wait=True)
            _wait_until_idle(checkpoints)
            monkeypatch.setattr(Job, "describe", describe)
            world.touch()
            with pytest.raises(CheckpointError, match="checkpoint 2 not written"):
                checkpoints.save(wait=True)
            assert prepared == []
            assert sorted(one.suffix for one in tmp_path.iterdir()) == ["", ".base"]
            assert checkpoints.save(wait=True).blocks_stored == 1
        assert restored(tmp_path, world.sizes) == world.contents()


def test_a_save_that_is_kept_keeps_nothing_of_its_file(tmp_path, company, monkeypatch):
    """Which may be megabytes; and nothing waits for the garbage collector, that many a job turns off."""
    seen, prepare = [], CheckpointWriter.prepare

    def record(self, *args, **keywords):
        seen.append(weakref.ref(self))
        return prepare(self, *args, **keywords)

    monkeypatch.setattr(CheckpointWriter, "prepare", record)
    with Session() as session:
        world = World(4, 1)
        with _open(tmp_path, world, session) as checkpoints:
            checkpoints.save(wait=True)
            gc.disable()
            try:
                saves = []
                for _ in range(3):
                    _wait_until_idle(checkpoints)
                    world.touch()
                    saves.append(checkpoints.save(wait=True))
                _wait_until_idle(checkpoints)
                assert [writer() for writer in seen] == [None] * 3
            finally:
                gc.enable()


def _wait_until_idle(checkpoints):
    while not checkpoints._pipeline.committer._thread.is_idle:
        time.sleep(0)
