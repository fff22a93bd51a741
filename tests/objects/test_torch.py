"""Tensors, by duck type; and those of torch itself where it is installed."""

from __future__ import annotations

import gc
import weakref

import pytest

import dirtytrack
from _lib.support import library
from _lib.torch_like import Storage, Tensor
from dirtytrack.objects import Elements, describe


def memory(nbytes: int = 64) -> Storage:
    return Storage(dirtytrack.alloc(nbytes))


@pytest.mark.parametrize(
    ("dtype", "elements"),
    [
        ("float32", Elements("<f4", (12,))),
        ("float64", Elements("<f8", (6,))),
        ("int16", Elements("<i2", (24,))),
        ("uint8", Elements("|u1", (48,))),
        ("bool", Elements("|b1", (48,))),
        ("complex64", Elements("<c8", (6,))),
        ("float8_e4m3fn", Elements({"name": "float8_e4m3fn", "itemsize": 1}, (48,))),
    ],
)
def test_a_tensor_is_described(dtype: str, elements: Elements) -> None:
    """Its own bytes, which are not all of its storage; its elements by numpy's name, or by torch's own."""
    storage = memory()
    found = describe(Tensor(storage, offset=16, dtype=dtype))
    assert (found.address, found.nbytes) == (storage.data_ptr() + 16, 48)
    found.view[0] = 9
    assert storage.memory[16] == 9
    assert found.elements == elements


def test_its_storage_is_kept() -> None:
    """Not the tensor, which may go its own way; but a view of the bytes keeps what they lie in."""
    storage = memory()
    alive = weakref.ref(storage)
    view = describe(Tensor(storage)).view
    del storage
    gc.collect()
    assert alive() is not None
    del view
    gc.collect()
    assert alive() is None


def test_it_tells_when_its_storage_is_another() -> None:
    """Resized elsewhere, or replaced."""
    storage = memory()
    tensor = Tensor(storage)
    found = describe(tensor)
    before = storage.memory
    assert found.can_move
    assert found.still_there()
    storage.memory = dirtytrack.alloc(128)
    assert not found.still_there()
    storage.memory = before
    assert found.still_there()
    tensor.storage = memory()
    assert not found.still_there()


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (Tensor(memory(), device="cuda"), "cuda"),
        (Tensor(memory(), device="meta"), "meta"),
        (Tensor(memory(), contiguous=False), "contiguous"),
        (Tensor(memory(), offset=64), "empty"),
        (Tensor(memory(), lazy="conj"), r"resolve_conj\(\)"),
        (Tensor(memory(), lazy="neg"), r"resolve_neg\(\)"),
    ],
)
def test_a_tensor_that_is_not_its_bytes_is_refused(tensor: Tensor, words: str) -> None:
    """On a device, with gaps, empty, or with a conjugation or negation that is still to come."""
    with pytest.raises(ValueError, match=words):
        describe(tensor)


@pytest.mark.torch
def test_torch_itself() -> None:
    """Element types, a view of a slice, lazy views, and storage that is replaced."""
    torch = library("torch")
    whole = torch.zeros(8, 4, dtype=torch.complex64)
    part = whole[2:5]
    found = describe(part)
    assert (found.address, found.nbytes) == (part.data_ptr(), 96)
    assert found.elements == Elements("<c8", (3, 4))
    bits = Elements({"name": "bfloat16", "itemsize": 2}, (3,))
    assert describe(torch.zeros(3, dtype=torch.bfloat16)).elements == bits
    for lazy in (whole.conj(), whole.conj().imag, torch._neg_view(torch.zeros(3))):
        with pytest.raises(ValueError, match="resolve_"):
            describe(lazy)
    whole.set_(torch.zeros(8, 4, dtype=torch.complex64))
    assert found.still_there()  # of its own storage, a part of which this is
    part.set_(torch.zeros(3, 4, dtype=torch.complex64))
    assert not found.still_there()
