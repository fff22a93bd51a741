"""A group is made short where no run is going on; one that is going on is not disturbed."""

from __future__ import annotations

import numpy as np
import pytest

from _lib.interrupts import interrupting
from dirtytrack import BusyError, CheckpointError
from dirtytrack.group import GroupChain, GroupCheckpointer, compact_group, compaction
from dirtytrack.group.settings import Settings


def _save(place, states):
    array = np.zeros(2000)
    with GroupCheckpointer.open(place, {"a": array}, fsync=False) as checkpoints:
        for step in range(states):
            array[step] = step
            checkpoints.save(step, wait=True)


def test_a_run_that_has_saved_nothing_yet_is_not_overtaken(tmp_path):
    """It has opened the group, and nothing of its own is in the states that stay."""
    place = tmp_path / "group"
    _save(place, 3)
    array = np.zeros(2000)
    with GroupCheckpointer.open(place, {"a": array}, fsync=False) as checkpoints:
        with pytest.raises(BusyError, match="writes to it"):
            compact_group(place)
        assert len(GroupChain(place)) == 3
        checkpoints.save(3, wait=True)
    assert compact_group(place).number == GroupChain(place).newest.number
    assert GroupChain(place).meta == 3


def test_workers_of_a_driver_are_not_overtaken(tmp_path):
    """What they write to has other names."""
    place = tmp_path / "group"
    _save(place, 2)
    run = GroupCheckpointer.begin(place)
    with GroupCheckpointer.open(place, {"a": np.zeros(2000)}, at=run, fsync=False) as worker:
        with pytest.raises(BusyError, match="writes to it"):
            compact_group(place)
        GroupCheckpointer.commit(place, [worker.prepare(2)])
    assert GroupChain(place).meta == 2


def test_a_run_in_an_object_store_is_overtaken(tmp_path):
    """Nobody can be seen there: its next save says so."""
    place = f"memory://{tmp_path.name}"
    _save(place, 2)
    array = np.zeros(2000)
    with GroupCheckpointer.open(place, {"a": array}) as checkpoints:
        compact_group(place)
        with pytest.raises(BusyError, match="another run"):
            checkpoints.save(2, wait=True)
    assert GroupChain(place).meta == 1


@pytest.mark.parametrize("at", [1, 2])
def test_what_ends_it_leaves_no_state_without_its_parts(tmp_path, monkeypatch, at):
    """What is to go is no state any more before the first of its files goes."""
    place = tmp_path / "group"
    _save(place, 2)
    _save(place, 2)
    monkeypatch.setattr(compaction, "compact", interrupting(compaction.compact, at))
    with pytest.raises(KeyboardInterrupt):
        compact_group(place, 3)
    chain = GroupChain(place)
    assert [state.meta for state in chain] == [1, 0, 1]
    assert chain.verify() == []


def test_a_straggler_of_an_older_run_is_seen(tmp_path):
    """Before anything is done."""
    place = tmp_path / "group"
    array = np.zeros(2000)
    with GroupCheckpointer.open(place, {"a": array}, fsync=False) as old:
        old.save(0, wait=True)
        _save(place, 1)
        before = [one.name for one in (place / "records").iterdir()]
        with pytest.raises(BusyError, match="writes to it"):
            compact_group(place, 2)
        assert [one.name for one in (place / "records").iterdir()] == before
    assert compact_group(place, 2).number == GroupChain(place).checkpoints[0].number


def test_a_part_beyond_a_gap_stays(tmp_path, monkeypatch):
    """Of a save that was not committed a mirror need not have anything; then nothing leads across."""
    place = tmp_path / "group"
    is_durable = Settings.is_durable

    def refusing(self, checkpoints, part):
        if part.number == 2:
            raise CheckpointError(61, "the mirror was too slow", self.place)
        return is_durable(self, checkpoints, part)

    monkeypatch.setattr(Settings, "is_durable", refusing)
    array = np.zeros(2000)
    with GroupCheckpointer.open(place, {"a": array}, fsync=False) as checkpoints:
        for step in range(3):
            array[:] = step + 1  # all of it: each is a base
            save = checkpoints.save(step)
            save.part.wait()
    folder = place / GroupChain(place).newest.parts[0].folder
    next(folder.glob("0000000002-*.base")).unlink()
    compact_group(place, 2)
    chain = GroupChain(place)
    assert [state.meta for state in chain] == [0, 2]
    assert [chain.load("a", at=state.number)[0] for state in chain] == [1, 3]
