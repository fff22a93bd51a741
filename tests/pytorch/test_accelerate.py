"""accelerate: its wrappers of optimizers and schedulers have states, so a TorchCheckpointer takes them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from _lib.support import library

torch = library("torch")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore", "error:::dirtytrack")]

from _lib.torch_states import same  # noqa: E402
from dirtytrack.torch import TorchCheckpointer  # noqa: E402


def _train(path: Path, stop: int, seed: int) -> tuple[list[float], Any]:
    accelerate = library("accelerate")
    torch.manual_seed(seed)
    random.seed(seed)
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = torch.nn.Sequential(torch.nn.Embedding(300, 64), torch.nn.Dropout(0.2), torch.nn.Linear(64, 300))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    losses = []
    with TorchCheckpointer.open(
        path, model=accelerator.unwrap_model(model), optimizer=optimizer, scheduler=scheduler
    ) as checkpoints:
        for step in range(checkpoints.meta["step"] if checkpoints.resumed else 0, stop):
            words = torch.randint(0, 300, (8,))
            with accelerator.accumulate(model):
                loss = torch.nn.functional.cross_entropy(model(words), words)
                accelerator.backward(loss)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            losses.append(loss.item())
            if step % 2:  # between two accumulations there are gradients, which nobody saves
                checkpoints.save(meta={"step": step + 1})
    return losses, (dict(accelerator.unwrap_model(model).state_dict()), optimizer.state_dict())


def test_it_goes_on_as_if_it_had_not_ended(tmp_path: Path) -> None:
    """Bit for bit, with what accelerate has prepared, and gradients accumulated."""
    losses, whole = _train(tmp_path / "whole", 12, 0)
    first, _ = _train(tmp_path / "chain", 6, 0)
    rest, state = _train(tmp_path / "chain", 12, 99)
    assert first + rest == losses
    assert same(state, whole)
