"""Whatever exports a buffer: mmap, bytearray, array.array, memoryview, ``SharedMemory.buf`` and others."""

from __future__ import annotations

import sys

from dirtytrack.objects._refusals import NOT_CONTIGUOUS, READ_ONLY, refuse, refuse_python_objects
from dirtytrack.objects._views import export_of
from dirtytrack.objects.description import Description, Elements
from dirtytrack.objects.places import place_of

_KINDS = {
    **dict.fromkeys("bhilqn", "i"),
    **dict.fromkeys("BHILQN", "u"),
    **dict.fromkeys("efd", "f"),
    "?": "b",
}


def describe(memory: object) -> Description | None:
    """Describes a buffer; None if *memory* exports none."""
    view = exported(memory)
    if view is None:
        return None
    refuse(not view.c_contiguous, memory, NOT_CONTIGUOUS)
    address, whole = export_of(memory)
    return Description(address, whole.nbytes, whole, _elements(view), place_of(memory))


def exported(memory: object) -> memoryview | None:
    """Returns what an object exports; None if it exports nothing.

    Raises:
        TypeError: elements that are Python objects.
        ValueError: it is read-only.
    """
    try:
        view = memoryview(memory)  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        return None
    refuse_python_objects(view.format, memory)
    refuse(view.readonly, memory, READ_ONLY)
    return view


def _elements(view: memoryview) -> Elements | None:
    # Bytes are what a plain buffer has.
    code = view.format.lstrip("@=<")
    if (code in ("B", "b", "c") and view.ndim == 1) or code not in _KINDS or sys.byteorder != "little":
        return None
    order = "|" if view.itemsize == 1 else "<"
    return Elements(f"{order}{_KINDS[code]}{view.itemsize}", view.shape or ())
