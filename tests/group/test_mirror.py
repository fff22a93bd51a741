"""Each node has a directory of its own, and the group is in the mirror."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from _lib.group.ranks import after, in_ranks, no_errors, shards, step_on
from dirtytrack import CheckpointError
from dirtytrack.checkpoint.store.obstore_bucket import ObstoreBucket
from dirtytrack.group import GroupChain, GroupCheckpointer
from dirtytrack.group.settings import Settings

NAMES = [f"shard-{at}" for at in range(4)]


def _train(path, mirror, start, world, steps, **options):
    def rank(coordinator):
        arrays = shards(NAMES, coordinator.rank, world)
        node = path / f"{start}-node-{coordinator.rank}"
        keywords = {"coordinator": coordinator, "mirror": mirror, "fsync": False, **options}
        with GroupCheckpointer.open(node, arrays, **keywords) as checkpoints:
            found = checkpoints.meta["step"] if checkpoints.resumed else 0
            for step in range(found + 1, found + 1 + steps):
                step_on(arrays, step)
                checkpoints.save({"step": step}, wait=step % 2 == 0)
        return found

    return in_ranks(world, rank)


def test_new_machines_go_on_with_what_the_mirror_has(tmp_path):
    """No node needs what another one has on its disk."""
    mirror = f"memory://{tmp_path.name}"
    done = 0
    for start, world in enumerate((2, 3, 1)):
        options = {"keep": 2, "grace_period": 0}
        assert no_errors(_train(tmp_path, mirror, start, world, 3, **options)) == [done] * world
        done += 3
        chain = GroupChain(mirror)
        assert chain.meta == {"step": done}
        for state in chain:
            for name in NAMES:
                np.testing.assert_array_equal(
                    chain.load(name, at=state.number), after(name, state.meta["step"])
                )
        assert chain.verify() == []


def test_a_node_forgets_what_earlier_runs_have_left_on_it(tmp_path):
    """The mirror has it. What is not of a run stays."""
    mirror = f"memory://{tmp_path.name}"
    foreign = ["000-wing", ".git"]
    for rank in (0, 1):
        for name in foreign:
            (tmp_path / f"0-node-{rank}" / "parts" / name).mkdir(parents=True)
    for _ in range(2):
        no_errors(_train(tmp_path, mirror, 0, 2, 2))
    for rank in (0, 1):
        left = {one.name for one in (tmp_path / f"0-node-{rank}" / "parts").iterdir()}
        assert left > {*foreign}
        assert len(left) == 3


def test_a_part_that_the_mirror_has_skipped_is_a_vote(tmp_path, monkeypatch):
    """It was too slow for that one; the next state has everything."""
    skipped = threading.Event()
    is_durable = Settings.is_durable

    def skipping(self, checkpoints, part):
        if part.number == 1 and not skipped.is_set():
            skipped.set()
            raise CheckpointError(61, "the mirror was too slow", self.place)
        return is_durable(self, checkpoints, part)

    monkeypatch.setattr(Settings, "is_durable", skipping)
    array = np.zeros(1000)
    with GroupCheckpointer.open(tmp_path / "node", {"a": array}, mirror=f"memory://{tmp_path.name}") as one:
        with pytest.raises(CheckpointError, match="the mirror was too slow"):
            one.save(1).wait(60)
        one.save(2).wait(60)
    assert [state.meta for state in GroupChain(f"memory://{tmp_path.name}")] == [2]


def test_a_mirror_that_is_far_behind_has_what_the_others_have(tmp_path, monkeypatch):
    """Though the process's own chain is made short meanwhile: else there might be no state that all have."""
    mirror = f"memory://{tmp_path.name}"
    gates = [threading.Event(), threading.Event()]
    put_new = ObstoreBucket.put_new

    def waiting(self, key, data):
        rank = int(self.place[-1]) if "/parts/" in self.place else None
        if rank is not None and key.startswith("commits/"):
            assert gates[rank].wait(60)
        return put_new(self, key, data)

    def rank(coordinator):
        arrays = shards(NAMES, coordinator.rank, 2)
        node = tmp_path / f"node-{coordinator.rank}"
        keywords = {"coordinator": coordinator, "mirror": mirror, "keep": 1, "fsync": False}
        with GroupCheckpointer.open(node, arrays, **keywords) as checkpoints:
            saves = []
            for step in range(1, 9):
                step_on(arrays, step)
                saves.append(checkpoints.save({"step": step}))
                saves[-1].part.wait()
            gates[coordinator.rank].set()
        return [save.state for save in saves]

    monkeypatch.setattr(ObstoreBucket, "put_new", waiting)
    assert no_errors(in_ranks(2, rank)) == [["committed"] * 8] * 2
    assert GroupChain(mirror).meta == {"step": 8}
