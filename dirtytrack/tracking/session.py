"""Sessions: memory in, epochs out."""

from __future__ import annotations

import atexit
import errno
import operator
import os
import threading
import warnings
import weakref
from typing import Any

from dirtytrack._lifetime.closable import Closable
from dirtytrack._lifetime.handle import Handle
from dirtytrack.kernel import mappings
from dirtytrack.native import ffi, lib
from dirtytrack.tracking import backends
from dirtytrack.tracking.cursor import Cursor
from dirtytrack.tracking.epoch import Epoch
from dirtytrack.tracking.failures import native_error, track_error
from dirtytrack.tracking.memory import Memory, resolve
from dirtytrack.tracking.region import Region, RegionSlice

_sessions: weakref.WeakSet[Session] = weakref.WeakSet()
_sessions_lock = threading.Lock()


def _forget_the_parents() -> None:
    # Another thread of the parent may have held the lock. (The sessions themselves know a fork without this.)
    global _sessions_lock
    _sessions_lock = threading.Lock()
    _sessions.clear()


os.register_at_fork(after_in_child=_forget_the_parents)


class Session(Handle, Closable):
    """Tracks memory of this process and says, epoch after epoch, which pages were written.

    All methods may be called from any thread, at the same time; the GIL is released in every system call and
    in every loop over pages. In a forked child every call but `close` raises ForkedError; the child can open
    its own session.
    """

    _closed = True  # until there is something to close

    def __init__(
        self,
        *,
        backend: str = "wp-async",
        adaptive: bool = False,
        verify: float = 0.0,
        on_missed: str = "raise",
    ) -> None:
        """Opens a session.

        Args:
            backend: the way to find written pages. "wp-async" needs Linux 6.7 or later; "compare" works
                everywhere with a copy of the memory, and promises other things (``docs/backends.md``); "auto"
                is the former where it works, else the latter. The environment variable DIRTYTRACK_BACKEND
                overrides it, for tests.
            adaptive: leave pages that are written in epoch after epoch open, so that their stores cost no
                fault, and report them as written; ``epoch.assumed`` says which. Now and then they are tested,
                and after at most 64 epochs in which nobody wrote them they are reported no more. Where that
                costs more than it saves, nothing is left open. Without effect where memory is compared.
            verify: the shadow check: a share, 0 to 1, of the pages that a collect calls clean, chosen at
                random, whose contents are compared at the cursor's next collect. It finds what page tables
                can't see, and would find an error of the kernel's or the library's. It takes so much of the
                tracked memory, and so much of the time to read all of it, at every collect. Sparse regions
                are left out. Without effect where memory is compared.
            on_missed: what a collect does that finds a changed page called clean: "raise" a MissedWriteError,
                or "warn" of it. The page is in the next epoch of every cursor.

        Raises:
            UnsupportedError: it can't work here; the message says why and what to do.
            ValueError: no such backend; not a share; neither "raise" nor "warn".
        """
        _check_verification(verify, on_missed)
        self._backend, self._reason = backends.find(backend)
        self._native, identifier = self._backend.open()
        self._adaptive = bool(adaptive) and self._backend.exclusive
        if self._adaptive and lib.dt_session_adapt(self._native):
            raise MemoryError("no memory to be adaptive")
        # Where memory is compared there is nothing to check, and an undone store would be a false alarm.
        verifies = verify > 0 and self._backend.sees_every_store
        if verifies and lib.dt_session_double_check(self._native, verify, on_missed == "warn"):
            raise MemoryError("no memory for the shadow check")
        self._warns = verifies and on_missed == "warn"
        self._owner = os.getpid()
        self._membership = threading.RLock()  # held while regions or cursors come and go
        self._regions: dict[int, Region] = {}
        self._tracked: tuple[int, tuple[Region, ...]] | None = None  # generation and regions, for collect
        self._movable: tuple[Region, ...] = ()
        self._default = Cursor(self, "default", identifier)
        self._cursors = {"default": self._default}
        with _sessions_lock:
            _sessions.add(self)
        self._closed = False

    @property
    def backend(self) -> str:
        """The way in which this session finds written pages: "wp-async" or "compare"."""
        return self._backend.name

    @property
    def backend_reason(self) -> str:
        """Why it is that one: whether it was asked for, or what keeps the other from working here."""
        return self._reason

    @property
    def adaptive(self) -> bool:
        """Whether hot pages may be left open, and reported as written without proof."""
        return self._adaptive

    @property
    def closed(self) -> bool:
        """Whether the session is closed."""
        return self._closed

    @property
    def regions(self) -> tuple[Region, ...]:
        """The tracked regions, in the order in which they were tracked."""
        return tuple(self._regions.copy().values())  # copy() is atomic, also without the GIL

    def track(self, memory: object, *, name: str | None = None, sparse: bool = False) -> Region:
        """Tracks *memory*: what is stored there from now on is in the next epoch of every cursor.

        What was in the memory before is not "written", and reading is no write. Memory that does not begin or
        end on a page is armed in whole pages and reported in its own bytes; a store to a neighbour on a
        shared page is reported too. Regions may overlap.

        Args:
            memory: a writable contiguous buffer (mmap, bytearray, numpy array, ``SharedMemory.buf``, ...),
                an object with ``__array_interface__``, a CPU torch tensor, or ``(address, nbytes)``. The
                region keeps the buffer's export, so the memory can't be closed or resized under it; of a bare
                address the caller vouches that it stays mapped.
            name: for messages, and for what is built on regions.
            sparse: leave private memory that is not populated yet alone, for big reservations: no page
                tables are made for it and huge pages still form there; in exchange its first touch, even a
                read, counts as a write, and a dropped page is not reported.

        Returns:
            The region; armed.

        Raises:
            TypeError: not memory, or memory that holds Python objects.
            ValueError: read-only, not contiguous, empty, on a GPU, not mapped; sparse and dense regions would
                share pages; shared memory to be tracked sparsely; pages of different sizes.
            BusyError: another userfaultfd owns the range. Share a session, such as `default_session`.
            KernelError: the kernel refused, with what to do.
            ClosedError, ForkedError: not a session of this process any more.

            Nothing stays registered by a call that fails, and no neighbour loses anything by it.
        """
        self._check()
        if name is not None and not isinstance(name, str):
            raise TypeError(f"a region's name is a str, not {name!r}")
        found = resolve(memory)
        region = Region(self, found, name, bool(sparse), os.sysconf("SC_PAGESIZE"))
        if sparse:
            _refuse_shared(region)
        try:
            with self._membership:
                error, failure = self._add(region, found)
                if error in (-lib.DT_EHUGETLB, -errno.EINVAL):
                    region = Region(self, found, name, bool(sparse), _page_size(region))
                    error, failure = self._add(region, found)
                if error:
                    raise track_error(self, error, region, failure)
                self._tracked = None
            _lose_elsewhere(self, region)
        except BaseException:  # an interrupt: the caller will never hear of this region
            if region._id:
                self._remove(region)
            raise
        return region

    def untrack(self, region: Region) -> None:
        """Ends the tracking of a region at once; its pages stay tracked where other regions hold them.

        The buffer's export drops with the last slice of ``region.view``. Epochs stay readable.

        Raises:
            ValueError: a region of another session.
            ClosedError: it is not tracked any more.
            ForkedError: in a child of the process that opened the session.
        """
        if not isinstance(region, Region):
            raise TypeError(f"untrack() takes a Region, not {region!r}")
        self._check_requests((region,))
        self._check()
        error = self._remove(region)
        if error < 0:
            raise native_error(self, error, (region,))

    def collect(self, *regions: Region | RegionSlice) -> Epoch:
        """`Cursor.collect` on the session's own default cursor."""
        return self._default._run(lib.DT_COLLECT, regions)

    def peek(self, *regions: Region | RegionSlice) -> Epoch:
        """`Cursor.peek` on the session's own default cursor."""
        return self._default._run(lib.DT_PEEK, regions)

    def reset(self, *regions: Region | RegionSlice) -> None:
        """`Cursor.reset` on the session's own default cursor."""
        self._default._run(lib.DT_RESET, regions)

    def cursor(self, name: str) -> Cursor:
        """A new consumer, with its own idea of what was written since it last asked. It begins now.

        Args:
            name: unique among the open cursors; the session's own is called "default".

        Raises:
            ValueError: the name is taken, or empty.
            KernelError: the kernel refused the scan that gives earlier writes to the other cursors (ENOMEM).
            ClosedError, ForkedError: not a session of this process any more.
        """
        self._check()
        if not isinstance(name, str):
            raise TypeError(f"a cursor's name is a str, not {name!r}")
        if not name:
            raise ValueError("a cursor needs a name")
        identifier = ffi.new("uint64_t *")
        try:
            with self._membership:
                if name in self._cursors:
                    raise ValueError(f"there is a cursor {name!r} already: close it, or choose another name")
                error = lib.dt_cursor_open(self._native, identifier)
                if error:
                    raise native_error(self, error, ())
                cursor = self._cursors[name] = Cursor(self, name, identifier[0])
        except BaseException:  # an interrupt: the caller will never hear of this cursor
            self._drop_cursor(name, identifier[0])
            raise
        return cursor

    def mark(self, region: Region | RegionSlice, start: int = 0, stop: int | None = None) -> None:
        """Declares bytes of a region written, for writes that no page table can see (DMA, another mapping).

        Every cursor finds their pages in its next epoch, for every region that shares them.

        Args:
            region: the region, or a slice of it.
            start: first byte, counted in the region or slice.
            stop: the byte after the last one; the end by default.

        Raises:
            ValueError: not a range of bytes in the region.
            RegionLostError, ClosedError, ForkedError: as for `collect`.
        """
        self._check_requests((region,))
        whole = region if isinstance(region, RegionSlice) else RegionSlice(region, 0, region.nbytes)
        length = whole.stop - whole.start
        start, last = operator.index(start), length if stop is None else operator.index(stop)
        if not 0 <= start <= last <= length:
            raise ValueError(f"[{start}, {last}) is not a range within the {length} bytes of {region!r}")
        pages = whole.region.geometry.pages_of(whole.start + start, whole.start + last)
        error = lib.dt_session_mark(self._native, whole.region._id, *pages)
        if error:
            raise native_error(self, error, (whole.region,))

    def close(self) -> None:
        """Unregisters everything and closes the descriptors; idempotent. Epochs stay readable.

        In a forked child it only closes the child's copies of the descriptors: the owner goes on tracking.
        """
        if self._closed:
            return
        try:
            if lib.dt_session_usable(self._native) == 0:
                with self._membership:
                    for region in sorted(self._regions.values(), key=_by_address, reverse=True):
                        self._remove(region)
                    lib.dt_session_close(self._native)  # before anybody can track anew
        finally:
            lib.dt_session_close(self._native)
            self._closed = True
        for region in self._regions.copy().values():  # in a forked child
            region._memory = None
        self._regions.clear()
        self._movable = ()

    def __del__(self) -> None:
        if self._closed:
            return
        if lib.dt_session_usable(self._native) == 0:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=2)
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._regions)} regions"
        return f"<dirtytrack.Session of process {self._owner}, {self._backend.name}: {state}>"

    def _add(self, region: Region, memory: Memory) -> tuple[int, Any]:
        identifier, failure = ffi.new("uint64_t *"), ffi.new("struct dt_failure *")
        shift = region.page_size.bit_length() - 1
        flags = lib.DT_SPARSE if region.sparse else 0
        try:
            error = lib.dt_session_add(self._native, *region.page_range, shift, flags, identifier, failure)
            if not error:
                region._tracked_as(identifier[0])
                self._regions[region._id] = region
                if memory.in_place is not None:
                    self._movable += (region,)
        except BaseException:  # an interrupt: nothing may stay registered that nobody knows of
            region._id = identifier[0]
            self._remove(region)
            raise
        return error, failure

    def _remove(self, region: Region) -> int:
        # The books come first: an interrupt then leaves a region that can be untracked again, or is closed
        # with the rest.
        with self._membership:
            self._regions.pop(region._id, None)
            self._movable = tuple(one for one in self._movable if one is not region)
            self._tracked = None
            result = lib.dt_session_remove(self._native, region._id)
            if result > 0:  # a part is unmapped or another's; what is ours lies in mappings of its own
                start, stop = region.page_range
                for mapping in mappings.overlapping(start, stop):
                    first, last = max(start, mapping.start), min(stop, mapping.stop)
                    lib.dt_session_release_range(self._native, first, last)
            region._memory = None
        return result

    def _close_cursor(self, cursor: Cursor) -> None:
        if cursor is self._default:
            raise ValueError(f"the cursor of {self!r} itself is closed with the session")
        if not self._closed and lib.dt_session_usable(self._native) == 0:
            self._drop_cursor(cursor.name, cursor._id)

    def _drop_cursor(self, name: str, identifier: int) -> None:
        with self._membership:
            if identifier:
                lib.dt_cursor_close(self._native, identifier)
            if name in self._cursors and self._cursors[name]._id == identifier:
                del self._cursors[name]

    def _list_tracked(self) -> tuple[int, tuple[Region, ...]]:
        # Waits for whoever is tracking or untracking, so the list and the generation belong together; in a
        # forked child that may be a thread of the parent.
        self._check()
        with self._membership:
            self._tracked = lib.dt_session_generation(self._native), tuple(self._regions.values())
            return self._tracked

    def _check(self) -> None:
        error = lib.dt_session_usable(self._native)
        if error:
            raise native_error(self, error, ())

    def _check_requests(self, requests: tuple[Region | RegionSlice, ...]) -> None:
        for request in requests:
            region = request.region if isinstance(request, RegionSlice) else request
            if not isinstance(region, Region):
                raise TypeError(f"{request!r} is no region: pass what track() returned, or a slice of it")
            if region.session is not self:
                raise ValueError(f"{region!r} belongs to another session")

    def _check_in_place(self) -> None:
        for region in self._movable:
            memory = region._memory
            if memory is not None and memory.in_place is not None and not memory.in_place():
                region._lost_ranges = (region.page_range,)
                lib.dt_session_lose_region(self._native, region._id)


