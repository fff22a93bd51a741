"""Where an object has its memory now: some move it, or give it up, although it is exported.

Libraries whose objects these are need not be there, and are never imported.
"""

from __future__ import annotations

import array
import functools
import math
import mmap
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self

from dirtytrack.native import ffi, lib

_Check = Callable[[], bool]

_HOLDS_STILL = (bytearray, mmap.mmap, array.array, memoryview)  # and refuses to move while it is exported


class Place:
    """Where an object, and what it shows, had their memory when this was made.

    Attributes:
        exports: those of them that export it as a buffer, with its address and length.
        tensors: those of them that are tensors.
        checks: for the others functions that say whether it is there; they fail for one that can't tell any
            more.
    """

    __slots__ = ("checks", "exports", "tensors")

    def __init__(
        self, exports: list[tuple[object, int, int]], tensors: list[_Tensor], checks: list[_Check]
    ) -> None:
        self.exports = exports
        self.tensors = tensors
        self.checks = checks


class _Tensor(NamedTuple):
    # A tensor, and what it had. The storage is kept, so no other one can lie where it lies.
    tensor: Any
    storage: Any
    address: int
    elements: int
    nbytes: int  # of the storage

    @classmethod
    def of(cls, tensor: Any) -> Self:
        storage = tensor.untyped_storage()
        return cls(tensor, storage, tensor.data_ptr(), tensor.numel(), storage.nbytes())


class _Tensors:
    # Many of them, asked with no Python for each: 200 ns. To ask a tensor for its storage would take longer,
    # and write to the heap, on whose pages tensors may lie.

    def __init__(self, found: Sequence[_Tensor]) -> None:
        tensors, storages, addresses, counts, sizes = map(list, zip(*found, strict=True))
        self._asked = [
            (_caller("data_ptr", tensors), tensors, addresses),
            (_caller("numel", tensors), tensors, counts),
            (_caller("nbytes", storages), storages, sizes),
        ]
        # `.data =` can make one the conjugate of what it has.
        if able := [tensor for tensor in tensors if getattr(tensor.dtype, "is_complex", False)]:
            self._asked += [
                (_caller(name, able), able, [False] * len(able)) for name in ("is_conj", "is_neg")
            ]

    def hold(self) -> bool:
        return all(all(map(operator.eq, map(call, things), known)) for call, things, known in self._asked)


class Places:
    """Places that are asked about together: a native call for all that are exported, 50 ns each.

    Tensors take 200 ns each.

    Attributes:
        hold: says whether all of the objects have their memory where they had it; no, if one can't tell.
    """

    def __init__(self, places: Iterable[Place]) -> None:
        places = tuple(places)
        self._exports = [export for place in places for export in place.exports]  # which keeps the objects
        self._natives = ffi.new(
            "struct dt_export[]",
            [(ffi.cast("void *", id(owner)), address, nbytes) for owner, address, nbytes in self._exports]
            + [(ffi.NULL, 0, 0)],
        )
        checks = [check for place in places for check in place.checks]
        if tensors := [tensor for place in places for tensor in place.tensors]:
            checks.insert(0, _Tensors(tensors).hold)
        exported = functools.partial(lib.dt_exports_hold, self._natives)
        # It is called before every collect, with no Python in between where there is nothing else to ask.
        self.hold: Callable[[], object] = exported
        if checks:
            self.hold = functools.partial(_all_hold, exported, checks)


def _all_hold(exported: Callable[[], object], checks: list[_Check]) -> bool:
    if not exported():
        return False
    try:
        for check in checks:
            if not check():
                return False
    except Exception:
        return False
    return True


def place_of(memory: object) -> Place | None:
    """Returns where an object has its memory now; None: it can't move, and what it shows can't."""
    place = Place([], [], [])
    for owner in _owners(memory):
        if is_tensor(owner):
            place.tensors.append(_Tensor.of(owner))
        elif (check := _check(owner)) is not None:
            place.checks.append(check)
        elif (export := _export(owner)) is not None:
            place.exports.append(export)
    return place if place.exports or place.tensors or place.checks else None


def is_array(thing: object) -> bool:
    """Says whether it is an array of numpy."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(thing, numpy.ndarray)


def is_arrow(thing: object) -> bool:
    """Says whether it is something of pyarrow."""
    return _is_of(thing, "pyarrow")


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
        elif is_ctypes(thing):
            thing = thing._b_base_ or _kept_by(thing)
        elif is_array(thing) or _is_of(thing, "numpy"):  # as_strided() puts another kind between two arrays
            thing = getattr(thing, "base", None)
        else:
            thing = getattr(thing, "parent", None) if is_arrow(thing) else None


def _is_of(thing: object, library: str) -> bool:
    return type(thing).__module__.partition(".")[0] == library


def _kept_by(thing: Any) -> object:
    # What from_buffer() was given, or numpy's as_ctypes().
    kept = getattr(thing, "_objects", None)
    shown = [one for one in kept.values() if isinstance(one, memoryview)] if isinstance(kept, dict) else []
    return shown[0] if shown else getattr(thing, "__keep", None)


def _check(thing: Any) -> _Check | None:
    if is_ctypes(thing):
        import _ctypes

        return _same(lambda: (_ctypes.addressof(thing), _ctypes.sizeof(thing)))
    if is_arrow(thing):
        return _same(lambda: (thing.address, thing.size)) if hasattr(thing, "address") else None
    if not _is_exported(thing) and hasattr(thing, "__array_interface__"):
        return _same(lambda: _place_of_interface(thing))
    return None


def _export(thing: Any) -> tuple[object, int, int] | None:
    if isinstance(thing, _HOLDS_STILL) or is_arrow(thing) or not _is_exported(thing):
        return None
    with ffi.from_buffer(thing) as export:
        return thing, int(ffi.cast("uintptr_t", export)), len(export)


def _is_exported(thing: Any) -> bool:
    try:
        with ffi.from_buffer(thing):
            return True
    except (TypeError, ValueError, BufferError):
        return False


def _caller(name: str, things: Iterable[Any]) -> Callable[[Any], object]:
    # What calls this method of each: the method itself, if it is the same one, which is twice as quick.
    methods = {getattr(type(thing), name, None) for thing in things}
    method = methods.pop()
    return operator.methodcaller(name) if methods or method is None else method


def _same(place: Callable[[], object]) -> _Check:
    first = place()
    return lambda: place() == first


def _place_of_interface(thing: Any) -> object:
    interface = thing.__array_interface__
    data = interface.get("data")
    where = data if isinstance(data, tuple) else id(data)
    return where, math.prod(interface["shape"]), interface["typestr"]
