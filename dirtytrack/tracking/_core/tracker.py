"""What a session tracks with: the native session, and what belongs to it."""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from dirtytrack._lifetime.listing import values_of
from dirtytrack.errors import LIMITS, ClosedError, kernel_error
from dirtytrack.kernel import mappings
from dirtytrack.native import ffi, lib
from dirtytrack.objects import Places
from dirtytrack.tracking import backends, huge_pages
from dirtytrack.tracking._core.failures import busy_signal, cannot_track, native_error
from dirtytrack.tracking.region import Region

_new = ffi.new_allocator(lib.dt_opening_new, lib.dt_opening_free, should_clear_after_alloc=False)
_new_block = ffi.new_allocator(lib.dt_block_new, lib.dt_block_free, should_clear_after_alloc=False)
_trackers: dict[int, weakref.ref[Tracker]] = {}  # those that are open, by id(): each access to it is atomic
os.register_at_fork(after_in_child=_trackers.clear)  # (a tracker itself knows a fork without this)

# So many looks have to find a huge page that was split unwritten until it is put back: at first, and when
# it was soon split again each time.
_FIRST_WAIT, _MOST_WAIT = 8, 4096


class Tracker:
    """A native session with its backend, its regions, and the meaning of its failures.

    Every method may be called from any thread. In a forked child every call but `close` raises ForkedError.

    Attributes:
        backend: the way in which it finds written pages.
        backend_reason: why it is that one.
        adaptive: whether hot pages may be left open.
        huge_pages_reason: why cold memory is not put back on huge pages; "" if it is.
        double_check: the fraction of clean pages that are compared.
        stop_threads: the signal by which other threads are stopped; 0: they are not.
        warns: whether a page that has changed without being reported is a warning, and not an error.
        listing: what `list_regions` has found, until a region comes or goes.
        default_cursor: identifier of the cursor that exists from the start.
        is_in_place: says whether the objects of all regions have the storage that they had; no, where
            `find_moved` has to look. It is another function whenever regions come or go.
        closed: whether it is closed.
    """

    def __init__(
        self,
        backend: str,
        *,
        adaptive: bool,
        double_check: float,
        warns: bool,
        keep_huge_pages: bool,
        stop_threads: int = 0,
        stop_timeout: float = 0.01,
    ) -> None:
        """Opens a native session.

        Raises:
            UnsupportedError, ValueError, BusyError: as for `Session`.
        """
        self.backend, self.backend_reason = backends.find(backend)
        opening: Any = _new("struct dt_opening *")  # made before it is open: no interrupt can lose it
        self._opening = opening
        self.backend.open(opening)
        self._native, self.default_cursor = opening.session, int(opening.cursor)
        self.huge_pages_reason = self._keep_huge_pages() if keep_huge_pages else huge_pages.UNASKED
        self.adaptive = adaptive and self.backend.registers
        if self.adaptive and lib.dt_session_adapt(self._native):
            raise MemoryError(f"no memory to be adaptive. {LIMITS[errno.ENOMEM]}")
        # Where memory is compared there is nothing to check, and an undone store would be a false alarm.
        self.double_check = double_check if self.backend.sees_every_store else 0.0
        if self.double_check and lib.dt_session_double_check(self._native, self.double_check, warns):
            raise MemoryError(f"no memory to double-check. {LIMITS[errno.ENOMEM]}")
        self.warns = self.double_check > 0 and warns
        self.stop_threads = stop_threads
        if stop_threads:
            self._stop_threads(stop_threads, stop_timeout)
        self._owner = os.getpid()
        self._membership = threading.RLock()  # held while regions come and go
        self._regions: dict[int, Region] = {}
        self.listing: tuple[int, tuple[Region, ...]] | None = None
        self.is_in_place: Callable[[], object] = _unknown
        self._api: Any = None  # that of `api`, made on demand
        self.closed = False
        _trackers[id(self)] = weakref.ref(self)

    @staticmethod
    def all_open() -> list[Tracker]:
        """Returns the trackers of this process that are not closed."""
        found = [reference() for reference in values_of(_trackers)]
        return [tracker for tracker in found if tracker is not None and not tracker.closed]

    @property
    def is_usable(self) -> bool:
        """Whether it is open, and this process's."""
        return lib.dt_session_usable(self._native) == 0

    @property
    def is_forked(self) -> bool:
        """Whether this is another process than the one that opened it."""
        return lib.dt_session_usable(self._native) == -lib.DT_EFORKED

    def check(self) -> None:
        """Raises ClosedError or ForkedError if it can't be used any more, or here. Takes no lock."""
        error = lib.dt_session_usable(self._native)
        if error:
            raise self.error(error)

    @property
    def regions(self) -> tuple[Region, ...]:
        """The tracked regions, in the order in which they were tracked."""
        return tuple(values_of(self._regions))

    def list_regions(self) -> tuple[int, tuple[Region, ...]]:
        """Makes the listing anew: the generation of the native list of regions, and that list.

        Raises:
            ClosedError, ForkedError: as `check`.
        """
        # Waits for whoever is tracking or untracking, so the list and the generation belong together; in a
        # forked child that may be a thread of the parent.
        self.check()
        with self._membership:
            self.listing = lib.dt_session_generation(self._native), tuple(values_of(self._regions))
            return self.listing

    def call(self, function: Callable[..., int], arguments: tuple[Any, ...]) -> int:
        """Makes a native call that looks at tracked memory, and returns its result, also if that is an error.

        Before it, objects that can get other storage are asked whether they still have theirs. The region of
        one that has not is lost, and the call finds it so. Who makes such a call directly asks `is_in_place`.
        """
        if not self.is_in_place():
            self.find_moved()
        return function(*arguments)

    def find_moved(self) -> None:
        """Looks for the regions whose objects have got other storage: they are lost."""
        if not self.is_usable:  # as the native call will find; a thread of the parent may have the lock
            return
        with self._membership:
            memories = [region._memory for region in self._regions.values()]
            self.is_in_place = Places(one.place for one in memories if one and one.place).hold
        if not self.is_in_place():
            self._find_moved(self.regions)

    def add(self, region: Region) -> None:
        """Tracks a region: it is armed when this returns.

        An interrupt may leave it tracked, so `discard` is to be called then.

        Raises:
            ValueError, BusyError, KernelError, ClosedError, ForkedError: as `Session.track`; nothing of it
                stays registered.
        """
        self.check()
        with self._membership:
            error, failure = self._register(region)
            if error in (-lib.DT_EHUGETLB, -lib.DT_EMIXED, -errno.EINVAL):  # it may lie on huge pages
                region._lie_on(_page_size(region))
                error, failure = self._register(region)
        if error:
            others = self._others_regions(region)
            raise cannot_track(error, region, failure, others) or self.error(error, (region,), failure)
        if self.backend.registers:
            # The kernel let us register these pages, so no other session has them any more, whatever it
            # believes; from now on a scan of its would take our writes.
            lib.dt_session_take_from_rivals(self._native, *region.page_range)

    def discard(self, region: Region) -> None:
        """Ends the tracking of a region if it has begun and not ended."""
        if region.id:
            with suppress(ClosedError):
                self.remove(region)

    def remove(self, region: Region) -> None:
        """Ends the tracking of a region at once; its pages stay tracked where other regions hold them.

        Raises:
            ClosedError: it is not tracked any more.
            ForkedError: in a child of the process that opened the session.
        """
        self.check()
        error = self._drop(region)
        if error < 0:
            raise self.error(error, (region,))

    def mark(self, region: Region, start: int, stop: int) -> None:
        """Declares pages [start, stop) of a region written, to every consumer.

        Raises:
            RegionLostError, ClosedError, ForkedError: as for `Session.collect`.
        """
        error = self.call(lib.dt_session_mark, (self._native, region.id, start, stop))
        if error:
            raise self.error(error, (region,))

    def check_place(self, region: Region) -> None:
        """Raises RegionLostError if the object that a region is of has other memory now, or had since."""
        self._find_moved((region,))
        if self.is_lost(region):
            raise self.error(-lib.DT_ELOST, (region,))

    def is_lost(self, region: Region) -> bool:
        """Whether the last look found the region's memory to be no longer what was registered."""
        return lib.dt_session_is_lost(self._native, region.id) == 1

    def error(
        self, error: int, regions: Sequence[Region] = (), failure: Any = None, cursor: str = "?"
    ) -> Exception:
        """Returns the exception for a negative native result.

        Args:
            error: the result.
            regions: what the call was about.
            failure: the ``struct dt_failure`` that it has filled, or None.
            cursor: the name of its cursor.
        """
        return native_error(self, error, regions, failure, cursor)

    def huge_pages(self, region: Region) -> tuple[int, int, int, int]:
        """Returns how many of a region's huge pages are whole, split, and cold, and how often one came back.

        Raises:
            ClosedError, ForkedError: as `check`.
        """
        pages: Any = ffi.new("struct dt_huge_pages *")
        error = lib.dt_session_huge_pages(self._native, region.address, region.address + region.nbytes, pages)
        if error:
            raise self.error(error)
        return int(pages.whole), int(pages.split), int(pages.cold), int(pages.returned)

    def holds(self, start: int, stop: int) -> bool:
        """Whether all of an address range is mapped and registered here."""
        return lib.dt_session_holds(self._native, start, stop) == 1

    def take_missed(self) -> list[tuple[int, int]]:
        """Returns the addresses of pages that have changed without being reported, each once."""
        count = max(lib.dt_session_missed(self._native, ffi.NULL, 0), 0)
        pages = ffi.new("struct dt_run[]", count)
        count = min(count, lib.dt_session_missed(self._native, pages, count)) if count else 0
        return [(pages[i].start, pages[i].stop) for i in range(count)]

    def api(self) -> int:
        """Returns the address of a table of functions for native runtimes. It stays the same.

        Raises:
            ClosedError, ForkedError: as `check`.
        """
        self.check()
        with self._membership:
            if self._api is None:
                api = _new_block("struct dt_api *")
                error = lib.dt_session_api(self._native, api)
                if error:
                    raise self.error(error)
                self._api = api
        return int(ffi.cast("uintptr_t", self._api))

    def close(self) -> None:
        """Unregisters everything and closes the descriptors; idempotent. Epochs stay readable.

        In a forked child it only closes the child's copies of the descriptors: the owner goes on tracking.
        """
        if self.closed:
            return
        try:
            if self.is_usable:
                with self._membership:
                    for region in sorted(values_of(self._regions), key=_by_address, reverse=True):
                        self._drop(region)
                    lib.dt_session_close(self._native)  # before anybody can track anew
        finally:
            lib.dt_session_close(self._native)
            self.closed = True
        for region in self.regions:  # in a forked child
            region._memory = None
        self._regions.clear()
        self.is_in_place = _unknown
        _trackers.pop(id(self), None)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self._regions)} regions"
        return f"<dirtytrack.Session of process {self._owner}, {self.backend.name}: {state}>"

    def _keep_huge_pages(self) -> str:
        # Why not; before anything else lies on the backend.
        if not self.backend.registers:
            return huge_pages.COMPARES
        error = -lib.dt_session_keep_huge_pages(self._native, _FIRST_WAIT, _MOST_WAIT)
        if error in (errno.ENOMEM, errno.EAGAIN):
            remedy = "There can be no more threads: close some, or raise RLIMIT_NPROC (ulimit -u)."
            raise kernel_error(error, "pthread_create", remedy=remedy if error == errno.EAGAIN else "")
        return huge_pages.UNSUPPORTED[error] if error else ""

    def _stop_threads(self, signal: int, timeout: float) -> None:
        error = lib.dt_session_stop_threads(self._native, signal, max(1, int(timeout * 1e9)), -1)
        if error == -errno.EBUSY:
            raise busy_signal(signal)
        if error == -errno.EINVAL:
            raise ValueError(
                f"stop_threads={signal}: threads can't be stopped by this signal. It can't be handled, or it "
                "tells of a fault or of child processes"
            )
        if error:
            raise kernel_error(-error, "open /proc/self/task")

    def _register(self, region: Region) -> tuple[int, Any]:
        failure = ffi.new("struct dt_failure *")
        shift, flags = region.page_size.bit_length() - 1, lib.DT_SPARSE if region.sparse else 0
        error = lib.dt_session_add(
            self._native, *region.page_range, shift, flags, region._identifier, failure
        )
        if not error:
            self._regions[region.id] = region
            self.listing, self.is_in_place = None, _unknown
        return error, failure

    def _drop(self, region: Region) -> int:
        # The books come first: an interrupt then leaves a region that can be untracked again, or is closed
        # with the rest.
        with self._membership:
            self._regions.pop(region.id, None)
            self.listing, self.is_in_place = None, _unknown
            result = lib.dt_session_remove(self._native, region.id)
            if result > 0:  # a part is unmapped or another's; what is ours lies in mappings of its own
                start, stop = region.page_range
                for mapping in mappings.overlapping(start, stop):
                    low, high = max(start, mapping.start), min(stop, mapping.stop)
                    lib.dt_session_release_range(self._native, low, high)
            region._memory = None
        return result

    def _others_regions(self, region: Region) -> list[Region]:
        # Those of other sessions that lie on the same pages, which they can't share.
        start, stop = region.page_range
        rivals = [other for other in self.all_open() if other is not self and other.backend.registers]
        theirs = [one for rival in rivals for one in rival.regions] if self.backend.registers else []
        return [one for one in theirs if one.page_range[0] < stop and start < one.page_range[1]]

    def _find_moved(self, regions: Iterable[Region]) -> None:
        for region in regions:
            memory = region._memory
            if memory is not None and not memory.still_there():
                region._lost_ranges = (region.page_range,)
                lib.dt_session_lose_region(self._native, region.id)


def _unknown() -> bool:
    return False  # regions have come or gone


def _page_size(region: Region) -> int:
    sizes = {mapping.page_size for mapping in mappings.overlapping(*region.page_range)}
    if len(sizes) > 1:
        raise ValueError(
            f"{region.title} lies on pages of different sizes, {sorted(sizes)}: track each part itself"
        )
    return sizes.pop() if sizes else region.page_size


def _by_address(region: Region) -> int:
    return region.address
