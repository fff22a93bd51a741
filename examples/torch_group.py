"""Processes of torch.distributed save one state, and another number of them goes on with it.

Prints what it proves; exits non-zero if it does not hold, and zero, with a message, where torch is missing.
"""

import os
import sys
import tempfile

try:
    import torch
    import torch.distributed as dist
except ImportError:
    sys.exit(print('skipped: this example needs torch (pip install "dirtytrack[torch]")'))

from dirtytrack.group import GroupChain, GroupCheckpointer, torch_coordinator

SHARDS = [f"shard-{at}" for at in range(6)]


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}", flush=True)
    assert holds


def train(path, rank, ranks, steps):
    tensors = {name: torch.zeros(50_000) for name in SHARDS[rank::ranks]}
    with GroupCheckpointer.open(path, tensors, coordinator=torch_coordinator()) as checkpoints:
        first = checkpoints.meta["step"] + 1 if checkpoints.resumed else 0
        for step in range(first, steps):
            total = torch.tensor(float(step))
            dist.all_reduce(total)  # the training's own collective
            for tensor in tensors.values():
                tensor[step] = total / ranks
            checkpoints.save(meta={"step": step})
    return first


def run(path, ranks, steps, begins_at):
    for rank in range(ranks):
        if not os.fork():
            meeting = f"file://{path}/meeting-{ranks}"
            dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
            first = train(f"{path}/state", rank, ranks, steps)
            dist.barrier()
            os._exit(first != begins_at)
    prove(f"{ranks} processes begin at step {begins_at}", not any(os.wait()[1] for _ in range(ranks)))


os.environ["GLOO_SOCKET_IFNAME"] = "lo"
torch.set_num_threads(1)  # a forked child has none of its parent's threads
with tempfile.TemporaryDirectory() as path:
    run(path, 3, 5, 0)
    run(path, 2, 8, 5)
    chain = GroupChain(f"{path}/state")
    right = all((chain.load(name)[:8] == range(8)).all() for name in SHARDS)
    prove(f"the state of step {chain.meta['step']} is whole", right and chain.meta == {"step": 7})
