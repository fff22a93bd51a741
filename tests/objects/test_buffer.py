"""Objects that export a buffer and say no more of themselves."""

from __future__ import annotations

import array
import ctypes
import mmap
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from _lib.support import address_of
from dirtytrack.objects import Elements, describe

NATIVE = "<" if sys.byteorder == "little" else ">"
_CHARACTERS = "w" if sys.version_info >= (3, 13) else "u"  # which is deprecated since

KINDS: dict[str, tuple[Callable[[], Any], Elements | None]] = {
    "bytearray": (lambda: bytearray(40), None),
    "mmap": (lambda: mmap.mmap(-1, 40), None),
    "memoryview": (lambda: memoryview(bytearray(60))[10:50], None),
    "signed bytes": (lambda: array.array("b", bytes(40)), None),
    "doubles": (lambda: array.array("d", bytes(40)), Elements("<f8", (5,))),
    "unsigned shorts": (lambda: array.array("H", bytes(40)), Elements("<u2", (20,))),
    "longs": (lambda: array.array("l", bytes(40)), Elements("<i8", (5,))),
    "bools, two axes": (lambda: memoryview(bytearray(40)).cast("?", [4, 10]), Elements("|b1", (4, 10))),
    "bytes, two axes": (lambda: memoryview(bytearray(40)).cast("B", [4, 10]), Elements("|u1", (4, 10))),
    "floats, two axes": (lambda: memoryview(bytearray(40)).cast("f", [2, 5]), Elements("<f4", (2, 5))),
    "characters": (lambda: array.array(_CHARACTERS, "ten letters"[:10]), Elements(f"{NATIVE}U1", (10,))),
    "bytes of C, two axes": (lambda: (ctypes.c_char * 4 * 10)(), Elements("|S1", (10, 4))),
    "big-endian": (lambda: (ctypes.c_float.__ctype_be__ * 10)(), Elements(">f4", (10,))),
    "addresses": (lambda: (ctypes.c_void_p * 5)(), Elements(f"{NATIVE}u8", (5,))),
    "a structure": (
        lambda: memoryview((type("S", (ctypes.Structure,), {"_fields_": [("x", ctypes.c_int)]}) * 10)()),
        Elements({"name": "T{<i:x:}", "itemsize": 4}, (10,)),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_buffer_is_described(kind: str) -> None:
    """Its own bytes, its elements if they are not plain bytes, and no way to move."""
    make, elements = KINDS[kind]
    memory = make()
    found = describe(memory)
    assert (found.address, found.nbytes) == (address_of(memory), 40)
    found.view[39] = 5
    assert memoryview(memory).cast("B")[39] == 5
    assert found.elements == elements


@pytest.mark.parametrize(
    "make", [lambda: bytearray(40), lambda: mmap.mmap(-1, 40), lambda: array.array("d", bytes(40))]
)
def test_what_holds_still_is_not_asked(make: Callable[[], Any]) -> None:
    """It can't be resized while it is exported."""
    assert not describe(make()).can_move


@pytest.mark.parametrize(
    "dtype", [*"?bBhHiIlLqQefdgFDG", ">i2", ">f8", ">c16", "S1", "S7", "U3", ">U2", ("f4", (2,)), "V5"]
)
def test_elements_are_called_what_numpy_calls_them(dtype: Any) -> None:
    """By the buffer of an array of any type; what has no such name keeps that of the buffer."""
    made = np.zeros((3, 2), dtype)
    found = describe(memoryview(made)).elements
    assert found is not None
    assert found.shape == made.shape
    assert found.dtype == (made.dtype.str if made.dtype.kind != "V" else {"name": "5x", "itemsize": 5})


def test_the_export_is_held_as_long_as_the_view() -> None:
    """A bytearray can't grow under it."""
    memory = bytearray(40)
    piece = describe(memory).view[:4]
    with pytest.raises(BufferError):
        memory.append(1)
    del piece
    memory.append(1)


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        (b"abc", "read-only"),
        (memoryview(bytearray(10)).toreadonly(), "read-only"),
        (bytearray(), "empty"),
        (memoryview(bytearray(10))[::2], "contiguous"),
    ],
)
def test_a_buffer_that_is_no_writable_memory_is_refused(memory: object, words: str) -> None:
    """Read-only, empty, with gaps."""
    with pytest.raises(ValueError, match=words):
        describe(memory)


@pytest.mark.parametrize("memory", ["abc", [1, 2], None, 4096, object(), iter(())])
def test_what_is_no_memory_at_all_is_refused(memory: object) -> None:
    """With a word on what is."""
    with pytest.raises(TypeError, match="no memory to track"):
        describe(memory)


def test_a_class_is_refused() -> None:
    """Some classes have the attributes of their objects."""
    with pytest.raises(TypeError, match="bytearray is a class"):
        describe(bytearray)
