"""Arrays: their elements under names that survive in a file, and where these lie."""

from __future__ import annotations

import gc
import importlib
import json
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dirtytrack.objects import Elements, describe

ARRAYS: dict[str, Callable[[], np.ndarray[Any, Any]]] = {
    "doubles": lambda: np.zeros(10),
    "two axes": lambda: np.zeros((3, 4), np.int16),
    "Fortran order": lambda: np.zeros((3, 4), order="F"),
    "transposed": lambda: np.zeros((2, 3, 4)).transpose(1, 2, 0),
    "big-endian": lambda: np.zeros(5, ">i4"),
    "bool": lambda: np.zeros(5, bool),
    "complex": lambda: np.zeros(5, complex),
    "half": lambda: np.zeros(5, np.float16),
    "text": lambda: np.zeros(5, "U7"),
    "bytes": lambda: np.zeros(5, "S7"),
    "void": lambda: np.zeros(5, "V7"),
    "dates": lambda: np.zeros(5, "M8[ns]"),
    "dates in Fortran order": lambda: np.zeros((3, 4), "M8[25s]", order="F"),
    "spans of time": lambda: np.zeros(5, "m8[D]"),
    "structures": lambda: np.zeros(5, [("O", "f8"), ("xOx", "i4")]),
    "nested structures": lambda: np.zeros(5, [("a", [("b", "<i2"), ("c", "f4", (2, 3))]), ("d", "M8[s]")]),
    "one element": lambda: np.array(1.5),
    "a slice": lambda: np.zeros(100)[10:-10],
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_survives_its_description(kind: str) -> None:
    """Through JSON and back, on the bytes that it lay on: the same type, shape, order and values."""
    array = ARRAYS[kind]()
    found = describe(array)
    found.view[:] = bytes(range(1, 128))[: found.nbytes] + bytes(max(found.nbytes - 127, 0))
    assert found.elements is not None
    dtype, shape, order = json.loads(json.dumps(found.elements))
    copy = Elements(dtype, tuple(shape), order and tuple(order)).array(bytearray(found.view))
    assert (copy.dtype, copy.shape, copy.strides) == (array.dtype, array.shape, array.strides)
    assert copy.tobytes() == array.tobytes()
    low, high = np.lib.array_utils.byte_bounds(array)
    assert (found.address, found.nbytes) == (low, high - low)


def test_a_type_with_parameters_is_called_by_all_of_them() -> None:
    """Of such types that others add to numpy it has one for its own tests: numbers with a scale."""
    scaled: Any = importlib.import_module("numpy._core._multiarray_umath")._get_sfloat_dtype()
    double, triple = (describe(np.zeros(5).view(scaled(scale))).elements for scale in (2.0, 3.0))
    assert double is not None
    assert double != triple
    assert double.dtype == {"name": str(scaled(2.0)), "itemsize": 8}
    assert double.array(bytearray(40)).dtype.names == (str(scaled(2.0)),)


@pytest.mark.parametrize("dtype", ["f8", "M8[s]"])
def test_an_export_or_the_array_itself_is_held(dtype: str) -> None:
    """Dates have no buffer."""
    array = np.zeros(10, dtype)
    alive = weakref.ref(array)
    piece = describe(array).view[:8]
    del array
    gc.collect()
    assert alive() is not None
    del piece
    gc.collect()
    assert alive() is None


class Interface:
    """An object with an array interface and nothing else."""

    def __init__(self, owner: np.ndarray[Any, Any], **changes: Any) -> None:
        self.owner = owner
        self.__array_interface__ = {**owner.__array_interface__, **changes}


def test_an_interface_is_enough() -> None:
    """The object is kept alive; its elements are those that it claims."""
    array = np.zeros(80, np.uint8)
    thing = Interface(array, typestr="<f4", shape=(4, 5))
    found = describe(thing)
    assert (found.address, found.nbytes) == (array.ctypes.data, 80)
    assert found.elements == Elements("<f4", (4, 5))
    alive = weakref.ref(thing)
    del thing
    gc.collect()
    assert alive() is not None
    del found
    gc.collect()
    assert alive() is None


def test_an_interface_may_name_a_buffer() -> None:
    """And an offset in it, which has to have room for the elements."""
    memory = bytearray(100)
    thing = Interface(np.zeros(5, "<i4"), data=memory, offset=60)
    found = describe(thing)
    found.view[0] = 3
    assert [at for at, byte in enumerate(memory) if byte] == [60]
    assert (found.nbytes, found.elements) == (20, Elements("<i4", (5,)))
    for offset in (81, -1):
        with pytest.raises(ValueError, match="longer"):
            describe(Interface(np.zeros(5, "<i4"), data=memory, offset=offset))
    with pytest.raises(ValueError, match="read-only"):
        describe(Interface(np.zeros(5, "<i4"), data=bytes(100)))
    with pytest.raises(TypeError, match="no memory"):
        describe(Interface(np.zeros(5, "<i4"), data=None))


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"data": (4096, True)}, ValueError, "read-only"),
        ({"strides": (2,)}, ValueError, "contiguous"),
        ({"strides": (-1,)}, ValueError, "contiguous"),
        ({"strides": (0,)}, ValueError, "contiguous"),
        ({"shape": (0,)}, ValueError, "empty"),
        ({"typestr": "|O8"}, TypeError, "Python objects"),
        ({"typestr": "|V8", "descr": [("a", "|O")]}, TypeError, "Python objects"),
        ({"typestr": "|t4"}, TypeError, "t4"),
        ({"typestr": "nonsense"}, TypeError, "nonsense"),
        ({"typestr": "<f"}, TypeError, "<f"),
        ({"typestr": ""}, TypeError, "''"),
    ],
)
def test_a_bad_interface_is_refused(changes: dict[str, Any], kind: type[Exception], words: str) -> None:
    """Each claim of it is checked."""
    with pytest.raises(kind, match=words):
        describe(Interface(np.zeros(100, np.uint8), **changes))


