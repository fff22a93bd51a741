"""What a save did, as its caller sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Literal

from dirtytrack.checkpoint.format.description import Consistency
from dirtytrack.checkpoint.write.committer import Committer
from dirtytrack.checkpoint.write.job import Job, SaveState
from dirtytrack.errors import ForkedError
from dirtytrack.native import lib


class Save:
    """One save: its state, and what it took. It is made by `Checkpointer.save`, and read-only.

    A save is captured when its caller gets it: later writes are not in it. It is committed, or has failed,
    some time later; `wait` waits for that. What is known only then is None until then.
    """

    __slots__ = ("_captured", "_committer", "_job")

    def __init__(self, job: Job, committer: Committer) -> None:
        assert job.captured is not None
        self._job = job
        self._committer = committer
        self._captured = job.captured

    @property
    def number(self) -> int:
        """The number of the checkpoint; grows along the chain."""
        return self._job.number

    @property
    def id(self) -> str:
        """The identifier of the state, 32 hexadecimal digits."""
        return self._job.id.hex()

    @property
    def meta(self) -> Any:
        """The meta that was given, as JSON has it; a new copy at each access."""
        return json.loads(self._job.meta)

    @property
    def created(self) -> float:
        """When the state was captured, in seconds since 1970."""
        return self._job.created

    @property
    def consistency(self) -> Consistency:
        """Whether this is the state of one instant.

        "proven": no page was written between the scan and the end of the copy, so it is. "paused": the same,
        under the caller's ``pause``. "stopped": the same, and the session had stopped every other thread for
        that time. "unproven": writers beside it wrote meanwhile, so it may mix moments; what they wrote is in
        the next save.
        """
        return self._captured.consistency

    @property
    def consistent(self) -> bool:
        """Whether it is known to be the state of one instant."""
        return self.consistency != "unproven"

    @property
    def unstopped(self) -> tuple[int, ...]:
        """The threads that the session was to stop for the last scan, and that ran during some of it.

        Identifiers as of ``threading.get_native_id``; empty in a session without ``stop_threads``, and for a
        base, which never stops threads. Where there is one, `consistency` is what it is without stopping.
        """
        return self._captured.unstopped

    @property
    def rounds(self) -> int:
        """How often it scanned and copied."""
        return self._captured.rounds

    @property
    def pause(self) -> float:
        """Seconds from the beginning of the last scan to the end of its copy and proof.

        With the caller's ``pause``: from before that began until it had ended.
        """
        return self._captured.pause

    @property
    def copying(self) -> float:
        """Seconds of `pause` in the scan and the copy; the rest is for the proof, and for Python."""
        return self._captured.copying

    @property
    def blocked(self) -> float:
        """Seconds that the caller waited.

        A base is copied from live memory while it is written: this is about the time to write it.
        """
        return self._job.blocked

    @property
    def pause_met(self) -> bool | None:
        """Whether `pause` was within ``max_pause``; None without one."""
        return self._job.pause_met

    @property
    def blocks_written(self) -> int:
        """Blocks of 4096 bytes that the tracker reported and the save copied, in all rounds."""
        return self._captured.blocks

    @property
    def kind(self) -> Literal["base", "delta"] | None:
        """What its file is: "base" (everything) or "delta" (what changed since its parent)."""
        written = self._job.written
        return None if written is None else written.kind.label

    @property
    def blocks_stored(self) -> int | None:
        """Blocks of 4096 bytes that were stored: those whose content is not what was last committed."""
        written = self._job.written
        return None if written is None else written.blocks_stored

    @property
    def nbytes(self) -> int | None:
        """Bytes in the file, its holes aside."""
        written = self._job.written
        return None if written is None else written.nbytes

    @property
    def ratio(self) -> float | None:
        """Bytes stored, before compression, by bytes in the file."""
        written = self._job.written
        return None if written is None else written.stored_bytes / written.nbytes

    @property
    def throughput(self) -> float | None:
        """Bytes copied, by the seconds from the beginning of the save to its commit."""
        written = self._job.written
        return None if written is None else written.throughput

    @property
    def state(self) -> SaveState:
        """Which of "captured", "committed" and "failed" it is."""
        return self._job.state

    @property
    def done(self) -> bool:
        """Whether it is committed or has failed."""
        return self.state != "captured"

    def wait(self, timeout: float | None = None) -> None:
        """Waits until it is committed. Any thread may do so, also while others save.

        Args:
            timeout: seconds; None, the default: as long as it takes.

        Raises:
            CheckpointError: it could not be written; its pages are in the next save. Who is told so here is
                not told again by the next save.
            TimeoutError: it is not done yet, and may be done later.
            RuntimeError: called by a callback, of a save that is not done.
            ForkedError: called in a child of the process that saves.
        """
        if not self.done:
            self._wait(timeout)
        if self.state == "failed":
            raise self._committer.tell(self._job)

    def add_done_callback(self, callback: Callable[[Save], object]) -> None:
        """Calls a function with this save as soon as it is committed or has failed, in the order of saves.

        The thread that writes calls it, or if the save is done, this call does. It must not take long, and
        can't call what waits for that thread: of a Checkpointer it may call `retain`. If it raises, that is
        logged by the log ``dirtytrack.checkpoint``.
        """
        if not callable(callback):
            raise TypeError(f"a callback is a function of one argument, the save, not {callback!r}")
        self._job.when_done(partial(callback, self))

    def _wait(self, timeout: float | None) -> None:
        if not lib.dt_is_address_space(self._job.process):
            raise ForkedError(f"{self!r} is written by another process: wait for it there")
        if self._committer.is_current:
            raise RuntimeError(f"{self!r} is written by the thread that waits for it: wait in another one")
        arrived: SimpleQueue[None] = SimpleQueue()
        self._job.when_done(partial(arrived.put, None))
        try:
            arrived.get(timeout=timeout)
        except Empty:
            raise TimeoutError(f"{self!r} is not done after {timeout} s") from None

    def __repr__(self) -> str:
        what = self.kind or "checkpoint"
        stored = "" if self.nbytes is None else f", {self.blocks_stored} blocks stored in {self.nbytes} bytes"
        return (
            f"<Save: {what} {self.number}, {self.state}, {self.consistency}, "
            f"pause {self.pause * 1e3:.2f} ms, {self.blocks_written} blocks written{stored}>"
        )
