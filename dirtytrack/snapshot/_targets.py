"""Memory that a diff is applied to."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Mapping
from typing import Any, NamedTuple

from dirtytrack.errors import DiffError, kernel_error
from dirtytrack.kernel import mappings
from dirtytrack.native import ffi
from dirtytrack.snapshot._messages import listed, quoted
from dirtytrack.tracking import Region, refuse_overlaps, resolve


class Targets(NamedTuple):
    """Memory for each region of a diff.

    Attributes:
        native: a ``struct dt_extent`` for each.
        names: of the regions.
        views: what keeps the memory.
    """

    native: Any
    names: list[str]
    views: list[memoryview]

    def refuse(self, error: int, failure: Any) -> None:
        """Raises what the result of a native call means; 0 is no error."""
        if not error:
            return
        touched = (
            name
            for name, one in zip(self.names, self.native, strict=True)
            if one.address - one.offset <= failure.start < one.address + one.nbytes
        )
        raise kernel_error(
            -error,
            f"apply to {quoted(next(touched, 'memory'))}",
            start=failure.start,
            stop=failure.stop,
            remedy=_REMEDIES.get(-error, ""),
        )


_REMEDIES = {
    errno.EACCES: "It is protected: make it writable (mprotect) first.",
    errno.EFAULT: "There are guard pages (MADV_GUARD_INSTALL), or its file is shorter: take them down, or "
    "make it longer first.",
}


def resolve_targets(sizes: Mapping[str, int], memories: tuple[object, ...]) -> Targets:
    """Finds the memory for each region, and checks all of it.

    Raises:
        As `Diff.apply`.
    """
    views: list[memoryview] = []
    ranges: list[tuple[int, int, str]] = []  # address, length, name
    for (name, nbytes), memory in zip(sizes.items(), _in_order(sizes, memories), strict=True):
        if isinstance(memory, Region) and memory.name not in (None, name):
            raise DiffError(f"region {quoted(str(memory.name))} was given for the changes of {quoted(name)}")
        found = resolve(memory)
        if found.nbytes != nbytes:
            raise DiffError(
                f"{quoted(name)} has {nbytes} bytes, and the memory given for it has {found.nbytes}"
            )
        views.append(found.view)
        ranges.append((found.address, nbytes, name))
    refuse_overlaps(ranges)
    native = ffi.new("struct dt_extent[]", [_extent(address, nbytes) for address, nbytes, _ in ranges])
    return Targets(native, list(sizes), views)


def _in_order(sizes: Mapping[str, int], memories: tuple[object, ...]) -> list[object]:
    if len(memories) == 1 and isinstance(memories[0], Mapping):
        given = memories[0]
        if set(given) != set(sizes):
            wanted, names = listed(sorted(sizes), len(sizes)), listed(sorted(map(str, given)), len(given))
            raise DiffError(f"the diff is of {wanted}, and memory was given for {names}")
        return [given[name] for name in sizes]
    if len(memories) != len(sizes):
        raise DiffError(f"the diff is of {len(sizes)} regions, and memory was given for {len(memories)}")
    return list(memories)


def _extent(address: int, nbytes: int) -> tuple[int, ...]:
    found = mappings.overlapping(address, address + nbytes)
    fallible = any(mapping.kind is not mappings.Kind.ANONYMOUS for mapping in found)
    return 0, address, nbytes, address % mmap.PAGESIZE, mmap.PAGESIZE, fallible