def read_only() -> np.ndarray[Any, Any]:
    array = np.zeros(10)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("array", "error", "words"),
    [
        (read_only(), ValueError, "read-only"),
        (np.float64(1), ValueError, "read-only"),
        (np.datetime64(1, "s"), ValueError, "read-only"),
        (np.zeros((3, 0)), ValueError, "empty"),
        (np.zeros(0, "M8[s]"), ValueError, "empty"),
        (np.zeros(100)[::2], ValueError, "contiguous"),
        (np.zeros(100)[::-1], ValueError, "contiguous"),
        (np.zeros((10, 10))[:, 1], ValueError, "contiguous"),
        (np.zeros(100, "M8[s]")[::2], ValueError, "contiguous"),
        (np.broadcast_to(np.zeros(3), (4, 3)), ValueError, "read-only"),
        (np.zeros(10, object), TypeError, "Python objects"),
        (np.zeros(10, [("a", "i4"), ("b", "O")]), TypeError, "Python objects"),
        (np.zeros(10, [("a", "M8[s]"), ("b", "O")]), TypeError, "Python objects"),
        (np.zeros(10, np.dtypes.StringDType()), TypeError, "StringDType"),
    ],
)
def test_an_array_that_is_no_writable_memory_is_refused(
    array: object, error: type[Exception], words: str
) -> None:
    """Read-only, empty, with gaps, or with elements that are elsewhere."""
    with pytest.raises(error, match=words):
        describe(array)


@pytest.mark.parametrize("mask", [np.ma.nomask, [True, False, False]])
def test_a_masked_array_is_refused(mask: Any) -> None:
    """Its mask is not in its memory, also where it has none yet."""
    masked = np.ma.array(np.zeros(3), mask=mask)
    with pytest.raises(ValueError, match=r"\.data and \.mask"):
        describe(masked)
    assert describe(masked.data).nbytes == 24


def test_memory_of_a_gpu_is_refused() -> None:
    """Named as such."""
    with pytest.raises(ValueError, match="GPU"):
        describe(SimpleNamespace(__cuda_array_interface__={"shape": (1,)}))
