"""Where an object has its memory now: some move it, or give it up, although it is exported.

Libraries whose objects these are need not be there, and are never imported.
"""

from __future__ import annotations

import array
import math
import mmap
import sys
from collections.abc import Callable, Iterator
from typing import Any

from dirtytrack.native import ffi

_Check = Callable[[], bool]

_HOLDS_STILL = (bytearray, mmap.mmap, array.array, memoryview)  # and refuses to move while it is exported
_BYTES = ffi.typeof("char[]")


def stays(memory: object) -> _Check | None:
    """Returns a function that says whether an object, and what it shows, have their memory where it is now.

    It fails for an object that can't tell any more. None: none of them can move.
    """
    checks = [check for owner in _owners(memory) if (check := _check(owner)) is not None]
    if len(checks) > 1:
        return lambda: all(check() for check in checks)
    return checks[0] if checks else None


def is_array(thing: object) -> bool:
    """Says whether it is an array of numpy."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(thing, numpy.ndarray)


def is_arrow(thing: object) -> bool:
    """Says whether it is something of pyarrow."""
    return type(thing).__module__.partition(".")[0] == "pyarrow"


def is_tensor(thing: object) -> bool:
    """Says whether it is a tensor of torch, or looks like one."""
    return hasattr(thing, "untyped_storage")


def is_ctypes(thing: object) -> bool:
    """Says whether it is an object of ctypes."""
    if "_ctypes" not in sys.modules:  # which is there if an object of it is
        return False
    import _ctypes

    data_kind: Any = _ctypes._SimpleCData.__base__
    return isinstance(thing, data_kind)


def _owners(memory: object) -> Iterator[Any]:
    # The object, whose memory it shows, whose memory that one shows, and so on.
    thing: Any = memory
    while thing is not None:
        yield thing
        if isinstance(thing, memoryview):
            thing = thing.obj
        elif is_array(thing):
            thing = thing.base
        elif is_ctypes(thing):
            thing = thing._b_base_
        else:
            thing = getattr(thing, "parent", None) if is_arrow(thing) else None


def _check(thing: Any) -> _Check | None:
    if is_tensor(thing):
        return _same(lambda: _place_of_tensor(thing))
    if is_ctypes(thing):
        import _ctypes

        return _same(lambda: (_ctypes.addressof(thing), _ctypes.sizeof(thing)))
    if is_arrow(thing):
        return _same(lambda: (thing.address, thing.size)) if hasattr(thing, "address") else None
    if isinstance(thing, _HOLDS_STILL):
        return None
    try:
        first = ffi.from_buffer(_BYTES, thing)
    except (TypeError, ValueError, BufferError):
        has_interface = hasattr(thing, "__array_interface__")
        return _same(lambda: _place_of_interface(thing)) if has_interface else None
    nbytes = len(first)

    from_buffer = ffi.from_buffer

    def is_there() -> bool:  # a fourth of the time that an answer in numbers takes
        now = from_buffer(_BYTES, thing)
        return now == first and len(now) == nbytes

    return is_there


def _same(place: Callable[[], object]) -> _Check:
    first = place()
    return lambda: place() == first


def _place_of_tensor(tensor: Any) -> object:
    storage = tensor.untyped_storage()
    return tensor.data_ptr(), tensor.numel(), storage.data_ptr(), storage.nbytes()


def _place_of_interface(thing: Any) -> object:
    interface = thing.__array_interface__
    data = interface.get("data")
    where = data if isinstance(data, tuple) else id(data)
    return where, math.prod(interface["shape"]), interface["typestr"]
