"""Views of memory, and what they keep alive."""

from __future__ import annotations

import functools
import operator
from typing import Any

from dirtytrack.native import ffi


def export_of(memory: object) -> tuple[int, memoryview]:
    """Returns the address of a writable contiguous buffer, and a view of its bytes that holds its export."""
    export: Any = ffi.from_buffer("char[]", memory, require_writable=True)  # type: ignore[call-overload]
    return int(ffi.cast("uintptr_t", export)), memoryview(ffi.buffer(export))


def view_at(address: int, nbytes: int, owner: object) -> memoryview:
    """Makes a writable view of the bytes at an address, which keeps *owner* alive."""
    # The destructor's only job is to hold the owner for as long as the view or a slice of it lives. It is no
    # Python function, which could swallow an interrupt.
    pointer = ffi.gc(ffi.cast("char *", address), functools.partial(operator.is_, owner))
    return memoryview(ffi.buffer(pointer, nbytes))
