"""Tensors whose conjugation or negation is pending: their values are not those in their storage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _lib.objects.takers import TAKERS, every_kind_and_taker, save
from _lib.support import library
from dirtytrack import RegionLostError, Session
from dirtytrack.checkpoint import load, restore

torch = library("torch")
pytestmark = pytest.mark.torch


def numbers(*shape: int, dtype: Any = torch.complex64) -> Any:
    """Complex numbers of which no part is its own negative."""
    count = int(np.prod(shape))
    parts = torch.arange(1.0, count + 1), torch.arange(2.0, count + 2)
    return torch.complex(*parts).to(dtype).reshape(shape)


# The tensor, and what makes it say what it means.
LAZY: dict[str, tuple[Callable[[], Any], set[str]]] = {
    "conj": (lambda: numbers(3000).conj(), {"conj"}),
    "conj of double precision": (lambda: numbers(3000, dtype=torch.complex128).conj(), {"conj"}),
    "conj of a slice": (lambda: numbers(3000)[100:].conj(), {"conj"}),
    "slice of a conj": (lambda: numbers(3000).conj()[100:], {"conj"}),
    "view of a conj": (lambda: numbers(3000).conj().view(30, 100), {"conj"}),
    "conj, detached": (lambda: numbers(3000).conj().detach(), {"conj"}),
    "conj as a parameter": (lambda: torch.nn.Parameter(numbers(3000).conj()), {"conj"}),
    "conj of no axis": (lambda: numbers(1)[0].conj(), {"conj"}),
    "adjoint": (lambda: numbers(30, 40).mH, {"conj"}),
    "adjoint of a row": (lambda: numbers(1, 3000).mH.reshape(-1), {"conj"}),
    "Hermitian transpose": (lambda: numbers(30, 40).H, {"conj"}),
    "conj, transposed": (lambda: numbers(30, 40).conj().t(), {"conj"}),
    "negation": (lambda: torch._neg_view(torch.arange(1.0, 3001)), {"neg"}),
    "negation of integers": (lambda: torch._neg_view(torch.arange(1, 3001)), {"neg"}),
    "negation of complex numbers": (lambda: torch._neg_view(numbers(3000)), {"neg"}),
    "slice of a negation": (lambda: torch._neg_view(torch.arange(1.0, 3001))[100:], {"neg"}),
    "imaginary part of a conj": (lambda: numbers(3000).conj().imag, {"neg"}),
    "imaginary part of a conj, one element": (lambda: numbers(1).conj().imag, {"neg"}),
    "real part of a negation, one element": (lambda: torch._neg_view(numbers(1)).real, {"neg"}),
    "conj of a negation": (lambda: torch._neg_view(numbers(3000)).conj(), {"conj", "neg"}),
}


@pytest.mark.parametrize(("kind", "take"), every_kind_and_taker(LAZY, "conj"))
def test_a_lazy_view_is_refused(tmp_path: Path, kind: str, take: str) -> None:
    """With the call that resolves it, wherever it is given; nothing is written into its storage."""
    make, pending = LAZY[kind]
    tensor = make()
    before = tensor.clone()
    with pytest.raises(ValueError) as caught:
        TAKERS[take](tensor, tmp_path, tensor.numel() * tensor.element_size())
    assert {word for word in ("conj", "neg") if f"resolve_{word}()" in str(caught.value)} == pending
    assert torch.equal(tensor, before)


# These look like it, and their storage is what they say.
EAGER: dict[str, Callable[[], Any]] = {
    "resolved conj": lambda: numbers(3000).conj().resolve_conj(),
    "resolved negation": lambda: torch._neg_view(torch.arange(1.0, 3001)).resolve_neg(),
    "conj of a conj": lambda: numbers(3000).conj().conj(),
    "conj of real numbers": lambda: torch.arange(1.0, 3001).conj(),
    "conj at once": lambda: torch.conj_physical(numbers(3000)),
    "negative": lambda: -torch.arange(1.0, 3001),
    "real part of a conj, one element": lambda: numbers(1).conj().real,
    "imaginary part, one element": lambda: numbers(1).imag,
}


@pytest.mark.parametrize("kind", EAGER)
def test_what_only_looks_lazy_is_taken(tmp_path: Path, kind: str) -> None:
    """Its values come back, as an array and into another tensor."""
    tensor = EAGER[kind]()
    save(tmp_path, thing=tensor)
    into = torch.zeros_like(tensor)
    restore(tmp_path, into={"thing": into})
    assert torch.equal(into, tensor)
    assert (load(tmp_path)["thing"] == tensor.numpy()).all()


def _swap(tensor: Any) -> None:
    tensor.data = tensor.data.conj()


def _swap_and_negate(tensor: Any) -> None:
    tensor.data = torch._neg_view(tensor.data)


@pytest.mark.parametrize("change", [_swap, _swap_and_negate])
def test_a_tensor_that_becomes_a_lazy_view_is_lost(change: Callable[[Any], None]) -> None:
    """It has the storage that it had, and other values: what lies there is not saved for these."""
    tensor = numbers(3000)
    with Session() as session:
        region = session.track(tensor, name="thing")
        session.collect()
        change(tensor)
        with pytest.raises(RegionLostError, match="region 'thing'"):
            session.collect()
        session.untrack(region)
        with pytest.raises(ValueError, match="resolve_"):
            session.track(tensor)
