"""Objects that get other memory while their buffer is exported, each with an oracle for where it lies.

They are small, so that what they leave stays mapped, as a part of the heap that the next object may get.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from _lib.support import library

SMALL, LARGE = 60_000, 100_000


@dataclass
class Mover:
    """An object with memory, and how it loses that.

    Attributes:
        thing: the object, to be tracked.
        move: gives it other memory, or less.
        place: address and length in bytes of what it has now; for a view, of what its owner has.
        owner: whose memory it is, where *thing* is a view that dangles once that has moved.
        rest: what it takes for that, kept alive.
    """

    thing: Any
    move: Callable[[], object]
    place: Callable[[], tuple[int, int]]
    rest: Any = None
    owner: Any = None


def _array() -> Any:
    """An array that can't grow where it is, for the next one lies behind it."""
    array = np.zeros(SMALL, np.uint8)
    _neighbours.append(np.zeros(SMALL, np.uint8))
    return array


_neighbours: list[Any] = []


def _of_array(array: Any) -> Callable[[], tuple[int, int]]:
    return lambda: (array.ctypes.data, array.nbytes)


def _of_ctypes(thing: Any) -> Callable[[], tuple[int, int]]:
    return lambda: (ctypes.addressof(thing), ctypes.sizeof(thing))


def _of_arrow(buffer: Any) -> Callable[[], tuple[int, int]]:
    return lambda: (buffer.address, buffer.size)


def _numpy_grows() -> Mover:
    array = _array()
    return Mover(array, lambda: array.resize(LARGE, refcheck=False), _of_array(array))


def _numpy_shrinks() -> Mover:
    array = _array()
    return Mover(array, lambda: array.resize(100, refcheck=False), _of_array(array))


