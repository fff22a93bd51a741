"""Asynchronous write-protection: userfaultfd with WP_ASYNC, and PAGEMAP_SCAN (Linux 6.7 and later)."""

from __future__ import annotations

import os
from typing import Any

from dirtytrack.errors import LIMITS, KernelError, UnsupportedError, kernel_error
from dirtytrack.kernel.mappings import Kind, Mapping
from dirtytrack.kernel.pagemap import open_pagemap
from dirtytrack.kernel.support import HoleReporting, hole_reporting, probed_hole_reporting, support
from dirtytrack.kernel.userfaultfd import Userfaultfd
from dirtytrack.native import ffi, lib
from dirtytrack.tracking.blindspots import BlindSpot

_BACKED = {BlindSpot.OTHER_MAPPING, BlindSpot.FILE_WRITES, BlindSpot.HOLE_PUNCHING}

# Measured for docs/guarantees.md; DMA is everywhere.
_UNSEEN: dict[Kind, set[BlindSpot]] = {
    Kind.ANONYMOUS: set(),
    Kind.SHARED_ANONYMOUS: {BlindSpot.OTHER_MAPPING, BlindSpot.HOLE_PUNCHING},
    Kind.SHMEM: _BACKED,
    Kind.SHARED_FILE: _BACKED,
    Kind.PRIVATE_FILE: _BACKED | {BlindSpot.DROPPED_PAGES},
    Kind.HUGETLB: {BlindSpot.OTHER_MAPPING, BlindSpot.HOLE_PUNCHING, BlindSpot.DROPPED_PAGES},
    Kind.SPECIAL: _BACKED | {BlindSpot.DROPPED_PAGES},
}


class WpAsync:
    """The hardware finds the writes: a fault for the first to each armed page, one scan for all of them."""

    name = "wp-async"
    registers = True
    sees_every_store = True

    def open(self, opening: Any) -> None:
        """Opens a session over a new userfaultfd and this process's pagemap."""
        error = lib.dt_open_wp_async(opening, _hole_reporting())
        if error:
            raise _refused(-error, str(ffi.string(opening.call), "ascii"))  # type: ignore[arg-type]

    def blind_spots(self, mapping: Mapping, /, *, sparse: bool) -> frozenset[BlindSpot]:
        """Returns what page tables can't show of this kind of mapping."""
        spots = {BlindSpot.DMA} | _UNSEEN[mapping.kind]
        if mapping.name.startswith("/anon_hugepage") and not mapping.shared:
            spots -= _BACKED  # MAP_ANONYMOUS: the kernel's own file behind it has no other user
        if sparse or (mapping.kind is Kind.SHMEM and not mapping.shared):
            spots.add(BlindSpot.DROPPED_PAGES)
        return frozenset(spots)


def _hole_reporting() -> int:
    # For dt_session_open_wp_async: does the kernel report dropped page tables, or do we pretend it does not?
    if hole_reporting() is not HoleReporting.BLIND:
        return lib.DT_HOLES_REPORTED
    if probed_hole_reporting() is HoleReporting.BLIND:
        return lib.DT_HOLES_UNREPORTED
    return lib.DT_HOLES_UNREPORTED_FOR_TESTS


def _refused(error: int, call: str) -> KernelError:
    if error in LIMITS:
        return kernel_error(error, call)  # that is no lack of support
    remedy = ""
    try:
        with Userfaultfd():  # which says more of what is refused
            os.close(open_pagemap())
    except KernelError as refusal:
        error, call = refusal.errno or error, refusal.call
        remedy = refusal.remedy if isinstance(refusal, UnsupportedError) else ""
    remedy = remedy or support().remedy
    if remedy:
        remedy += ' Session(backend="compare") works without it, with a copy of the memory.'
    else:
        remedy = "`dirtytrack doctor` finds nothing wrong: it may have been a passing lack of memory."
    return UnsupportedError(error, call, remedy=remedy)
