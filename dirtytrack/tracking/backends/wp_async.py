"""Asynchronous write-protection: userfaultfd with WP_ASYNC, and PAGEMAP_SCAN (Linux 6.7 and later)."""

from __future__ import annotations

from dirtytrack.errors import LIMITS, KernelError, UnsupportedError, kernel_error
from dirtytrack.kernel.mappings import Kind, Mapping
from dirtytrack.kernel.pagemap import open_pagemap
from dirtytrack.kernel.support import HoleReporting, hole_reporting, probed_hole_reporting, support
from dirtytrack.kernel.userfaultfd import Userfaultfd
from dirtytrack.native import lib
from dirtytrack.tracking.backends._descriptors import Descriptors
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
    exclusive = True
    sees_every_store = True

    def open(self) -> Descriptors:
        """Opens a new userfaultfd and this process's pagemap."""
        try:
            with Userfaultfd() as userfaultfd:
                holes = _hole_reporting()
                pagemap = open_pagemap()
                return Descriptors(pagemap, userfaultfd.detach(), holes)
        except OSError as error:
            raise _refused(error) from error

    def blind_spots(self, mapping: Mapping, /, *, sparse: bool) -> frozenset[BlindSpot]:
        """Returns what page tables can't show of this kind of mapping."""
        spots = {BlindSpot.DMA} | _UNSEEN[mapping.kind]
        if mapping.name.startswith("/anon_hugepage") and not mapping.shared:
            spots -= _BACKED  # MAP_ANONYMOUS: the kernel's own file behind it has no other user
        if sparse or (mapping.kind is Kind.SHMEM and not mapping.shared):
            spots.add(BlindSpot.DROPPED_PAGES)
        return frozenset(spots)


def _hole_reporting() -> int:
    # As dt_session_open wants it: does the kernel report dropped page tables, or do we pretend it does not?
    if hole_reporting() is not HoleReporting.BLIND:
        return lib.DT_HOLES_REPORTED
    if probed_hole_reporting() is HoleReporting.BLIND:
        return lib.DT_HOLES_UNREPORTED
    return lib.DT_HOLES_UNREPORTED_FOR_TESTS


def _refused(error: OSError) -> KernelError:
    call = error.call if isinstance(error, KernelError) else f"open {error.filename}"
    if error.errno in LIMITS:
        return kernel_error(error.errno, call)  # a limit that was hit is no lack of support
    remedy = error.remedy if isinstance(error, UnsupportedError) else support().remedy
    if remedy:
        remedy += ' Session(backend="compare") works without it, with a copy of the memory.'
    else:
        remedy = "`dirtytrack doctor` finds nothing wrong: it may have been a passing lack of memory."
    return UnsupportedError(error.errno or 0, call, remedy=remedy)
