"""Chains stay short: what is kept, what is removed, and what readers notice of it."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import dirtytrack
from _lib.checkpoint.intercept import SYNCS, intercepted
from _lib.checkpoint.places import names_in
from _lib.support import PAGE_SIZE
from dirtytrack import BusyError, ChainError, CheckpointError
from dirtytrack.checkpoint import Chain, Checkpointer, compact, load
from dirtytrack.checkpoint.store import open_store
from dirtytrack.checkpoint.store.memory import MemoryNewFile
from dirtytrack.checkpoint.store.new_file import DirectoryNewFile
from dirtytrack.checkpoint.write import compaction, compactor


@pytest.fixture
def array():
    """Noise, half of which compresses."""
    memory = dirtytrack.empty(50 * PAGE_SIZE, np.uint8)
    memory[:] = np.random.default_rng(0).integers(0, 256, len(memory), np.uint8)
    memory[25 * PAGE_SIZE :] //= 64
    return memory


def _go_on(checkpoints, array, count, states):
    """Save *count* checkpoints of random changes, some to zero, and remember each."""
    draw = np.random.default_rng(len(states))
    for _ in range(count):
        start = draw.integers(0, len(array) - 10000)
        array[start : start + draw.integers(1, 10000)] = draw.integers(0, 3)
        save = checkpoints.save({"n": len(states)}, wait=True)
        states[save.number] = array.copy(), save.id


def _check(path, states, numbers):
    """The chain has these checkpoints and no others, each as it was, with its meta and id."""
    with Chain(path) as chain:
        assert [checkpoint.number for checkpoint in chain] == numbers
        assert chain.verify() == ()
        for checkpoint in chain:
            content, identifier = states[checkpoint.number]
            assert chain.read("a", at=checkpoint.number) == content.tobytes()
            assert checkpoint.id == identifier
            assert checkpoint.meta == {"n": checkpoint.number - 1}
            assert checkpoint.consistency == "proven"


@pytest.mark.parametrize("compression", ["auto", "none", "zstd"])
def test_an_explicit_one_leaves_the_newest(place, array, compression):
    """Without keep, compact() makes a base of the newest and removes all before it; the chain goes on."""
    states = {}
    with Checkpointer(place, {"a": array}, compression=compression) as checkpoints:
        _go_on(checkpoints, array, 5, states)
        checkpoints.compact(wait=True)
        _check(place, states, [5])
        assert len(list(place.glob("0*.base"))) == len(list(place.glob("0*"))) == 1
        _go_on(checkpoints, array, 2, states)
        _check(place, states, [5, 6, 7])
        with Chain(place) as chain:
            assert chain[6].parent == chain[5].id
    with Checkpointer.resume(place, {"a": array}) as checkpoints:
        _go_on(checkpoints, array, 1, states)
    _check(place, states, [5, 6, 7, 8])


@pytest.mark.parametrize("keep", [1, 3])
def test_keep_bounds_the_chain(place, array, keep):
    """At least the newest N checkpoints are there at any time, and at rest never more than twice as many."""
    states = {}
    with Checkpointer(place, {"a": array}, keep=keep) as checkpoints:
        for number in range(1, 5 * keep + 3):
            _go_on(checkpoints, array, 1, states)
            checkpoints.flush()
            with Chain(place) as chain:
                kept = [checkpoint.number for checkpoint in chain]
            assert kept[-keep:] == list(range(max(1, number - keep + 1), number + 1))
            assert len(kept) <= 2 * keep
        checkpoints.compact(wait=True)
        last = max(states)
        _check(place, states, list(range(last - keep + 1, last + 1)))
    assert len(list(place.glob("0*"))) == keep


def test_without_keep_nothing_is_removed(place, array):
    """Unless somebody says so."""
    states = {}
    with Checkpointer(place, {"a": array}) as checkpoints:
        _go_on(checkpoints, array, 12, states)
    _check(place, states, list(range(1, 13)))


def test_keep_counts_over_a_resume(place, array):
    """The checkpoints that were there before count too."""
    states = {}
    with Checkpointer(place, {"a": array}) as checkpoints:
        _go_on(checkpoints, array, 7, states)
    with Checkpointer.resume(place, {"a": array}, keep=2) as checkpoints:
        _go_on(checkpoints, array, 1, states)
    _check(place, states, [7, 8])


def test_a_base_is_not_written_twice(place, array):
    """Where the oldest checkpoint to keep is a base already, only what is older goes."""
    states = {}
    with Checkpointer(place, {"a": array}) as checkpoints:
        _go_on(checkpoints, array, 3, states)
        checkpoints.compact(wait=True)
        (before,) = place.glob("0*")
        checkpoints.compact(wait=True)
        assert list(place.glob("0*")) == [before]


def _save_everything(checkpoints, array, *, is_moved):
    # As a delta, whose blocks are all others than before: its file needs no parent.
    array ^= 255
    if is_moved:
        checkpoints.rebind({"a": array.copy()})
    save = checkpoints.save({"n": 0}, wait=True)
    assert save.kind == "base"
    return save


@pytest.mark.parametrize("is_moved", [False, True], ids=["written", "rebound"])
def test_a_delta_that_holds_everything_is_laid_out(tmp_path, array, is_moved):
    """It is not laid out as memory is, which a lazy load says, and compaction changes; once."""
    with Checkpointer(tmp_path, {"a": array}, compression="none") as checkpoints:
        checkpoints.save(wait=True)
        _save_everything(checkpoints, array, is_moved=is_moved)
        with pytest.raises(
            ChainError, match=r"'a' can't be loaded lazily.*laid out as memory is: compact\(\)"
        ):
            load(tmp_path, lazy=True)
        checkpoints.compact(wait=True)
        assert (load(tmp_path, lazy=True)["a"] == array).all()
        (base,) = tmp_path.glob("0*")
        checkpoints.compact(wait=True)
        assert list(tmp_path.glob("0*")) == [base]
        array[5] ^= 1
        if not is_moved:
            assert checkpoints.save(wait=True).blocks_stored == 1
    assert compact(tmp_path, keep=2).removed == ()
    with Chain(tmp_path) as chain:
        assert chain.verify() == ()


def test_an_automatic_one_writes_no_base_again(tmp_path, array):
    """Where everything is written by each save, it would be all written twice."""
    with Checkpointer(tmp_path, {"a": array}, keep=1, compression="none") as checkpoints:
        checkpoints.save(wait=True)
        for _ in range(4):
            save = _save_everything(checkpoints, array, is_moved=False)
            (written,) = tmp_path.glob(f"{save.number:010}-*")
        checkpoints.flush()
        assert list(tmp_path.glob("0*")) == [written]


def test_a_compressed_base_is_written_anew_where_that_is_asked_for(tmp_path, array):
    """So that it can be loaded lazily, as the error of that advises; not with what it was written with."""
    with Checkpointer(tmp_path, {"a": array}, compression="zstd") as checkpoints:
        checkpoints.save({"n": 0})
    assert compact(tmp_path, compression="zstd").removed == ()
    assert len(compact(tmp_path, compression="none").removed) == 1
    assert (load(tmp_path, lazy=True)["a"] == array).all()
    with Chain(tmp_path) as chain:
        assert chain.verify() == ()
        assert chain.newest.meta == {"n": 0}


def test_compacting_nothing(place, array):
    """Before the first save there is nothing to do."""
    with Checkpointer(place, {"a": array}) as checkpoints:
        checkpoints.compact(wait=True)
        assert checkpoints.save(wait=True).number == 1


def test_readers_keep_what_they_have(place, array):
    """A chain that was opened before reads on, also what has been removed; a lazy mapping stays."""
    states = {}
    with Checkpointer(place, {"a": array}, compression="none") as checkpoints:
        _go_on(checkpoints, array, 4, states)
        lazy = load(place, lazy=isinstance(place, Path), at=2)["a"]
        with Chain(place) as chain:
            checkpoints.compact(wait=True)
            assert len(list(place.glob("0*"))) == 1
            for number, (content, _) in states.items():
                assert chain.read("a", at=number) == content.tobytes()
            assert chain.verify() == ()
        assert (lazy == states[2][0]).all()


def test_a_branch_that_is_not_kept_goes(place, array):
    """What is older than the base goes, on whatever branch; what is newer stays."""
    states = {}
    with Checkpointer(place, {"a": array}) as checkpoints:
        _go_on(checkpoints, array, 3, states)
    with Checkpointer.resume(place, {"a": array}, at=2) as checkpoints:
        _go_on(checkpoints, array, 2, states)
        checkpoints.compact(wait=True)
    _check(place, states, [5])


@pytest.mark.parametrize(("at", "left"), [(4, [1, 2, 3, 4, 5, 6]), (5, [1, 2, 3, 5, 6]), (6, [6])])
def test_newer_branches_keep_what_they_stand_on(place, array, at, left):
    """4 and 5 follow 2, and 6 follows 3: whichever is kept, the newer ones can still be read."""
    states = {}
    with Checkpointer(place, {"a": array}) as checkpoints:
        _go_on(checkpoints, array, 3, states)
    for parent, count in ((2, 2), (3, 1)):
        with Checkpointer.resume(place, {"a": array}, at=parent) as checkpoints:
            _go_on(checkpoints, array, count, states)
    with Checkpointer.resume(place, {"a": array}, at=at) as checkpoints:
        checkpoints.compact(wait=True)
    _check(place, states, left)


def test_the_branch_that_is_written_is_the_one_that_is_kept(place, array):
    """Resumed at an older checkpoint and compacted before the first save: what the writer stands on stays."""
    states = {}
    with Checkpointer(place, {"a": array}) as checkpoints:
        _go_on(checkpoints, array, 3, states)
    with Checkpointer.resume(place, {"a": array}, at=2) as checkpoints:
        checkpoints.compact(wait=True)
        _check(place, states, [2, 3])
        _go_on(checkpoints, array, 1, states)
    _check(place, states, [2, 3, 4])


def test_saves_go_on_beside_it(place, array, monkeypatch):
    """While a compaction is under way, saves are captured and committed; it keeps them."""
    states, begun, go = {}, threading.Event(), threading.Event()
    write = compaction._write_base

    def slow(*arguments):
        begun.set()
        assert go.wait(60)
        return write(*arguments)

    monkeypatch.setattr(compaction, "_write_base", slow)
    with Checkpointer(place, {"a": array}) as checkpoints:
        _go_on(checkpoints, array, 3, states)
        checkpoints.compact()
        assert begun.wait(60)
        array[0] += 1
        save = checkpoints.save({"n": 3})
        checkpoints._pipeline.committer.drain()
        states[save.number] = array.copy(), save.id
        assert save.state == "committed"
        go.set()
        checkpoints.flush()
    _check(place, states, [3, 4])


def test_a_failure_removes_nothing_and_is_told_once(place, array, monkeypatch):
    """No space for the base: CheckpointError at the next flush, nothing is lost, and the next try works."""
    states = {}

    def full(self, name, last, condition, footing):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)

    with Checkpointer(place, {"a": array}) as checkpoints:
        _go_on(checkpoints, array, 3, states)
        for kind in (DirectoryNewFile, MemoryNewFile):
            monkeypatch.setattr(kind, "publish", full)
        with pytest.raises(CheckpointError, match="not compacted") as caught:
            checkpoints.compact(wait=True)
        assert (caught.value.errno, caught.value.checkpoints) == (errno.ENOSPC, ())
        monkeypatch.undo()
        checkpoints.flush()
        _check(place, states, [1, 2, 3])
        assert not any(name.endswith(".tmp") for name in names_in(place))
        checkpoints.compact(wait=True)
        _check(place, states, [3])


def test_an_automatic_one_that_fails_does_not_stop_the_saves(place, array, monkeypatch):
    """Its failure waits for flush or close, and it is not tried at every save."""
    tries, states = [], {}

    def fail(*arguments, **keywords):
        tries.append(arguments)
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(compactor, "shorten", fail)
    checkpoints = Checkpointer(place, {"a": array}, keep=2)
    for step in range(12):
        array[step] += 1
        save = checkpoints.save({"n": step})
        states[save.number] = array.copy(), save.id
        checkpoints._pipeline.committer.drain()
        checkpoints._pipeline.compactor.wait()
    assert len(tries) == 3  # after 5, 8 and 11 checkpoints
    with pytest.raises(CheckpointError, match="not compacted"):
        checkpoints.close()
    _check(place, states, list(range(1, 13)))


def _spoil(base):
    # In the middle of what it stores.
    data = bytearray(base.read_bytes())
    data[len(data) // 2 : len(data) // 2 + PAGE_SIZE] = bytes([77]) * PAGE_SIZE
    base.write_bytes(bytes(data))


def test_a_damaged_checkpoint_is_not_compacted_away(place, array):
    """A run that does not fit its checksum stops it: nothing is removed, and the message names the file."""
    states = {}
    with Checkpointer(place, {"a": array}, compression="none") as checkpoints:
        _go_on(checkpoints, array, 3, states)
        (base,) = place.glob("*.base")
        before = names_in(place)
        _spoil(base)
        with pytest.raises(ChainError, match=base.name):
            checkpoints.compact(wait=True)
        assert names_in(place) == before
        array[:] += 1  # everything anew makes a base, and with it all is well
        save = checkpoints.save({"n": 3}, wait=True)
        states[save.number] = array.copy(), save.id
        checkpoints.compact(wait=True)
    _check(place, states, [4])


def test_above_a_damaged_checkpoint_the_next_save_is_a_base(place, array):
    """So that what is saved from then on can be read, and the chain be compacted again; it is told once."""
    states = {}
    checkpoints = Checkpointer(place, {"a": array}, compression="none", keep=2)
    _go_on(checkpoints, array, 2, states)
    (base,) = place.glob("*.base")
    _spoil(base)
    _go_on(checkpoints, array, 3, states)
    checkpoints._pipeline.compactor.wait()
    _go_on(checkpoints, array, 1, states)
    with pytest.raises(ChainError, match=rf"{base.name}.*The next save holds everything"):
        checkpoints.flush()
    _go_on(checkpoints, array, 6, states)
    checkpoints.close()
    with Chain(place) as chain:
        assert chain.verify() == ()
        numbers = [checkpoint.number for checkpoint in chain]
    assert numbers[0] > 5
    _check(place, states, numbers)
    assert numbers[-1] == 12


@pytest.mark.parametrize("is_base", [True, False])
def test_nothing_is_removed_by_who_has_lost_the_lock(tmp_path, array, is_base):
    """Somebody else has written meanwhile."""
    states = {}
    with Checkpointer(tmp_path, {"a": array}) as checkpoints:
        _go_on(checkpoints, array, 3, states)
        if is_base:
            array[:] += 1
            _go_on(checkpoints, array, 1, states)
            assert len(list(tmp_path.glob("*.base"))) == 2
        before = sorted(os.listdir(tmp_path))
        (tmp_path / "lock").write_bytes(b"the signature of another")
        with pytest.raises(CheckpointError, match="Another writer has been here"):
            checkpoints.compact(wait=True)
        assert sorted(os.listdir(tmp_path)) == before


def test_a_save_does_not_wait_for_it(place, array, monkeypatch):
    """Nor does it raise its failure: flush does."""
    states, gate = {}, threading.Event()

    def fail(*args, **kwargs):
        gate.wait()
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(compactor, "shorten", fail)
    with Checkpointer(place, {"a": array}, keep=1) as checkpoints:
        _go_on(checkpoints, array, 4, states)
        gate.set()
        with pytest.raises(CheckpointError, match="not compacted: broken"):
            checkpoints.flush()
    _check(place, states, [1, 2, 3, 4])


def _order(hooked, act):
    # Of what an act asks of the disk, and what it removes.
    def hook(call):
        if call.name in (*SYNCS, "unlink"):
            hooked.append(call.name)
        return call.run()

    with intercepted(hook):
        act()


_SYNCED = ["fsync", "dt_sync_directory", *["unlink"] * 3, "dt_sync_directory"]


@pytest.mark.parametrize(("fsync", "expected"), [(True, _SYNCED), (False, ["unlink"] * 3)])
def test_it_is_on_the_disk_before_anything_is_removed(tmp_path, array, fsync, expected):
    """Where the chain is written without fsync it is there, and nothing is synced."""
    order, states = [], {}
    with Checkpointer(tmp_path, {"a": array}, fsync=fsync) as checkpoints:
        _go_on(checkpoints, array, 3, states)
        _order(order, lambda: checkpoints.compact(wait=True))
        assert order == expected
        _go_on(checkpoints, array, 2, states)
    order.clear()
    _order(order, lambda: compact(tmp_path, fsync=fsync))
    assert order == expected


def test_compact_is_for_a_chain_that_nobody_writes(place, array):
    """It keeps the newest N; what it removed and freed is what is gone, leftovers of dead writers too."""
    states, told = {}, []
    with Checkpointer(place, {"a": array}) as checkpoints:
        _go_on(checkpoints, array, 5, states)
        with pytest.raises(BusyError, match="This process"):
            compact(place)
    with ExitStack() as undo:
        left = open_store(place, undo).create()
        left.write(0, [bytes(100_000)])
        with Chain(place) as chain:
            before = chain.disk_usage()
        done = compact(place, keep=2, progress=lambda count, total: told.append((count, total)))
    with Chain(place) as chain:
        after = chain.disk_usage()
    _check(place, states, [4, 5])
    assert done.number == 4
    assert done.removed == tuple(sorted(before.keys() - after.keys()))
    assert len(done.removed) == 5
    assert done.freed_bytes == sum(before.values()) - sum(after.values()) > 0
    assert told[-1] == (array.nbytes, array.nbytes)
    assert told == sorted(told)
    assert compact(place, 2) == (4, (), 0)
    with Checkpointer.resume(place, {"a": array}) as checkpoints:
        _go_on(checkpoints, array, 1, states)
    _check(place, states, [4, 5, 6])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"keep": 0}, ValueError, "keep=0"),
        ({"keep": "two"}, TypeError, "keep"),
        ({"compression": "lzma"}, ValueError, "compression='lzma'"),
    ],
)
def test_compact_checks_its_arguments(tmp_path, arguments, error, message):
    """Before it looks at the directory, which is not there."""
    with pytest.raises(error, match=message):
        compact(tmp_path / "no", **arguments)


def test_compact_where_there_is_nothing(tmp_path):
    """It says so and makes nothing, not even a lock."""
    with pytest.raises(FileNotFoundError):
        compact(tmp_path / "no")
    with pytest.raises(ChainError, match="holds no checkpoint"):
        compact(tmp_path)
    (tmp_path / f"0000000001-{'ab' * 8}.base").touch()
    with pytest.raises(ChainError, match="no complete checkpoint"):
        compact(tmp_path)
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize(("compression", "maps"), [("none", True), ("zstd", False)])
def test_compact_compresses_as_asked(tmp_path, array, compression, maps):
    """What is not compressed can be mapped."""
    states = {}
    with Checkpointer(tmp_path, {"a": array}, compression="zstd") as checkpoints:
        _go_on(checkpoints, array, 2, states)
    compact(tmp_path, compression=compression)
    _check(tmp_path, states, [2])
    if maps:
        assert (load(tmp_path, lazy=True)["a"] == array).all()
    else:
        with pytest.raises(ChainError, match="lazily"):
            load(tmp_path, lazy=True)
