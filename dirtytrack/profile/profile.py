"""Which part of a program wrote which memory: exact, by collecting where one ends and the next begins."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

from dirtytrack._html import escape
from dirtytrack._lifetime.closable import Owner
from dirtytrack._lifetime.handle import Handle
from dirtytrack.errors import ClosedError, DirtyTrackError, ForkedError
from dirtytrack.native import ffi, lib
from dirtytrack.profile import _limits
from dirtytrack.profile._counters import Written
from dirtytrack.profile._ledger import Ledger
from dirtytrack.profile._ticker import Ticker
from dirtytrack.profile.functions import Functions, find_functions
from dirtytrack.profile.recording import OUTSIDE, Area
from dirtytrack.profile.report import Report
from dirtytrack.tracking import Cursor, Epoch, Region, Session, default_session

DEFAULT_INTERVALS = (0.1, 1.0, 10.0, 60.0)
_LONGEST_NAME = 200
_DEEPEST = 32  # names in a path


class Profile(Handle, Owner):
    """Charges the pages of a session's regions to the part of the program, the *phase*, that wrote them.

    ``with Profile(session) as profile:`` and in it ``with profile.phase("embed"):``. It collects, by a cursor
    of its own, where a phase begins and where it ends. So what it says is exact: a page is charged to the
    phase during which it was written, and to nothing else. It takes a collect at each border, and costs the
    program a fault for each page that a phase writes first.

    Phases can be nested; what is written in an inner one is the inner one's. A page table knows no threads:
    while phases are open in several threads, what is written is charged to all of them together, as "a + b";
    what a thread without a phase writes, to those that are open. A phase may not stay open while its
    coroutine awaits
    something: what others write meanwhile would be its own. Named functions (*functions*) have no such
    trouble.

    All methods may be called from any thread. In a forked child phases do nothing, and `report` raises
    ForkedError.
    """

    def __init__(
        self,
        session: Session | None = None,
        *,
        functions: Iterable[str] = (),
        every: float | None = None,
        intervals: Iterable[float] = DEFAULT_INTERVALS,
    ) -> None:
        """Begins; what is written from here on counts.

        Args:
            session: whose regions, also those that it tracks later. Default: `default_session`.
            functions: which functions are phases, as "module:function" or "module:Class.method"; the modules
                are imported. From Python 3.12 on they are watched by ``sys.monitoring``, whoever calls them;
                generators and coroutines only while they run. On 3.11 a wrapper takes their place in the
                module or class: who has imported the function before calls it unwatched, and generators,
                coroutines and whatever has no attribute to be set are refused.
            every: seconds after which a thread of its own collects as well, so that the course of time shows
                what happens within long phases. Nobody is charged with anything else by it. Default: None,
                at borders only.
            intervals: seconds, of the working sets: how much is written within each.

        Raises:
            TypeError, ValueError: of the arguments; a function that there is not, or can't be watched.
            ImportError: a module of a function.
            UnsupportedError: as for `Session`, if it is the default one.
            BusyError: all six tools of ``sys.monitoring`` are in use.
        """
        found = find_functions(functions)
        self._intervals = tuple(_seconds("an interval", interval) for interval in intervals)
        if len(set(self._intervals)) > _limits.WORKING_SETS:
            raise ValueError(f"{len(set(self._intervals))} intervals: at most {_limits.WORKING_SETS}")
        every = None if every is None else _seconds("every", every)
        self._process = lib.dt_address_space()
        self._lock = threading.RLock()
        self._open: dict[int, list[str]] = {}  # by thread: the paths of its open phases
        self._current = OUTSIDE
        self._areas: dict[Region, int | None] = {}
        self._watching: tuple[Region, ...] = ()
        self._ledger = Ledger(self._intervals)
        self._overhead, self._assumed, self._watched = 0.0, 0, 0
        self._session = default_session() if session is None else session
        self._functions = Functions(found, self._enter, self._leave)
        self._ticker = Ticker(self._tick)
        self._cursor = _open_cursor(self._session)
        self._closed = False
        try:
            self._started, self._began = time.time(), time.perf_counter()
            self._functions.install()
            if every is not None:
                self._ticker.start(every)
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        """Whether it is closed: nothing is added to it any more."""
        return self._closed

    def phase(self, name: str) -> PhaseBlock:
        """Makes a context manager: what is written in its block is charged to the phase of this name.

        Args:
            name: the same one as often as wanted; without "/", which stands between the names of nested
                phases.

        Raises:
            ValueError, TypeError: no name for a phase.

        Entering and leaving raise what `Cursor.collect` does; a phase that can't be entered is not open.
        """
        if not isinstance(name, str):
            raise TypeError(f"a phase's name is a str, not {name!r}")
        if not name or "/" in name or " + " in name or len(name) > _LONGEST_NAME:
            raise ValueError(
                f"{name!r} is no name for a phase: 1 to {_LONGEST_NAME} characters, without '/' and ' + '"
            )
        return PhaseBlock(self, name)

    def report(self) -> Report:
        """Collects, and returns all that was found so far; also when it is closed.

        Raises:
            ForkedError: in a child of the process that made it.
            Others: as `Cursor.collect`.
        """
        self._check_process()
        with self._lock:
            if not self._closed:
                self._collect()
            recording = self._ledger.recording(
                "profile",
                program=" ".join(sys.argv) if sys.argv[0] else "python",
                started=self._started,
                overhead=self._overhead,
                watched=self._watched,
                assumed=self._assumed,
                notes=self._notes(),
            )
        return Report(recording)

    def close(self) -> None:
        """Collects once more, and ends it; idempotent. `report` still works."""
        if self._closed:
            return
        if not lib.dt_is_address_space(self._process):
            self._closed = True
            return
        self._ticker.stop()  # before the lock, for which its thread may wait
        with self._lock:
            if self._closed:
                return
            self._functions.remove()
            try:
                if not self._session.closed:
                    self._collect()
            finally:
                self._closed = True
                self._cursor.close()

    def _notes(self) -> Iterator[str]:
        if self._session.adaptive:
            yield "The session is adaptive: pages that were left open count as written without proof."
        if self._session.backend == "compare":
            yield "Pages were compared: a store that left the bytes as they were does not count."
        if self._functions.warning:
            yield self._functions.warning

    def _enter(self, name: str) -> None:
        if self._closed or not lib.dt_is_address_space(self._process):
            return
        with self._lock:
            paths = self._open.setdefault(threading.get_ident(), [])
            self._border()
            paths.append(_path(paths, name))
            self._current = self._label()

    def _leave(self, depth: int | None = None) -> None:
        # The innermost phase of this thread, or all from a depth on.
        if not lib.dt_is_address_space(self._process):
            return
        with self._lock:
            paths = self._open.get(threading.get_ident(), [])
            try:
                self._border()
            finally:
                self._drop(len(paths) - 1 if depth is None else depth)

    def _drop(self, depth: int) -> None:
        with self._lock:
            thread = threading.get_ident()
            paths = self._open.get(thread, [])
            del paths[max(depth, 0) :]
            if not paths:
                self._open.pop(thread, None)
            self._current = self._label()

    def _depth(self) -> int:
        return len(self._open.get(threading.get_ident(), ()))

    def _label(self) -> str:
        innermost = sorted({paths[-1] for paths in self._open.values() if paths})
        return " + ".join(innermost) if innermost else OUTSIDE

    def _tick(self) -> None:
        with self._lock:
            self._border()

    def _border(self) -> None:
        if not self._closed:
            self._collect()

    def _collect(self) -> None:
        began = time.perf_counter()
        with self._cursor.collect() as epoch:
            self._ledger.add(self._current, began - self._began, self._written(epoch))
            if len(epoch) != len(self._watching):
                self._watching = tuple(epoch)
                self._watched = max(self._watched, sum(region.nbytes for region in self._watching))
            if self._session.adaptive:
                self._assumed += sum(map(len, epoch.assumed.values()))
        self._overhead += time.perf_counter() - began

    def _written(self, epoch: Epoch) -> Iterator[Written]:
        for region, pages in epoch.items():
            if not pages:
                continue
            index = self._areas.get(region, -1)
            if index == -1:
                index = self._areas[region] = self._ledger.area(_area_of(region))
            if index is not None:
                address: Any = pages.runs.__array_interface__["data"]
                runs = ffi.cast("struct dt_run *", address[0])
                yield Written(index, runs, len(pages.runs), len(pages), pages.nbytes)

    def _check(self) -> None:
        self._check_process()
        if self._closed:
            raise ClosedError(f"{self!r} is closed: begin another one")

    def _check_process(self) -> None:
        if not lib.dt_is_address_space(self._process):
            raise ForkedError(f"{self!r} belongs to another process: begin one here")

    def _is_forgotten(self) -> bool:
        return bool(lib.dt_is_address_space(self._process)) and not self._session.closed

    def __repr__(self) -> str:
        if not hasattr(self, "_ledger"):  # where a repr of its opening is taken
            return "<dirtytrack.profile.Profile: not open>"
        state = "closed" if self._closed else f"in {self._current or 'no phase'}"
        return f"<dirtytrack.profile.Profile, {state}: {self._ledger.collects} collects>"

    def _repr_html_(self) -> str:
        try:
            return self.report()._repr_html_()
        except DirtyTrackError:  # in a forked child, or memory that is lost
            return escape(repr(self))


class PhaseBlock:
    """A block of a phase, made by `Profile.phase`. It can be entered more than once, also within itself."""

    __slots__ = ("_depths", "_name", "_profile")

    def __init__(self, profile: Profile, name: str) -> None:
        self._profile = profile
        self._name = name
        self._depths: list[int] = []

    def __enter__(self) -> None:
        self._depths.append(self._profile._depth())
        try:
            self._profile._enter(self._name)
        except BaseException:  # an interrupt: its block will not run
            self._profile._drop(self._depths.pop())
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._profile._leave(self._depths.pop())


def _path(outer: list[str], name: str) -> str:
    # A function that calls itself stays in its phase.
    if not outer:
        return name
    is_same = outer[-1] == name or outer[-1].endswith(f"/{name}")
    return outer[-1] if is_same or outer[-1].count("/") >= _DEEPEST else f"{outer[-1]}/{name}"


_numbers = itertools.count(1)


def _open_cursor(session: Session) -> Cursor:
    return session.cursor(f"profile {next(_numbers)}")


def _area_of(region: Region) -> Area:
    elements = region.elements
    shape: tuple[int, ...] = ()
    itemsize = 1
    if elements is not None and elements.order is None and elements.shape and region.nbytes:
        count = 1
        for length in elements.shape:
            count *= length
        shape, itemsize = elements.shape, region.nbytes // count
    name = region.name if region.name is not None else f"{region.address:#x}"
    return Area(
        name=name,
        kind="region",
        address=region.address,
        nbytes=region.nbytes,
        offset=region.geometry.offset,
        page_size=region.geometry.page_size,
        shape=shape,
        itemsize=itemsize,
    )


def _seconds(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what} is a number of seconds, not {value!r}")
    if not 1e-4 <= value <= 1e6:
        raise ValueError(f"{what} of {value!r} seconds: it is from 0.0001 to 1,000,000")
    return float(value)
