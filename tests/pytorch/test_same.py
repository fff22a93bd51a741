"""What changes of tensors in place is found at the next save, however torch is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from _lib.support import library

torch = library("torch")
pytestmark = pytest.mark.torch

from _lib.torch_states import copied, same  # noqa: E402
from dirtytrack.torch import TorchCheckpointer, _same  # noqa: E402


def _data(make: Callable[[Any], Any]) -> Callable[[Any], None]:
    def change(tensor: Any) -> None:
        tensor.data = make(tensor.data)

    return change


CHANGES: dict[str, Callable[[Any], object]] = {
    "nothing": lambda tensor: None,
    "contents": lambda tensor: tensor.view(-1)[0].add_(1),
    "memory": _data(lambda data: data.clone()),
    "axes": _data(lambda data: data.t()),
    "axes, in place": lambda tensor: tensor.t_(),
    "shape": _data(lambda data: data.view(-1)),
    "fewer rows": _data(lambda data: data[:-1]),
    "another place in its storage": _data(lambda data: data[1:]),
    "dtype": _data(lambda data: data.view(torch.int32)),
    "negative": _data(torch._neg_view),
    "steps": _data(lambda data: data[:, ::2]),
    "gradients": lambda tensor: tensor.requires_grad_(),
    "memory of another": lambda tensor: torch.utils.swap_tensors(tensor, torch.randn(3, 2)),
}


def _of_another_torch(*_tensors: Any) -> None:
    """Takes no keywords, as the real one does today."""


@pytest.mark.parametrize(
    "guards",
    [_same.TensorGuards, None, _of_another_torch],
    ids=["in one call", "each", "each, of another torch"],
)
@pytest.mark.parametrize("is_small", [False, True], ids=["tracked", "packed"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, is_small: bool, guards: Any
) -> None:
    """It is in the next save, which is what the state is; so it is where a tensor is there twice."""
    monkeypatch.setattr(_same, "TensorGuards", guards)
    shape = (4, 6) if is_small else (64, 96)
    state: dict[str, Any] = {"one": torch.randn(shape), "two": torch.nn.Parameter(torch.randn(shape))}
    state["again"] = state["one"]
    with TorchCheckpointer.open(tmp_path, state=state, fsync=False) as checkpoints:
        checkpoints.save()
        change(state["one"])
        checkpoints.save()
        first = copied(state)
        state["two"].detach().view(-1)[1] += 1
        checkpoints.save(wait=True)
    fresh: dict[str, Any] = {}
    with TorchCheckpointer.open(tmp_path, state=fresh, at=2, fsync=False):
        assert same(fresh, first)
    fresh = {}
    with TorchCheckpointer.open(tmp_path, state=fresh, fsync=False):
        assert same(fresh, copied(state))


def test_in_another_mode(tmp_path: Path) -> None:
    """Without gradients, in inference and where parameters were frozen meanwhile, nothing is tracked anew."""
    model = torch.nn.Linear(300, 300)
    with TorchCheckpointer.open(tmp_path, model=model, rng=False, fsync=False) as checkpoints:
        checkpoints.save()
        plan = checkpoints._saver._plan
        for mode in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu")):
            with mode:
                checkpoints.save()
            checkpoints.save()
        model.requires_grad_(False)
        checkpoints.save()
        assert checkpoints._saver._plan is plan


def test_it_is_asked_in_one_call() -> None:
    """Of the torch that the tests have."""
    assert _same.TensorGuards is not None
    tensors = [torch.randn(3000), torch.nn.Parameter(torch.randn(3000)), torch.tensor(1.0)]
    guards = _same._Guards([*tensors, tensors[0]])
    assert guards.hold([*tensors, tensors[0]])
    assert not guards.hold([*tensors, tensors[0].clone()])
    tensors[1].data = tensors[1].data.view(2, 1500)
    assert not guards.hold([*tensors, tensors[0]])
