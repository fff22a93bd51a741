"""The first five minutes of checkpoints: save arrays, crash, go on where they were, and look at older states.

Prints what it proves; exits non-zero if it does not hold.
"""

import multiprocessing
import os
import sys
import tempfile

import numpy as np

from dirtytrack.checkpoint import Chain, Checkpointer, load, restore


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if not holds:
        sys.exit(1)


def program(path, crash=False):
    arrays = {"rows": np.ones((1024, 512)), "sums": np.zeros(1024)}
    with Checkpointer.open(path, arrays, compression="none") as checkpoints:  # starts a chain, or resumes it
        first = checkpoints.meta["step"] + 1 if checkpoints.resumed else 0
        for step in range(first, 8):
            arrays["rows"][step] = step  # in place, always
            arrays["sums"][step] = arrays["rows"].sum()
            checkpoints.save(meta={"step": step})  # at first everything, then what was written since
            if crash and step == 4:
                checkpoints.flush()  # what was saved is on the disk now
                os._exit(1)
    return first, arrays


def main(path):
    child = multiprocessing.get_context("spawn").Process(target=program, args=(path, True))
    child.start()
    child.join()
    first, arrays = program(path)
    prove("the program crashed in step 4, and went on with step 5", (child.exitcode, first) == (1, 5))

    copies = {name: np.empty_like(array) for name, array in arrays.items()}
    meta = restore(path, into=copies)
    same = all(np.array_equal(copies[name], arrays[name]) for name in arrays)
    prove("restore() gives back the newest state and its meta", same and meta == {"step": 7})
    with Chain(path) as chain:
        for checkpoint in chain:
            print(f"  {checkpoint.kind} {checkpoint.number}: {checkpoint.nbytes:,} bytes, {checkpoint.meta}")
        row = arrays["rows"][0].nbytes
        then = np.frombuffer(chain.read("rows", 2 * row, 5 * row, at=4))
    prove("of an older state, a slice can be read", then[::512].tolist() == [2, 3, 1])
    mapped = load(path, lazy=True)["rows"]
    prove("load() makes new arrays, lazily by mapping the base", np.array_equal(mapped, arrays["rows"]))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
