"""Two diffs, one after the other, as one."""

from __future__ import annotations

from typing import Any

from dirtytrack.errors import DiffError
from dirtytrack.native import ffi, lib
from dirtytrack.snapshot._changes import Changes
from dirtytrack.snapshot._messages import quoted
from dirtytrack.snapshot._parts import Parts


def merge(earlier: Parts, later: Parts) -> Parts:
    """The changes of both, which are of the same regions.

    Raises:
        DiffError: where both have changes, the later one does not begin with what the earlier one left.
        MemoryError: there is no memory for the result.
    """
    changes = Changes(0, None)
    conflict: Any = ffi.new("struct dt_conflict *")
    (first, _first), (second, _second) = _native(earlier), _native(later)
    if lib.dt_merge(changes.native, first, second, conflict) == 1:
        name = quoted(tuple(earlier.sizes)[conflict.region])
        raise DiffError(
            f"byte {conflict.byte} of {name} is {conflict.left} after the first diff and {conflict.found} "
            "before the second: one does not follow the other"
        )
    changes.check()
    before, after = changes.contents()
    is_known = earlier.before is not None and later.before is not None
    return Parts(earlier.sizes, changes.table(), before if is_known else None, after)


def _native(parts: Parts) -> tuple[Any, list[Any]]:
    # A struct dt_diff, and what it points to.
    rows = ffi.from_buffer("struct dt_change[]", parts.table)
    one_sided = parts.before is None
    before, after = (
        ffi.from_buffer("uint8_t[]", parts.before or b""),
        ffi.from_buffer("uint8_t[]", parts.after),
    )
    return ffi.new("struct dt_diff *", (rows, len(rows), before, after, one_sided)), [rows, before, after]
