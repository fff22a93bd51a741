"""A trainer that saves while it trains: its speed beside the same without saves."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dirtytrack.checkpoint import Checkpointer

from .fixtures import PAGE, memory_folder, size
from .harness import Budget, Outcome, Scale, Side, Unavailable, compare, require_memory, row

_STEPS = 200
_EVERY = 10  # steps between two saves
_SHARE = 0.02  # of the rows, that are written between two saves
_WIDTH = PAGE // 4  # numbers in a row of the table, which fills a page
_HIDDEN = 16  # so that a step takes half a millisecond


class _Trainer:
    """A table of embeddings, of which each step uses some rows and writes them."""

    def __init__(self, torch: Any, nbytes: int) -> None:
        torch.manual_seed(0)
        rows = nbytes // PAGE
        self._torch = torch
        self._used = max(1, int(rows * _SHARE) // _EVERY)
        self._layer = torch.randn(_WIDTH, _HIDDEN)
        self.table = torch.randn(rows, _WIDTH)

    def step(self) -> None:
        """One forward, one backward, and the rows that were used are moved."""
        used = self._torch.randint(len(self.table), (self._used,))
        rows = self.table[used].requires_grad_()
        (rows @ self._layer).tanh().sum().backward()
        self.table.index_add_(0, used, rows.grad, alpha=-1e-3)


@row("company-trainer", Budget(0.5, faster=True))
def company_trainer(scale: Scale) -> Iterator[Outcome]:
    """Torch on one thread, a save of 2 % of 256 MiB every 10 steps, on a tmpfs, not compressed."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise Unavailable("torch is not installed") from None
    nbytes = scale.gib(1) // 4
    require_memory(10 * nbytes)  # with the files
    threads = torch.get_num_threads()
    with ExitStack() as closing:
        closing.callback(torch.set_num_threads, threads)
        torch.set_num_threads(1)
        yield _trained(scale, torch, nbytes, closing)


def _trained(scale: Scale, torch: Any, nbytes: int, closing: ExitStack) -> Outcome:
    steps = _STEPS // 10 if scale.quick else _STEPS
    saving, plain = _Trainer(torch, nbytes), _Trainer(torch, nbytes)
    folder = closing.enter_context(tempfile.TemporaryDirectory(dir=memory_folder()))
    chain = closing.enter_context(
        Checkpointer(Path(folder, "chain"), {"table": saving.table}, compression="none")
    )
    chain.save(wait=True)

    def train_and_save() -> None:
        for step in range(steps):
            saving.step()
            if step % _EVERY == 0:
                chain.save()

    def train() -> None:
        for _ in range(steps):
            plain.step()

    return compare(
        f"{steps} steps of a torch trainer, {size(nbytes)}, a save of {_SHARE:.0%} every {_EVERY}",
        Side(train_and_save, lambda _: chain.flush()),
        Side(train, name="without saves"),
        pairs=scale.repeat(15),
        faster=True,
    )
