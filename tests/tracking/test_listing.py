"""A list of what comes and goes is one of one moment."""

from __future__ import annotations

import gc

import pytest

from dirtytrack._lifetime.listing import values_of

pytestmark = pytest.mark.anywhere


def test_a_destructor_that_takes_something_out_meanwhile() -> None:
    """Garbage is collected at the next allocation: the list has what was there all the time."""
    table: dict[int, int] = dict.fromkeys(range(100), 0)

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            table.pop(1000, None)

    threshold = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for _ in range(100):
            gc.disable()
            table[1000] = 1
            Cycle()
            spare = [{} for _ in range(100)]  # the next dictionary is not one that was kept for reuse
            gc.enable()
            assert values_of(table).count(0) == 100
            del spare
    finally:
        gc.enable()
        gc.set_threshold(*threshold)
