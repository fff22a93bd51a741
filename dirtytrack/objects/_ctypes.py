"""Objects of ctypes."""

from __future__ import annotations

from typing import Any

from dirtytrack.objects import _buffer
from dirtytrack.objects._refusals import kind_of, refuse_python_objects
from dirtytrack.objects.description import Description, Elements
from dirtytrack.objects.element_types import ElementType
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
    found = _buffer.describe(data)
    kind, shape = _without_axes(type(data))
    if found is None or not _has_fields(kind):
        return found
    elements = Elements(_type(kind), shape)
    return Description(found.address, found.nbytes, found.view, elements, found.place)


def _without_axes(kind: Any) -> tuple[Any, tuple[int, ...]]:
    # The type of the elements, and the lengths of the axes.
    import _ctypes as ctypes

    shape: tuple[int, ...] = ()
    while issubclass(kind, ctypes.Array):
        kind, shape = kind._type_, (*shape, kind._length_)
    return kind, shape


def _has_fields(kind: Any) -> bool:
    import _ctypes as ctypes

    return issubclass(kind, ctypes.Structure | ctypes.Union)


def _type(kind: Any) -> ElementType:
    # A structure says more of itself than its buffer does, which is of bytes if it is packed, or a union.
    import _ctypes as ctypes

    if not _has_fields(kind):
        with memoryview(kind()) as view:
            refuse_python_objects(view.format, view.obj)
            return _buffer.type_of(view.format, view.itemsize)
    owners = [one for one in reversed(kind.__mro__) if "_fields_" in vars(one)]
    fields = [_field(owner, *field) for owner in owners for field in owner._fields_]
    is_aligned = issubclass(kind, ctypes.Structure) and not hasattr(kind, "_pack_")
    return {"fields": fields, "itemsize": ctypes.sizeof(kind), **({"aligned": True} if is_aligned else {})}


def _field(owner: Any, name: str, kind: Any, *bits: int) -> dict[str, Any]:
    # Of bits, the number that they are in, under a name that says so.
    kind, shape = _without_axes(kind)
    title = ":".join([name, *map(str, bits)])
    field = {"name": title, "offset": vars(owner)[name].offset, "dtype": _type(kind)}
    return field | ({"shape": list(shape)} if shape else {})
