"""Element types in terms that JSON can hold.

A type is a str as numpy's array interface has it ("<f4"); for one that numpy has no name for, a dict with its
name and its itemsize in bytes, and with whatever else its values depend on, such as a scale; for a structure,
a dict with its fields and its itemsize. A field is a dict with a name, an offset, a type, and if it has them
a shape (of a sub-array) and a title.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

ElementType: TypeAlias = str | dict[str, Any]

_NAMED_BY_NUMPY = r"[<>|=]([a-zA-Z])(\d{1,9})(\[\w{1,20}\])?"
_DEEPEST = 32
_SHOWN_FIELDS = 5


def of_numpy(dtype: np.dtype[Any]) -> ElementType:
    """Returns the type that is a dtype of numpy, or one that somebody added to numpy."""
    if dtype.names is not None:
        fields = [_field(dtype, name) for name in dtype.names]
        aligned = {"aligned": True} if dtype.isalignedstruct else {}
        return {"fields": fields, "itemsize": dtype.itemsize, **aligned}
    if dtype.isbuiltin == 2:  # added: what the interface says of it is void, or wrong
        return {"name": dtype.name, "itemsize": dtype.itemsize}
    if re.fullmatch(_NAMED_BY_NUMPY, dtype.str) is None:  # added, and with parameters, which its name has
        return {"name": dtype.str, "itemsize": dtype.itemsize}
    return dtype.str


def of_interface(typestr: str, descr: Any) -> ElementType:
    """Returns the type that an array interface describes.

    Raises:
        TypeError: it describes none.
    """
    is_structure = typestr[1:2] == "V" and descr and (len(descr) > 1 or descr[0][0])
    return _of_descr(descr) if is_structure else typestr


def size_of(typestr: str) -> int:
    """Returns the bytes of an element that an array interface names.

    Such names are "<f8" and "<M8[ns]"; "<U5" counts characters.

    Raises:
        TypeError: it names none that has a size.
    """
    match = re.fullmatch(_NAMED_BY_NUMPY, typestr)  # compiled when it is first needed
    if match is None or match[1] == "t":
        raise TypeError(f"there are no elements of type {typestr!r} in whole bytes")
    return int(match[2]) * (4 if match[1] == "U" else 1)


def to_numpy(kind: Any, depth: int = 0) -> np.dtype[Any]:
    """Returns the dtype of numpy. A type that it has no name for becomes a field of that name, with the bits.

    Raises:
        TypeError, ValueError, KeyError, OverflowError: there is no such type, on whatever of it numpy
            stumbles.
    """
    import numpy as np

    if isinstance(kind, str):
        size_of(kind)
        return np.dtype(kind)
    if depth > _DEEPEST:
        raise ValueError(f"structures in each other, more than {_DEEPEST}")
    if "fields" not in kind:
        return np.dtype([(kind["name"], _bits(kind["itemsize"]))])
    fields = kind["fields"]
    formats = [(to_numpy(field["dtype"], depth + 1), tuple(field.get("shape", ()))) for field in fields]
    return np.dtype(
        {
            "names": [field["name"] for field in fields],
            "formats": [(dtype, shape) if shape else dtype for dtype, shape in formats],
            "offsets": [field["offset"] for field in fields],
            "titles": [field.get("title") for field in fields],
            "itemsize": kind["itemsize"],
            "aligned": kind.get("aligned", False),
        }
    )


def title_of(kind: ElementType | None) -> str:
    """Returns what messages call a type."""
    if kind is None or isinstance(kind, str):
        return str(kind)
    if "fields" not in kind:
        rest = [f"{key} {str(value)[:40]}" for key, value in kind.items() if key not in ("name", "itemsize")]
        return f"{kind['name']} ({', '.join(rest)})" if rest else str(kind["name"])
    shown = [
        f"{title_of(one['dtype'])} {one['name']!r} at {one['offset']}"
        for one in kind["fields"][:_SHOWN_FIELDS]
    ]
    more = len(kind["fields"]) - len(shown)
    return f"{{{', '.join(shown)}{f' and {more} more' if more else ''}}} of {kind['itemsize']} bytes"


def _field(dtype: np.dtype[Any], name: str) -> dict[str, Any]:
    assert dtype.fields is not None
    base, offset, *title = dtype.fields[name]
    field: dict[str, Any] = {"name": name, "offset": offset}
    while base.subdtype is not None:  # of several axes, one in another, where ctypes says so
        base, shape = base.subdtype
        field["shape"] = [*field.get("shape", ()), *shape]
    if title:
        field["title"] = str(title[0])
    return {**field, "dtype": of_numpy(base)}


def _of_descr(descr: Sequence[Any]) -> ElementType:
    # Fields follow each other; one without a name is a gap.
    fields, offset = [], 0
    for name, kind, *rest in descr:
        title, name = name if isinstance(name, tuple) else (None, name)
        shape = list(rest[0]) if rest else []
        inner = kind if isinstance(kind, str) else _of_descr(kind)
        if name:
            field = {"name": name, "offset": offset, "dtype": inner}
            fields.append(field | ({"shape": shape} if rest else {}) | ({"title": title} if title else {}))
        offset += math.prod(shape) * (size_of(inner) if isinstance(inner, str) else inner["itemsize"])
    return {"fields": fields, "itemsize": offset}


def _bits(itemsize: Any) -> str:
    if not isinstance(itemsize, int):
        raise TypeError(f"an element of {itemsize!r} bytes")
    return f"<u{itemsize}" if itemsize in (1, 2, 4, 8) else f"V{itemsize}"