def _numpy_dates_grow() -> Mover:
    array = _array().view("M8[s]").copy()
    _array()
    return Mover(array, lambda: array.resize(LARGE // 8, refcheck=False), _of_array(array))


def _numpy_set_state() -> Mover:
    array, other = _array(), np.ones(SMALL, np.uint8)
    return Mover(array, lambda: array.__setstate__(other.__reduce__()[2]), _of_array(array))


def _numpy_view() -> Mover:
    array = _array()
    return Mover(array[100:-100], lambda: array.resize(LARGE, refcheck=False), _of_array(array), owner=array)


def _numpy_view_of_a_view() -> Mover:
    array = _array()
    turned = array.reshape(100, -1)[10:].T
    return Mover(turned, lambda: array.resize(LARGE, refcheck=False), _of_array(array), owner=array)


def _memoryview_of_numpy() -> Mover:
    array = _array()
    view = memoryview(array)[100:-100]
    return Mover(view, lambda: array.resize(LARGE, refcheck=False), _of_array(array), owner=array)


def _ctypes_array() -> Mover:
    array = (ctypes.c_ubyte * SMALL)()
    return Mover(array, lambda: ctypes.resize(array, LARGE), _of_ctypes(array), (ctypes.c_ubyte * SMALL)())


def _ctypes_string() -> Mover:
    text = ctypes.create_string_buffer(SMALL)
    return Mover(text, lambda: ctypes.resize(text, LARGE), _of_ctypes(text), (ctypes.c_ubyte * SMALL)())


def _ctypes_structure() -> Mover:
    kind = type("Structure", (ctypes.Structure,), {"_fields_": [("bytes", ctypes.c_ubyte * SMALL)]})
    thing = kind()
    return Mover(thing, lambda: ctypes.resize(thing, LARGE), _of_ctypes(thing), kind())


def _ctypes_field() -> Mover:
    kind = type("Structure", (ctypes.Structure,), {"_fields_": [("bytes", ctypes.c_ubyte * SMALL)]})
    thing = kind()
    return Mover(thing.bytes, lambda: ctypes.resize(thing, LARGE), _of_ctypes(thing), kind(), owner=thing)


def _numpy_on_ctypes() -> Mover:
    array, behind = (ctypes.c_ubyte * SMALL)(), (ctypes.c_ubyte * SMALL)()
    view = np.frombuffer(array, np.uint8)
    return Mover(view, lambda: ctypes.resize(array, LARGE), _of_ctypes(array), behind, owner=array)


def _memoryview_of_ctypes() -> Mover:
    array, behind = (ctypes.c_ubyte * SMALL)(), (ctypes.c_ubyte * SMALL)()
    view = memoryview(array)[100:-100]
    return Mover(view, lambda: ctypes.resize(array, LARGE), _of_ctypes(array), behind, owner=array)


def _ctypes_on_numpy() -> Mover:
    array = _array()
    view = (ctypes.c_ubyte * (SMALL - 100)).from_buffer(array, 100)
    return Mover(view, lambda: array.resize(LARGE, refcheck=False), _of_array(array), owner=array)


def _ctypes_on_ctypes() -> Mover:
    array, behind = (ctypes.c_ubyte * SMALL)(), (ctypes.c_ubyte * SMALL)()
    view = (ctypes.c_ubyte * SMALL).from_buffer((ctypes.c_ubyte * SMALL).from_buffer(array))
    return Mover(view, lambda: ctypes.resize(array, LARGE), _of_ctypes(array), behind, owner=array)


def _as_ctypes() -> Mover:
    array = _array()
    view = np.ctypeslib.as_array(np.ctypeslib.as_ctypes(array))
    return Mover(view, lambda: array.resize(LARGE, refcheck=False), _of_array(array), owner=array)


def _as_strided() -> Mover:
    array = _array()
    view = np.lib.stride_tricks.as_strided(array, (50, 100), (100, 1))[1:]
    return Mover(view, lambda: array.resize(LARGE, refcheck=False), _of_array(array), owner=array)


def _arrow_grows() -> Mover:
    arrow = library("pyarrow")
    buffer = arrow.allocate_buffer(SMALL, resizable=True)
    return Mover(buffer, lambda: buffer.resize(20 * SMALL), _of_arrow(buffer), arrow.allocate_buffer(SMALL))


def _arrow_shrinks() -> Mover:
    buffer = library("pyarrow").allocate_buffer(SMALL, resizable=True)
    return Mover(buffer, lambda: buffer.resize(100, shrink_to_fit=True), _of_arrow(buffer))


def _numpy_on_arrow() -> Mover:
    arrow = library("pyarrow")
    buffer, behind = arrow.allocate_buffer(SMALL, resizable=True), arrow.allocate_buffer(SMALL)
    view = np.frombuffer(buffer, np.uint8)
    return Mover(view, lambda: buffer.resize(20 * SMALL), _of_arrow(buffer), behind, owner=buffer)


def _memoryview_of_arrow() -> Mover:
    arrow = library("pyarrow")
    buffer, behind = arrow.allocate_buffer(SMALL, resizable=True), arrow.allocate_buffer(SMALL)
    view = memoryview(buffer)
    return Mover(view, lambda: buffer.resize(20 * SMALL), _of_arrow(buffer), behind, owner=buffer)


class _Interface:
    """An object of which no more is known than its array interface."""

    def __init__(self, array: Any) -> None:
        self.array = array

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.array.__array_interface__  # type: ignore[no-any-return]


def _interface(other: Callable[[Any], Any]) -> Mover:
    thing, first = _Interface(np.zeros(SMALL, np.uint8)), np.zeros(SMALL, np.uint8)
    thing.array = first

    def move() -> None:
        thing.array = other(first)

    return Mover(thing, move, lambda: (thing.array.ctypes.data, thing.array.nbytes), first)


class _Exporter:
    """An object that exports what it has at the moment."""

    def __init__(self, memory: bytearray) -> None:
        self.memory = memory

    def __buffer__(self, flags: int) -> memoryview:
        return memoryview(self.memory)


def _exporter(other: Callable[[], bytearray]) -> Mover:
    thing, first = _Exporter(bytearray()), bytearray(SMALL)
    thing.memory = first

    def move() -> None:
        thing.memory = other()

    def place() -> tuple[int, int]:
        return ctypes.addressof(ctypes.c_char.from_buffer(thing.memory)), len(thing.memory)

    return Mover(thing, move, place, first)


def _of_tensor(tensor: Any) -> Callable[[], tuple[int, int]]:
    return lambda: (tensor.data_ptr(), tensor.numel() * tensor.element_size())


def _tensor(move: Callable[[Any, Any], object]) -> Mover:
    torch = library("torch")
    tensor, behind = torch.zeros(SMALL // 4), torch.zeros(SMALL // 4)
    return Mover(tensor, lambda: move(torch, tensor), _of_tensor(tensor), behind)


def _give_data(torch: Any, tensor: Any) -> None:
    tensor.data = torch.zeros(SMALL // 4)


MOVERS: dict[str, Callable[[], Mover]] = {
    "numpy, grows": _numpy_grows,
    "numpy, shrinks": _numpy_shrinks,
    "numpy without a buffer, grows": _numpy_dates_grow,
    "numpy, other state": _numpy_set_state,
    "view of numpy": _numpy_view,
    "view of a view of numpy": _numpy_view_of_a_view,
    "memoryview of numpy": _memoryview_of_numpy,
    "ctypes array": _ctypes_array,
    "ctypes string": _ctypes_string,
    "ctypes structure": _ctypes_structure,
    "field of a ctypes structure": _ctypes_field,
    "numpy on ctypes": _numpy_on_ctypes,
    "memoryview of ctypes": _memoryview_of_ctypes,
    "ctypes on numpy": _ctypes_on_numpy,
    "ctypes on ctypes": _ctypes_on_ctypes,
    "numpy on ctypes on numpy": _as_ctypes,
    "numpy, as_strided": _as_strided,
    "array interface, moves": lambda: _interface(lambda first: np.zeros_like(first)),
    "array interface, shrinks": lambda: _interface(lambda first: first[:100]),
}
if sys.version_info >= (3, 12):  # classes of Python export buffers
    MOVERS["Python's own buffer, moves"] = lambda: _exporter(lambda: bytearray(SMALL))
    MOVERS["Python's own buffer, shrinks"] = lambda: _exporter(lambda: bytearray(100))
TORCH_MOVERS: dict[str, Callable[[], Mover]] = {
    "pyarrow, grows": _arrow_grows,
    "pyarrow, shrinks": _arrow_shrinks,
    "numpy on pyarrow": _numpy_on_arrow,
    "memoryview of pyarrow": _memoryview_of_arrow,
    "torch, set_": lambda: _tensor(lambda torch, tensor: tensor.set_(torch.zeros(SMALL // 4))),
    "torch, data": lambda: _tensor(_give_data),
    "torch, resize_": lambda: _tensor(lambda torch, tensor: tensor.resize_(LARGE)),
    "torch, resize_ to less": lambda: _tensor(lambda torch, tensor: tensor.resize_(25)),
    "torch, shared": lambda: _tensor(lambda torch, tensor: tensor.share_memory_()),
    "torch, swapped": lambda: _tensor(
        lambda torch, tensor: torch.utils.swap_tensors(tensor, torch.zeros(SMALL // 4))
    ),
}
