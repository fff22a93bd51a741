"""Objects of ctypes: memory, or pointers to it."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _lib.objects.takers import save
from dirtytrack import ChainError
from dirtytrack.checkpoint import load, restore
from dirtytrack.objects import Elements, describe
from dirtytrack.objects.element_types import to_numpy


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_double), ("next", ctypes.c_void_p))


class Packed(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"  # as _pack_ means, which Python 3.14 wants to be said
    _fields_ = (("kind", ctypes.c_int8), ("value", ctypes.c_double), ("name", ctypes.c_char * 3))


class Either(ctypes.Union):
    _fields_ = (("words", ctypes.c_int * 3), ("low", ctypes.c_short))


class Big(ctypes.BigEndianStructure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_short), ("rest", ctypes.c_double * 3))


class Nested(ctypes.Structure):
    _fields_ = (
        ("id", ctypes.c_bool),
        ("path", Point * 3),
        ("either", Either),
        ("text", ctypes.c_char * 5),
    )


STRUCTURES = [Point, Packed, Either, Big, Nested]


@pytest.mark.parametrize(
    ("memory", "elements"),
    [
        ((ctypes.c_int * 6)(), Elements("<i4", (6,))),
        ((ctypes.c_double * 3 * 2)(), Elements("<f8", (2, 3))),
        (ctypes.create_string_buffer(10), None),
        (ctypes.c_double(), Elements("<f8", ())),
        ((ctypes.c_void_p * 3)(), Elements("<u8", (3,))),
        ((ctypes.c_longdouble * 2)(), Elements("<f16", (2,))),
        (ctypes.create_unicode_buffer(10), Elements("<U1", (10,))),
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


@pytest.mark.parametrize("kind", STRUCTURES)
def test_a_structure_has_the_fields_that_numpy_sees(kind: Any) -> None:
    """Padding, offsets, nesting and byte order; also packed, and of a union, whose buffers are bytes."""
    for memory, shape in ((kind(), ()), ((kind * 4 * 3)(), (3, 4))):
        elements = describe(memory).elements
        assert elements is not None
        assert elements.shape == shape
        assert to_numpy(elements.dtype) == np.dtype(kind)
        assert to_numpy(elements.dtype).isalignedstruct == np.dtype(kind).isalignedstruct


def test_several_axes_of_a_field_are_one_shape() -> None:
    """In an object of ctypes, and in an array of numpy of that type."""
    kind = type("Matrix", (ctypes.Structure,), {"_fields_": [("rows", Point * 2 * 3)]})
    found = describe(kind()).elements
    assert found is not None
    assert to_numpy(found.dtype)["rows"].shape == (3, 2)
    assert describe(np.zeros((), kind)).elements == found


def test_fields_that_numpy_has_not_are_told_apart(tmp_path: Path) -> None:
    """Those inherited, bits, and pointers, by names of their own."""
    fields = [("a", ctypes.c_int, 3), ("b", ctypes.c_int, 5), ("next", ctypes.POINTER(ctypes.c_int))]
    bits = type("Bits", (ctypes.Structure,), {"_fields_": fields})
    more = type("More", (Point,), {"_fields_": [("z", ctypes.c_short)]})
    save(tmp_path, bits=(bits * 2)(), more=more())
    found = load(tmp_path)
    assert found["bits"].dtype.names == ("a:3", "b:5", "next")
    assert found["more"].dtype.names == ("x", "y", "next", "z")


@pytest.mark.parametrize("kind", STRUCTURES)
def test_a_structure_comes_back(tmp_path: Path, kind: Any) -> None:
    """As an array, into its like, of numpy as well; and into nothing else of its length."""
    memory = (kind * 3)()
    ctypes.memmove(memory, bytes(range(1, 251)) * 4, ctypes.sizeof(memory))
    for one in memory if kind is Nested else ():
        one.id = True
    content = bytes(memoryview(memory).cast("B"))
    save(tmp_path, thing=memory)
    assert load(tmp_path)["thing"].tobytes() == content
    into, array = (kind * 3)(), np.zeros(3, kind)
    restore(tmp_path, into={"thing": into})
    assert bytes(memoryview(into).cast("B")) == content
    restore(tmp_path, into={"thing": array})
    assert array.tobytes() == content
    for other in (np.zeros((3, ctypes.sizeof(kind)), np.int8), (ctypes.c_short * (len(content) // 2))()):
        if memoryview(other).nbytes == len(content):
            with pytest.raises(ChainError, match="'thing' has the dtype"):
                restore(tmp_path, into={"thing": other})


def test_pointers_to_python_objects_are_refused() -> None:
    """Alone, in an array, in a structure, packed or not, whose fields have telling names."""
    structure = type("S", (ctypes.Structure,), {"_fields_": [("x", ctypes.py_object)]})
    fields = [("x", ctypes.py_object)]
    packed = type("S", (ctypes.Structure,), {"_pack_": 1, "_layout_": "ms", "_fields_": fields})
    for memory in (ctypes.py_object(1), (ctypes.py_object * 3)(), structure(), packed()):
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
