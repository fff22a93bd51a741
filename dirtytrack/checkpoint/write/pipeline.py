"""From a call to a committed checkpoint: what a Checkpointer does."""

from __future__ import annotations

import secrets
from contextlib import AbstractContextManager
from typing import Any

from dirtytrack.checkpoint.format.blocks import samples
from dirtytrack.checkpoint.format.codec import compresses
from dirtytrack.checkpoint.format.structures import Kind
from dirtytrack.checkpoint.save import Save
from dirtytrack.checkpoint.write.capture import Capturer
from dirtytrack.checkpoint.write.committer import Job, StaleJobError, Worker
from dirtytrack.checkpoint.write.compaction import Compactor
from dirtytrack.checkpoint.write.options import Options
from dirtytrack.checkpoint.write.origin import Origin

_MOST_IN_FLIGHT = 64  # saves, which bounds the memory for those that have no blocks


class Saver:
    """Captures states and has them written. One call at a time; one that is interrupted leaves no trace.

    Attributes:
        meta: of the newest state that is committed.
        next_number: of the next checkpoint.
        worker: writes the checkpoints.
        compactor: shortens the chain.
    """

    def __init__(
        self, origin: Origin, capturer: Capturer, worker: Worker, compactor: Compactor, options: Options
    ) -> None:
        self.next_number = origin.next_number
        self.worker = worker
        self.compactor = compactor
        self._first_meta = origin.meta
        self._capturer = capturer
        self._compression = options.compression
        self._max_pause = options.max_pause
        self._has_base = worker.has_base
        self._job: Job | None = None
        self._in_flight: list[Save] = []

    @property
    def meta(self) -> Any:
        """Of the newest committed save, or until then of the one that was resumed."""
        save = self.worker.newest
        return self._first_meta if save is None else save.meta

    @property
    def is_background(self) -> bool:
        """Whether this is called by one of the threads behind it."""
        return self.worker.is_current or self.compactor.is_current

    def save(self, meta: Any, pause: AbstractContextManager[object] | None) -> Save:
        """Captures the regions.

        Raises:
            CheckpointError: an earlier save has failed.
            Others: as `Capturer.capture`.
        """
        generation = self.worker.generation  # a failure that the next line does not see makes the job stale
        self._settle()
        self._wait_for_others()
        save = Save(self.next_number, secrets.token_hex(16), meta)
        self.next_number += 1
        kind = Kind.DELTA if self._has_base else Kind.BASE
        linear = self._linear() if kind is Kind.BASE else ()
        job = self._job = Job(save, kind, linear, generation)
        try:
            self._capture(job, pause)
        except StaleJobError:
            self._settle()
            raise
        except BaseException:
            self._cancel(job)
            raise
        self._has_base = True
        self._job = None
        self._in_flight.append(save)
        return save

    def wait(self) -> None:
        """Waits until everything captured is committed.

        Raises:
            CheckpointError: what went wrong.
        """
        self.worker.drain()
        self._settle()

    def flush(self) -> None:
        """Waits for that, and for a compaction that is under way.

        Raises:
            CheckpointError, ChainError: what went wrong.
        """
        self.wait()
        self.compactor.wait()
        failure = self.compactor.take_failure()
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """Ends the threads, when they have done what they have."""
        self.worker.stop()
        self.compactor.stop()

    def _capture(self, job: Job, pause: AbstractContextManager[object] | None) -> None:
        captured = self._capturer.capture(
            job,
            self.worker,
            everything=job.kind is Kind.BASE,
            pause=pause,
            max_pause=self._max_pause,
        )
        job.save._captured(captured, self._max_pause)
        self.worker.seal(job)

    def _cancel(self, job: Job) -> None:
        self.worker.cancel(job)
        self._has_base = self.worker.has_base
        self._job = None

    def _settle(self) -> None:
        # Before anything new: an interrupted save gives its pages back, and a failure is told.
        if self._job is not None:
            self._cancel(self._job)
        if self.worker.has_failed:
            self.worker.drain()
            self._has_base = self.worker.has_base
            raise self.worker.take_failure()
        if self.compactor.has_found_damage:  # then what deltas stand on is lost
            self.compactor.has_found_damage = False
            self._has_base = self.worker.has_base = False

    def _wait_for_others(self) -> None:
        self._in_flight = [save for save in self._in_flight if save.state == "captured"]
        if len(self._in_flight) >= _MOST_IN_FLIGHT:
            self.wait()

    def _linear(self) -> tuple[bool, ...]:
        regions = self._capturer.regions
        if self._compression != "auto":
            return (self._compression == "none",) * len(regions)
        views = [region.view for region in regions]
        return tuple(not compresses(view[piece] for piece in samples(len(view))) for view in views)
