"""Objects of ctypes: memory, or pointers to it."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from dirtytrack.objects import Elements, describe


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_double), ("next", ctypes.c_void_p))


@pytest.mark.parametrize(
    ("memory", "elements"),
    [
        ((ctypes.c_int * 6)(), Elements("<i4", (6,))),
        ((ctypes.c_double * 3 * 2)(), Elements("<f8", (2, 3))),
        (ctypes.create_string_buffer(10), None),
        (ctypes.c_double(), Elements("<f8", ())),
        (Point(), None),
        ((Point * 3)(), None),
        ((ctypes.c_void_p * 3)(), None),
    ],
)
def test_an_object_is_its_own_memory(memory: Any, elements: Elements | None) -> None:
    """Also one with a pointer in it: its fields and items can be written."""
    found = describe(memory)
    assert (found.address, found.nbytes) == (ctypes.addressof(memory), ctypes.sizeof(memory))
    assert found.elements == elements


@pytest.mark.parametrize(
    "pointer",
    [
        ctypes.c_void_p(4096),
        ctypes.c_char_p(b"abc"),
        ctypes.c_wchar_p("abc"),
        ctypes.pointer(ctypes.c_int()),
        ctypes.POINTER(ctypes.c_double)(),
        ctypes.cast((ctypes.c_int * 3)(), ctypes.POINTER(ctypes.c_int)),
        ctypes.CFUNCTYPE(None)(),
        type("handle", (ctypes.c_void_p,), {})(4096),
    ],
)
def test_a_pointer_is_refused(pointer: Any) -> None:
    """It is eight bytes, and what it points to is meant."""
    with pytest.raises(TypeError, match=r"pointer.*\(address, nbytes\)"):
        describe(pointer)


def test_pointers_to_python_objects_are_refused() -> None:
    """Alone, in an array, in a structure whose fields have telling names."""
    structure = type("S", (ctypes.Structure,), {"_fields_": [("x", ctypes.py_object)]})
    for memory in (ctypes.py_object(1), (ctypes.py_object * 3)(), structure()):
        with pytest.raises(TypeError, match="Python objects"):
            describe(memory)
    innocent = type("S", (ctypes.Structure,), {"_fields_": [("O", ctypes.c_int), ("xOx", ctypes.c_int)]})
    assert describe(innocent()).nbytes == 8


def test_it_tells_when_it_was_resized() -> None:
    """Which ctypes does whatever is exported."""
    memory = (ctypes.c_ubyte * 1000)()
    found = describe(memory)
    assert found.can_move
    assert found.still_there()
    ctypes.resize(memory, 100_000)
    assert not found.still_there()
