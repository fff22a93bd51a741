"""What is known of an object that holds memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dirtytrack.objects.element_types import ElementType, to_numpy
from dirtytrack.objects.places import Place, Places

if TYPE_CHECKING:
    import numpy as np


class Elements(NamedTuple):
    """What the bytes of an object are elements of, in terms that JSON can hold.

    Attributes:
        dtype: the element type, as `element_types` has it.
        shape: lengths of the axes.
        order: the axes that have more than one element, from the one whose elements are furthest apart to the
            one whose elements follow each other; None if that is ascending, C order.
    """

    dtype: ElementType
    shape: tuple[int, ...]
    order: tuple[int, ...] | None = None

    def array(self, buffer: Any) -> np.ndarray[Any, Any]:
        """Makes a numpy array of these elements on *buffer*, which has their bytes and no others.

        Raises:
            ValueError, TypeError, KeyError, OverflowError: there is no such array, on whatever of it numpy
                stumbles.
        """
        import numpy as np

        dtype = to_numpy(self.dtype)
        nbytes = memoryview(buffer).nbytes
        if dtype.hasobject:
            raise ValueError("elements that are Python objects")
        if math.prod(self.shape) * dtype.itemsize != nbytes:
            raise ValueError(f"{self.shape} elements of {dtype} are not {nbytes} bytes")
        return np.ndarray(self.shape, dtype, buffer, strides=self._strides(dtype.itemsize))

    def _strides(self, itemsize: int) -> tuple[int, ...] | None:
        if self.order is None:
            return None
        if sorted(self.order) != [axis for axis, length in enumerate(self.shape) if length > 1]:
            raise ValueError(f"{self.order} are not the axes of {self.shape} that have several elements")
        strides = [itemsize] * len(self.shape)
        for axis in reversed(self.order):
            strides[axis], itemsize = itemsize, itemsize * self.shape[axis]
        return tuple(strides)


def elements_of(
    dtype: ElementType, itemsize: int, shape: tuple[int, ...], strides: Sequence[int] | None
) -> Elements | None:
    """Returns the elements of memory that they fill without a gap; None if they do not fill it.

    Args:
        dtype: as for `Elements`.
        itemsize: bytes of an element.
        shape: lengths of the axes.
        strides: bytes from one element to the next along each axis; None for C order.
    """
    if strides is None or 0 in shape:
        return Elements(dtype, shape)
    longer = [axis for axis, length in enumerate(shape) if length > 1]
    order = sorted(longer, key=lambda axis: strides[axis], reverse=True)
    for axis in reversed(order):
        if strides[axis] != itemsize:
            return None
        itemsize *= shape[axis]
    return Elements(dtype, shape, None if order == longer else tuple(order))


class Description:
    """An object as memory: where its bytes lie, and what they mean.

    Writing into the bytes is writing into the object: an object for which that does not hold has none.

    Attributes:
        address: address of the first byte.
        nbytes: length in bytes.
        view: the bytes, writable. The memory lives as long as the view or a slice of it, which hold the
            object's export or the object. For a bare address the caller vouches.
        elements: what the bytes are elements of; None: plain bytes, or the object does not say.
        place: where the object has the storage that is described; None: it can't get any other.
    """

    __slots__ = ("address", "elements", "nbytes", "place", "view")

    def __init__(
        self,
        address: int,
        nbytes: int,
        view: memoryview,
        elements: Elements | None = None,
        place: Place | None = None,
    ) -> None:
        self.address = address
        self.nbytes = nbytes
        self.view = view
        self.elements = elements
        self.place = place

    def vouched(self) -> Description:
        """The same memory, of which the caller vouches that the object keeps it: it is not asked any more."""
        return Description(self.address, self.nbytes, self.view, self.elements)

    @property
    def can_move(self) -> bool:
        """Whether the object can get other storage while it is described, so that it has to be asked."""
        return self.place is not None

    def still_there(self) -> bool:
        """Whether the object still has the storage that was described; no, if it can't say."""
        return self.place is None or bool(Places([self.place]).hold())
