"""Arrays: numpy's, and others' that have ``__array_interface__``."""

from __future__ import annotations

import math
import sys
from typing import Any

from dirtytrack.objects import _buffer
from dirtytrack.objects._refusals import NOT_CONTIGUOUS, READ_ONLY, kind_of, refuse, refuse_python_objects
from dirtytrack.objects._views import export_of, view_at
from dirtytrack.objects.description import Description, Elements, elements_of
from dirtytrack.objects.element_types import of_interface, of_numpy, size_of
from dirtytrack.objects.places import is_array, place_of


def describe(memory: object) -> Description | None:
    """Describes an array; None if *memory* has no array interface.

    An array's export is held where it has one; types such as datetime64 have none.
    """
    if not hasattr(memory, "__array_interface__"):
        return None
    _refuse_masked(memory)
    view = _buffer.exported(memory)
    elements = _elements(memory)
    refuse(elements is None, memory, NOT_CONTIGUOUS)
    if view is not None and view.c_contiguous:
        address, whole = export_of(memory)
        return Description(address, whole.nbytes, whole, elements, place_of(memory))
    return _from_interface(memory, elements, memory if view is None else view)


def _from_interface(array: Any, elements: Elements | None, owner: object) -> Description | None:
    interface = array.__array_interface__
    nbytes = math.prod(interface["shape"]) * _itemsize(array)
    data = interface.get("data")
    if not isinstance(data, tuple):
        return _on_buffer(array, elements, data, interface.get("offset", 0), nbytes)
    address, read_only = data
    refuse(read_only, array, READ_ONLY)
    return Description(address, nbytes, view_at(address, nbytes, owner), elements, place_of(array))


def _on_buffer(
    array: Any, elements: Elements | None, data: object, offset: int, nbytes: int
) -> Description | None:
    # The other form of the protocol: an object with a buffer, and where in it the elements begin.
    found = _buffer.describe(data)
    if found is None:
        return None
    refuse(offset < 0 or offset + nbytes > found.nbytes, array, "longer than the buffer that it names")
    view = found.view[offset : offset + nbytes]
    return Description(found.address + offset, nbytes, view, elements, place_of(array))


def _elements(array: Any) -> Elements | None:
    interface = array.__array_interface__
    typestr, descr = interface["typestr"], interface.get("descr")
    refuse_python_objects("O" if typestr[1:2] == "O" or "'|O" in repr(descr) else "", array)
    itemsize = _itemsize(array)
    kind = of_numpy(array.dtype) if is_array(array) else of_interface(typestr, descr)
    return elements_of(kind, itemsize, tuple(interface["shape"]), interface.get("strides"))


def _itemsize(array: Any) -> int:
    if is_array(array) and not array.dtype.hasobject:
        return int(array.itemsize)
    try:
        return size_of(array.__array_interface__["typestr"])
    except TypeError as error:
        raise TypeError(f"{kind_of(array)}: {error}. Track its bytes instead") from None


def _refuse_masked(array: object) -> None:
    # numpy.ma is there if one of its arrays is.
    masked = sys.modules.get("numpy.ma")
    if masked is not None and isinstance(array, masked.MaskedArray):
        raise ValueError(
            f"{kind_of(array)} has a mask, which is not in its memory: pass the arrays .data and .mask"
        )
