"""Memory that a diff is applied to."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any, NamedTuple

from dirtytrack.errors import DiffError, KernelPermissionError
from dirtytrack.kernel import mappings
from dirtytrack.native import ffi
from dirtytrack.tracking import Region, refuse_overlaps, resolve


class Targets(NamedTuple):
    """Memory for each region of a diff: the native addresses, and what keeps them valid."""

    native: Any
    views: list[memoryview]


def resolve_targets(sizes: Mapping[str, int], memories: tuple[object, ...]) -> Targets:
    """Finds the memory for each region, and checks all of it.

    Raises:
        As `Diff.apply`.
    """
    views: list[memoryview] = []
    ranges: list[tuple[int, int, str]] = []  # address, length, name
    for (name, nbytes), memory in zip(sizes.items(), _in_order(sizes, memories), strict=True):
        if isinstance(memory, Region) and memory.name not in (None, name):
            raise DiffError(f"region {memory.name!r} was given for the changes of {name!r}")
        found = resolve(memory)
        if found.nbytes != nbytes:
            raise DiffError(f"{name!r} has {nbytes} bytes, and the memory given for it has {found.nbytes}")
        views.append(found.view)
        ranges.append((found.address, nbytes, name))
    refuse_overlaps(ranges)
    _check_access(ranges)
    return Targets(ffi.new("uint8_t *[]", [ffi.from_buffer(view) for view in views]), views)


def _in_order(sizes: Mapping[str, int], memories: tuple[object, ...]) -> list[object]:
    if len(memories) == 1 and isinstance(memories[0], Mapping):
        given = memories[0]
        if set(given) != set(sizes):
            names = sorted(map(str, given))
            raise DiffError(f"the diff is of {sorted(sizes)}, and memory was given for {names}")
        return [given[name] for name in sizes]
    if len(memories) != len(sizes):
        raise DiffError(f"the diff is of {len(sizes)} regions, and memory was given for {len(memories)}")
    return list(memories)


def _check_access(ranges: list[tuple[int, int, str]]) -> None:
    for address, nbytes, name in ranges:
        for mapping in mappings.overlapping(address, address + nbytes):
            if not mapping.permissions.startswith("rw"):
                remedy = "It is protected: make it writable (mprotect) first."
                raise KernelPermissionError(
                    errno.EACCES, f"apply to {name!r}", start=mapping.start, stop=mapping.stop, remedy=remedy
                )
