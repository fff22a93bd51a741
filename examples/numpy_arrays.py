"""Track a numpy array and keep a copy of it. The one trap: rebinding a name leaves the tracked array behind.

Prints what it proves; exits non-zero if it does not hold.
"""

import mmap
import sys

import numpy as np

import dirtytrack


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if not holds:
        sys.exit(1)


def pages_of(start, stop):
    """The pages that the bytes [start, stop) of a page-aligned region lie on."""
    return set(range(start // mmap.PAGESIZE, (stop - 1) // mmap.PAGESIZE + 1))


w = dirtytrack.empty((2048, 1024), np.float32)  # page-aligned; any writable array will do
w[:] = 1.0

with dirtytrack.Session() as session, dirtytrack.Mirror(session, w) as mirror:  # a copy of now
    region = mirror.region  # armed from here on: what is in it already counts as clean

    w[500] = 7.0
    row = w[0].nbytes
    with session.collect() as epoch:
        prove(
            "writing row 500 reports its pages and no others",
            epoch[region] == pages_of(500 * row, 501 * row),
        )
    copied = mirror.update()
    prove(f"copying {copied} bytes brought the mirror up to date", mirror.view == region.view)

    total = float(w.sum())
    prove(f"reading everything (sum {total:.0f}) is not a write", session.peek().pages == 0)

    tracked = w
    w = w - 0.5  # computes a new array and gives it the old one's name
    prove("after w = w - 0.5 the tracked array is unwritten, and w is another", session.peek().pages == 0)
    prove(
        "... which region.view shows: it still has the old values", region.view.tobytes() == tracked.tobytes()
    )

    w = tracked
    w -= 0.5  # in place; so do w[:] = w - 0.5 and np.subtract(w, 0.5, out=w)
    with session.collect() as epoch:
        prove("after w -= 0.5 every page is reported", epoch[region] == pages_of(0, w.nbytes))
