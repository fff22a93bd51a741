"""From the names of a file to an array: what is impossible is an error, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dirtytrack.objects import Elements


def test_an_array_is_on_the_buffer() -> None:
    """Not on a copy of it."""
    memory = bytearray(24)
    array = Elements("<i4", (2, 3), (4, 8)).array(memory)
    array[1, 2] = 0x01020304
    assert memory.hex() == "00" * 20 + "04030201"
    assert array.flags.f_contiguous


@pytest.mark.parametrize(
    ("dtype", "shape", "strides"),
    [
        ("|O", (3,), None),
        ("<f8", (4,), None),
        ("<f8", (), None),
        ("<f8", (3,), (16,)),
        ("<f8", (3,), (-8,)),
        ("<f8", (1, 3), (8,)),
        ("nonsense", (3,), None),
        ([["a"]], (3,), None),
        ([["a", "<f8"], ["a", "<f8"]], (3,), None),
        ([["a", "<f8", [-1]]], (3,), None),
    ],
)
def test_elements_that_there_are_none_of_are_refused(
    dtype: str | list[Any], shape: tuple[int, ...], strides: tuple[int, ...] | None
) -> None:
    """Pointers, other sizes, gaps, types that numpy does not know."""
    with pytest.raises((ValueError, TypeError, KeyError, OverflowError, SyntaxError)):
        Elements(dtype, shape, strides).array(bytearray(24))


def test_the_numbers_of_axes_may_be_many() -> None:
    """As many as numpy has."""
    array = Elements("|u1", (1,) * 32, None).array(np.zeros(1, np.uint8))
    assert array.ndim == 32
