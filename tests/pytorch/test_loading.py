"""A state without the objects that had it: what torch.load would give; and of a hostile chain an error."""

from __future__ import annotations

import copy
import json
import random
import shutil
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _lib.support import library

torch = library("torch")
pytestmark = pytest.mark.torch

from _lib.checkpoint.places import flip  # noqa: E402
from _lib.torch_states import copied, same  # noqa: E402
from dirtytrack import ChainError  # noqa: E402
from dirtytrack.checkpoint import Chain, Checkpointer  # noqa: E402
from dirtytrack.checkpoint import load as load_arrays  # noqa: E402
from dirtytrack.torch import TorchCheckpointer, export, load  # noqa: E402


def _things() -> dict[str, Any]:
    model = torch.nn.Sequential(torch.nn.Embedding(300, 64), torch.nn.Linear(64, 300))
    model[1].weight = model[0].weight
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.arange(5)).sum().backward()
    optimizer.step()
    extra = {"numpy": np.arange(2000), "set": {1, 2}, "bytes": b"x", "bf16": torch.ones(3000).bfloat16()}
    return {"model": model, "optimizer": optimizer, "extra": extra}


def test_it_is_what_torch_save_has(tmp_path: Path) -> None:
    """All of it, or one source; the newest, or another checkpoint; tied weights are tied."""
    things, states = _things(), []
    with TorchCheckpointer.open(tmp_path, rng=False, **things) as checkpoints:
        for _ in range(3):
            things["model"][0].weight.detach()[7] += 1
            checkpoints.save()
            states.append(
                copied(
                    {
                        "model": things["model"].state_dict(),
                        "optimizer": things["optimizer"].state_dict(),
                        "extra": things["extra"],
                    }
                )
            )
    found = load(tmp_path)
    assert same(found, states[2])
    assert found["model"]["0.weight"].data_ptr() == found["model"]["1.weight"].data_ptr()
    assert same(load(tmp_path, only="model", at=2), states[1]["model"])
    assert same(load(tmp_path, only="extra", at=1), states[0]["extra"])
    with pytest.raises(ChainError, match=r"has nothing of 'scheduler'\. It has model, optimizer, extra"):
        load(tmp_path, only="scheduler")


def test_the_newest_intact_one(tmp_path: Path) -> None:
    """Where contents are damaged, and where what is packed is."""
    state = {"big": torch.arange(50_000), "small": torch.zeros(3)}
    with TorchCheckpointer.open(tmp_path, rng=False, state=state, compression="none") as checkpoints:
        for number in range(3):
            state["big"][number * 600 : number * 600 + 600] = 0
            checkpoints.save(meta=number)
    with Chain(tmp_path) as chain:
        names = [one.file for one in chain]
    flip(tmp_path / names[2], 300)
    found = load(tmp_path)["state"]["big"]
    assert (int(found[1199]), int(found[1200])) == (0, 1200)
    with pytest.raises(ChainError, match=names[2]):
        load(tmp_path, at=3)


@settings(max_examples=30)
@given(st.integers(0, 1 << 30))
def test_a_hostile_form(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Whatever a chain says of its state: an error that says so, or a state, and nothing is run."""
    folder = tmp_path_factory.getbasetemp() / "hostile"
    if not folder.exists():
        with TorchCheckpointer.open(folder, rng=False, **_things()) as checkpoints:
            checkpoints.save()
    arrays = load_arrays(folder)
    packed = arrays[":state"].view(np.uint8).copy()
    form, small, values, version = packed[:32].view("<u8").tolist()
    draw = random.Random(seed)
    mangled = json.dumps(_mangled(json.loads(packed[32 : 32 + form].tobytes()), draw)).encode()
    made = bytearray(8 << 20)
    places = -(-(32 + len(mangled)) // 4096) * 4096
    end = -(-(places + small) // 4096) * 4096
    made[:32] = np.array([len(mangled), small, values, version], "<u8").tobytes()
    made[32 : 32 + len(mangled)] = mangled
    old = -(-(32 + form) // 4096) * 4096
    made[places : places + small] = packed[old : old + small].tobytes()
    old = -(-(old + small) // 4096) * 4096
    made[end : end + values] = packed[old : old + values].tobytes()
    path = folder.with_name("mangled")
    shutil.rmtree(path, ignore_errors=True)
    regions = {**arrays, ":state": made}
    regions["model.1.weight"] = regions["model.0.weight"]
    with Checkpointer(path, regions, fsync=False) as checkpoints:
        checkpoints.save()
    for at in (None, 1):
        with suppress(ChainError, MemoryError):
            load(path, at=at)
        with suppress(ChainError, MemoryError):
            (folder.with_name("exported")).unlink(missing_ok=True)
            export(path, folder.with_name("exported"), at=at, fsync=False)


def test_a_form_of_more_tensors_than_there_are(tmp_path: Path) -> None:
    """A short one may speak of as many as its two lists of keys make: it takes no memory for them."""
    keys = list(range(2000))
    form = json.dumps([[["dict", keys], ["rows", keys]], []]).encode()
    packed = bytearray(-(-(32 + len(form)) // 4096) * 4096 + 2)
    packed[:32] = np.array([len(form), 0, 2, 1], "<u8").tobytes()
    packed[32 : 32 + len(form)] = form
    packed[-2:] = b"[]"
    with Checkpointer(tmp_path, {":state": packed}, fsync=False) as checkpoints:
        checkpoints.save()
    tracemalloc.start()
    try:
        with pytest.raises(ChainError, match="has a state that can't be read"):
            load(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def _mangled(value: Any, draw: random.Random) -> Any:
    # With one part of it another one.
    value = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []

    def walk(one: Any) -> None:
        items = enumerate(one) if isinstance(one, list) else one.items() if isinstance(one, dict) else ()
        for key, item in items:
            places.append((one, key))
            walk(item)

    walk(value)
    for _ in range(draw.randint(1, 3)):
        container, key = draw.choice(places)
        choices = [
            None,
            -1,
            0,
            3,
            1 << 62,
            0.5,
            "load",
            "array",
            "values",
            "entries",
            "rows",
            "float32",
            [],
            {},
            ["dict", ["a"]],
            [[]],
            True,
        ]
        container[key] = draw.choice(choices)
    return value
