"""One save on its way: what is to be written, and what has become of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from random import Random
from typing import Any, Literal, NamedTuple

from dirtytrack._lifetime.callbacks import Callbacks
from dirtytrack.checkpoint.format.description import Description
from dirtytrack.checkpoint.format.structures import BLOCK, Kind
from dirtytrack.checkpoint.write.capture import Capture, Captured
from dirtytrack.checkpoint.write.staging import Loan
from dirtytrack.checkpoint.write.table import Table
from dirtytrack.native import ffi, lib

_logger = logging.getLogger("dirtytrack.checkpoint")

SaveState = Literal["captured", "committed", "failed"]


class StaleJobError(Exception):
    """The job can't be committed any more: another save came in its middle, or one before it has failed."""


class Written(NamedTuple):
    """What a commit has put into a file.

    Attributes:
        kind: of the file.
        blocks_stored: blocks of 4096 bytes whose content is new.
        stored_bytes: of these blocks, before compression.
        nbytes: of the file, its holes aside.
        throughput: bytes copied by all captures, by the seconds from the beginning of the save to its commit.
    """

    kind: Kind
    blocks_stored: int
    stored_bytes: int
    nbytes: int
    throughput: float


class Piece:
    """What was copied into a loan.

    Attributes:
        batches: each a ``struct dt_captured``.
        loan: the memory that they are in.
        revoked: one native flag: they are not to be written any more, or were.
        is_taken: whether who writes them has, or won't.
        errand: what writes them, if anything does, before its thread has the GIL. What that refers to is kept
            by who writes: else a save that its caller keeps would keep it, too.
    """

    def __init__(self, batches: list[Any], loan: Loan, hashes: list[Any]) -> None:
        self.batches = batches
        self.loan = loan
        self.revoked: Any = ffi.new("bool *")
        self.is_taken = False
        self.errand: object = None
        self._hashes = hashes  # the batches refer to them


class Job:
    """One save, from the call to the commit.

    The caller of the save holds a `Save`, which shows some of this and can change nothing of it. The thread
    that captures fills it until `end_capture`, the committer's thread from then on.

    Attributes:
        number: of the checkpoint; 0 until it has one.
        id: identifier of the state, 16 random bytes.
        file: that of its file, 8 random bytes.
        meta: what the caller gave, as JSON text.
        table: the regions that it is of.
        kind: what it is to be. (A delta that turns out to hold everything is filed as a base.)
        linear: for each region of a base, whether it is laid out as memory is.
        generation: how many failures the committer had seen when it began.
        captures: its scans, in order; their epochs hold the pages until it is committed.
        last: the last piece of what was captured; None until it is, or where that comes in too many.
        captured: how the state was captured; None until it is, and the job is whole.
        revoked: one native flag: nothing may be captured for it any more.
        created: when that was, in seconds since 1970.
        blocked: seconds that the caller waited.
        pause_met: whether the pause was within ``max_pause``; None without one.
        written: what is in the file; None until it is committed.
        state: "captured" also while it is being captured.
        cause: why it failed.
        process: where that was.
    """

    def __init__(
        self,
        meta: str,
        table: Table,
        kind: Kind,
        linear: tuple[bool, ...],
        generation: int,
        random: Random,
    ) -> None:
        self.number = 0
        drawn = random.randbytes(24)
        self.id, self.file = drawn[:16], drawn[16:]
        self.meta = meta
        self.table = table
        self.kind = kind
        self.linear = linear
        self.generation = generation
        self.captures: list[Capture] = []
        self.last: Piece | None = None
        self.captured: Captured | None = None
        self.revoked: Any = ffi.new("bool *")
        self.created = self.blocked = 0.0
        self.pause_met: bool | None = None
        self.written: Written | None = None
        self.state: SaveState = "captured"
        self.cause: Exception | None = None
        self.process = lib.dt_address_space()
        self._begun = time.perf_counter()
        self._callbacks = Callbacks(_logger)

    def when_done(self, act: Callable[[], object]) -> None:
        """Has something done when it is committed or has failed: by the thread that writes, or now.

        If that raises an Exception it is logged.
        """
        self._callbacks.add(act)
        if self.state != "captured":  # and whoever does that may have looked at the list before
            self._tell()

    def end_capture(self, captured: Captured, max_pause: float | None) -> None:
        """It is captured: from here on it says the same, whatever its caller does.

        Raises:
            StaleJobError: it was revoked.
        """
        self.created = time.time()
        self.pause_met = None if max_pause is None else captured.pause <= max_pause
        self.blocked = time.perf_counter() - self._begun
        if self.revoked[0]:  # no call from here on: nobody comes in between
            raise StaleJobError
        self.captured = captured

    def describe(self, table: str) -> Description:
        """What its file is to say of it, with the name of its table of regions, but for the blocks stored."""
        assert self.captured is not None
        statistics = {
            "pause": self.captured.pause,
            "rounds": self.captured.rounds,
            "blocks_written": self.captured.blocks,
        }
        return Description(table, self.meta, self.created, self.captured.consistency, statistics)

    def commit(self, kind: Kind, blocks_stored: int, stored_bytes: int, nbytes: int) -> None:
        """Its file is there, and its pages are nobody's any more."""
        assert self.captured is not None
        self.captures.clear()
        seconds = time.perf_counter() - self._begun
        throughput = self.captured.blocks * BLOCK / seconds
        self.written = Written(kind, blocks_stored, stored_bytes, nbytes, throughput)
        self.state = "committed"
        self._tell()

    def fail(self, cause: Exception | None = None) -> None:
        """It will not be committed."""
        self.cause = cause
        self.state = "failed"
        self._tell()

    def _tell(self) -> None:
        self._callbacks.call(f"checkpoint {self.number}")
