"""Any state, changed in any way between saves, against what torch.save makes of it at the time."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _lib.support import library

torch = library("torch")
pytestmark = pytest.mark.torch

from _lib.torch_modules import AnyModule, put  # noqa: E402
from _lib.torch_states import copied, same  # noqa: E402
from dirtytrack.torch import TorchCheckpointer  # noqa: E402


def _change(module: Any, draw: random.Random) -> None:
    parts = [*module.modules()]
    one = draw.choice(parts)
    verb = draw.choice(["write", "write", "write", "replace", "remove", "assign", "data", "add"])
    tensors = [t for t in module.state_dict(keep_vars=True).values() if t.numel()]
    if verb == "write" and tensors:
        tensor = draw.choice(tensors).detach()
        tensor.view(torch.uint8 if tensor.dtype is torch.float8_e5m2 else tensor.dtype)[
            tuple(draw.randrange(n) for n in tensor.shape)
        ] = draw.randint(0, 1)
    elif verb in ("replace", "add"):
        put(one, f"p{draw.randint(0, 4)}", draw)
    elif verb == "remove" and len(one._parameters) > 1:
        one._parameters.popitem()
    elif verb == "assign":
        module.load_state_dict(copied(module.state_dict()), assign=True)
    elif verb == "data" and one._parameters:
        parameter = draw.choice([*one._parameters.values()])
        parameter.data = parameter.data.clone()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_any_module_in_any_order(seed: int) -> None:
    """Each checkpoint comes back into another module of the same kind, to the bit, and tied as it was."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    module, states = AnyModule(draw), {}
    history: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with TorchCheckpointer.open(path, model=module, history=history, fsync=False) as checkpoints:
            for _ in range(draw.randint(1, 6)):
                save = checkpoints.save()
                states[save.number] = copied(module.state_dict()), copied(history)
                for _ in range(draw.randint(0, 3)):
                    _change(module, draw)
                history.append(
                    draw.choice([draw.random(), "text", [None], torch.rand(draw.choice([2, 2000]))])
                )
        for number, (state, seen) in states.items():
            loaded: dict[str, Any] = {}
            again: list[Any] = []
            # A dictionary takes what a module of this form would have to be made for.
            with TorchCheckpointer.open(path, model=_Taking(loaded), history=again, fsync=False, at=number):
                assert same(loaded, dict(state))
                assert same(again, seen)


class _Taking:
    def __init__(self, into: dict[str, Any]) -> None:
        self._into = into

    def state_dict(self) -> Any:
        return dict(self._into)

    def load_state_dict(self, state: Any) -> None:
        assert isinstance(state, dict)
        self._into.clear()
        self._into.update(state)
