"""Structured arrays of numpy: padding, offsets, titles, nesting and sub-arrays come back as they were."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _lib.objects.takers import save
from dirtytrack import ChainError
from dirtytrack.checkpoint import Checkpointer, load, restore

POINT = np.dtype([("x", "f4"), ("y", "f4")])
PADDED = np.dtype([("kind", "i1"), ("value", "f8")], align=True)

KINDS: dict[str, np.dtype[Any]] = {
    "packed": np.dtype([("a", "i1"), ("b", "f8")]),
    "aligned": PADDED,
    "aligned, default names": np.dtype("i1,i4", align=True),
    "aligned, padded at its end": np.dtype([("a", "f8"), ("b", "i1")], align=True),
    "default names": np.dtype("i1,i4,(2,3)f2"),
    "offsets": np.dtype({"names": ["a", "b"], "formats": ["i4", "f8"], "offsets": [4, 16]}),
    "longer than its fields": np.dtype({"names": ["a"], "formats": ["i4"], "itemsize": 20}),
    "out of order": np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [4, 0]}),
    "overlapping": np.dtype({"names": ["word", "low"], "formats": ["u4", "u2"], "offsets": [0, 0]}),
    "overlapping in part": np.dtype({"names": ["a", "b"], "formats": ["u4", "u4"], "offsets": [0, 2]}),
    "titles": np.dtype([(("the first", "a"), "i4"), (("the second", "b"), "f8")]),
    "titles and padding": np.dtype([(("the first", "a"), "i1"), ("b", "f8")], align=True),
    "titles and offsets": np.dtype(
        {"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [8, 0], "titles": ["the first", None]}
    ),
    "sub-arrays": np.dtype([("a", "f4", (2, 3)), ("b", "i1", 5)]),
    "sub-array of one": np.dtype([("a", "i4", (1,)), ("b", "i4")]),
    "sub-arrays and padding": np.dtype([("a", "i1", 3), ("b", "f8", (2, 2))], align=True),
    "nested": np.dtype([("id", "i8"), ("place", POINT)]),
    "nested and padded": np.dtype([("a", "i1"), ("inner", PADDED), ("c", "i1")], align=True),
    "nested in a sub-array": np.dtype([("id", "i1"), ("path", PADDED, (3, 2))]),
    "nested three deep": np.dtype([("a", [("b", [("c", PADDED), ("d", "u1")]), ("e", "M8[ms]")])]),
    "out of order inside": np.dtype(
        [("a", "i1"), ("b", {"names": ["x", "y"], "formats": ["i2", "i2"], "offsets": [2, 0]})]
    ),
    "several byte orders": np.dtype([("big", ">i4"), ("little", "<i4"), ("byte", "u1")]),
    "text, bytes, dates and raw": np.dtype(
        [("text", "U3"), ("bytes", "S5"), ("when", "M8[ns]"), ("span", "m8[D]"), ("raw", "V7")]
    ),
    "names of all sorts": np.dtype([("O", "i4"), ("", "i4"), ("a b:c", "i4"), ("ü\n", "i4")]),
    "aligned by hand": np.dtype(
        {"names": ["a", "b"], "formats": ["i1", "i4"], "offsets": [0, 4], "itemsize": 12, "aligned": True}
    ),
    "record": np.dtype((np.record, [("a", "i1"), ("b", "f8")])),
}
WAYS = {
    "one axis": lambda array: array,
    "Fortran order": lambda array: np.asfortranarray(array.reshape(4, -1)),
    "no axis": lambda array: array[:1].copy().reshape(()),
}


def shape_of(dtype: np.dtype[Any]) -> Any:
    """All that there is to a type, so that none of it is left to numpy's own comparison."""
    if dtype.subdtype is not None:
        return shape_of(dtype.subdtype[0]), dtype.subdtype[1]
    if dtype.names is None:
        return dtype.str
    fields = dtype.fields or {}
    return (
        [(name, fields[name][1], fields[name][2:], shape_of(fields[name][0])) for name in dtype.names],
        dtype.itemsize,
        dtype.isalignedstruct,
    )


def filled(dtype: np.dtype[Any], count: int = 40) -> np.ndarray[Any, Any]:
    """An array of which every byte, those between the fields too, is another than its neighbour."""
    data = np.arange(count * dtype.itemsize) * 7 % 251
    return data.astype(np.uint8).view(dtype)


def _memory_of(array: np.ndarray[Any, Any]) -> bytes:
    return ctypes.string_at(array.ctypes.data, array.nbytes)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_structure_is_loaded_as_it_was(tmp_path: Path, kind: str, way: str) -> None:
    """Names, offsets, titles, lengths; every byte of it."""
    array = WAYS[way](filled(KINDS[kind]))
    save(tmp_path, thing=array)
    loaded = load(tmp_path)["thing"]
    assert shape_of(loaded.dtype) == shape_of(array.dtype)
    assert loaded.dtype == array.dtype
    assert (loaded.shape, loaded.strides) == (array.shape, array.strides)
    assert ctypes.string_at(loaded.ctypes.data, loaded.nbytes) == ctypes.string_at(
        array.ctypes.data, array.nbytes
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_structure_comes_back_into_its_like(tmp_path: Path, kind: str) -> None:
    """By restore, and by resume, which goes on with the chain."""
    array = filled(KINDS[kind])
    save(tmp_path, thing=array)
    into = np.zeros_like(array)
    restore(tmp_path, into={"thing": into})
    assert into.view(np.uint8).tobytes() == array.view(np.uint8).tobytes()
    other = np.zeros_like(array)
    with Checkpointer.resume(tmp_path, {"thing": other}, fsync=False) as checkpoints:
        checkpoints.save()
    assert shape_of(load(tmp_path)["thing"].dtype) == shape_of(array.dtype)


def _of_length(itemsize: int) -> list[str]:
    return [kind for kind, dtype in KINDS.items() if dtype.itemsize == itemsize]


@pytest.mark.parametrize(
    "kind", [kind for kind, dtype in KINDS.items() if len(_of_length(dtype.itemsize)) > 1]
)
def test_a_structure_fits_no_other(tmp_path: Path, kind: str) -> None:
    """Though it takes as many bytes: another order, other offsets, names or titles."""
    array = filled(KINDS[kind])
    save(tmp_path, thing=array)
    taken = []
    for other in _of_length(array.dtype.itemsize):
        if shape_of(KINDS[other]) == shape_of(array.dtype):
            continue
        into = np.zeros(array.shape, KINDS[other])
        with suppress(ChainError):
            restore(tmp_path, into={"thing": into})
            taken.append(other)
        assert not any(into.view(np.uint8))
    assert taken == []


def test_a_view_of_some_fields_is_a_structure_with_gaps(tmp_path: Path) -> None:
    """What lies between them is in its memory, and comes back with it."""
    array = filled(np.dtype([("a", "i4"), ("b", "i4"), ("c", "i4")]))
    some = array[["a", "c"]]
    save(tmp_path, thing=some)
    loaded = load(tmp_path)["thing"]
    assert shape_of(loaded.dtype) == shape_of(some.dtype)
    assert (loaded["a"] == array["a"]).all()
    assert (loaded["c"] == array["c"]).all()
