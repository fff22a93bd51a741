"""Checkpoints in an object store: save, go on elsewhere with the bucket alone, and two writers at once.

    python checkpoint_bucket.py [URL]

URL is such as s3://bucket/run-1, where no chain is yet; its credentials are in the environment. Without one a
bucket in memory plays it. Prints what it proves; exits non-zero if it does not hold.
"""

import sys

import numpy as np

from dirtytrack import BusyError
from dirtytrack.checkpoint import Chain, Checkpointer, compact, load


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if not holds:
        sys.exit(1)


def train(url, steps):
    arrays = {"rows": np.ones((1024, 512)), "sums": np.zeros(1024)}
    with Checkpointer.open(url, arrays) as checkpoints:  # starts a chain, or resumes it
        first = checkpoints.meta["step"] + 1 if checkpoints.resumed else 0
        for step in range(first, steps):
            arrays["rows"][step] = step  # in place, always
            arrays["sums"][step] = arrays["rows"].sum()
            checkpoints.save(meta={"step": step})  # uploaded behind it
    return first, arrays


def main(url):
    train(url, 5)
    first, arrays = train(url, 8)  # on another machine, say
    prove("another process goes on after the last checkpoint of the first", first == 5)
    prove("the bucket has all of it, bit for bit", (load(url)["rows"] == arrays["rows"]).all())
    with Chain(url) as chain:
        prove("a slice is read without the rest", chain.read("sums", 0, 64) == arrays["sums"][:8].tobytes())

    with Checkpointer.open(url, arrays) as one, Checkpointer.open(url, arrays) as other:
        one.save(meta={"step": 8}, wait=True)
        try:
            other.save(meta={"step": 8}, wait=True)
        except BusyError as error:
            prove("of two writers one commits, and the other is told", "Another writer" in str(error))
    compact(url, grace_period=0)  # nobody else reads it
    with Chain(url) as chain:
        prove("a short chain is one file", [one.kind for one in chain] == ["base"] and chain.verify() == ())


main(sys.argv[1] if len(sys.argv) > 1 else "memory://example")
