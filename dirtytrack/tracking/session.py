"""Sessions: memory in, epochs out."""

from __future__ import annotations

import atexit
import operator
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal, SupportsFloat

from dirtytrack._html import table
from dirtytrack._lifetime.closable import Owner
from dirtytrack._lifetime.handle import Handle
from dirtytrack._lifetime.listing import values_of
from dirtytrack._text import size
from dirtytrack.kernel import mappings
from dirtytrack.native import lib
from dirtytrack.objects import Trackable, describe
from dirtytrack.tracking._core import Consumer, Tracker
from dirtytrack.tracking.cursor import Cursor
from dirtytrack.tracking.epoch import Epoch
from dirtytrack.tracking.region import Region, RegionSlice, check_requests, region_called

_SIGURG = (
    23  # as on every architecture but sparc, mips and parisc; not from `signal`, which takes long to import
)
_LAST_SIGNAL = 64
_LONGEST_TIMEOUT = 60.0


class Session(Handle, Owner):
    """Tracks memory of this process and says, epoch after epoch, which pages were written.

    All methods may be called from any thread, at the same time. What takes less than some 50 us keeps the
    GIL, what takes longer releases it: above 64 MiB to scan, or some 16 runs of pages to copy. In a forked
    child every call but `close` raises ForkedError; the child can open its own session.
    """

    def __init__(
        self,
        *,
        backend: Literal["wp-async", "compare", "auto"] = "wp-async",
        adaptive: bool = False,
        keep_huge_pages: bool = False,
        double_check: float = 0.0,
        on_missed: Literal["raise", "warn"] = "raise",
        stop_threads: bool | int = False,
        stop_timeout: float = 0.01,
    ) -> None:
        """Opens a session.

        Args:
            backend: how written pages are found. "wp-async" needs Linux 6.7 or later. "compare" works
                everywhere, with a copy of the memory, and promises other things (``docs/backends.md``).
                "auto" is "wp-async" where that works, else "compare". The environment variable
                DIRTYTRACK_BACKEND overrides it, for tests.
            adaptive: whether pages that are written in epoch after epoch are left open, so that their stores
                cost no fault. They are reported as written; ``epoch.assumed`` says which. Now and then they
                are tested: after at most 64 epochs in which nobody wrote them they are reported no more.
                Where this costs more than it saves, no page is left open. "compare" ignores it.
            keep_huge_pages: whether cold private memory that lay on transparent huge pages, and was split by
                tracking, is put back on them, in a thread of the session's: collects of it are eight times as
                fast then, and it is read as fast as without tracking. Cold is what 8 looks in a row found
                unwritten; what is split soon again waits longer, up to 4096. It takes 2.2 MiB, and at
                most a fourth of a processor while there is something to be put back. A store that leaves the
                bytes as they were is not reported if it is made while its huge page is on the way back, for
                about a millisecond. Where it can't work nothing else changes; `Session.huge_pages_reason`
                says why.
            double_check: fraction of clean pages to double-check, from 0.0 (off, the default) to 1.0. Each
                collect copies that fraction of the pages that it reports as clean, chosen at random. The
                cursor's next collect compares the copies with the memory. Use it to detect writes that page
                tables can't see, such as DMA. Each collect copies and compares that fraction of the tracked
                memory, for example 10 MiB for 0.01 of 1 GiB. Sparse regions are skipped; "compare" ignores
                it.
            on_missed: what a collect does when a page has changed without being reported: "raise" a
                `MissedWriteError` (the default), or "warn". The page is in the next epoch of every cursor.

            stop_threads: whether the other threads of the process are stopped for the instant of each scan,
                by a signal in whose handler they wait; or that signal. True is SIGURG, which is ignored by
                default. An epoch is of one instant then, and a scan beside threads of native code is faster.
                In exchange some system calls in those threads fail with EINTR (``docs/guarantees.md``).
                Threads that can't be stopped are in ``epoch.unstopped``. What is built on the session
                inherits it. Default: False.
            stop_timeout: seconds that a scan waits for threads to stop. Those that have not are let go, and
                not waited for again until they have handled the signal. Default: 0.01.

        Raises:
            BusyError: the signal has a handler of somebody else's; a collect raises it when it gets one.
            UnsupportedError: the backend can't work here; the message says why and what to do.
            KernelError: a limit was hit.
            ValueError: there is no such backend, *double_check* is no number from 0.0 to 1.0, *on_missed* is
                neither "raise" nor "warn", *stop_threads* is no signal that threads can be stopped by, or
                *stop_timeout* is no number of seconds above 0.
            TypeError: *adaptive* or *keep_huge_pages* is neither True nor False, or *stop_threads* is no
                signal.
        """
        if on_missed not in ("raise", "warn"):
            raise ValueError(f'on_missed is "raise" or "warn", not {on_missed!r}')
        self._tracker = Tracker(
            backend,
            adaptive=_boolean("adaptive", adaptive),
            keep_huge_pages=_boolean("keep_huge_pages", keep_huge_pages),
            double_check=_fraction(double_check),
            warns=on_missed == "warn",
            stop_threads=_signal(stop_threads),
            stop_timeout=_seconds(stop_timeout),
        )
        self._cursors: dict[str, Cursor] = {}
        self._default = Cursor(self, Consumer.default(self._tracker), self._cursors)
        self._cursors[self._default.name] = self._default
        self._closed = False

    @property
    def backend(self) -> str:
        """How this session finds written pages: "wp-async" or "compare"."""
        return self._tracker.backend.name

    @property
    def backend_reason(self) -> str:
        """The reason for that backend: that it was asked for, or what keeps the other from working here."""
        return self._tracker.backend_reason

    @property
    def adaptive(self) -> bool:
        """Whether hot pages may be left open, and reported as written without proof."""
        return self._tracker.adaptive

    @property
    def keep_huge_pages(self) -> bool:
        """Whether cold memory is put back on huge pages; `Region.huge_pages` shows it."""
        return not self._tracker.huge_pages_reason

    @property
    def huge_pages_reason(self) -> str:
        """Why cold memory is not put back on huge pages; "" if it is."""
        return self._tracker.huge_pages_reason

    @property
    def double_check(self) -> float:
        """The fraction of clean pages that is double-checked; 0.0 also where memory is compared anyway."""
        return self._tracker.double_check

    @property
    def stop_threads(self) -> int:
        """The signal by which other threads are stopped during a scan; 0: they are not."""
        return self._tracker.stop_threads

    @property
    def closed(self) -> bool:
        """Whether the session is closed."""
        return self._closed

    @property
    def regions(self) -> tuple[Region, ...]:
        """The tracked regions, in the order in which they were tracked."""
        return self._tracker.regions

    @property
    def cursors(self) -> tuple[Cursor, ...]:
        """The open cursors, the session's own first."""
        return () if self._closed else tuple(values_of(self._cursors))

    def __getitem__(self, name: str) -> Region:
        """The tracked region of that name.

        Raises:
            KeyError: no region has it, or more than one; it says which there are.
        """
        if not isinstance(name, str):
            raise TypeError(f"a session's regions are looked up by name, a str, not by {name!r}")
        return region_called(name, self.regions)

    def __contains__(self, one: object) -> bool:
        """Whether it tracks a region, or one of a name."""
        return any(region is one or (isinstance(one, str) and region.name == one) for region in self.regions)

    def __iter__(self) -> Iterator[Region]:
        """The tracked regions, in the order in which they were tracked."""
        return iter(self.regions)

    def track(self, memory: Trackable, *, name: str | None = None, sparse: bool = False) -> Region:
        """Tracks *memory*: what is stored there from now on is in the next epoch of every cursor.

        What was in the memory before is not "written", and reading is no write. Memory that does not begin or
        end on a page is armed in whole pages and reported in its own bytes; a store to a neighbour on a
        shared page is reported too. Regions may overlap.

        Args:
            memory: a writable contiguous buffer (mmap, bytearray, numpy array, ``SharedMemory.buf``, ...),
                an object with ``__array_interface__``, a CPU torch tensor, or ``(address, nbytes)``. The
                region keeps the buffer's export, so the memory can't be closed or resized under it. For a
                bare address the caller vouches that it stays mapped.
            name: for messages, and for what is built on regions.
            sparse: whether private memory that is not populated yet is left alone, for big reservations: no
                page tables are made for it and huge pages still form there. In exchange its first touch,
                even a read, counts as a write, and a dropped page is not reported.

        Returns:
            The tracked region: every page of it is armed.

        Raises:
            TypeError: not memory, or memory that holds Python objects.
            ValueError: read-only, not contiguous, empty, on a GPU, not mapped; sparse and dense regions would
                share pages; shared memory to be tracked sparsely; pages of different sizes.
            BusyError: another session tracks memory on these pages, or another userfaultfd owns them. Share a
                session, such as `default_session`; for neighbours on a page, `alloc` memory of its own.
            KernelError: the kernel refused, with what to do.
            ClosedError, ForkedError: not a session of this process any more.

        Nothing stays registered by a call that fails, and no neighbour loses anything by it.
        """
        region = self._prepare(memory, name, sparse)
        try:
            self._tracker.add(region)
        except BaseException:  # an interrupt: the caller will never hear of this region
            self._tracker.discard(region)
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
        check_requests((region,), self)
        self._tracker.remove(region)

    def collect(self, *regions: Region | RegionSlice) -> Epoch:
        """Does what `Cursor.collect` does, on the session's own default cursor."""
        return self._default._look(lib.DT_COLLECT, regions)

    def peek(self, *regions: Region | RegionSlice) -> Epoch:
        """Does what `Cursor.peek` does, on the session's own default cursor."""
        return self._default._look(lib.DT_PEEK, regions)

    def reset(self, *regions: Region | RegionSlice) -> None:
        """Does what `Cursor.reset` does, on the session's own default cursor."""
        self._default._look(lib.DT_RESET, regions)

    def cursor(self, name: str) -> Cursor:
        """Opens a new cursor. It reports what is written from now on, whatever other cursors collect.

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
        consumer = Consumer(self._tracker, name)
        cursor = Cursor(self, consumer, self._cursors)
        try:
            if self._cursors.setdefault(name, cursor) is not cursor:  # atomic, also without the GIL
                raise ValueError(f"there is a cursor {name!r} already: close it, or choose another name")
            consumer.open()
        except BaseException:  # an interrupt: the caller will never hear of this cursor
            cursor.close()
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
        check_requests((region,), self)
        whole = region if isinstance(region, RegionSlice) else RegionSlice(region, 0, region.nbytes)
        length = whole.stop - whole.start
        start, stop = operator.index(start), length if stop is None else operator.index(stop)
        if not 0 <= start <= stop <= length:
            raise ValueError(f"[{start}, {stop}) is not a range within the {length} bytes of {region!r}")
        pages = whole.region.geometry.pages_of(whole.start + start, whole.start + stop)
        self._tracker.mark(whole.region, *pages)

    def c_api(self) -> int:
        """Lets a native runtime of this process track memory with this session.

        A collector in C and checkpoints in Python can have the same heap so, which one userfaultfd tracks:
        ``dt_tracker_open_on`` of ``dirtytrack.h`` opens a tracker on what this returns
        (``docs/runtimes.md``). Each sees every store, whatever the other takes. The ranges of such a tracker
        are none of `regions`.

        The first call waits for those under way. From then on signals are blocked while a thread is in a call
        of this session, which costs each about half a microsecond: a collector may stop threads anywhere.

        Returns:
            The address of a ``struct dt_api``: a table of functions, with its version and size, and a handle
            of this session. It is good as long as this object, also when that is closed: calls of a tracker
            return ``-DT_ECLOSED`` then.

        Raises:
            ClosedError, ForkedError: not a session of this process any more.
        """
        return self._tracker.api()

    def close(self) -> None:
        """Unregisters everything and closes the descriptors; idempotent. Epochs stay readable.

        In a forked child it only closes the child's copies of the descriptors: the owner goes on tracking.
        """
        if not self._closed:
            self._tracker.close()
            self._closed = True

    def _is_forgotten(self) -> bool:
        return self._tracker.is_usable

    def _repr_html_(self) -> str:
        rows = [
            (
                region.name if region.name is not None else f"{region.address:#x}",
                size(region.nbytes),
                f"{region.geometry.page_count:,}",
                size(region.page_size),
            )
            for region in self.regions
        ]
        return table(repr(self), ("region", "size", "pages", "of"), rows)

    def __repr__(self) -> str:
        tracker = getattr(self, "_tracker", None)  # which it has not got where a repr of its opening is taken
        return "<dirtytrack.Session: not open>" if tracker is None else repr(tracker)

    def _check(self) -> None:
        self._tracker.check()

    def _prepare(self, memory: object, name: str | None, sparse: bool = False) -> Region:
        # A region that is not tracked yet, so that how it is undone can be said before it is.
        self._check()
        if name is not None and not isinstance(name, str):
            raise TypeError(f"a region's name is a str, not {name!r}")
        region = Region(self, self._tracker, describe(memory), name, _boolean("sparse", sparse))
        if sparse:
            _refuse_shared(region)
        return region


def _boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} is True or False, not {value!r}")
    return value


def _fraction(value: object) -> float:
    number = float(value) if isinstance(value, SupportsFloat) and not isinstance(value, bool) else -1.0
    if not 0 <= number <= 1:
        raise ValueError(f"double_check is a fraction of the pages, from 0.0 to 1.0, not {value!r}")
    return number


def _signal(value: object) -> int:
    if isinstance(value, bool):
        return _SIGURG if value else 0
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"stop_threads is True, False, or the signal to use, not {value!r}") from None
    if not 1 <= number <= _LAST_SIGNAL:
        raise ValueError(f"stop_threads={value!r}: signals have numbers from 1 to {_LAST_SIGNAL}")
    return number


def _seconds(value: object) -> float:
    number = float(value) if isinstance(value, SupportsFloat) and not isinstance(value, bool) else 0.0
    if not 0 < number <= _LONGEST_TIMEOUT:
        raise ValueError(f"stop_timeout is a number of seconds above 0, to {_LONGEST_TIMEOUT}, not {value!r}")
    return number


def _refuse_shared(region: Region) -> None:
    # The kernel may unmap a written page of shared memory at any time: what stays is a hole, which a sparse
    # scan leaves out, and the write with it. Private memory leaves a swap entry.
    if any(mapping.shared for mapping in mappings.overlapping(*region.page_range)):
        raise ValueError(
            f"{region.title} is shared memory: sparse tracking would lose writes to pages that the kernel "
            "reclaims. Track it without sparse=True"
        )


# By address space: a forked child finds none of its own. The first one that is open counts. There is no lock:
# a handler of a signal may come in at any point, and a forked child might find it locked.
_defaults: dict[int, list[Session]] = {}


@atexit.register
def _close_defaults() -> None:
    for sessions in values_of(_defaults):
        for session in tuple(sessions):
            session.close()


def _first_open(sessions: list[Session]) -> Session | None:
    return next((session for session in tuple(sessions) if not session.closed), None)


def default_session() -> Session:
    """The session of this process, for code that is not handed one: all its users can track the same memory.

    Opened on first use, anew in a forked child and after it was closed; closed at exit.

    Raises:
        UnsupportedError: as for `Session`.
    """
    sessions = _defaults.setdefault(lib.dt_address_space(), [])  # atomic, as the calls of the list are
    session = _first_open(sessions)
    if session is not None:
        return session
    for closed in tuple(sessions):
        with suppress(ValueError):  # somebody else has done so
            sessions.remove(closed)
    fresh = Session()
    sessions.append(fresh)
    session = _first_open(sessions) or fresh
    if session is not fresh:  # somebody else was first
        fresh.close()
    return session
