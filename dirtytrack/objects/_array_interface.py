"""Arrays: numpy's, and others' that have ``__array_interface__``."""

from __future__ import annotations

import math
import sys
from typing import Any

from dirtytrack.objects import _buffer
from dirtytrack.objects._refusals import (
    EMPTY,
    NOT_CONTIGUOUS,
    READ_ONLY,
    kind_of,
    refuse,
    refuse_python_objects,
)
from dirtytrack.objects._views import export_of, view_at
from dirtytrack.objects.description import Description, Elements, is_dense


def describe(memory: object) -> Description | None:
    """Describes an array; None if *memory* has no array interface.

    An array's export is held where it has one; types such as datetime64 have none.
    """
    if not hasattr(memory, "__array_interface__"):
        return None
    _refuse_masked(memory)
    view = _buffer.exported(memory)
    if view is not None and view.c_contiguous:
        address, whole = export_of(memory)
        return Description(address, whole.nbytes, whole, _elements(memory.__array_interface__))
    return _from_interface(memory, memory if view is None else view)


def _from_interface(array: Any, owner: object) -> Description | None:
    interface = array.__array_interface__
    shape, strides = interface["shape"], interface.get("strides")
    kind, itemsize = _item(array, interface["typestr"])
    refuse_python_objects("O" if kind == "O" or "'|O" in repr(interface.get("descr")) else "", array)
    nbytes = math.prod(shape) * itemsize
    refuse(nbytes == 0, array, EMPTY)
    refuse(not is_dense(shape, strides, itemsize), array, NOT_CONTIGUOUS)
    data = interface.get("data")
    if not isinstance(data, tuple):
        return _on_buffer(array, data, interface.get("offset", 0), nbytes)
    address, read_only = data
    refuse(read_only, array, READ_ONLY)
    return Description(address, nbytes, view_at(address, nbytes, owner), _elements(interface))


def _on_buffer(array: Any, data: object, offset: int, nbytes: int) -> Description | None:
    # The other form of the protocol: an object with a buffer, and where in it the elements begin.
    found = _buffer.describe(data)
    if found is None:
        return None
    refuse(offset < 0 or offset + nbytes > found.nbytes, array, "longer than the buffer that it names")
    view = found.view[offset : offset + nbytes]
    return Description(found.address + offset, nbytes, view, _elements(array.__array_interface__))


def _item(array: Any, typestr: str) -> tuple[str, int]:
    # The kind and the size in bytes: "<f8", "<M8[ns]"; that of "<U5" counts characters.
    order, kind, size = typestr[:1], typestr[1:2], typestr[2:].partition("[")[0]
    if order not in ("<", ">", "|", "=") or not kind.isalpha() or not size.isdecimal() or kind == "t":
        raise TypeError(f"{kind_of(array)} has elements of type {typestr!r}: track its bytes instead")
    return kind, int(size) * (4 if kind == "U" else 1)


def _elements(interface: dict[str, Any]) -> Elements:
    dtype: str | list[Any] = interface["typestr"]
    if dtype[1:2] == "V" and interface.get("descr"):
        dtype = _lists(interface["descr"])
        if len(dtype) == 1 and not dtype[0][0]:  # a void type without fields is no structure
            dtype = interface["typestr"]
    strides = interface.get("strides")
    return Elements(dtype, tuple(interface["shape"]), None if strides is None else tuple(strides))


def _lists(value: Any) -> Any:
    # As JSON gives it back.
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _refuse_masked(array: object) -> None:
    # numpy.ma is there if one of its arrays is.
    masked = sys.modules.get("numpy.ma")
    if masked is not None and isinstance(array, masked.MaskedArray):
        raise ValueError(
            f"{kind_of(array)} has a mask, which is not in its memory: pass the arrays .data and .mask"
        )
