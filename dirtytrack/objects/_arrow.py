"""Buffers of pyarrow, by duck type: it is never imported."""

from __future__ import annotations

from typing import Any

from dirtytrack.objects import _buffer
from dirtytrack.objects._refusals import kind_of
from dirtytrack.objects.description import Description


def describe(memory: object) -> Description | None:
    """Describes a mutable buffer; None if *memory* is nothing of pyarrow.

    ``resize`` moves a resizable buffer whatever views of it there are, so its place is asked for.
    """
    if type(memory).__module__.partition(".")[0] != "pyarrow":
        return None
    buffer: Any = memory
    place = (lambda: (buffer.address, buffer.size)) if hasattr(buffer, "address") else None
    found = _buffer.describe(buffer, place)
    if found is None:
        raise TypeError(
            f"{kind_of(memory)} has its elements in buffers, which nobody may write: copy them into a numpy "
            "array, or pass a mutable pyarrow.Buffer"
        )
    return found
