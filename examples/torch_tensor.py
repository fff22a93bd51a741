"""Track the parameters of a torch model through a training step, on the CPU.

Prints what it proves; exits non-zero if it does not hold, and zero, with a message, where torch is missing.
"""

import sys

import dirtytrack

try:
    import torch
except ModuleNotFoundError:
    print("skipped: this example needs torch (pip install torch)")
    sys.exit(0)


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if not holds:
        sys.exit(1)


torch.manual_seed(0)
table = torch.nn.Embedding(20_000, 256)
optimiser = torch.optim.SGD(table.parameters(), lr=0.5)
mirror = table.weight.detach().clone()
target = memoryview(mirror.numpy()).cast("B")

with dirtytrack.Session() as session:
    region = session.track(table.weight.detach(), name="table")  # the storage; torch itself is never imported

    before = table.weight.detach()[100:103].clone()
    table(torch.tensor([100, 101, 102])).sum().backward()
    table.weight.grad = None  # the dense gradient would be zero, and still write every row
    with torch.no_grad():
        table.weight[100:103] -= 0.5
    with session.collect() as epoch:
        prove(
            f"three rows of 1 KiB written, pages reported: {len(epoch[region])}", 1 <= len(epoch[region]) <= 3
        )
        for piece in epoch[region].slices():
            target[piece] = region.view[piece]
    prove("copying those pages alone brought the mirror up to date", torch.equal(table.weight, mirror))
    prove("and the rows did change", not torch.equal(before, table.weight[100:103]))

    table(torch.tensor([5])).sum().backward()
    optimiser.step()
    everything = table.weight.nbytes
    with session.collect() as epoch:
        prove("a dense optimiser step writes every row, changed or not", epoch.nbytes == everything)
