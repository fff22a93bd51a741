"""Keep a copy of an array in another process up to date by sending what changed, to the byte.

Prints what it proves; exits non-zero if it does not hold.
"""

import hashlib
import multiprocessing
import sys

import numpy as np

import dirtytrack
from dirtytrack.snapshot import Diff, Snapshot

SHAPE, STEPS = (4096, 1024), 50


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if not holds:
        sys.exit(1)


def digest(array):
    return hashlib.blake2b(array, digest_size=16).digest()


def replica(pipe):
    array = np.zeros(SHAPE, np.float32)
    while data := pipe.recv_bytes():
        Diff.from_bytes(data).apply(array, check=True)  # refused if a step was left out
        pipe.send_bytes(digest(array))


def main():
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=replica, args=(there,))
    process.start()
    there.close()  # so that the end of the replica is the end of the pipe
    array, draw, sent, equal = dirtytrack.empty(SHAPE, np.float32), np.random.default_rng(1), 0, 0
    with Snapshot(None, array) as snapshot:
        for _ in range(STEPS):
            array[draw.integers(0, SHAPE[0], 20)] += draw.random(SHAPE[1], np.float32)
            data = snapshot.diff(advance=True).to_bytes()  # one step: also right beside threads that write
            here.send_bytes(data)
            sent += len(data)
            equal += here.recv_bytes() == digest(array)
    here.send_bytes(b"")
    process.join()
    prove(f"after each of {STEPS} steps the replica is equal, by its digest", equal == STEPS)
    whole = STEPS * array.nbytes
    prove(f"{sent >> 20} MiB were sent, where whole copies are {whole >> 20} MiB", sent < whole / 20)


if __name__ == "__main__":
    main()
