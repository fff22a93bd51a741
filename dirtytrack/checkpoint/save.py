"""What a save did."""

from __future__ import annotations

import time
from typing import Any

from dirtytrack.checkpoint.write.capture import Captured


class Save:
    """One save: its state, and what it took. Made by `Checkpointer.save`.

    A save is captured when its caller gets it: later writes are not in it. It is committed, or has failed,
    some time later; `Checkpointer.flush` waits for that. What is known only then is None until then.

    Attributes:
        number: of the checkpoint; grows along the chain.
        id: of the state, hexadecimal.
        meta: as given to the save.
        created: when it was captured, in seconds since 1970.
        consistency: "proven": no page was written between the scan and the end of the copy, so it is the
            state of one instant; "paused": the same, under the caller's ``pause``; "unproven": writers
            beside it wrote meanwhile, so that it may mix moments (what they wrote is in the next save).
        rounds: how often it scanned and copied.
        pause: seconds from the beginning of the last scan to the end of its copy and proof, or from before
            the caller's ``pause`` began until it had ended.
        copying: seconds of it in the scan and the copy; the rest is for the proof, and for Python.
        blocked: seconds that the caller waited, all in all; for a base, which is copied from live memory,
            most of the time that it takes to write.
        pause_met: whether *pause* was within ``max_pause``; None without one.
        blocks_written: blocks of 4096 bytes that the tracker reported and the save copied, in all rounds.
        kind: "base" or "delta".
        blocks_stored: how many of them were stored: those whose content is not what was last committed.
        nbytes: bytes in the file, its holes aside.
        ratio: bytes stored, before compression, by bytes in the file.
        throughput: bytes copied, by the seconds from the beginning of the save to its commit.
    """

    def __init__(self, number: int, identifier: str, meta: Any) -> None:
        self.number = number
        self.id = identifier
        self.meta = meta
        self.created = 0.0
        self.consistency = "unproven"
        self.rounds = 0
        self.pause = 0.0
        self.copying = 0.0
        self.blocked = 0.0
        self.pause_met: bool | None = None
        self.blocks_written = 0
        self.kind: str | None = None
        self.blocks_stored: int | None = None
        self.nbytes: int | None = None
        self.ratio: float | None = None
        self.throughput: float | None = None
        self._state = "captured"
        self._begun = time.perf_counter()

    @property
    def state(self) -> str:
        """Which of "captured", "committed" and "failed" it is."""
        return self._state

    @property
    def consistent(self) -> bool:
        """Whether it is known to be the state of one instant."""
        return self.consistency != "unproven"

    def _captured(self, captured: Captured, max_pause: float | None) -> None:
        self.created = time.time()
        self.consistency = captured.consistency
        self.rounds = captured.rounds
        self.blocks_written = captured.blocks
        self.pause = captured.pause
        self.copying = captured.copying
        self.pause_met = None if max_pause is None else captured.pause <= max_pause
        self.blocked = time.perf_counter() - self._begun

    def _describe(self, blocks_stored: int) -> dict[str, Any]:
        # As docs/format.md has it, all but the table of regions.
        return {
            "meta": self.meta,
            "created": self.created,
            "consistency": self.consistency,
            "statistics": {
                "pause": self.pause,
                "rounds": self.rounds,
                "blocks_written": self.blocks_written,
                "blocks_stored": blocks_stored,
            },
        }

    def _committed(self, kind: str, blocks_stored: int, plain: int, nbytes: int, copied: int) -> None:
        self.kind = kind
        self.blocks_stored = blocks_stored
        self.nbytes = nbytes
        self.ratio = plain / nbytes
        self.throughput = copied / (time.perf_counter() - self._begun)
        self._state = "committed"

    def __repr__(self) -> str:
        what = self.kind or "checkpoint"
        stored = "" if self.nbytes is None else f", {self.blocks_stored} blocks stored in {self.nbytes} bytes"
        return (
            f"<Save: {what} {self.number}, {self.state}, {self.consistency}, "
            f"pause {self.pause * 1e3:.2f} ms, {self.blocks_written} blocks written{stored}>"
        )
