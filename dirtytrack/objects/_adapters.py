"""What every object is asked, whatever kind it is of."""

from __future__ import annotations

from collections.abc import Callable

from dirtytrack.objects import _address, _array_interface, _arrow, _buffer, _ctypes, _torch
from dirtytrack.objects._refusals import EMPTY, kind_of, refuse
from dirtytrack.objects.description import Description

# In this order: what says more of an object than its buffer does comes before the buffer.
_ADAPTERS: tuple[Callable[[object], Description | None], ...] = (
    _address.describe,
    _torch.describe,
    _ctypes.describe,
    _arrow.describe,
    _array_interface.describe,
    _buffer.describe,
)


def describe(memory: object, *, empty: bool = False) -> Description:
    """Tells where the bytes of an object lie, and what they are.

    Args:
        memory: a writable contiguous buffer, an object with ``__array_interface__``, a CPU torch tensor, or
            a pair ``(address, nbytes)``. What was described already is what it is.
        empty: whether it may have no byte.

    Raises:
        TypeError: it is no memory, holds Python objects, or only points to memory.
        ValueError: it is read-only, not contiguous, empty, on a GPU, at an impossible address, or is more
            than the bytes that it lies on (a mask, a pending negation); the message has the remedy.
    """
    if isinstance(memory, type):
        raise TypeError(f"{memory.__name__} is a class: pass an object of it")
    if isinstance(memory, Description):
        return memory
    for adapter in _ADAPTERS:
        found = adapter(memory)
        if found is not None:
            refuse(found.nbytes == 0 and not empty, memory, EMPTY)
            return found
    if hasattr(memory, "__cuda_array_interface__"):
        raise ValueError(f"{kind_of(memory)} is GPU memory: only host memory can be tracked")
    if _torch.is_module(memory):
        raise TypeError(f"{kind_of(memory)} is no memory to track: pass its named_parameters(), by name")
    raise TypeError(
        f"{kind_of(memory)} is no memory to track: pass a writable buffer (mmap, bytearray, numpy array, "
        "SharedMemory.buf, ...), a CPU tensor, or a pair (address, nbytes)"
    )
