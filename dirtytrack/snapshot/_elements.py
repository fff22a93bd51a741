"""From bytes to elements of an array. Needs numpy."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from dirtytrack.errors import DiffError
from dirtytrack.snapshot._changes import ROW

try:
    import numpy as np
except ImportError as error:
    raise ImportError('Diff.elements needs numpy: pip install "dirtytrack[numpy]"') from error


class Elements(NamedTuple):
    """Elements of an array.

    Attributes:
        indices: an index array for each axis, as `numpy.nonzero` returns: ``array[indices]`` are they.
        slices: the same elements as slices of ``array.ravel(order="K")``, which has all of them in the order
            of memory. Ascending, and no two of them touch.
    """

    indices: tuple[np.ndarray[Any, np.dtype[np.intp]], ...]
    slices: list[slice]


def elements_of(rows: memoryview, array: np.ndarray[Any, Any], region: str, nbytes: int) -> Elements:
    """The elements of an array that changes touch, wholly or in part.

    Args:
        rows: of the changes of one region, ascending.
        array: has the shape and the type of the region's memory.
        region: its name, for messages.
        nbytes: its length.

    Raises:
        TypeError, DiffError, ValueError: as `Diff.elements`.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"elements() takes a numpy array, not {type(array).__name__}")
    if array.nbytes != nbytes:
        raise DiffError(f"the array has {array.nbytes} bytes, and region {region!r} has {nbytes}")
    order: Literal["C", "F"]
    if array.flags.c_contiguous:
        order = "C"
    elif array.flags.f_contiguous:
        order = "F"
    else:
        raise ValueError("elements() takes an array that is contiguous")
    table = np.frombuffer(rows, np.uint64).reshape(-1, ROW).astype(np.intp)
    first, stop = table[:, 1] // array.itemsize, -(-table[:, 2] // array.itemsize)
    begins = np.ones(len(table), bool)  # the others share an element with the one before, or touch it
    begins[1:] = first[1:] > stop[:-1]
    first, stop = first[begins], stop[np.append(begins[1:], True)[: len(table)]]
    lengths = stop - first
    into = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # each slice from 0 on
    slices = [slice(int(start), int(end)) for start, end in zip(first, stop, strict=True)]
    flat = np.repeat(first, lengths) + into
    return Elements(np.unravel_index(flat, array.shape, order=order) if array.ndim else (), slices)
