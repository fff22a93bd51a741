"""One consumer of a session."""

from __future__ import annotations

import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Self

from dirtytrack._lifetime.handle import Handle
from dirtytrack.native import lib
from dirtytrack.tracking.epoch import Epoch
from dirtytrack.tracking.failures import missed_error, native_error
from dirtytrack.tracking.region import Region, RegionSlice, native_slices

if TYPE_CHECKING:
    from dirtytrack.tracking.session import Session


class Cursor(Handle):
    """An independent consumer of a session. Made by `Session.cursor`.

    Every cursor sees every write at least once, and exactly once unless the write raced with a scan, whatever
    the others do; one kernel scan feeds them all. Its methods may be called from any thread.

    Attributes:
        session: the session it belongs to.
        name: unique among the session's open cursors.
    """

    def __init__(self, session: Session, name: str, identifier: int) -> None:
        self.session = session
        self.name = name
        self._id = identifier

    def collect(self, *regions: Region | RegionSlice) -> Epoch:
        """Reads which pages were written since the last epoch, and re-arms them, atomically per page.

        A write that races with the call is in this epoch, the next one, or both; a write after it has
        returned is in the next. So copy the contents of a page after the collect that reports it. Threads
        that run at the same time pay for a TLB flush per 2 MiB with a written page (``docs/performance.md``).

        Args:
            *regions: regions, or slices ``region[start:stop]`` of them; everything by default.

        Returns:
            The epoch, best used as a context manager.

        Raises:
            RegionLostError: a region asked for is lost. No page is: what was found is in the next epoch.
            ClosedError: the session, this cursor or a region is closed.
            ForkedError: in a child of the process that opened the session.
            ValueError: a region of another session.
            KernelError: the kernel refused the scan (ENOMEM); what was scanned counts as written next time.
        """
        return self._run(lib.DT_COLLECT, regions)

    def peek(self, *regions: Region | RegionSlice) -> Epoch:
        """What a collect would report now. Arms nothing and takes nothing: the next collect reports it too.

        Args and errors as for `collect`.
        """
        return self._run(lib.DT_PEEK, regions)

    def reset(self, *regions: Region | RegionSlice) -> None:
        """Re-arms, and forgets what was written. The other cursors still get it.

        Args and errors as for `collect`.
        """
        self._run(lib.DT_RESET, regions)

    def close(self) -> None:
        """Ends the cursor; idempotent. Its name is free again, its epochs stay readable.

        Raises:
            ValueError: it is the session's own, which is closed with the session.
        """
        self.session._close_cursor(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, verb: int, requests: tuple[Region | RegionSlice, ...]) -> Epoch:
        # The epoch comes first: from the native call on it holds the pages, whatever interrupts us.
        epoch = Epoch(self)
        try:
            self._fill(epoch, verb, requests)
        except BaseException:  # the traceback of an interrupt keeps the epoch, which would keep the pages
            lib.dt_epoch_abort(epoch._native)
            raise
        return epoch

    def _fill(self, epoch: Epoch, verb: int, requests: tuple[Region | RegionSlice, ...]) -> None:
        if requests:
            self.session._check_requests(requests)
        if self.session._movable:
            self.session._check_in_place()
        error = self._run_on(requests, verb, epoch) if requests else self._run_on_all(verb, epoch)
        if error:
            raise native_error(self.session, error, epoch._regions, epoch._native.failure, self)
        if self.session._warns:
            missed = missed_error(self.session)
            if missed is not None:
                warnings.warn(missed, stacklevel=4)

    def _run_on(self, requests: tuple[Region | RegionSlice, ...], verb: int, epoch: Epoch) -> int:
        epoch._asked, slices, count = native_slices(requests)
        epoch._regions = tuple(epoch._asked)
        return lib.dt_collect(self.session._native, self._id, verb, slices, count, epoch._native)

    def _run_on_all(self, verb: int, epoch: Epoch) -> int:
        session = self.session
        generation, epoch._regions = session._tracked or session._list_tracked()
        while True:
            error = lib.dt_collect_all(session._native, self._id, verb, generation, epoch._native)
            if error != -lib.DT_ESTALE:
                return error
            generation, epoch._regions = session._list_tracked()

    def __repr__(self) -> str:
        return f"<Cursor {self.name!r} of {self.session!r}>"
