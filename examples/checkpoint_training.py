"""Kill a training in the middle and resume it: it ends as one that was left alone, bit for bit.

Word embeddings of the standard library's source, as in the demo. A step needs the arrays and its own number;
its batch follows from the seed. Prints what it proves; exits non-zero if it does not hold.
"""

import os
import subprocess
import sys
import tempfile
from itertools import islice

import numpy as np

from dirtytrack.checkpoint import Chain, Checkpointer, load
from dirtytrack.cli import _embedding

STEPS, EVERY, KILL = 4_000, 250, 2_115


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if not holds:
        sys.exit(1)


def train(path):
    rng = np.random.default_rng(1)
    corpus = _embedding.read_corpus(3_000_000, 65_536, rng)
    model = _embedding.Embedding(len(corpus.words), 512, rng)
    batches = _embedding.batches(corpus, 128, rng)
    with Checkpointer.open(path, vars(model), staging_bytes=1 << 27) as checkpoints:  # starts, or resumes
        done = checkpoints.meta["step"] if checkpoints.resumed else 0
        for step, batch in enumerate(islice(batches, done, STEPS), done + 1):
            print(step, flush=True)
            model.step(batch, _embedding.learning_rate(step / STEPS))
            if step % EVERY == 0:
                checkpoints.save(meta={"step": step})


if len(sys.argv) == 2:
    sys.exit(train(sys.argv[1]))
os.environ["OMP_NUM_THREADS"] = "1"  # of the children's numpy: threads may add up in another order each time
with tempfile.TemporaryDirectory() as folder:
    killed, whole = f"{folder}/killed", f"{folder}/whole"
    command = [sys.executable, "-W", "error", __file__]
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
