"""Objects of ctypes."""

from __future__ import annotations

from typing import Any

from dirtytrack.objects import _buffer
from dirtytrack.objects._refusals import kind_of
from dirtytrack.objects.description import Description
from dirtytrack.objects.places import is_ctypes

_POINTER_CODES = "PzZ"  # c_void_p, c_char_p, c_wchar_p


def describe(memory: object) -> Description | None:
    """Describes an array, a structure or a number of ctypes; None if *memory* is nothing of ctypes."""
    if not is_ctypes(memory):
        return None
    import _ctypes as ctypes

    data: Any = memory
    is_pointer = isinstance(memory, ctypes._Pointer | ctypes.CFuncPtr) or (
        isinstance(memory, ctypes._SimpleCData) and data._type_ in _POINTER_CODES
    )
    if is_pointer:
        raise TypeError(
            f"{kind_of(data)} is a pointer, and not what it points to: pass a pair (address, nbytes)"
        )
    return _buffer.describe(data)
