"""Whenever a writer is killed, its chain holds what it had flushed, and not one wrong byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from _lib.checkpoint.torture import KILLS, Oracle, Torturer
from _lib.checkpoint.world import World
from dirtytrack.checkpoint import Checkpointer

_IN_ONE_TEST = 50  # so that each stays within its time, however many there are in all


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(-(-KILLS // _IN_ONE_TEST)))
def test_a_killed_writer_loses_nothing(tmp_path: Path, seed: int) -> None:
    """At random instants of resuming, saving and compacting: every checkpoint comes back bit for bit."""
    torturer = Torturer(tmp_path, seed)
    for _ in range(_IN_ONE_TEST):
        torturer.kill()
    assert min(torturer.killed[what] for what in ("resuming", "compacting", "writing")) > 0
    assert torturer.checkpoints > _IN_ONE_TEST


def test_the_comparison_finds_a_wrong_byte_and_a_lost_checkpoint(tmp_path: Path) -> None:
    """Against an oracle that has been told something else."""
    world, oracle = World(4, 0), Oracle()
    with Checkpointer(tmp_path, world.regions) as checkpoints:
        checkpoints.save({"step": 1})
    oracle.hashes[1] = world.digest()
    assert oracle.check(tmp_path) == 1
    oracle.flushed = 2
    with pytest.raises(AssertionError):
        oracle.check(tmp_path)
    world.regions["third"][77] ^= 1
    oracle.flushed, oracle.hashes[1] = 1, world.digest()
    with pytest.raises(AssertionError, match="step 1 differs"):
        oracle.check(tmp_path)
