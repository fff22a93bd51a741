"""A driver of Ray commits what its workers have prepared; one of them dies, and all begin with what they had.

Prints what it proves; exits non-zero if it does not hold, and zero, with a message, where Ray is missing.
"""

import os
import sys
import tempfile

import numpy as np

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # which would write to the home directory
try:
    import ray
except ImportError:
    sys.exit(print("skipped: this example needs Ray (pip install ray)"))
from dirtytrack.group import GroupChain, GroupCheckpointer

SHARDS = ["shard-0", "shard-1", "shard-2", "shard-3"]


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}", flush=True)
    assert holds


@ray.remote
class Worker:
    """It has a part of the state."""

    def __init__(self, path, run, names):
        self.arrays = {name: np.zeros(100_000) for name in names}
        self.checkpoints = GroupCheckpointer.open(path, self.arrays, at=run)

    def step(self, step, dies):
        """Works, and prepares a save."""
        for array in self.arrays.values():
            array[step] = step if not dies else os._exit(1)
        return self.checkpoints.prepare({"step": step})


def train(path, ranks, steps, dies_at=None):
    run = GroupCheckpointer.begin(path)
    workers = [Worker.remote(path, run, SHARDS[rank::ranks]) for rank in range(ranks)]
    first = GroupChain(path).meta["step"] + 1 if dies_at is None else 1
    for step in range(first, steps + 1):
        votes = [one.step.remote(step, step == dies_at and one is workers[1]) for one in workers]
        try:
            GroupCheckpointer.commit(path, ray.get(votes), keep=2)
        except ray.exceptions.RayActorError:
            return prove(f"a worker died in step {step}", step == dies_at)
    return prove(f"{ranks} workers went on with step {first}", first == 4)


with tempfile.TemporaryDirectory() as folder, ray.init(num_cpus=4, include_dashboard=False):
    train(folder, 2, 6, dies_at=4)
    train(folder, 3, 6)
    load = GroupChain(folder).load
    prove("the state is whole", all((load(one)[:7] == range(7)).all() for one in SHARDS))
