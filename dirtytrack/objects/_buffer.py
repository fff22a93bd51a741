"""Whatever exports a buffer: mmap, bytearray, array.array, memoryview, ``SharedMemory.buf`` and others."""

from __future__ import annotations

import re
import sys
from typing import Final

from dirtytrack.objects._refusals import NOT_CONTIGUOUS, READ_ONLY, refuse, refuse_python_objects
from dirtytrack.objects._views import export_of
from dirtytrack.objects.description import Description, Elements
from dirtytrack.objects.element_types import ElementType
from dirtytrack.objects.places import place_of

# What numpy calls the codes of buffers; and bytes of one, where an element may be of several or of none.
_KINDS: Final[dict[str, str]] = {
    **dict.fromkeys("bhilqn", "i"),
    **dict.fromkeys("BHILQNP", "u"),
    **dict.fromkeys("efdg", "f"),
    **dict.fromkeys(("Zf", "Zd", "Zg", "F", "D", "G"), "c"),
    "?": "b",
    "c": "S",
    "s": "S",
    "u": "U",
    "w": "U",
}
_UNITS: Final = {"b": 1, "B": 1, "?": 1, "c": 1, "s": 1, "u": 4, "w": 4}
_TEXTS: Final = ("s", "u", "w")
_BYTES: Final = ("B", "b", "c")


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


def type_of(code: str, itemsize: int) -> ElementType:
    """Returns the type of elements that a buffer has.

    Args:
        code: as the struct module and PEP 3118 have it. What numpy has no name for, and what does not say
            all, as that of a packed structure, becomes a type of that name.
        itemsize: bytes of an element.
    """
    match = re.fullmatch(r"([@=<>!^]?)(\d{0,9})(Z?[a-zA-Z?])", code)
    order, count, kind = match.groups() if match else ("", "", "")
    unit = _UNITS.get(kind, itemsize) * int(count or 1)
    if kind not in _KINDS or unit != itemsize or (count and kind not in _TEXTS):
        return {"name": code, "itemsize": itemsize}
    name = _KINDS[kind]
    if name == "S" or itemsize == 1:
        return f"|{name}{itemsize}"
    is_little = order == "<" or (order not in (">", "!") and sys.byteorder == "little")
    return f"{'<' if is_little else '>'}{name}{itemsize // 4 if name == 'U' else itemsize}"


def _elements(view: memoryview) -> Elements | None:
    # Bytes are what a plain buffer has.
    if view.ndim == 1 and view.itemsize == 1 and view.format.lstrip("@=<") in _BYTES:
        return None
    return Elements(type_of(view.format, view.itemsize), view.shape or ())
