"""Bare addresses."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from dirtytrack.objects import describe


def test_an_address_is_taken_at_its_word() -> None:
    """Its bytes can be written; nothing is known of them, nothing keeps them, nothing moves them."""
    array = np.zeros(100, np.uint8)
    found = describe((array.ctypes.data + 10, 50))
    found.view[0] = 7
    assert array.nonzero()[0].tolist() == [10]
    assert (found.address, found.nbytes, len(found.view)) == (array.ctypes.data + 10, 50, 50)
    assert found.elements is None
    assert not found.can_move
    assert found.still_there()
    alive = weakref.ref(array)
    del array
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(
    ("pair", "error", "words"),
    [
        ((4096, 1, 1), TypeError, "address, nbytes"),
        ((), TypeError, "address, nbytes"),
        ((1.0, 2.0), TypeError, "address, nbytes"),
        ((4096, True), TypeError, "address, nbytes"),
        ((0, 1), ValueError, "positive"),
        ((-4096, 4096), ValueError, "positive"),
        ((4096, 0), ValueError, "positive"),
        ((4096, -1), ValueError, "positive"),
        (((1 << 64) - 4096, 4096), ValueError, "user process"),
        ((1 << 70, 1), ValueError, "user process"),
        ((4096, 1 << 63), ValueError, "user process"),
    ],
)
def test_what_is_no_address_range_is_refused(
    pair: tuple[object, ...], error: type[Exception], words: str
) -> None:
    """Two positive integers, within what a process can have."""
    with pytest.raises(error, match=words):
        describe(pair)
