"""Whether memory may be touched. Touching what may not be would kill the process."""

from __future__ import annotations

import errno
import os
from typing import Any

from dirtytrack.errors import KernelPermissionError, kernel_error
from dirtytrack.kernel import mappings
from dirtytrack.kernel.mappings import Mapping
from dirtytrack.native import lib
from dirtytrack.tracking import Consumer, Region


class Access:
    """Looks up the protection of a consumer's pages, while it is open.

    Attributes:
        maps: a descriptor of the mappings of this process; -1 while it is closed.
    """

    def __init__(self, consumer: Consumer) -> None:
        self.maps = -1
        self._regions = consumer.regions
        self._extents = consumer.extents

    def open(self) -> None:
        """Opens the descriptor."""
        try:
            self.maps = os.open("/proc/self/maps", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise kernel_error(error.errno or 0, "open /proc/self/maps") from None

    def close(self) -> None:
        """Closes the descriptor; idempotent."""
        fd, self.maps = self.maps, -1
        if fd >= 0:
            os.close(fd)

    def check_pages(self, entries: Any, runs: Any, needed: str) -> None:
        """Refuses pages of the regions that may not be touched as needed.

        Args:
            entries: for each region, which of the *runs* are its.
            runs: of pages.
            needed: "r" or "rw".

        Raises:
            KernelPermissionError: naming the region and the mapping.
        """
        count = len(self._regions)
        place = lib.dt_find_protected(self.maps, self._extents, count, entries, runs, "w" in needed)
        suspects = range(count) if place < 0 else range(place, count)[:1]
        for suspect in suspects:  # all of them before Linux 6.11, which can't be asked
            entry = entries[suspect]
            own = runs[entry.first_run : entry.first_run + entry.run_count]
            self.check(self._regions[suspect], needed, own)

    def check(self, region: Region, needed: str, runs: Any = None) -> None:
        """Refuses a region, or *runs* of its pages, of which some may not be touched as needed.

        Raises:
            KernelPermissionError: naming the region and the mapping.
        """
        for mapping in mappings.overlapping(*region.page_range):
            if not set(needed) <= set(mapping.permissions) and _holds(mapping, region, runs):
                verb = "write to" if "w" in needed else "read"
                remedy = "Its protection was changed (mprotect): give it back, and do this again."
                raise KernelPermissionError(
                    errno.EACCES,
                    f"{verb} {region.title}",
                    start=mapping.start,
                    stop=mapping.stop,
                    remedy=remedy,
                )


def _holds(mapping: Mapping, region: Region, runs: Any) -> bool:
    # Whether the mapping has pages of the runs; None: it has.
    if runs is None:
        return True
    first, size = region.page_range[0], region.page_size
    return any(
        first + run.start * size < mapping.stop and mapping.start < first + run.stop * size for run in runs
    )
