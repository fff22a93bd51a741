"""Checkpoint a torch training in two lines: it is killed over and over, and ends as one that was not.

Prints what it proves; exits non-zero if it does not hold, and zero, with a message, where torch is missing.
"""

import os
import signal
import sys
import tempfile

try:
    import torch

    from dirtytrack.torch import TorchCheckpointer
except ImportError:
    print('skipped: this example needs torch (pip install "dirtytrack[torch]")')
    sys.exit(0)

STEPS, ROWS = 33, int(sys.argv[1]) if len(sys.argv) > 1 else 20_000  # 4,000,000 are 1 GiB


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    assert holds


def train(path=None, killed_at=None):
    """Trains to the end, or until it is killed; returns what the model has learned."""
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(ROWS, 64, sparse=True)
    rest = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(64, 1))
    optimizer = torch.optim.SGD([*embedding.parameters(), *rest.parameters()], lr=0.01)
    things = {"model": torch.nn.ModuleList([embedding, rest]), "optimizer": optimizer}
    checkpoints = TorchCheckpointer.open(path, **things) if path else None
    for step in range(checkpoints.meta["step"] if checkpoints and checkpoints.resumed else 0, STEPS):
        optimizer.zero_grad()
        rest(embedding(torch.randint(ROWS, (100,)))).square().mean().backward()
        optimizer.step()
        if step == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if checkpoints:
            save = checkpoints.save(meta={"step": step + 1}, wait=True)
    if checkpoints:
        checkpoints.close()
        print(f"the last save: {save}")
    return embedding.weight.detach(), rest[1].weight.detach()


torch.set_num_threads(1)  # a forked child has none of its parent's threads
with tempfile.TemporaryDirectory() as path:
    for kill in range(3, STEPS, 3):
        if (child := os.fork()) == 0:
            train(path, killed_at=kill)
        prove(f"killed at step {kill}", os.waitpid(child, 0)[1] == signal.SIGKILL)
    pairs = zip(train(path), train(), strict=True)
    prove(
        "the end is that of a run that was never killed, to the bit",
        all(torch.equal(*pair) for pair in pairs),
    )
