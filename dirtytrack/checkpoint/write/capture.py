"""From live memory into staging memory: the part of a save that its caller waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, NamedTuple

from dirtytrack.checkpoint.format.description import Consistency
from dirtytrack.checkpoint.format.structures import BLOCK
from dirtytrack.checkpoint.read.populated import is_hollow
from dirtytrack.checkpoint.write.staging import Loan
from dirtytrack.checkpoint.write.table import Table
from dirtytrack.native import ffi, lib
from dirtytrack.tracking import Consumer, NativeEpoch

_PIECE = 2048  # blocks copied at a time where there is much to copy, so that the committer can begin
_MOST_ROUNDS = 10
_RETRIES = 4
_FEW = 16  # pages
_FIRST_GUESS = 1e9  # bytes copied in a second, before anything was measured

_new = ffi.new_allocator(lib.dt_capture_new, lib.dt_capture_free, should_clear_after_alloc=False)


class Capture:
    """What one scan found, on its way.

    Attributes:
        epoch: has the pages until the save is committed.
        native: the ``struct dt_capture``.
    """

    def __init__(self, epoch: NativeEpoch, extents: Any, count: int, revoked: Any, *, stops: bool) -> None:
        self.epoch = epoch
        native: Any = _new("struct dt_capture *")
        native.stops = stops
        native.extents, native.extent_count, native.revoked = extents, count, revoked
        self.native = native
        self._extents, self._revoked = extents, revoked  # as long as the native one refers to them

    @property
    def is_complete(self) -> bool:
        """Whether everything is copied."""
        return bool(self.native.run == self.native.wanted_count)

    def batches(self, loan: Loan, *, everything: bool) -> Iterator[Any]:
        """What was copied into a loan, in order, as native batches, as long as this lives."""
        for piece in loan.pieces:
            if piece.blocks:
                batch: Any = ffi.new("struct dt_captured *")
                batch.runs, batch.skip = self.native.runs + piece.run, piece.block
                batch.data, batch.blocks, batch.everything = piece.data, piece.blocks, everything
                yield batch


class Captured(NamedTuple):
    """How a state was captured.

    Attributes:
        consistency: whether it is known to be the state of one instant.
        rounds: scans with a copy after them.
        blocks: copied in all rounds.
        pause: seconds from the last scan's beginning to the end of what had to happen undisturbed.
        copying: seconds of the last scan and its copy alone.
        unstopped: threads that ran during the last scan, in a session that stops them.
    """

    consistency: Consistency
    rounds: int
    blocks: int
    pause: float
    copying: float
    unstopped: tuple[int, ...]


Sink = Callable[[Capture, Loan, bool], None]  # takes what was copied into a loan, the last of a state or not


class Target(NamedTuple):
    """Where a state goes that is captured.

    Attributes:
        captures: gets each scan's capture before the scan. Whatever interrupts that, who has the list can
            give the pages back.
        sink: is called for each piece, in order.
        revoked: a native flag: nothing is to be taken or copied any more, and *sink* raises.
    """

    captures: list[Capture]
    sink: Sink
    revoked: Any


class Capturer:
    """Captures the regions of a consumer, for one caller at a time.

    Attributes:
        regions: these.
        table: what lists them.
    """

    def __init__(self, consumer: Consumer, table: Table) -> None:
        self.regions = consumer.regions
        self.table = table
        self._consumer = consumer
        self._staging = table.staging
        self._speed = _FIRST_GUESS
        self._scan = self._copying = 0.0

    def capture(self, target: Target, *, everything: bool, is_base: bool, is_paused: bool) -> Captured:
        """Captures one state and hands it over, piece by piece.

        In one round, or in some more if little was written meanwhile, or beside a base.

        Args:
            target: where it goes.
            everything: capture all blocks, whether written or not.
            is_base: whether it is for a base, which never stops threads.
            is_paused: whether the caller keeps everybody from writing.

        Raises:
            RegionLostError, ClosedError, ForkedError, KernelError: as `Cursor.collect`.
        """
        last, is_proven, seconds = self._prove(target, everything, stops=not is_base)
        unstopped = last.epoch.unstopped
        consistency: Consistency = "unproven"
        if is_proven and last.native.stopped and not unstopped:
            consistency = "stopped"
        elif is_proven and is_paused:
            consistency = "paused"
        elif is_proven and self._consumer.tracker.backend.sees_every_store:
            consistency = "proven"
        blocks = sum(capture.native.blocks for capture in target.captures)
        return Captured(consistency, len(target.captures), blocks, seconds, self._copying, unstopped)

    def approach(self, target: Target, *, everything: bool, max_pause: float | None) -> None:
        """Copies what was written so far, beside the writers, so that little is left for a `capture`.

        In rounds, until what is left is expected to fit *max_pause* (in seconds; None: any number), or it no
        longer gets less. Args and errors as for `capture`.
        """
        left = None if everything else self._written_bytes()
        while left is None or self.expected(left) > (max_pause or 0):
            self._round(target, everything and left is None, stops=False, ends=False)
            before, left = left, self._written_bytes()
            is_least = before is not None and left >= before
            if max_pause is None or is_least or len(target.captures) == _MOST_ROUNDS:
                break
        self._staging.wait_for(left // BLOCK + 1)  # now, and not while the writers are stopped

    def _prove(self, target: Target, everything: bool, *, stops: bool) -> tuple[Capture, bool, float]:
        # The last round, whether nothing was written during it, and how long it took. Little was written if
        # it was by neighbours on the same pages, such as our own committer's buffers: that is copied once
        # more. So is what was written beside a base: it takes long, and touches what a sparse region did not
        # have.
        capture, rewritten, seconds = self._round(target, everything, stops=stops, ends=True)
        for _ in range(_RETRIES):
            if not rewritten or (rewritten > max(_FEW, capture.native.blocks // 2) and not everything):
                break
            everything = False
            capture, rewritten, seconds = self._round(target, everything, stops=stops, ends=True)
        return capture, not rewritten, seconds

    def _written_bytes(self) -> int:
        epoch = self._consumer.peek()
        pages = (epoch.page_set(place, region.geometry) for place, region in enumerate(self.regions))
        return sum(written.nbytes for written in pages)

    def expected(self, nbytes: int) -> float:
        """The seconds that a scan and the copy of so many bytes take, as far as is known."""
        return self._scan + nbytes / self._speed

    def written(self) -> tuple[int, int]:
        """Looks what a delta would copy now: pages, and blocks on them.

        Raises:
            RegionLostError, ClosedError, ForkedError, KernelError: as `Cursor.peek`.
        """
        epoch = self._consumer.peek()
        sets = [epoch.page_set(place, region.geometry) for place, region in enumerate(self.regions)]
        blocks = sum(piece.stop - piece.start for pages in sets for piece in pages.elements(BLOCK))
        return sum(map(len, sets)), blocks

    def everything(self) -> tuple[int, int]:
        """What a base would copy: the same of all pages."""
        pages = sum(region.geometry.page_count for region in self.regions)
        return pages, sum(-(-region.nbytes // BLOCK) for region in self.regions)

    def _round(
        self, target: Target, everything: bool, *, stops: bool, ends: bool
    ) -> tuple[Capture, int, float]:
        # What was captured; pages that were written between the scan and the end of the copy; seconds. ends:
        # none follows if there are none of those.
        begun = perf_counter()
        captures, sink = target.captures, target.sink
        capture = Capture(
            NativeEpoch(), self._consumer.extents, len(self.regions), target.revoked, stops=stops
        )
        captures.append(capture)
        # Half of the memory, so that most saves need no more of it between the scan and the end of the copy.
        room = self._staging.blocks
        loan = (
            self._staging.lend(captures, _PIECE, _PIECE)
            if everything
            else self._staging.lend(captures, room // 2, room)
        )
        self._scan_and_copy(capture, loan, everything)
        in_one = capture.is_complete
        sink(capture, loan, ends and in_one and not capture.native.rewritten)
        while not capture.is_complete:
            loan = self._staging.lend(captures, _PIECE, _PIECE)
            self._copy_on(capture, loan)
            sink(capture, loan, False)
        rewritten = capture.native.rewritten if in_one else self._consumer.peek().pages
        self._learn(capture)
        return capture, int(rewritten), perf_counter() - begun

    def _scan_and_copy(self, capture: Capture, loan: Loan, everything: bool) -> None:
        self._consumer.run(
            capture.epoch,
            lib.dt_capture,
            self._consumer.slices,
            len(self.regions),
            capture.epoch.native,
            capture.native,
            self._hollow() if everything else ffi.NULL,
            loan.pieces,
            loan.count,
        )

    def _copy_on(self, capture: Capture, loan: Loan) -> None:
        failure = ffi.new("struct dt_failure *")
        error = lib.dt_capture_copy(capture.native, loan.pieces, loan.count, failure)
        if error:
            raise self._consumer.error(error, failure)

    def _hollow(self) -> Any:
        # Of the regions that are to stay sparse, those of which that which is not populated is zeros.
        return ffi.new(
            "uint8_t[]", [one.sparse and is_hollow(one.address, one.nbytes) for one in self.regions]
        )

    def _learn(self, capture: Capture) -> None:
        native = capture.native
        if native.everything:  # what the next captures need
            self._staging.touch(native.copied * BLOCK)
        self._scan = native.scan_ns / 1e9
        self._copying = self._scan + native.copy_ns / 1e9
        if native.blocks and native.copy_ns:
            self._speed = native.blocks * BLOCK / (native.copy_ns / 1e9)
