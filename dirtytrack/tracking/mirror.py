"""A copy of memory that is kept up to date."""

from __future__ import annotations

import itertools
import threading
from mmap import mmap
from typing import Any

from dirtytrack._lifetime.closable import Owner
from dirtytrack._lifetime.handle import Handle
from dirtytrack._lifetime.undo import Undo
from dirtytrack.errors import ClosedError, ForkedError
from dirtytrack.native import ffi, lib
from dirtytrack.objects import Trackable
from dirtytrack.tracking._core import NativeEpoch
from dirtytrack.tracking._possibly_nonzero import possibly_nonzero
from dirtytrack.tracking._track_many import open_consumer, track_many
from dirtytrack.tracking.memory import alloc
from dirtytrack.tracking.region import Region
from dirtytrack.tracking.session import Session

_serial = itertools.count(1)


class Mirror(Handle, Owner):
    """A copy of memory, brought up to date by copying the pages that were written, on a cursor of its own.

    ``mirror = Mirror(None, array)``; from then on each `update` makes `view` what the memory is. A context
    manager, which closes it.

    Beside threads that write, the copy has each page as it was at some moment of the last update that copied
    it, and no store is missed: what the copy lacks, a later update copies. Once nobody writes, one update
    makes the copy equal to the memory, byte for byte. That holds for every backend, also for one that
    compares, where a loop of your own over the pages of an epoch may copy a store that is undone before
    anybody looks again. All methods may be called from any thread.

    Attributes:
        region: the region that it is a copy of.
    """

    region: Region
    _copy: mmap | None = None  # until there is something to close

    def __init__(self, session: Session | None, memory: Trackable | Region) -> None:
        """Copies all of the memory; pages of zeros take no room in the copy.

        Args:
            session: the session to track with. None: that of the region, or `default_session`.
            memory: what `Session.track` takes, which is tracked until the mirror is closed; or a region of
                the session. Only its own bytes are copied, never their neighbours on a page.

        Raises:
            TypeError, ValueError, BusyError, ClosedError, ForkedError, UnsupportedError: as `Session.track`.
            KernelError: the same; or some of the memory can't be read.
            OSError: there is no memory for the copy.
        """
        self._begun = self._undo = Undo()
        self._lock = threading.RLock()
        try:
            session, regions = track_many({"mirror": memory}, session, self._undo)
            (self.region,) = regions.values()
            name = f"mirror {next(_serial)}"
            self._consumer = open_consumer(session, name, (self.region,), self._undo)
            self._copy = alloc(self.region.nbytes)
            self._fill(self._bytes())
        except BaseException:
            self._undo.close()
            raise
        self._begun, self._closed = None, False

    def _fill(self, copy: Any) -> None:
        consumer, failure = self._consumer, ffi.new("struct dt_failure *")
        for start, stop in possibly_nonzero(self.region):
            arguments = consumer.extents, start, stop, copy, failure
            error = consumer.call(lambda session, _, *rest: lib.dt_mirror_fill(session, *rest), *arguments)
            if error:
                raise consumer.error(error, failure)

    @property
    def view(self) -> memoryview:
        """The bytes of the copy, read-only. Updates change them; once the mirror is closed, nothing does.

        Raises:
            ClosedError: the mirror is closed. Views that were taken before stay.
        """
        return memoryview(self._open_copy()).toreadonly()

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._closed

    def update(self) -> int:
        """Copies what was written since the last update.

        It is one native call, which releases the GIL if it takes long. One that fails or is interrupted loses
        nothing: the next one copies those pages again.

        Returns:
            How many bytes were copied: all of the region's on the written pages.

        Raises:
            RegionLostError: the memory is no longer what was tracked.
            KernelError: some of what was written can't be read now; or as for `Cursor.collect`.
            ClosedError: the mirror, its session or its region is closed.
            ForkedError: in a child of the process that made it.
        """
        self._check()
        consumer, epoch, copied = self._consumer, NativeEpoch(), ffi.new("uint64_t *")
        with self._lock:
            arguments = consumer.slices, consumer.extents, self._bytes(), epoch.native, copied
            consumer.run(epoch, lib.dt_mirror_update, *arguments)
        return int(copied[0])

    def close(self) -> None:
        """Ends its cursor, and the tracking that it began; idempotent. Views of the copy stay as they are."""
        if self._closed:
            return
        if not self._consumer.tracker.is_forked:
            with self._lock:
                self._undo.close()
        self._closed = True
        self._copy = None

    def _is_forgotten(self) -> bool:
        return not self._consumer.tracker.is_forked and not self._consumer.tracker.closed

    def _check(self) -> None:
        if self._consumer.tracker.is_forked:
            raise ForkedError(f"{self!r} belongs to another process: make one here")
        self._open_copy()

    def _open_copy(self) -> mmap:
        copy = self._copy
        if copy is None:
            raise ClosedError(f"{self!r} is closed: make another one")
        return copy

    def _bytes(self) -> Any:
        # Of the copy, natively; as long as it is there, so are they.
        return ffi.from_buffer("uint8_t[]", self._open_copy())

    def __repr__(self) -> str:
        region = getattr(self, "region", None)  # which it has not got where a repr of its making is taken
        what = "nothing yet" if region is None else region.title
        return f"<dirtytrack.Mirror of {what}{': closed' if self._closed else ''}>"
