"""One consumer of a session, as its user sees it."""

from __future__ import annotations

from dirtytrack._lifetime.closable import Closable
from dirtytrack._lifetime.handle import Handle
from dirtytrack.native import lib
from dirtytrack.tracking._core import Consumer, NativeEpoch
from dirtytrack.tracking.epoch import Epoch
from dirtytrack.tracking.pages import PageSet
from dirtytrack.tracking.region import Region, RegionSlice, SessionLike, check_requests, pages_asked


class Cursor(Handle, Closable):
    """An independent consumer of a session, made by `Session.cursor`. A context manager, which closes it.

    Every cursor sees every write at least once, and exactly once unless the write raced with a scan, whatever
    the others do; one kernel scan feeds them all. Its methods may be called from any thread.

    Attributes:
        session: the session it belongs to.
        name: unique among the session's open cursors.
    """

    def __init__(self, session: SessionLike, consumer: Consumer, open_ones: dict[str, Cursor]) -> None:
        self.session = session
        self.name = consumer.name
        self._consumer = consumer
        self._open_ones = open_ones  # the session's, by name

    def collect(self, *regions: Region | RegionSlice) -> Epoch:
        """Reads which pages were written since the last epoch, and re-arms them, atomically per page.

        An armed page is one whose next write will be noticed; the write itself succeeds as always.

        A write that races with the call is in this epoch, the next one, or both; a write after it has
        returned is in the next. So copy the contents of a page after the collect that reports it. Threads
        that run at the same time pay for a TLB flush per 2 MiB with a written page (``docs/performance.md``).

        Args:
            *regions: regions, or slices ``region[start:stop]`` of them; everything by default.

        Returns:
            The epoch, best used as a context manager.

        Raises:
            RegionLostError: a region that was asked for is lost. What was found is in the next epoch.
            ClosedError: the session, this cursor or a region is closed.
            ForkedError: in a child of the process that opened the session.
            ValueError: a region of another session.
            KernelError: the kernel refused the scan (ENOMEM); what was scanned counts as written next time.
        """
        return self._look(lib.DT_COLLECT, regions)

    def peek(self, *regions: Region | RegionSlice) -> Epoch:
        """Tells what a collect would report now. It arms and takes nothing: the next collect reports it, too.

        Args and errors as for `collect`.
        """
        return self._look(lib.DT_PEEK, regions)

    def reset(self, *regions: Region | RegionSlice) -> None:
        """Forgets what was written, and re-arms those pages. The other cursors still report them.

        Args and errors as for `collect`.
        """
        self._look(lib.DT_RESET, regions)

    def close(self) -> None:
        """Ends the cursor; idempotent. Its name is free again, its epochs stay readable.

        Raises:
            ValueError: it is the session's own, which is closed with the session.
        """
        if self._consumer.is_default:
            raise ValueError(f"the cursor of {self.session!r} itself is closed with the session")
        self._consumer.close()
        if self._open_ones.get(self.name) is self:
            del self._open_ones[self.name]

    def _check(self) -> None:
        self._consumer.check()

    def _look(self, verb: int, requests: tuple[Region | RegionSlice, ...]) -> Epoch:
        # The epoch comes first: from the native call on it holds the pages, whatever interrupts us.
        native = NativeEpoch()
        try:
            if requests:
                check_requests(requests, self.session)
                asked = pages_asked(requests)
                self._consumer.look_at(native, verb, asked)
                epoch = Epoch(self, native, tuple(asked), asked)
            else:
                epoch = Epoch(self, native, self._consumer.look_at_all(native, verb), _EVERYTHING)
        except BaseException:  # the traceback of an interrupt keeps the epoch, which would keep the pages
            native.give_back()
            raise
        return epoch

    def __repr__(self) -> str:
        return f"<Cursor {self.name!r} of {self.session!r}>"


_EVERYTHING: dict[Region, PageSet | None] = {}
