"""A training of which a batch touches few rows, and whose optimizer writes everything: a profile shows it.

Prints what it proves; exits non-zero if it does not hold, and zero, with a message, where torch is missing.
"""

import sys

import dirtytrack
from dirtytrack.profile import Profile

try:
    import torch
except ModuleNotFoundError:
    sys.exit(print("skipped: this example needs torch (pip install torch)"))


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if not holds:
        sys.exit(1)


torch.manual_seed(1)
torch.set_num_threads(1)


def written(sparse):
    """Pages that the steps of a training wrote, by phase, for each page of the table."""
    table = torch.nn.Embedding(20_000, 64, sparse=sparse)
    optimizer = (torch.optim.SparseAdam if sparse else torch.optim.Adam)(table.parameters())

    def step(profile=None):
        rows = torch.randint(0, 20_000, (16,))
        with profile.phase("backward") if profile else torch.enable_grad():
            optimizer.zero_grad(set_to_none=True)
            table(rows).square().sum().backward()
        with profile.phase("step") if profile else torch.enable_grad():
            optimizer.step()

    step()  # the optimizer makes its moments in its first step
    state = optimizer.state[table.weight]
    with dirtytrack.Session() as session:
        tensors = {"weight": table.weight.detach(), "first": state["exp_avg"], "second": state["exp_avg_sq"]}
        pages = sum(session.track(tensor, name=name).geometry.page_count for name, tensor in tensors.items())
        with Profile(session) as profile:
            for _ in range(5):
                step(profile)
        print(profile.report())
        phases = {phase.name: phase.writes for phase in profile.report().recording.phases}
    return phases.get("backward", 0) / pages / 5, phases["step"] / pages / 5


backward, dense = written(sparse=False)
prove("the backward pass wrote nothing of the table and its moments", backward == 0)
prove("each step of Adam wrote nearly all of them, though 16 rows had a gradient", dense > 0.9)
_, sparse = written(sparse=True)
prove("SparseAdam, with the same batches, wrote less than a fiftieth", sparse < 0.02)
