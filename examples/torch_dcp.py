"""torch.distributed.checkpoint, incremental: two processes save shards of a tensor, three load them.

Prints what it proves; exits non-zero if it does not hold, and zero, with a message, where torch is missing.
"""

import os
import sys
import tempfile

try:
    import torch
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    from torch.distributed.tensor import Shard, distribute_tensor

    from dirtytrack.torch import DcpReader, DcpWriter
except ImportError:
    sys.exit(print('skipped: this example needs torch (pip install "dirtytrack[torch]")'))

VALUES = torch.arange(1000 * 64.0).view(1000, 64)


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}", flush=True)
    assert holds


def save(rank, path):
    table = distribute_tensor(VALUES.clone(), dist.init_device_mesh("cpu", (2,)), [Shard(0)])
    with DcpWriter(path) as writer:
        for step in range(3):
            dcp.save({"table": table, "step": step}, storage_writer=writer)
            table.to_local()[step] = -1
        prove(f"rank {rank} wrote {writer.save.nbytes} bytes, not 128000", writer.save.nbytes < 20_000)


def load(rank, path):
    table = distribute_tensor(torch.zeros(1000, 64), dist.init_device_mesh("cpu", (3,)), [Shard(0)])
    state = {"table": table, "step": 0}
    dcp.load(state, storage_reader=DcpReader(path))
    expected = VALUES.clone()
    expected[[0, 1, 500, 501]] = -1  # the first rows of the two shards
    prove(f"rank {rank} of 3 has its part", state["table"].full_tensor().equal(expected))


def run(act, ranks, path):
    for rank in range(ranks):
        if not os.fork():
            dist.init_process_group("gloo", init_method=f"file://{path}/{ranks}", rank=rank, world_size=ranks)
            act(rank, f"{path}/state")
            os._exit(dist.barrier() or 0)
    prove(f"{ranks} processes have ended well", not any(os.wait()[1] for _ in range(ranks)))


os.environ["GLOO_SOCKET_IFNAME"] = "lo"
torch.set_num_threads(1)  # a forked child has none of its parent's threads
with tempfile.TemporaryDirectory() as path:
    run(save, 2, path)
    run(load, 3, path)
