"""What is exported is what safetensors and numpy load: the tensors that torch.save would have."""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _lib.support import library

torch = library("torch")
pytestmark = pytest.mark.torch

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, load_model  # noqa: E402

from _lib.torch_modules import AnyModule  # noqa: E402
from _lib.torch_states import same  # noqa: E402
from dirtytrack import ChainError  # noqa: E402
from dirtytrack.checkpoint import Chain  # noqa: E402
from dirtytrack.torch import TorchCheckpointer, export  # noqa: E402


def _model() -> Any:
    model = torch.nn.Sequential(torch.nn.Embedding(400, 64), torch.nn.Linear(64, 64), torch.nn.LayerNorm(64))
    return model.append(torch.nn.Linear(64, 400, bias=False))


def test_a_model_is_loaded_by_safetensors(tmp_path: Path) -> None:
    """With its biases, which are below a page, in the newest state and in an older one."""
    model, states = _model(), []
    with TorchCheckpointer.open(tmp_path / "chain", model=model) as checkpoints:
        for step in range(3):
            with torch.no_grad():
                model[0].weight[step] += 1
                model[1].bias += 1
            states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
            checkpoints.save(meta={"step": step})
    export(tmp_path / "chain", tmp_path / "new", only="model")
    export(tmp_path / "chain", tmp_path / "old", only="model", at=1)
    assert same(dict(sorted(states[2].items())), dict(sorted(load_file(tmp_path / "new").items())))
    other = _model()
    load_model(other, tmp_path / "old")
    assert same(dict(other.state_dict()), states[0])
    with safe_open(tmp_path / "old", "pt") as opened:
        assert opened.metadata()["format"] == "pt"
        assert opened.metadata()["meta"] == '{"step": 0}'


def test_tied_weights(tmp_path: Path) -> None:
    """A model with the same ones takes the file, as one of save_model."""
    model, other = _model(), _model()
    model[3].weight, other[3].weight = model[0].weight, other[0].weight
    with TorchCheckpointer.open(tmp_path / "chain", model=model) as checkpoints:
        checkpoints.save()
    export(tmp_path / "chain", tmp_path / "out", only="model")
    assert "3.weight" not in load_file(tmp_path / "out")
    load_model(other, tmp_path / "out")
    assert same(dict(other.state_dict()), dict(model.state_dict()))
    export(tmp_path / "chain", tmp_path / "npz", only="model", format="npz")
    assert np.array_equal(np.load(tmp_path / "npz")["3.weight"], model[3].weight.detach().numpy())


@settings(max_examples=25)
@given(st.integers(0, 1 << 30))
def test_any_module(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Of any types, in any order, views and empty ones among them; tied ones by either name."""
    folder = tmp_path_factory.mktemp("any")
    torch.manual_seed(seed)
    model = AnyModule(random.Random(seed))
    with TorchCheckpointer.open(folder / "chain", model=model, rng=False, fsync=False) as checkpoints:
        checkpoints.save()
    export(folder / "chain", folder / "out", only="model", fsync=False)
    found = load_file(folder / "out")
    with safe_open(folder / "out", "pt") as opened:
        twins = opened.metadata()
    for name, tensor in model.state_dict().items():
        assert same(found[name if name in found else twins[name]], tensor.detach().contiguous()), name
    assert found.keys() <= model.state_dict().keys()


def test_all_of_a_training(tmp_path: Path) -> None:
    """The optimizer's tensors and those of others, by their whole names; arrays of numpy are left out."""
    model, table = torch.nn.Linear(50, 50), torch.arange(3000)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.rand(2, 50)).sum().backward()
    optimizer.step()
    extra = {"list": [torch.ones(3), np.ones(4)], "text": "x"}
    things = {"model": model, "optimizer": optimizer, "table": table, "extra": extra}
    with TorchCheckpointer.open(tmp_path / "chain", rng=False, **things) as checkpoints:
        checkpoints.save()
    export(tmp_path / "chain", tmp_path / "out")
    found = load_file(tmp_path / "out")
    state = optimizer.state_dict()["state"]
    expected = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    expected |= {f"optimizer.state.{n}.{key}": one for n in state for key, one in state[n].items()}
    expected |= {"table": table, "extra.list.0": torch.ones(3)}
    assert same(dict(sorted(found.items())), dict(sorted(expected.items())))
    export(tmp_path / "chain", tmp_path / "table", only="table", format="npz")
    assert np.array_equal(np.load(tmp_path / "table")["table"], table.numpy())


def test_what_can_not_be_exported(tmp_path: Path) -> None:
    """It is named, and there is no file."""
    warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
    quantized = torch.quantize_per_tensor(torch.rand(9000), 0.1, 10, torch.quint8)
    small = torch.quantize_per_tensor(torch.rand(9), 0.1, 10, torch.quint8)
    things = {"q": quantized, "s": small, "c": torch.ones(3, dtype=torch.complex128), "plain": {"a": 1}}
    with TorchCheckpointer.open(tmp_path / "chain", rng=False, **things) as checkpoints:
        checkpoints.save()
    for only in "qsc":
        with pytest.raises(ChainError, match=f"'{only}' has elements of type"):
            export(tmp_path / "chain", tmp_path / "out", only=only)
    with pytest.raises(ChainError, match=r"no tensors of 'model'\. It has some of: q, s, c"):
        export(tmp_path / "chain", tmp_path / "out", only="model")
    with pytest.raises(ValueError, match='format is "safetensors" or "npz", not'):
        export(tmp_path / "chain", tmp_path / "out", format="chain")
    with Chain(tmp_path / "chain") as chain:
        with pytest.raises(ChainError, match=r"call export\(\) of dirtytrack.torch"):
            chain.export(tmp_path / "out", format="safetensors")
        chain.export(tmp_path / "plain", format="npz", regions=[":state"])
    assert sorted(os.listdir(tmp_path)) == ["chain", "plain"]


def test_what_was_not_written_by_one(tmp_path: Path) -> None:
    """A chain of arrays has an export of its own."""
    from dirtytrack.checkpoint import Checkpointer

    with Checkpointer(tmp_path / "chain", {"a": np.ones(3)}) as checkpoints:
        checkpoints.save()
    with pytest.raises(ChainError, match="was not written by a TorchCheckpointer"):
        export(tmp_path / "chain", tmp_path / "out")
