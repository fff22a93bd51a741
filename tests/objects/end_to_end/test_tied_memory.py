"""The same memory under several names, as tied weights are: stored once, and given back to each name."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _lib.checkpoint.independent_reader import read_chain
from _lib.objects.takers import save
from _lib.support import address_of, library
from dirtytrack import ChainError, Session
from dirtytrack.checkpoint import Chain, Checkpointer, load, restore

NBYTES = 400_000
RANDOM = np.random.default_rng(7)


def _weights() -> np.ndarray[Any, Any]:
    return RANDOM.standard_normal((1000, 50))  # nothing in it is alike


def _as_numpy() -> dict[str, Any]:
    weights = _weights()
    return {"encoder": weights, "decoder": weights}


def _as_views() -> dict[str, Any]:
    weights = _weights()
    return {"encoder": weights[:], "decoder": weights[:, :]}


def _as_buffers() -> dict[str, Any]:
    weights = bytearray(_weights().tobytes())
    return {"encoder": weights, "decoder": np.frombuffer(weights)}


def _as_addresses() -> dict[str, Any]:
    weights = _weights()
    return {"encoder": weights, "decoder": (weights.ctypes.data, weights.nbytes)}


def _as_another_shape() -> dict[str, Any]:
    weights = _weights()
    return {"encoder": weights, "flat": weights.reshape(-1)}


def _as_another_type() -> dict[str, Any]:
    weights = _weights()
    return {"encoder": weights, "words": weights.view("i8")}


def _transposed() -> dict[str, Any]:
    weights = _weights()
    return {"encoder": weights, "decoder": weights.T}


def _three_times_beside_others() -> dict[str, Any]:
    weights, other = _weights(), _weights()
    return {"a": other, "b": weights, "c": weights, "d": other.copy(), "e": weights}


def _as_tensors() -> dict[str, Any]:
    torch = library("torch")
    model = torch.nn.Sequential(torch.nn.Embedding(1000, 100), torch.nn.Linear(100, 1000, bias=False))
    model[1].weight = model[0].weight
    return dict(model.state_dict())


def _as_parameters() -> dict[str, Any]:
    torch = library("torch")
    model = torch.nn.Sequential(torch.nn.Embedding(1000, 100), torch.nn.Linear(100, 1000, bias=False))
    model[1].weight = model[0].weight
    return dict(model.named_parameters(remove_duplicate=False))


def _as_a_transposed_tensor() -> dict[str, Any]:
    weight = library("torch").nn.Linear(100, 1000, bias=False).weight
    return {"encoder": weight, "decoder": weight.detach().t()}


def _as_tensor_and_array() -> dict[str, Any]:
    weight = library("torch").nn.Linear(100, 1000, bias=False).weight
    return {"encoder": weight, "decoder": weight.detach().numpy()}


NUMPY: dict[str, Callable[[], dict[str, Any]]] = {
    "one array": _as_numpy,
    "two views": _as_views,
    "two buffers": _as_buffers,
    "an address": _as_addresses,
    "another shape": _as_another_shape,
    "another type": _as_another_type,
    "transposed": _transposed,
    "three times, beside others": _three_times_beside_others,
}
TORCH: dict[str, Callable[[], dict[str, Any]]] = {
    "state_dict": _as_tensors,
    "parameters": _as_parameters,
    "tensor, transposed": _as_a_transposed_tensor,
    "tensor and array": _as_tensor_and_array,
}
ALL = {**NUMPY, **TORCH}
KINDS = [*NUMPY, *(pytest.param(kind, marks=pytest.mark.torch) for kind in TORCH)]


def _at(thing: Any) -> int:
    if isinstance(thing, tuple):
        return int(thing[0])
    if hasattr(thing, "data_ptr"):
        return int(thing.data_ptr())
    return int(thing.ctypes.data) if isinstance(thing, np.ndarray) else address_of(thing)


def _contents(thing: Any) -> bytes:
    return ctypes.string_at(_at(thing), NBYTES)


def _stored(directory: Path) -> int:
    """Bytes that the chain takes, on disk."""
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir())


def _groups(memories: dict[str, Any]) -> set[frozenset[str]]:
    """The names that have one memory."""
    return {
        frozenset(one for one in memories if _at(memories[one]) == _at(thing)) for thing in memories.values()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_stored_once(tmp_path: Path, kind: str) -> None:
    """As much as it takes in memory; and a change of it, once, too."""
    memories = ALL[kind]()
    count = len(_groups(memories))
    with Checkpointer(tmp_path, memories, compression="none", fsync=False) as checkpoints:
        checkpoints.save(wait=True)
        first = _stored(tmp_path)
        assert count * NBYTES <= first < count * NBYTES + 200_000
        for thing in memories.values():
            ctypes.memset(_at(thing), 1, NBYTES)
        checkpoints.save(wait=True)
    assert _stored(tmp_path) - first < count * NBYTES + 200_000


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_is_in_the_chain(tmp_path: Path, kind: str) -> None:
    """With all the bytes, whichever is asked for."""
    memories = ALL[kind]()
    save(tmp_path, **memories)
    with Chain(tmp_path) as chain:
        assert {region.name for region in chain.newest.regions} == set(memories)
        for name, thing in memories.items():
            assert chain.read(name) == _contents(thing)
        assert chain.verify() == ()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lazy", [False, True])
def test_it_is_loaded_as_one_memory(tmp_path: Path, kind: str, lazy: bool) -> None:
    """Under each name an array, in its own shape and order; those of one memory share it, no others."""
    memories = ALL[kind]()
    with Checkpointer(tmp_path, memories, compression="none", fsync=False) as checkpoints:
        checkpoints.save()
    loaded = load(tmp_path, lazy=lazy)
    assert set(loaded) == set(memories)
    for name, thing in memories.items():
        assert _contents(loaded[name]) == _contents(thing)
        if hasattr(thing, "shape"):
            assert loaded[name].shape == tuple(thing.shape)
    assert _groups(loaded) == _groups(memories)


@pytest.mark.parametrize("kind", KINDS)
def test_it_comes_back_into_one_memory(tmp_path: Path, kind: str) -> None:
    """By restore and by resume, which goes on with the chain."""
    memories = ALL[kind]()
    expected = {name: _contents(thing) for name, thing in memories.items()}
    save(tmp_path, **memories)
    for thing in memories.values():
        ctypes.memset(_at(thing), 0, NBYTES)
    restore(tmp_path, into=memories)
    assert {name: _contents(thing) for name, thing in memories.items()} == expected
    for thing in memories.values():
        ctypes.memset(_at(thing), 0, NBYTES)
    with Checkpointer.resume(tmp_path, memories, fsync=False) as checkpoints:
        assert {name: _contents(thing) for name, thing in memories.items()} == expected
        ctypes.memset(_at(next(iter(memories.values()))), 3, NBYTES)
        checkpoints.save()
    loaded = load(tmp_path)
    assert {name: _contents(array) for name, array in loaded.items()} == {
        name: _contents(thing) for name, thing in memories.items()
    }


@pytest.mark.parametrize("kind", ["one array", "three times, beside others"])
def test_it_stays_so_in_a_base_made_later(tmp_path: Path, kind: str) -> None:
    """Compaction stores it once, too; the reader that knows only the document agrees."""
    memories = ALL[kind]()
    with Checkpointer(tmp_path, memories, fsync=False) as checkpoints:
        checkpoints.save()
        ctypes.memset(_at(next(iter(memories.values()))), 5, 5000)
        checkpoints.save(wait=True)
        checkpoints.compact(wait=True)
    assert [path.suffix for path in tmp_path.iterdir() if path.suffix] == [".base"]
    (state,) = read_chain(tmp_path.iterdir())[0].values()
    found = {row["name"]: state.content(place) for place, row in enumerate(state.table)}
    assert found == {name: _contents(thing) for name, thing in memories.items()}
    assert _groups(load(tmp_path)) == _groups(memories)


def test_it_comes_back_into_memories_of_their_own(tmp_path: Path) -> None:
    """Restore fills each name; and one name alone."""
    memories = _as_numpy()
    save(tmp_path, **memories)
    apart = {name: np.zeros_like(thing) for name, thing in memories.items()}
    restore(tmp_path, into=apart)
    assert all((apart[name] == thing).all() for name, thing in memories.items())
    alone = np.zeros_like(memories["decoder"])
    restore(tmp_path, into={"decoder": alone})
    assert (alone == memories["decoder"]).all()


def test_a_chain_is_resumed_as_it_is_tied(tmp_path: Path) -> None:
    """Neither into memories of their own nor, where they were apart, into one: nothing is written."""
    tied = _as_numpy()
    apart = {name: np.zeros_like(thing) for name, thing in tied.items()}
    save(tmp_path / "tied", **tied)
    with pytest.raises(ChainError, match="'decoder', 'encoder'"):
        Checkpointer.resume(tmp_path / "tied", apart, fsync=False).close()
    assert not any(array.any() for array in apart.values())
    save(tmp_path / "apart", **apart)
    before = tied["encoder"].copy()
    with pytest.raises(ChainError, match="'decoder', 'encoder'"):
        Checkpointer.resume(tmp_path / "apart", tied, fsync=False).close()
    assert (tied["encoder"] == before).all()


def test_two_regions_of_a_chain_do_not_go_into_one_memory(tmp_path: Path) -> None:
    """The second would be written over the first."""
    save(tmp_path, encoder=_weights(), decoder=_weights())
    one = np.zeros((1000, 50))
    with pytest.raises(ValueError, match=r"'(en|de)coder' and of '(en|de)coder' overlaps"):
        restore(tmp_path, into={"encoder": one, "decoder": one})
    assert not one.any()


OVERLAPPING: dict[str, Callable[[np.ndarray[Any, Any]], Any]] = {
    "a part from its beginning": lambda weights: weights[:500],
    "a part from its middle": lambda weights: weights[100:500],
    "its last element": lambda weights: weights[-1, -1:],
}


@pytest.mark.parametrize("kind", OVERLAPPING)
def test_memory_that_is_shared_in_part_is_refused(tmp_path: Path, kind: str) -> None:
    """With both names."""
    weights = _weights()
    with pytest.raises(ValueError, match=r"'(whole|part)' and of '(whole|part)' overlaps"):
        save(tmp_path, whole=weights, part=OVERLAPPING[kind](weights))


def test_one_region_under_two_names(tmp_path: Path) -> None:
    """Memory that is tracked already, given as its region."""
    weights = _weights()
    with Session() as session:
        region = session.track(weights)
        save(tmp_path, encoder=region, decoder=region)
    loaded = load(tmp_path)
    assert loaded["encoder"].tobytes() == loaded["decoder"].tobytes() == weights.tobytes()
