"""Dense memory whose axes lie in any order: it is taken as it lies, and comes back in that order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _lib.objects.takers import TAKERS, every_kind_and_taker, save
from _lib.support import library
from dirtytrack import ChainError, Session
from dirtytrack.checkpoint import Checkpointer, load, restore

SHAPE = (6, 3, 5, 8)


def _numbers(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape), dtype="f4").reshape(shape)


def _tensor(make: Callable[[Any, Any], Any]) -> Callable[[], Any]:
    def tensor() -> Any:
        torch = library("torch")
        return make(torch, torch.arange(720.0).reshape(SHAPE))

    return tensor


NUMPY: dict[str, Callable[[], Any]] = {
    "numpy, Fortran order": lambda: np.asfortranarray(_numbers(SHAPE)),
    "numpy, transposed": lambda: _numbers(SHAPE).transpose(1, 3, 0, 2),
    "numpy, dates transposed": lambda: _numbers(SHAPE).astype("M8[s]").transpose(1, 3, 0, 2),
    "numpy, axes of one": lambda: _numbers((6, 1, 5, 1)).transpose(3, 2, 1, 0),
}
TORCH: dict[str, Callable[[], Any]] = {
    "torch, channels last": _tensor(lambda torch, one: one.contiguous(memory_format=torch.channels_last)),
    "torch, channels last of 3": _tensor(
        lambda torch, one: (
            one.unsqueeze(2).repeat(1, 1, 2, 1, 1).contiguous(memory_format=torch.channels_last_3d)
        )
    ),
    "torch, transposed": _tensor(lambda torch, one: one.reshape(18, 40).t()),
    "torch, permuted": _tensor(lambda torch, one: one.permute(1, 3, 0, 2)),
    "torch, part of a permuted one": _tensor(
        lambda torch, one: one.permute(1, 3, 0, 2)[:, :, 2:4].permute(2, 0, 1, 3)[0:1]
    ),
    "torch, moved axis": _tensor(lambda torch, one: one.movedim(0, -1)),
    "torch, bfloat16 permuted": _tensor(lambda torch, one: one.to(torch.bfloat16).permute(1, 3, 0, 2)),
    "torch, parameter in channels last": _tensor(
        lambda torch, one: torch.nn.Conv2d(3, 6, 5).to(memory_format=torch.channels_last).weight
    ),
}
ALL = {**NUMPY, **TORCH}
KINDS = [*NUMPY, *(pytest.param(kind, marks=pytest.mark.torch) for kind in TORCH)]


def _bytes_of(thing: Any) -> bytes:
    """The bytes of an array or a tensor as they lie in memory."""
    if isinstance(thing, np.ndarray):
        return thing.tobytes("A") if thing.flags.forc else _unturned(thing).tobytes()
    order = sorted(range(thing.ndim), key=lambda axis: (-thing.stride(axis), -thing.shape[axis]))
    flat = thing.detach().permute(order).reshape(-1)
    return flat.view(library("torch").uint8).numpy().tobytes()


def _unturned(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.transpose(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))


def _nbytes(thing: Any) -> int:
    return int(thing.nbytes)


def _like(thing: Any) -> Any:
    """Another one, in the same order, of zeros."""
    if isinstance(thing, np.ndarray):
        return np.zeros_like(thing, order="K")
    return library("torch").zeros_like(thing.detach())


def _strides(thing: Any) -> tuple[int, ...]:
    """In elements, of the axes that have more than one."""
    own = thing.strides if isinstance(thing, np.ndarray) else thing.stride()
    size = thing.itemsize if isinstance(thing, np.ndarray) else 1
    return tuple(stride // size for stride, length in zip(own, thing.shape, strict=True) if length > 1)


@pytest.mark.torch
@pytest.mark.parametrize(("kind", "take"), every_kind_and_taker(TORCH, "torch, channels last"))
def test_dense_memory_is_taken_in_any_order(tmp_path: Path, kind: str, take: str) -> None:
    """By whatever takes memory."""
    thing = ALL[kind]()
    TAKERS[take](thing, tmp_path, _nbytes(thing))


@pytest.mark.parametrize("kind", KINDS)
def test_its_bytes_are_tracked(kind: str) -> None:
    """All of them and no others: the region shows the memory as it lies."""
    thing = ALL[kind]()
    with Session() as session:
        region = session.track(thing)
        assert bytes(region.view) == _bytes_of(thing)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_loaded_in_its_order(tmp_path: Path, kind: str) -> None:
    """Shape, strides, bytes."""
    thing = ALL[kind]()
    save(tmp_path, thing=thing)
    loaded = load(tmp_path)["thing"]
    assert (loaded.shape, _strides(loaded)) == (tuple(thing.shape), _strides(thing))
    assert _unturned(loaded).tobytes() == _bytes_of(thing)


@pytest.mark.parametrize("kind", KINDS)
def test_it_comes_back_into_its_like(tmp_path: Path, kind: str) -> None:
    """By restore and by resume."""
    thing = ALL[kind]()
    save(tmp_path, thing=thing)
    into = _like(thing)
    assert _strides(into) == _strides(thing)
    restore(tmp_path, into={"thing": into})
    assert _bytes_of(into) == _bytes_of(thing)
    other = _like(thing)
    Checkpointer.resume(tmp_path, {"thing": other}, fsync=False).close()
    assert _bytes_of(other) == _bytes_of(thing)


@pytest.mark.torch
@pytest.mark.parametrize("how", ["restore", "resume"])
@pytest.mark.parametrize("kind", ["numpy, transposed", "torch, channels last", "torch, permuted"])
def test_it_fits_no_other_order(tmp_path: Path, kind: str, how: str) -> None:
    """Of the same shape; nothing is written."""
    torch = library("torch")
    thing = ALL[kind]()
    save(tmp_path, thing=thing)
    into = torch.zeros(tuple(thing.shape))
    with pytest.raises(ChainError, match="region 'thing' has axes in"):
        if how == "restore":
            restore(tmp_path, into={"thing": into})
        else:
            Checkpointer.resume(tmp_path, {"thing": into}, fsync=False).close()
    assert not into.any()


@pytest.mark.torch
def test_an_axis_of_one_has_no_place_in_the_order(tmp_path: Path) -> None:
    """Two tensors with the same bytes in the same order are alike, whatever strides such an axis has."""
    torch = library("torch")
    grey = torch.arange(200.0).reshape(5, 1, 4, 10)
    last = torch.zeros(5, 1, 4, 10).to(memory_format=torch.channels_last)
    odd = torch.as_strided(torch.zeros(200), (5, 1, 4, 10), (40, 7, 10, 1))
    assert len({grey.stride(), last.stride(), odd.stride()}) == 3
    save(tmp_path, thing=grey)
    for into in (last, odd, np.zeros((5, 1, 4, 10), "f4")):
        restore(tmp_path, into={"thing": into})
        assert (torch.as_tensor(into) == grey).all()


GAPS: dict[str, Callable[[], Any]] = {
    "every other": _tensor(lambda torch, one: one.reshape(-1)[::2]),
    "a column": _tensor(lambda torch, one: one.reshape(18, 40)[:, 3]),
    "a block": _tensor(lambda torch, one: one.reshape(18, 40)[:, :20]),
    "expanded": _tensor(lambda torch, one: one[:1].expand(6, 3, 5, 8)),
    "windows": _tensor(lambda torch, one: one.reshape(-1).unfold(0, 4, 1)),
    "the real part": _tensor(lambda torch, one: torch.complex(one, one).real),
    "a part of channels last": _tensor(
        lambda torch, one: one.contiguous(memory_format=torch.channels_last)[:, :2]
    ),
}


@pytest.mark.torch
@pytest.mark.parametrize(("kind", "take"), every_kind_and_taker(GAPS, "a block"))
def test_memory_with_gaps_is_refused(tmp_path: Path, kind: str, take: str) -> None:
    """Or with elements that lie on each other."""
    tensor = GAPS[kind]()
    with pytest.raises(ValueError, match="contiguous"):
        TAKERS[take](tensor, tmp_path, tensor.nbytes)
