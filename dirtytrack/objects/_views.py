"""Views of memory, and what they keep alive."""

from __future__ import annotations

import functools
import operator
from typing import Any

from dirtytrack.native import ffi


def export_of(memory: object) -> tuple[int, memoryview]:
    """Returns the address of a writable contiguous buffer, and a view of its bytes that holds its export."""
    # What stays is a memoryview, and no export that cffi has of one: when a cycle of garbage holds a
    # memoryview that is itself exported, CPython 3.11 crashes (gh-77894).
    export: Any = ffi.from_buffer("char[]", memory, require_writable=True)  # type: ignore[call-overload]
    with export:
        address, nbytes = int(ffi.cast("uintptr_t", export)), len(export)
        return address, view_at(address, nbytes, memoryview(memory))  # type: ignore[arg-type]


def view_at(address: int, nbytes: int, owner: object) -> memoryview:
    """Makes a writable view of the bytes at an address, which keeps *owner* alive."""
    # The destructor's only job is to hold the owner for as long as the view or a slice of it lives. It is no
    # Python function, which could swallow an interrupt.
    pointer = ffi.gc(ffi.cast("char *", address), functools.partial(operator.is_, owner))
    return memoryview(ffi.buffer(pointer, nbytes))
