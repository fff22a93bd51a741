"""From the names of a file to an array: what is impossible is an error, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dirtytrack.objects import Elements


def field(name: Any, offset: int, dtype: Any = "<f8", **rest: Any) -> dict[str, Any]:
    return {"name": name, "offset": offset, "dtype": dtype, **rest}


def nested(depth: int) -> Any:
    kind: Any = "<f8"
    for _ in range(depth):
        kind = {"fields": [field("a", 0, kind)], "itemsize": 8}
    return kind


def test_an_array_is_on_the_buffer() -> None:
    """Not on a copy of it."""
    memory = bytearray(24)
    array = Elements("<i4", (2, 3), (1, 0)).array(memory)
    array[1, 2] = 0x01020304
    assert memory.hex() == "00" * 20 + "04030201"
    assert array.flags.f_contiguous


@pytest.mark.parametrize(
    ("dtype", "shape", "order"),
    [
        ("|O", (3,), None),
        ("<f8", (4,), None),
        ("<f8", (), None),
        ("<f8", (3,), ()),
        ("<f8", (3,), (1,)),
        ("<f8", (3,), (0, 0)),
        ("<f8", (1, 3), (0, 1)),
        ("<f8", (1, 3), (0,)),
        ("nonsense", (3,), None),
        ("<f8,<f8", (1,), None),
        ("f8", (3,), None),
        ("<f99999999999", (3,), None),
        (7, (3,), None),
        ([["a", "<f8"]], (3,), None),
        ({}, (3,), None),
        ({"name": "bfloat16"}, (3,), None),
        ({"name": "bfloat16", "itemsize": "8"}, (3,), None),
        ({"name": "bfloat16", "itemsize": -8}, (3,), None),
        ({"name": 5, "itemsize": 8}, (3,), None),
        ({"fields": [], "itemsize": 8, "name": "x", "aligned": "y", "titles": 5}, (2,), None),
        ({"fields": [field("a", 0), field("a", 0)], "itemsize": 8}, (3,), None),
        ({"fields": [field("a", -1)], "itemsize": 8}, (3,), None),
        ({"fields": [field("a", 1)], "itemsize": 8}, (3,), None),
        ({"fields": [field("a", 0, shape=[-1])], "itemsize": 8}, (3,), None),
        ({"fields": [field("a", 0, shape=[2])], "itemsize": 8}, (3,), None),
        ({"fields": [field("a", 0, dtype="|O")], "itemsize": 8}, (3,), None),
        ({"fields": [field(7, 0)], "itemsize": 8}, (3,), None),
        ({"fields": [field("a", 0)], "itemsize": 1 << 40}, (3,), None),
        (nested(100), (3,), None),
    ],
)
def test_elements_that_there_are_none_of_are_refused(
    dtype: Any, shape: tuple[int, ...], order: tuple[int, ...] | None
) -> None:
    """Pointers, other sizes, gaps, types that numpy does not know."""
    with pytest.raises((ValueError, TypeError, KeyError, OverflowError)):
        Elements(dtype, shape, order).array(bytearray(24))


def test_the_numbers_of_axes_may_be_many() -> None:
    """As many as numpy has."""
    array = Elements("|u1", (1,) * 32, None).array(np.zeros(1, np.uint8))
    assert array.ndim == 32
