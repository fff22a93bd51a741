"""One state of several processes: killed in the middle, and gone on with by another number of them.

Prints what it proves; exits non-zero if it does not hold. It takes the extras numpy and checkpoint.
"""

import os
import signal
import tempfile

import numpy as np

from dirtytrack.group import GroupChain, GroupCheckpointer, file_coordinator

SHARDS = [f"shard-{at}" for at in range(6)]


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}", flush=True)
    assert holds


def train(path, start, rank, ranks, steps, killed_at=None):
    arrays = {name: np.zeros(100_000, np.float32) for name in SHARDS[rank::ranks]}
    coordinator = file_coordinator(f"{path}/start-{start}", rank, ranks)
    with GroupCheckpointer.open(f"{path}/state", arrays, coordinator=coordinator, keep=3) as checkpoints:
        first = checkpoints.meta["step"] + 1 if checkpoints.resumed else 1
        for step in range(first, steps + 1):
            for array in arrays.values():
                array[step] += step  # every process its own
            save = checkpoints.save(meta={"step": step})  # waits for nobody
            _ = step % 3 or save.wait()  # now and then until all have it
            if step == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)


def run(path, start, ranks, steps, killed_at=None):
    pids = []
    for rank in range(ranks):
        pids.append(os.fork())
        if pids[-1] == 0:
            train(path, start, rank, ranks, steps, killed_at if rank == 1 else None)
            os._exit(0)
    if killed_at:
        prove("rank 1 was killed", os.waitstatus_to_exitcode(os.waitpid(pids[1], 0)[1]) == -signal.SIGKILL)
        for pid in pids[:1] + pids[2:]:  # a scheduler ends the others
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    else:
        prove(f"{ranks} processes have ended well", not any(os.waitpid(pid, 0)[1] for pid in pids))


with tempfile.TemporaryDirectory() as path:
    run(path, 1, 3, 10, killed_at=7)
    step = GroupChain(f"{path}/state").meta["step"]
    prove(f"they all have step {step}", step in (6, 7))
    run(path, 2, 2, 12)
    chain = GroupChain(f"{path}/state")
    expected = np.arange(13.0)
    prove("two processes went on with it", all((chain.load(name)[:13] == expected).all() for name in SHARDS))
