"""Changes as the native code lists them: rows of numbers, and the bytes before and after."""

from __future__ import annotations

import errno
import operator
from collections.abc import Iterator
from typing import Any

from dirtytrack.errors import DiffError
from dirtytrack.native import ffi, lib
from dirtytrack.tracking import Geometry

ROW = 4  # numbers of a change: region, start, stop, and where its contents begin

_new = ffi.new_allocator(lib.dt_changes_new, lib.dt_changes_free, should_clear_after_alloc=False)


class Changes:
    """A list of changes that is being made.

    Attributes:
        native: the ``struct dt_changes``, which native calls append to. It is freed with this object.
        how: the ``struct dt_comparing`` with which it is made.
    """

    def __init__(self, gap: int, limit: int | None) -> None:
        """Makes an empty list.

        Args:
            gap: bytes; changes with at most so many equal ones between them become one.
            limit: bytes of memory that the list may take; None: any number.

        Raises:
            TypeError, ValueError: not numbers of bytes.
        """
        how: Any = ffi.new("struct dt_comparing *")
        how.gap = check_byte_count("gap", gap)
        how.limit = 2**64 - 1 if limit is None else check_byte_count("max_nbytes", limit)
        self.how: Any = how
        self.native: Any = _new("struct dt_changes *")

    def check(self) -> None:
        """Raises why the list is not complete, if it is not.

        Raises:
            DiffError: more has changed than the limit allows.
            MemoryError: there is no memory for the list.
        """
        error = self.native.error
        if error == -errno.EFBIG:
            raise DiffError(
                f"the diff would take more than {self.how.limit} bytes of memory: raise max_nbytes, or gap"
            )
        if error:
            raise MemoryError(f"there is no memory for {self.native.bytes} changed bytes and more")

    def table(self) -> bytes:
        """The rows, one after the other: each has `ROW` numbers of 64 bits."""
        native = self.native
        return _bytes(native.changes, native.change_count * ffi.sizeof("struct dt_change"))

    def contents(self) -> tuple[bytes, bytes]:
        """The bytes that the changes had before, and those that they have after, in the order of the rows."""
        native = self.native
        return _bytes(native.before, native.bytes), _bytes(native.after, native.bytes)

    def pages(self, place: int, geometry: Geometry) -> Iterator[tuple[int, int]]:
        """Runs of the pages that the changes of one region touch; *place* is its number in the rows."""
        table = memoryview(self.table()).cast("Q")
        for row in range(0, len(table), ROW):
            if table[row] == place:
                yield geometry.pages_of(table[row + 1], table[row + 2])


def check_byte_count(name: str, value: int) -> int:
    """Checks a number of bytes that was given as the argument *name*, and returns it.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is negative, or more than any memory has.
    """
    number = operator.index(value)
    if not 0 <= number < 2**63:
        raise ValueError(f"{name}={value}: a number of bytes, from 0 on")
    return number


def _bytes(pointer: Any, nbytes: int) -> bytes:
    return bytes(ffi.buffer(pointer, nbytes)) if nbytes else b""