def _check_verification(verify: float, on_missed: str) -> None:
    if isinstance(verify, bool) or not isinstance(verify, (int, float)) or not 0 <= verify <= 1:
        raise ValueError(f"verify is a share of the pages, from 0 to 1, not {verify!r}")
    if on_missed not in ("raise", "warn"):
        raise ValueError(f'on_missed is "raise" or "warn", not {on_missed!r}')


def _refuse_shared(region: Region) -> None:
    # The kernel may unmap a written page of shared memory at any time: what stays is a hole, which a sparse
    # scan leaves out, and the write with it. Private memory leaves a swap entry.
    if any(mapping.shared for mapping in mappings.overlapping(*region.page_range)):
        raise ValueError(
            f"{region._title} is shared memory: sparse tracking would lose writes to pages that the kernel "
            "reclaims. Track it without sparse=True"
        )


def _page_size(region: Region) -> int:
    sizes = {mapping.page_size for mapping in mappings.overlapping(*region.page_range)}
    if len(sizes) > 1:
        raise ValueError(
            f"{region._title} lies on pages of different sizes, {sorted(sizes)}: track each part itself"
        )
    return sizes.pop() if sizes else region.page_size


def _by_address(region: Region) -> int:
    return region.address


def open_sessions() -> list[Session]:
    """The sessions of this process that are not closed."""
    with _sessions_lock:
        sessions = list(_sessions)
    return [session for session in sessions if not session.closed]


def _lose_elsewhere(session: Session, region: Region) -> None:
    # The kernel let us register these pages, so no other session has them any more, whatever it believes;
    # from now on a scan of its would take our writes.
    if not session._backend.exclusive:
        return
    others = [other for other in open_sessions() if other is not session and other._backend.exclusive]
    for other in others:
        lib.dt_session_lose(other._native, *region.page_range)


_defaults: dict[int, Session] = {}  # by address space: a forked child finds none of its own


@atexit.register
def _close_defaults() -> None:
    for session in tuple(_defaults.values()):
        session.close()


def default_session() -> Session:
    """The session of this process, for code that is not handed one: all its users can track the same memory.

    Opened on first use, anew in a forked child and after it was closed; closed at exit.

    Raises:
        UnsupportedError: as for `Session`.
    """
    process = lib.dt_address_space()
    session = _defaults.get(process)
    if session is not None and not session.closed:
        return session
    fresh = Session()
    with _sessions_lock:
        session = _defaults.get(process)
        if session is None or session.closed:
            session = _defaults[process] = fresh
    if session is not fresh:
        fresh.close()
    return session
