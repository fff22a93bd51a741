"""The memory that a snapshot or a history is of."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator
from typing import Any

from dirtytrack._lifetime.undo import Undo
from dirtytrack.errors import KernelPermissionError
from dirtytrack.kernel import mappings
from dirtytrack.kernel.mappings import Kind, Mapping
from dirtytrack.kernel.pagemap import Category, scan_all
from dirtytrack.native import ffi, lib
from dirtytrack.tracking import Cursor, Epoch, Region, Session
from dirtytrack.tracking.failures import native_error
from dirtytrack.tracking.several import open_cursor, refuse_overlaps, track_all

_serial = itertools.count(1)
_POPULATED = Category.PRESENT | Category.SWAPPED


class Memories:
    """Regions, and a cursor of their own.

    Attributes:
        session, cursor: that track them.
        regions: in the order in which they were given.
        names: of the regions; the place of one that was given without.
        sizes: their lengths in bytes, by name.
        slices: all of them, natively.
        extents: where they lie, natively.
        maps: a descriptor of the mappings of this process.
    """

    def __init__(self, session: Session | None, memories: tuple[object, ...], what: str, undo: Undo) -> None:
        """Tracks what is not tracked yet, and opens the cursor; *undo* ends it all.

        Raises:
            TypeError, ValueError: no memory, two of one name, two that overlap, or what `Session.track` says.
            ClosedError, ForkedError, KernelError: as `Session.track`.
        """
        if session is not None and not isinstance(session, Session):
            raise TypeError(f"the first argument is a dirtytrack.Session or None, not {session!r}")
        if not memories:
            raise ValueError("there is no memory: give at least one piece")
        named: dict[str, object] = {}
        for place, memory in enumerate(memories):
            name = (isinstance(memory, Region) and memory.name) or str(place)
            if name in named:
                raise ValueError(f"two regions are called {name!r}: track them under names of their own")
            named[name] = memory
        self.session, regions = track_all(named, session, undo)
        refuse_overlaps((one.address, one.nbytes, name) for name, one in regions.items())
        self.names = tuple(regions)
        self.regions = tuple(regions.values())
        self.sizes = {name: region.nbytes for name, region in regions.items()}
        self.slices = ffi.new(
            "struct dt_slice[]", [(region._id, 0, region.geometry.page_count) for region in self.regions]
        )
        self.extents = ffi.new(
            "struct dt_extent[]",
            [(one._id, one.address, one.nbytes, one.geometry.offset, one.page_size) for one in self.regions],
        )
        self.maps = -1
        undo.callback(self.close_maps)
        self.maps = os.open("/proc/self/maps", os.O_RDONLY | os.O_CLOEXEC)
        for region in self.regions:
            self.check_access(region, "r")
        self.cursor: Cursor = open_cursor(self.session, f"{what} {next(_serial)} of {id(self):#x}", undo)

    def close_maps(self) -> None:
        """Closes that descriptor; idempotent."""
        fd, self.maps = self.maps, -1
        if fd >= 0:
            os.close(fd)

    def collect(self) -> Epoch:
        """What was written since the last time."""
        return self.cursor.collect(*self.regions)

    def peek(self, needed: str = "") -> Epoch:
        """What was written so far: pages that may be touched as *needed* ("r", "rw", or not at all).

        Raises:
            KernelPermissionError: as `check_pages`.
        """
        epoch = self.cursor.peek(*self.regions)
        if needed:
            self.check_pages(epoch._native.buffers.entries, epoch._native.buffers.runs, needed)
        return epoch

    def check_pages(self, entries: Any, runs: Any, needed: str) -> None:
        """Refuses pages that may not be touched as *needed* ("r" or "rw"), which would kill the process.

        Raises:
            KernelPermissionError: naming the region.
        """
        count = len(self.regions)
        place = lib.dt_find_protected(self.maps, self.extents, count, entries, runs, "w" in needed)
        suspects = range(count) if place < 0 else range(place, count)[:1]
        for suspect in suspects:  # all: before Linux 6.11
            entry = entries[suspect]
            self.check_access(
                self.regions[suspect], needed, runs[entry.first_run : entry.first_run + entry.run_count]
            )

    def check(self, error: int, native: Any = None) -> None:
        """Raises what a native call says, on this epoch if it was one."""
        if error:
            failure = None if native is None else native.failure
            raise native_error(self.session, error, self.regions, failure, self.cursor)

    def check_access(self, region: Region, needed: str, runs: Any = None) -> None:
        """Refuses a region, or *runs* of its pages, of which some may not be touched as *needed*.

        Raises:
            KernelPermissionError: naming the mapping.
        """
        for mapping in mappings.overlapping(*region.page_range):
            if not set(needed) <= set(mapping.permissions) and _holds(mapping, region, runs):
                verb = "write to" if "w" in needed else "read"
                remedy = "Its protection was changed (mprotect): give it back, and do this again."
                raise KernelPermissionError(
                    errno.EACCES,
                    f"{verb} {region._title}",
                    start=mapping.start,
                    stop=mapping.stop,
                    remedy=remedy,
                )


def filled(region: Region) -> Iterator[tuple[int, int]]:
    """The bytes [start, stop) of a region that may be other than zeros.

    What a sparse one has not populated is not: a look at it would populate it, which counts as a write.
    """
    if not region.sparse:
        yield 0, region.nbytes
        return
    first, last = region.page_range
    for mapping in mappings.overlapping(first, last):
        start, stop = max(first, mapping.start), min(last, mapping.stop)
        pieces = [(start, stop)]
        if mapping.kind is Kind.ANONYMOUS:
            pieces = [piece[:2] for piece in scan_all(start, stop, category_anyof_mask=_POPULATED)]
        for start, stop in pieces:
            yield max(start - region.address, 0), min(stop - region.address, region.nbytes)


def _holds(mapping: Mapping, region: Region, runs: Any) -> bool:
    # Whether the mapping has pages of the runs; None: it has.
    if runs is None:
        return True
    first, size = region.page_range[0], region.page_size
    return any(
        first + run.start * size < mapping.stop and mapping.start < first + run.stop * size for run in runs
    )
