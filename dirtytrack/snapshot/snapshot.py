"""A copy of memory, and what has become of the memory since."""

from __future__ import annotations

from typing import Any

from dirtytrack._lifetime.turns import in_turn
from dirtytrack.native import ffi, lib
from dirtytrack.snapshot._changes import Changes
from dirtytrack.snapshot._tracked_set import TrackedSet
from dirtytrack.snapshot.diff import Diff
from dirtytrack.tracking import NativeEpoch, PageSet, Region, Session, alloc, possibly_nonzero

_ALIGNMENT = 64
_LARGE = 1 << 22  # bytes from which on a copy takes huge pages


class Snapshot(TrackedSet):
    """A copy of memory as it is now, on a cursor of its own: other users of the session are not disturbed.

    ``snap = Snapshot(session, array)``; then `diff` says to the byte what was written since, `rollback` puts
    it back, `advance` brings the copy up to date. Each costs what the written pages cost, and nothing
    else. A context manager, which closes it.

    Beside threads that write: what was written before a call is in it, and what is written while it runs
    may be; it is pending for the next call. `rollback` is the exception. All methods may be called from any
    thread; they take turns.
    """

    def __init__(self, session: Session | None, *memories: object) -> None:
        """Copies the memory.

        Args:
            session: the session to track with. None: that of the regions, or `default_session`.
            *memories: what `Session.track` takes, or regions of the session. They keep their names; the
                others are called by their place, "0", "1", and are tracked until the snapshot is closed.

        Raises:
            TypeError, ValueError: no memory, memory that overlaps, or as `Session.track`.
            ClosedError, ForkedError, KernelError, UnsupportedError: as `Session.track`.
            OSError: there is no memory for the copy.
        """
        super().__init__(session, memories)

    def _prepare(self) -> None:
        nbytes = sum(map(_room, self.regions))
        self._copy = alloc(nbytes, huge=True if nbytes >= _LARGE else None)
        self._whole = ffi.from_buffer("uint8_t[]", self._copy)
        copies: list[Any] = []
        at = 0
        for region in self.regions:
            copies.append(self._whole + at)
            at += _room(region)
        self._copies = ffi.new("uint8_t *[]", copies)
        for region, copy in zip(self.regions, copies, strict=True):
            for start, stop in possibly_nonzero(region):
                memory = ffi.cast("uint8_t *", region.address + start)
                lib.dt_copy(memory, stop - start, region.page_size, copy + start)

    def _forget(self) -> None:
        del self._copies, self._whole, self._copy

    @property
    def nbytes(self) -> int:
        """Bytes of address space that the copy takes. How much memory that is, is in ``docs/snapshot.md``."""
        return sum(map(_room, self.regions))

    @in_turn
    def diff(self, *, gap: int = 0, max_nbytes: int | None = None) -> Diff:
        """Returns what differs from the copy, to the byte.

        Only pages that were written are compared. They stay written: the next diff compares them again.

        Args:
            gap: changes of a region with at most so many equal bytes between them become one. Default: 0.
            max_nbytes: how many bytes may have changed at most. None, the default: any number.

        Raises:
            DiffError: more than that has changed.
            RegionLostError, ClosedError, ForkedError, KernelError: as `Cursor.peek`.
            KernelPermissionError: a region can't be read now.
        """
        self._check()
        changes = Changes(gap, max_nbytes)
        epoch = self._peek("r")
        changes.check(
            lib.dt_compare_pages(
                changes.native,
                self._consumer.extents,
                self._copies,
                len(self.regions),
                epoch.native,
                changes.gap,
                changes.limit,
            )
        )
        return Diff._of(self._sizes, changes)

    @in_turn
    def rollback(self) -> int:
        """Makes the memory equal to the copy. Returns how many pages were written back.

        The pages are unprotected while they are written, so no write faults; then they are re-armed. The
        other cursors of the session find them in their next epoch. Nobody may write to the memory while it
        runs: what is written to a page that is being put back may be lost or stay, and need not be in the
        next diff (`verify` finds it). A write to any other page stays, and is in the next diff.

        Raises:
            RegionLostError, ClosedError, ForkedError, KernelError: as `Cursor.collect`. The memory may be put
                back in part; what is not is in the next call.
            KernelPermissionError: a region can't be written now. Nothing was.
        """
        self._check()
        consumer, epoch, taken = self._consumer, self._peek("rw"), NativeEpoch()
        consumer.run(
            taken,
            lib.dt_rollback,
            consumer.slices,
            len(self.regions),
            consumer.extents,
            self._copies,
            epoch.native,
            taken.native,
        )
        return epoch.pages

    @in_turn
    def advance(self) -> int:
        """Makes the copy equal to the memory. Returns how many pages were copied.

        Raises:
            RegionLostError, ClosedError, ForkedError, KernelError: as `Cursor.collect`; nothing is lost.
            KernelPermissionError: a region can't be read now.
        """
        self._check()
        self._peek("r")
        with self._consumer.collect() as epoch:
            lib.dt_update(self._consumer.extents, self._copies, len(self.regions), epoch.native)
            return epoch.pages

    @in_turn
    def verify(self) -> Diff:
        """Compares everything with the copy, and returns what differs although its page was not written.

        That is empty where the tracker saw all that happened. What it can't see (`Region.blind_spots`:
        another mapping, DMA, ...) is found here; `Session.mark` tells the tracker, and then a rollback puts
        it back. It costs reading all of the memory and the copy.

        Raises:
            As `diff`.
        """
        self._check()
        changes, before = Changes(0, None), self._consumer.peek()
        for region in self.regions:
            self._access.check(region, "r")
        for place, region in enumerate(self.regions):
            written = before.page_set(place, region.geometry)
            self._compare(changes, place, region, region.page_set() - written)
        unseen, after = Changes(0, None), self._consumer.peek()
        for place, region in enumerate(self.regions):
            suspects = PageSet(region.geometry, changes.pages(place, region.geometry))
            self._compare(unseen, place, region, suspects - after.page_set(place, region.geometry))
        return Diff._of(self._sizes, unseen)

    def _compare(self, changes: Changes, place: int, region: Region, pages: PageSet) -> None:
        view, copy = ffi.from_buffer("uint8_t[]", region.view), self._copies[place]
        for piece in pages.slices():
            start, nbytes = piece.start, piece.stop - piece.start
            error = lib.dt_compare(
                changes.native, place, start, copy + start, view + start, nbytes, 0, changes.limit
            )
            changes.check(error)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self.regions)} regions, {self.nbytes} bytes"
        return f"<dirtytrack.snapshot.Snapshot: {state}>"


def _room(region: Region) -> int:
    return -(-region.nbytes // _ALIGNMENT) * _ALIGNMENT
