"""A copy of memory, and what has become of the memory since."""

from __future__ import annotations

import mmap
from typing import Any

from dirtytrack._lifetime.turns import in_turn
from dirtytrack.native import ffi, lib
from dirtytrack.snapshot._changes import Changes
from dirtytrack.snapshot._tracked_set import TrackedSet
from dirtytrack.snapshot.diff import Diff
from dirtytrack.tracking import NativeEpoch, PageSet, Region, Session, alloc

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
            *memories: what `Session.track` takes, regions of the session, or modules of torch. Regions keep
                their names, and tensors of modules theirs; others are called by their place, "0", "1". What
                is not tracked yet is, until the snapshot is closed.

        Raises:
            TypeError, ValueError: no memory, memory that overlaps, or as `Session.track`.
            ClosedError, ForkedError, KernelError, UnsupportedError: as `Session.track`.
            OSError: there is no memory for the copy.
        """
        super().__init__(session, memories)

    def _prepare(self) -> None:
        nbytes = sum(map(_room, self.regions))
        self._copy = alloc(nbytes, huge=nbytes >= _LARGE)
        if nbytes >= _LARGE:  # it is aligned for huge pages, which dense stretches will ask for
            self._copy.madvise(mmap.MADV_NOHUGEPAGE)
        whole = ffi.from_buffer("uint8_t[]", self._copy)
        copies: list[Any] = []
        at = 0
        for region in self.regions:
            copies.append(whole + at)
            at += _room(region)
        consumer, self._copies = self._consumer, ffi.new("uint8_t *[]", copies)
        memory = consumer.slices, consumer.extents, self._copies, len(self.regions)
        self._native: Any = ffi.new("struct dt_copies *", (*memory, self._apart, self._maps.fileno()))
        failure = ffi.new("struct dt_failure *")
        self._copied = whole
        error = consumer.call(lib.dt_copies_fill, self._native, failure)
        if error:
            raise consumer.error(error, failure)

    def _forget(self) -> None:
        del self._native, self._copies, self._copied, self._copy

    @property
    def nbytes(self) -> int:
        """Bytes of address space that the copy takes. How much memory that is, is in ``docs/snapshot.md``."""
        return sum(map(_room, self.regions))

    def diff(self, *, gap: int = 0, max_nbytes: int | None = None, advance: bool = False) -> Diff:
        """Returns what differs from the copy, to the byte.

        Only pages that were written are compared. They stay written, and the next diff is again one to the
        copy; unless this one advances.

        Args:
            gap: changes of a region with at most so many equal bytes between them become one. Default: 0.
            max_nbytes: how many bytes of memory the diff may take: 32 for each change, and twice its length.
                None, the default: any number.
            advance: make the copy what the memory is, in the same step: it takes on exactly what the diff
                says, from the same look at the memory. What a thread writes meanwhile is in this diff or in
                the next one, so that all diffs, one after the other, say all that has happened.

        Raises:
            DiffError: it would take more than that.
            RegionLostError, ClosedError, ForkedError, KernelError: as `Cursor.peek`.
            KernelError: some of what was written can't be read now (EFAULT: guard pages, or beyond the end of
                a file; EACCES, a KernelPermissionError: protected). It names the region and the addresses.
                Whatever is raised, the copy is as it was, and nothing is lost.
        """
        changes, epoch = Changes(gap, max_nbytes), NativeEpoch()
        try:
            found = self._diff(changes, epoch, lib.DT_COLLECT if advance else lib.DT_PEEK)
        except BaseException:  # nobody gets the diff
            self._take_back(changes, epoch)
            raise
        return found

    @in_turn
    def _diff(self, changes: Changes, epoch: NativeEpoch, verb: int) -> Diff:
        self._check()
        arguments = self._native, verb, changes.native, changes.how, epoch.native
        self._consumer.run(epoch, lib.dt_copies_diff, *arguments)
        with epoch:
            changes.check()
            return Diff._of(self._sizes, changes)

    @in_turn
    def _take_back(self, changes: Changes, epoch: NativeEpoch) -> None:
        if not self._closed:
            lib.dt_copies_take_back(self._native, changes.native, epoch.native)

    @in_turn
    def rollback(self) -> int:
        """Makes the memory equal to the copy. Returns how many pages were written back.

        The pages are unprotected while they are written, so no write faults; then they are re-armed. The
        other cursors of the session find them in their next epoch. Beside threads that write it is exact:
        each store is undone, or stays and is pending for the next call.

        Raises:
            RegionLostError, ClosedError, ForkedError, KernelError: as `Cursor.collect`. The memory may be put
                back in part; what is not is in the next call.
            KernelError: some of it can't be written now, as for `diff`. Nothing was, unless it happened in
                the middle of the call.
        """
        self._check()
        epoch, taken = NativeEpoch(), NativeEpoch()
        self._consumer.run(taken, lib.dt_copies_rollback, self._native, epoch.native, taken.native)
        return epoch.pages

    @in_turn
    def advance(self) -> int:
        """Makes the copy equal to the memory. Returns how many pages were copied.

        Raises:
            RegionLostError, ClosedError, ForkedError, KernelError: as `Cursor.collect`; nothing is lost.
            KernelError: some of what was written can't be read now, as for `diff`.
        """
        self._check()
        epoch = NativeEpoch()
        self._consumer.run(epoch, lib.dt_copies_advance, self._native, epoch.native)
        with epoch:
            return epoch.pages

    @in_turn
    def verify(self) -> Diff:
        """Compares everything with the copy, and returns what differs although its page was not written.

        That is empty where the tracker saw all that happened. What it can't see (`Region.blind_spots`:
        another mapping, DMA, ...) is found here; `Session.mark` tells the tracker, and then a rollback puts
        it back. It costs reading all of the memory and the copy that is populated.

        It raises what `diff` raises.
        """
        self._check()
        before = self._consumer.peek()
        clean = [
            region.page_set() - before.page_set(place, region.geometry)
            for place, region in enumerate(self.regions)
        ]
        changes = self._compare(clean)
        after = self._consumer.peek()
        suspects = [
            PageSet(region.geometry, changes.pages(place, region.geometry))
            - after.page_set(place, region.geometry)
            for place, region in enumerate(self.regions)
        ]
        return Diff._of(self._sizes, self._compare(suspects))

    def _compare(self, pages: list[PageSet]) -> Changes:
        changes, failure = Changes(0, None), ffi.new("struct dt_failure *")
        entries, runs = ffi.new("struct dt_entry[]", len(pages)), list[tuple[int, int]]()
        for place, one in enumerate(pages):
            entries[place].first_run, entries[place].run_count = len(runs), len(one.runs)
            runs += one.runs
        listed = ffi.new("struct dt_run[]", runs)
        arguments = self._native, entries, listed, changes.native, failure
        error = self._consumer.call(lib.dt_copies_verify, *arguments)
        if error:
            raise self._consumer.error(error, failure)
        changes.check()
        return changes

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self.regions)} regions, {self.nbytes} bytes"
        return f"<dirtytrack.snapshot.Snapshot: {state}>"


def _room(region: Region) -> int:
    return -(-region.nbytes // _ALIGNMENT) * _ALIGNMENT
