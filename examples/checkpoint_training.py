"""Kill a training in the middle and resume it: it ends as one that was left alone, bit for bit.

A step writes some dozen rows of a table of 100 MiB, the first ones most often. It needs the arrays and its
number; its batch follows from that. Prints what it proves; exits non-zero if it does not hold.
"""

import subprocess
import sys
import tempfile

import numpy as np

import dirtytrack
from dirtytrack.checkpoint import Chain, Checkpointer, load

ROWS, STEPS, EVERY, KILL = 200_000, 4_000, 250, 2_115


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if not holds:
        sys.exit(1)


def learn(table, squares, step):
    rows = np.unique((ROWS * np.random.default_rng(step).random(64) ** 12).astype(int))
    gradient = table[rows] - table[np.roll(rows, 1)]
    squares[rows] += (gradient**2).mean(axis=1)
    table[rows] -= 0.1 * gradient / np.sqrt(1e-6 + squares[rows])[:, None]  # in place, where it is tracked


def train(path):
    table, squares = dirtytrack.empty((ROWS, 128), np.float32), dirtytrack.empty(ROWS, np.float32)
    table[:] = np.random.default_rng(0).standard_normal(table.shape, np.float32)
    with Checkpointer.open(path, {"table": table, "squares": squares}) as checkpoints:  # starts, or resumes
        for step in range(checkpoints.meta["step"] + 1 if checkpoints.resumed else 1, STEPS + 1):
            print(step, flush=True)
            learn(table, squares, step)
            if step % EVERY == 0:
                checkpoints.save(meta={"step": step})


if len(sys.argv) == 2:
    sys.exit(train(sys.argv[1]))
with tempfile.TemporaryDirectory() as folder:
    killed, whole, command = f"{folder}/killed", f"{folder}/whole", [sys.executable, __file__]
    with subprocess.Popen([*command, killed], stdout=subprocess.PIPE, text=True) as child:
        for step in map(int, child.stdout):
            if step == KILL:
                child.kill()
    prove(f"it was killed in step {step}", child.returncode == -9)
    first = int(subprocess.check_output([*command, killed]).split()[0])
    prove(f"another went on with step {first}: {step - first} steps are done again", 1 < first <= step)
    subprocess.check_output([*command, whole])
    with Chain(killed) as chain:
        for e in chain:
            print(f"  {e.kind} {e.meta}: {e.nbytes >> 20} MiB, pause {e.statistics['pause'] * 1e3:.1f} ms")
    ends = [[array.tobytes() for array in load(path).values()] for path in (killed, whole)]
    prove("its arrays are those of a training that was left alone, bit for bit", ends[0] == ends[1])
