"""Bare addresses: a pair (address, nbytes), for which the caller vouches."""

from __future__ import annotations

from dirtytrack.kernel.userfaultfd import USER_SPACE_END
from dirtytrack.objects._views import view_at
from dirtytrack.objects.description import Description


def describe(memory: object) -> Description | None:
    """Describes the bytes at an address; None if *memory* is no tuple."""
    if not isinstance(memory, tuple):
        return None
    if len(memory) != 2 or not all(type(item) is int for item in memory):
        raise TypeError(f"{memory!r} is no pair of integers (address, nbytes)")
    address, nbytes = memory
    if address <= 0 or nbytes <= 0:
        raise ValueError(f"address {address} and nbytes {nbytes} must both be positive")
    if address + nbytes > USER_SPACE_END:
        raise ValueError(f"[{address:#x}, {address + nbytes:#x}) is not an address range of a user process")
    return Description(address, nbytes, view_at(address, nbytes, None))
