"""Objects that are more, or other, than the bytes they would be taken for."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _lib.objects.takers import TAKERS, every_kind_and_taker, save
from dirtytrack import Session
from dirtytrack.checkpoint import load


class Masked(np.ma.MaskedArray):  # type: ignore[type-arg]
    """A masked array of somebody's own."""


MASKED: dict[str, Callable[[], Any]] = {
    "with a mask": lambda: np.ma.array(np.arange(500.0), mask=np.arange(500) % 2 == 0),
    "with no mask yet": lambda: np.ma.array(np.arange(500.0)),
    "with a hard mask": lambda: np.ma.array(np.arange(500.0), mask=np.zeros(500, bool), hard_mask=True),
    "a part of one": lambda: np.ma.array(np.arange(500.0), mask=np.zeros(500, bool))[100:],
    "of two axes, turned": lambda: np.ma.zeros((20, 30)).T,
    "of structures": lambda: np.ma.zeros(50, [("a", "i4"), ("b", "f8")]),
    "of dates": lambda: np.ma.zeros(50, "M8[s]"),
    "of no axis": lambda: np.ma.array(1.5),
    "of a class of its own": lambda: np.zeros(500).view(Masked),
}


@pytest.mark.parametrize(("kind", "take"), every_kind_and_taker(MASKED, "with a mask"))
def test_a_masked_array_is_refused(tmp_path: Path, kind: str, take: str) -> None:
    """Its mask is no part of its memory; the error says what to give instead."""
    array = MASKED[kind]()
    with pytest.raises((TypeError, ValueError), match=r"\.data.*\.mask"):
        TAKERS[take](array, tmp_path, array.nbytes)


def test_the_parts_of_a_masked_array_are_taken(tmp_path: Path) -> None:
    """Both of them come back."""
    array = MASKED["with a mask"]()
    save(tmp_path, data=array.data, mask=array.mask)
    parts = load(tmp_path)
    assert np.ma.allequal(np.ma.array(parts["data"], mask=parts["mask"]), array)
    assert (parts["mask"] == array.mask).all()


TARGET = np.arange(5000.0)
POINTERS: dict[str, Callable[[], Any]] = {
    "c_void_p": lambda: ctypes.c_void_p(TARGET.ctypes.data),
    "data_as": lambda: TARGET.ctypes.data_as(ctypes.c_void_p),
    "c_char_p": lambda: ctypes.c_char_p(b"text"),
    "c_wchar_p": lambda: ctypes.c_wchar_p("text"),
    "POINTER": lambda: ctypes.cast(TARGET.ctypes.data, ctypes.POINTER(ctypes.c_double)),
    "POINTER to an array": lambda: ctypes.pointer((ctypes.c_double * 10)()),
    "POINTER to a POINTER": lambda: ctypes.pointer(ctypes.pointer(ctypes.c_int(1))),
    "null POINTER": lambda: ctypes.POINTER(ctypes.c_double)(),
    "function": lambda: ctypes.CFUNCTYPE(None)(lambda: None),
    "function of a library": lambda: ctypes.CDLL(None).getpid,
    "c_void_p of a class of its own": lambda: type("Handle", (ctypes.c_void_p,), {})(TARGET.ctypes.data),
    "c_char_p of a class of its own": lambda: type("Text", (ctypes.c_char_p,), {})(b"text"),
}


@pytest.mark.parametrize(("kind", "take"), every_kind_and_taker(POINTERS, "POINTER"))
def test_a_pointer_is_refused(tmp_path: Path, kind: str, take: str) -> None:
    """It is eight bytes, and not what they point to."""
    with pytest.raises(TypeError, match=r"pointer.*\(address, nbytes\)"):
        TAKERS[take](POINTERS[kind](), tmp_path, ctypes.sizeof(ctypes.c_void_p))


def test_what_a_pointer_points_to_is_taken() -> None:
    """By its contents, which are an object, and by its address."""
    numbers = (ctypes.c_double * 500)()
    with Session() as session:
        region = session.track(ctypes.pointer(numbers).contents)
        assert (region.address, region.nbytes) == (ctypes.addressof(numbers), 4000)
        at = ctypes.cast(ctypes.pointer(numbers), ctypes.c_void_p).value
        assert session.track((at, 4000)).page_range == region.page_range


def test_a_table_of_pointers_is_memory() -> None:
    """Nobody takes it for what they point to."""
    with Session() as session:
        assert session.track((ctypes.c_void_p * 10)()).nbytes == 80
        kind = type(
            "Node", (ctypes.Structure,), {"_fields_": [("next", ctypes.c_void_p), ("value", ctypes.c_int)]}
        )
        assert session.track(kind()).nbytes == 16
