"""Whichever process is killed when: every state that was reported is there, whole and of one step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from _lib.group.killing import ROUNDS, Killer, Where
from dirtytrack.group import GroupChain, GroupCheckpointer

_IN_ONE_TEST = 50  # so that each stays within its time, however many there are in all


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(-(-ROUNDS // _IN_ONE_TEST)))
def test_a_group_whose_processes_are_killed_loses_nothing(tmp_path: Path, seed: int) -> None:
    """At random, while they open, save, vote, compact; and as many of them go on, or another number."""
    killer = Killer(Where(tmp_path), seed)
    for _ in range(_IN_ONE_TEST):
        killer.kill()
    assert min(killer.killed["saving"], killer.killed["before the first state"]) > 0
    assert killer.states > _IN_ONE_TEST


def test_the_comparison_finds_a_part_of_another_step(tmp_path: Path) -> None:
    """And a state that was reported and is not there."""
    killer = Killer(Where(tmp_path), 0)
    place = tmp_path / "group-1"
    arrays = {f"shard-{at}": np.zeros(3000, np.int64) for at in range(8)}
    with GroupCheckpointer.open(place, arrays, fsync=False) as checkpoints:
        checkpoints.save({"step": 0})
    killer._check()
    assert killer.states == 1
    killer._reported = 1
    with pytest.raises(AssertionError):
        killer._check()
    with GroupCheckpointer.open(place, arrays, fsync=False) as checkpoints:
        arrays["shard-4"][7] = 1
        checkpoints.save({"step": 0})
    killer._reported = 0
    assert len(GroupChain(place)) == 2
    with pytest.raises(AssertionError, match="Mismatched elements: 1"):
        killer._check()
