"""Quantized tensors of torch: their numbers mean nothing without scale and zero point, kept elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from _lib.objects.takers import TAKERS, save
from _lib.support import library
from dirtytrack import ChainError
from dirtytrack.checkpoint import Checkpointer, load, restore

torch = library("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor, torch.quantize_per_channel:UserWarning"),
]


VALUES = torch.linspace(-3, 3, 64 * 32).reshape(64, 32)


def per_tensor(kind: str = "quint8", scale: float = 0.05, zero: int = 100) -> Any:
    return torch.quantize_per_tensor(VALUES, scale, zero, getattr(torch, kind))


def per_channel(axis: int = 0, scale: float = 0.05, zero: int = 3, kind: str = "qint8") -> Any:
    count = VALUES.shape[axis]
    scales = torch.linspace(scale, 2 * scale, count, dtype=torch.float64)
    return torch.quantize_per_channel(VALUES, scales, torch.full((count,), zero), axis, getattr(torch, kind))


KINDS: dict[str, Callable[[], Any]] = {
    "quint8": per_tensor,
    "qint8": lambda: per_tensor("qint8", 0.1, 0),
    "qint32": lambda: per_tensor("qint32", 1e-6, 0),
    "scale that no decimal is": lambda: per_tensor(scale=1 / 3),
    "per channel": per_channel,
    "per other channel": lambda: per_channel(axis=1),
}
# What takes as many bytes, and means something else by them.
OTHERS: dict[str, Callable[[], Any]] = {
    "another scale": lambda: per_tensor(scale=0.1),
    "the next scale": lambda: per_tensor(scale=0.05000000000000001),
    "another zero point": lambda: per_tensor(zero=101),
    "another type": lambda: per_tensor("qint8", 0.05, 100),
    "per channel": lambda: per_channel(kind="quint8"),
    "another shape": lambda: per_tensor().reshape(32, 64),
    "its numbers alone": lambda: per_tensor().int_repr(),
}
OTHER_CHANNELS: dict[str, Callable[[], Any]] = {
    "another axis": lambda: per_channel(axis=1),
    "other scales": lambda: per_channel(scale=0.1),
    "other zero points": lambda: per_channel(zero=4),
    "per tensor": lambda: per_tensor("qint8", 0.05, 3),
    "its numbers alone": lambda: per_channel().int_repr(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_tensor_comes_back_into_its_like(tmp_path: Path, kind: str) -> None:
    """Of the same type, shape, scale and zero point: the same values, by restore and by resume."""
    save(tmp_path, thing=KINDS[kind]())
    expected = KINDS[kind]()
    for bring_back in (
        lambda into: restore(tmp_path, into={"thing": into}),
        lambda into: Checkpointer.resume(tmp_path, {"thing": into}, fsync=False).close(),
    ):
        into = KINDS[kind]()
        into.copy_(torch.zeros_like(VALUES))
        assert not torch.equal(into.dequantize(), expected.dequantize())
        bring_back(into)
        assert torch.equal(into.dequantize(), expected.dequantize())


@pytest.mark.parametrize("how", ["restore", "resume"])
@pytest.mark.parametrize(
    ("make", "other"),
    [
        *[pytest.param(per_tensor, other, id=name) for name, other in OTHERS.items()],
        *[pytest.param(per_channel, other, id=f"channels, {name}") for name, other in OTHER_CHANNELS.items()],
    ],
)
def test_a_quantized_tensor_fits_nothing_else(
    tmp_path: Path, make: Callable[[], Any], other: Callable[[], Any], how: str
) -> None:
    """Neither another scale nor another zero point, type or shape; nothing is written."""
    tensor = make()
    tensor.copy_(-VALUES)
    save(tmp_path, thing=tensor)
    into = other()
    with pytest.raises(ChainError, match="region 'thing' has the"):
        if how == "restore":
            restore(tmp_path, into={"thing": into})
        else:
            Checkpointer.resume(tmp_path, {"thing": into}, fsync=False).close()
    before = other()
    same = into.dequantize() == before.dequantize() if into.is_quantized else into == before
    assert same.all()


def test_the_numbers_of_a_quantized_tensor_are_loaded_under_its_name(tmp_path: Path) -> None:
    """Not as values."""
    tensor = per_tensor()
    save(tmp_path, thing=tensor)
    loaded = load(tmp_path)["thing"]
    assert loaded.dtype.names == ("quint8",)
    assert (loaded["quint8"] == tensor.int_repr().numpy()).all()


@pytest.mark.parametrize("take", TAKERS)
@pytest.mark.parametrize("kind", ["quint4x2", "quint2x4"])
def test_elements_of_less_than_a_byte_are_refused(tmp_path: Path, kind: str, take: str) -> None:
    """Torch says that each takes a byte, and their storage is a half or a fourth of that."""
    scales = torch.full((64,), 0.5)
    tensor = torch.quantize_per_channel(VALUES, scales, scales, 0, getattr(torch, kind))
    assert tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size()
    with pytest.raises(ValueError, match="storage"):
        TAKERS[take](tensor, tmp_path, tensor.untyped_storage().nbytes())
