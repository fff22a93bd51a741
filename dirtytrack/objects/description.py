"""What is known of an object that holds memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class Elements(NamedTuple):
    """What the bytes of an object are elements of, in terms that JSON can hold.

    Attributes:
        dtype: the element type as numpy names it: a str, or a list of fields.
        shape: lengths of the axes.
        strides: bytes from one element to the next along each axis; None for C order, the last axis fastest.
    """

    dtype: str | list[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None

    def array(self, buffer: Any) -> np.ndarray[Any, Any]:
        """Makes a numpy array of these elements on *buffer*, which has their bytes and no others.

        Raises:
            ValueError, TypeError, KeyError, OverflowError, SyntaxError: there is no such array, on whatever
                of it numpy stumbles.
        """
        import numpy as np

        dtype = np.dtype(_numpy_fields(self.dtype))
        nbytes = memoryview(buffer).nbytes
        if dtype.hasobject:
            raise ValueError("elements that are Python objects")
        if math.prod(self.shape) * dtype.itemsize != nbytes:
            raise ValueError(f"{self.shape} elements of {dtype} are not {nbytes} bytes")
        if not is_dense(self.shape, self.strides, dtype.itemsize):
            raise ValueError(f"strides {self.strides} leave gaps")
        return np.ndarray(self.shape, dtype, buffer, strides=self.strides)


class Description:
    """An object as memory: where its bytes lie, and what they mean.

    Writing into the bytes is writing into the object: an object for which that does not hold has none.

    Attributes:
        address: address of the first byte.
        nbytes: length in bytes.
        view: the bytes, writable. The memory lives as long as the view or a slice of it, which hold the
            object's export or the object. For a bare address the caller vouches.
        elements: what the bytes are elements of; None: plain bytes, or the object does not say.
    """

    __slots__ = ("_first_place", "_place", "address", "elements", "nbytes", "view")

    def __init__(
        self,
        address: int,
        nbytes: int,
        view: memoryview,
        elements: Elements | None = None,
        place: Callable[[], object] | None = None,
    ) -> None:
        """Describes an object; *place* tells where it has its storage now, if it can get other storage."""
        self.address = address
        self.nbytes = nbytes
        self.view = view
        self.elements = elements
        self._place = place
        self._first_place = place() if place is not None else None

    @property
    def can_move(self) -> bool:
        """Whether the object can get other storage while it is described, so that it has to be asked."""
        return self._place is not None

    def still_there(self) -> bool:
        """Whether the object still has the storage that was described."""
        return self._place is None or self._place() == self._first_place


def is_dense(shape: tuple[int, ...], strides: tuple[int, ...] | None, itemsize: int) -> bool:
    """Whether elements fill their memory without a gap, in whatever order of axes.

    Args:
        shape: lengths of the axes.
        strides: bytes from one element to the next along each axis; None for C order.
        itemsize: bytes of an element.
    """
    if strides is None:
        return True
    expected = itemsize
    for stride, length in sorted(zip(strides, shape, strict=True)):
        if length > 1:
            if stride != expected:
                return False
            expected *= length
    return True


def _numpy_fields(dtype: Any) -> Any:
    # numpy wants tuples for fields and shapes, and lists for lists of fields; JSON has lists alone.
    if not isinstance(dtype, list):
        return dtype
    fields = []
    for name, kind, *shape in dtype:
        title = tuple(name) if isinstance(name, list) else name
        fields.append((title, _numpy_fields(kind), *(tuple(lengths) for lengths in shape)))
    return fields
