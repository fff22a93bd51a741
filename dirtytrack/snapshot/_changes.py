"""Changes as the native code lists them."""

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
    """A list of changes in the making.

    Attributes:
        native: the ``struct dt_changes``.
        gap, limit: as `lib.dt_compare` takes them.
    """

    def __init__(self, gap: int, limit: int | None) -> None:
        """Begins one.

        Raises:
            TypeError, ValueError: not numbers of bytes.
        """
        self.gap = checked("gap", gap)
        self.limit = 2**64 - 1 if limit is None else checked("max_nbytes", limit)
        self.native: Any = _new("struct dt_changes *")

    def check(self, error: int) -> None:
        """Raises what a native call says.

        Raises:
            DiffError: too much has changed.
            MemoryError: the changes don't fit.
        """
        if error == -errno.EFBIG:
            raise DiffError(f"more than {self.limit} bytes have changed: raise max_nbytes")
        if error:
            raise MemoryError(f"there is no memory for {self.native.bytes} changed bytes and more")

    def table(self) -> bytes:
        """The rows, each `ROW` numbers of 64 bits, one after the other."""
        native = self.native
        return _bytes(native.changes, native.change_count * ffi.sizeof("struct dt_change"))

    def contents(self) -> tuple[bytes, bytes]:
        """The bytes before and after."""
        native = self.native
        return _bytes(native.before, native.bytes), _bytes(native.after, native.bytes)

    def pages(self, place: int, geometry: Geometry) -> Iterator[tuple[int, int]]:
        """The pages, as runs, of the changes of one region."""
        table = memoryview(self.table()).cast("Q")
        for row in range(0, len(table), ROW):
            if table[row] == place:
                yield geometry.pages_of(table[row + 1], table[row + 2])


def checked(name: str, value: int) -> int:
    """A number of bytes that was given as *name*.

    Raises:
        TypeError, ValueError: it is none.
    """
    number = operator.index(value)
    if not 0 <= number < 2**63:
        raise ValueError(f"{name}={value}: a number of bytes, from 0 on")
    return number


def _bytes(pointer: Any, nbytes: int) -> bytes:
    return bytes(ffi.buffer(pointer, nbytes)) if nbytes else b""
