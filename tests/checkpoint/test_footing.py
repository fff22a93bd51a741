"""What a delta stands on is there when the delta is committed; who removes it is noticed by the next save."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import dirtytrack
from _lib.checkpoint.places import names_in
from dirtytrack import CheckpointError
from dirtytrack.checkpoint import Chain, Checkpointer, restore
from dirtytrack.checkpoint.store.lock import WriterLock

BLOCKS = 40


@pytest.fixture
def array():
    array = dirtytrack.empty(BLOCKS * 4096, np.uint8)
    array[:] = np.random.default_rng(3).integers(0, 256, array.size, dtype=np.uint8)
    return array


def _save(checkpoints, array):
    array[:1] += 1
    array[5000:6000] = np.random.default_rng(array[0]).integers(0, 256, 1000)
    return checkpoints.save(wait=True)


def _expect_all_is_well(place, array, kinds):
    with Chain(place) as chain:
        assert chain.newest.number
        assert [one.kind for one in chain][len(chain) - len(kinds) :] == kinds
    memory = np.zeros_like(array)
    restore(place, into={"a": memory})
    assert (memory == array).all()


@pytest.mark.parametrize("victim", [0, 1, 2])
@pytest.mark.parametrize("resumed", [False, True])
def test_a_file_removed_under_the_writer(place, array, victim, resumed):
    """The next save says which and fails, and the one after it is a base, and whole."""
    checkpoints = Checkpointer(place, {"a": array})
    for _ in range(3):
        _save(checkpoints, array)
    if resumed:
        checkpoints.close()
        checkpoints = Checkpointer.resume(place, {"a": array})
    gone = sorted(place.iterdir(), key=lambda path: path.name)[victim]
    gone.unlink()
    with pytest.raises(CheckpointError, match=r"(?s)checkpoint 4 .*removed.*holds everything") as told:
        _save(checkpoints, array)
    assert told.value.filename == str(gone)
    assert told.value.checkpoints == (4,)
    assert _save(checkpoints, array).kind == "base"
    assert _save(checkpoints, array).kind == "delta"
    checkpoints.close()
    _expect_all_is_well(place, array, ["base", "delta"])


def test_what_is_not_stood_on_may_go(place, array):
    """Checkpoints before the last base are nobody's business."""
    with Checkpointer(place, {"a": array}) as checkpoints:
        _save(checkpoints, array)
        array[:] += 1
        assert checkpoints.save(wait=True).kind == "base"
        min(place.iterdir(), key=lambda path: path.name).unlink()
        assert _save(checkpoints, array).kind == "delta"
    _expect_all_is_well(place, array, ["base", "delta"])


def test_a_compaction_beside_it_is_no_alarm(place, array):
    """It exchanges files for a base; nothing is reported, and nothing becomes a base that need not."""
    with Checkpointer(place, {"a": array}, keep=1, fsync=False) as checkpoints:
        saves = [_save(checkpoints, array) for _ in range(60)]
    assert [save.kind for save in saves] == ["base"] + ["delta"] * 59
    _expect_all_is_well(place, array, [])


def test_a_listing_that_missed_a_new_base_is_no_alarm(tmp_path, array, monkeypatch):
    """What is listed while a compaction removes and makes files may hold neither."""
    checkpoints = Checkpointer(tmp_path / "chain", {"a": array})
    _save(checkpoints, array)
    _save(checkpoints, array)
    checkpoints.compact(wait=True)
    listed, full = [], checkpoints._store.names

    def names():
        listed.append(full())
        return [name for name in listed[-1] if len(listed) > 1 or not name.endswith(".base")]

    monkeypatch.setattr(checkpoints._store, "names", names)
    monkeypatch.setattr(WriterLock, "holds", lambda *_: False)
    assert _save(checkpoints, array).kind == "delta"
    assert len(listed) == 2
    monkeypatch.undo()
    checkpoints.close()
    _expect_all_is_well(tmp_path / "chain", array, ["base", "delta"])


def test_a_directory_removed_and_made_again(tmp_path, array):
    """It is not the one that the writer has: the message says so, and what to do."""
    path = tmp_path / "chain"
    checkpoints = Checkpointer(path, {"a": array})
    _save(checkpoints, array)
    shutil.rmtree(path)
    path.mkdir()
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"directory was removed.*Close this Checkpointer") as told:
            _save(checkpoints, array)
        assert told.value.filename == str(path)
    assert names_in(path) == []
    checkpoints.close()
    with Checkpointer(path, {"a": array}) as checkpoints:
        _save(checkpoints, array)
    _expect_all_is_well(path, array, ["base"])
