"""Which pages of memory are used at all, by reading as well: the working set (Linux 7.3)."""

from __future__ import annotations

import errno
import threading
from contextlib import suppress

from dirtytrack._lifetime.closable import Owner
from dirtytrack._lifetime.handle import Handle
from dirtytrack._lifetime.undo import Undo
from dirtytrack.errors import ClosedError, ForkedError, KernelError, RegionLostError, UnsupportedError
from dirtytrack.kernel import mappings, pagemap
from dirtytrack.kernel.pagemap import Category
from dirtytrack.kernel.userfaultfd import Feature, RegisterMode, Userfaultfd, probe_features
from dirtytrack.native import lib
from dirtytrack.objects import Trackable
from dirtytrack.tracking.memory import resolve
from dirtytrack.tracking.pages import Geometry, PageSet

_NEEDED = Feature.RWP | Feature.RWP_ASYNC


class WorkingSet(Handle, Owner):
    """Which pages of memory were used, read or written, since it was last asked. New in Linux 7.3.

    ``used = WorkingSet(array)``; each `collect` returns the pages used since the one before. What was not
    used for a while is cold: it can be compressed, moved to slower memory, or left out of what is kept at
    hand. The first use of each page after a collect costs a page fault. A context manager, which closes it.
    All methods may be called from any thread.

    No use is missed: one that races with a collect is in its result, in the next, or in both. Uses by the
    kernel on behalf of the process (``read``, ``write``) count. Uses through another mapping of shared memory
    do not. Memory that somebody maps over as a whole, at the same address and alike, is not noticed until
    something in it is reported: do not do that to memory that is looked at.

    It is for memory that no Session tracks: the kernel notes writes or uses of a mapping, not both.

    Args:
        memory: what `Session.track` takes. It is kept alive.

    Attributes:
        geometry: how the memory lies on its pages, as in the page sets.

    Raises:
        UnsupportedError: this kernel can't do it (before Linux 7.3), or userfaultfd can't be opened here.
        BusyError: a Session, or another userfaultfd, has the memory or a neighbour on its pages.
        TypeError, ValueError: as `Session.track`; or memory of pages of several sizes.
        KernelError: as the message says.
    """

    geometry: Geometry

    def __init__(self, memory: Trackable) -> None:
        self._begun = self._undo = Undo()
        self._lock = threading.RLock()
        self._process = lib.dt_address_space()
        try:
            self._open(memory)
        except BaseException:
            self._undo.close()
            raise
        self._begun, self._closed = None, False

    def _open(self, memory: Trackable) -> None:
        self._memory = resolve(memory)
        size = mappings.page_size_at(self._memory.address)
        self.geometry = Geometry(self._memory.nbytes, self._memory.address % size, size)
        self._start = self._memory.address - self.geometry.offset
        self._stop = self._start + self.geometry.page_count * size
        if {mapping.page_size for mapping in self._mappings()} != {size}:
            raise ValueError("the memory has pages of several sizes: take one WorkingSet for each mapping")
        if _NEEDED not in probe_features():
            remedy = "To know which pages are used takes Linux 7.3; this kernel lacks RWP_ASYNC."
            raise UnsupportedError(errno.EINVAL, "UFFDIO_API", remedy=remedy)
        self._userfaultfd = Userfaultfd(_NEEDED)
        self._undo.callback(self._userfaultfd.close)
        self._undo.callback(self._unregister)
        self._userfaultfd.register(self._start, self._stop, mode=RegisterMode.RWP)
        self._mapped = self._mappings()
        self._userfaultfd.rw_protect(self._start, self._stop)

    def _unregister(self) -> None:
        # Closing is not enough: a process forked meanwhile may hold the descriptor.
        with suppress(KernelError, ClosedError):  # what is not registered any more
            self._userfaultfd.unregister(self._start, self._stop)

    def _mappings(self) -> list[mappings.Mapping]:
        return mappings.overlapping(self._start, self._stop)

    def collect(self) -> PageSet:
        """Returns the pages used since the last collect, or since it was made, and begins anew.

        Raises:
            RegionLostError: the memory is no longer what it was made for: unmapped, mapped over, or moved.
            KernelError: as the message says. Then the pages are in the next result.
            ClosedError: it is closed.
            ForkedError: in a child of the process that made it.
        """
        self._check()
        with self._lock:
            used = pagemap.scan_all(
                self._start, self._stop, category_mask=Category.ACCESSED, return_mask=Category.ACCESSED
            )
            # Pages are armed after they were reported, and no others: what is used in between was reported,
            # or stays open and is reported next time.
            try:
                for found in used:
                    self._userfaultfd.rw_protect(found.start, found.end)
            except KernelError as error:
                if error.errno != errno.ENOENT:
                    raise
                raise self._lost() from error
            if not self._memory.still_there() or self._mappings() != self._mapped:
                raise self._lost()
        size = self.geometry.page_size
        runs = [((found.start - self._start) // size, (found.end - self._start) // size) for found in used]
        return PageSet(self.geometry, runs)

    def _lost(self) -> RegionLostError:
        return RegionLostError(
            f"the memory [{self._start:#x}, {self._stop:#x}) is no longer what {self!r} was made for: close "
            "it, and make another one of where the memory is now"
        )

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._closed

    def close(self) -> None:
        """Lets go of the memory; idempotent."""
        if self._closed:
            return
        if self._is_forgotten():
            with self._lock:
                self._undo.close()
        else:
            self._userfaultfd.close()  # the copy of a forked child, and nothing else
        self._closed = True

    def _is_forgotten(self) -> bool:
        return lib.dt_address_space() == self._process

    def _check(self) -> None:
        if lib.dt_address_space() != self._process:
            raise ForkedError(f"{self!r} belongs to another process: make one here")
        if self._closed:
            raise ClosedError(f"{self!r} is closed: make another one")

    def __repr__(self) -> str:
        return f"<dirtytrack.WorkingSet{': closed' if self._closed else ''}>"
