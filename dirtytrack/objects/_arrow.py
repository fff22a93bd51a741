"""Buffers of pyarrow, by duck type: it is never imported."""

from __future__ import annotations

from dirtytrack.objects import _buffer
from dirtytrack.objects._refusals import kind_of
from dirtytrack.objects.description import Description
from dirtytrack.objects.places import is_arrow


def describe(memory: object) -> Description | None:
    """Describes a mutable buffer; None if *memory* is nothing of pyarrow."""
    if not is_arrow(memory):
        return None
    found = _buffer.describe(memory)
    if found is None:
        raise TypeError(
            f"{kind_of(memory)} has its elements in buffers, which nobody may write: copy them into a numpy "
            "array, or pass a mutable pyarrow.Buffer"
        )
    return found
