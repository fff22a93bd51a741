"""Comparing with a copy: on every kernel, for every change of contents, at the cost of reading everything."""

from __future__ import annotations

from typing import Any

from dirtytrack.errors import UnsupportedError, kernel_error
from dirtytrack.kernel.mappings import Mapping
from dirtytrack.native import ffi, lib
from dirtytrack.tracking.blindspots import BlindSpot


class Compare:
    """A page is written when its contents are no longer what the last collect found.

    It takes as much memory as is tracked, and about a fifth of a second a GiB for every look. Memory that
    can't be read (no permission, a guard page, beyond the end of its file) is compared once it can be.
    """

    name = "compare"
    registers = False
    sees_every_store = False

    def open(self, opening: Any) -> None:
        """Opens a session over the pagemap, where there is one."""
        try_it = ffi.new("char[2]", b"1")
        got = lib.dt_read_memory(int(ffi.cast("uintptr_t", try_it)), try_it + 1, 1)
        if got < 0:
            remedy = "A seccomp filter refuses it: allow process_vm_readv."
            raise UnsupportedError(-got, "process_vm_readv", remedy=remedy)
        error = lib.dt_open_compare(opening)
        if error:
            raise kernel_error(-error, "mmap")

    def blind_spots(self, _mapping: Mapping, /, *, sparse: bool) -> frozenset[BlindSpot]:
        """Returns what leaves contents as they were; the kind of memory makes no difference."""
        spots = {BlindSpot.UNDONE_STORES}
        return frozenset(spots | {BlindSpot.DROPPED_PAGES} if sparse else spots)
