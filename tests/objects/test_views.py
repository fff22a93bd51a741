"""Views of memory: what they keep alive, and what becomes of them in a cycle of garbage."""

from __future__ import annotations

import gc

import pytest

from _lib.support import in_child
from dirtytrack.objects import describe


def test_a_memoryview_may_die_in_a_cycle() -> None:
    """As a traceback makes one of the arguments of a call that failed. CPython 3.11 can crash there."""

    def run() -> None:
        for _ in range(20):
            view = memoryview(bytearray(100_000))
            cycle: list[object] = [view, describe(view)]
            cycle.append(cycle)
            del view, cycle
            gc.collect()

    in_child(run).check()


def test_the_export_is_held_and_let_go() -> None:
    """By the view, and by no more."""
    memory = bytearray(100)
    found = describe(memoryview(memory))
    piece = found.view[10:20]
    del found
    with pytest.raises(BufferError):
        memory.append(1)
    del piece
    gc.collect()
    memory.append(1)
