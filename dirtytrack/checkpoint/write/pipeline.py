"""From a call to a committed checkpoint: what a Checkpointer does."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager

from dirtytrack.checkpoint.format.structures import Kind
from dirtytrack.checkpoint.read.populated import contents
from dirtytrack.checkpoint.write.capture import Capturer
from dirtytrack.checkpoint.write.committer import Committer, StaleJobError
from dirtytrack.checkpoint.write.compaction import Compactor
from dirtytrack.checkpoint.write.compression import Compression
from dirtytrack.checkpoint.write.job import Job
from dirtytrack.checkpoint.write.origin import Origin

_MOST_IN_FLIGHT = 64  # saves, which bounds the memory for those that have no blocks


class Pipeline:
    """Captures states and has them written. One call at a time; one that is interrupted leaves no trace.

    Attributes:
        meta: of the newest state that is committed, as JSON text.
        next_number: of the next checkpoint.
        committer: writes the checkpoints.
        compactor: shortens the chain.
    """

    def __init__(
        self,
        origin: Origin,
        capturer: Capturer,
        committer: Committer,
        compactor: Compactor,
        compression: Compression,
        max_pause: float | None,
        maps: bool,
    ) -> None:
        self.next_number = origin.next_number
        self.committer = committer
        self.compactor = compactor
        self._first_meta = origin.meta
        self._capturer = capturer
        self._compression = compression
        self._max_pause = max_pause
        self._maps = maps
        self._job: Job | None = None
        self._in_flight: list[Job] = []

    @property
    def meta(self) -> str:
        """Of the newest committed save, or until then of the one that was resumed."""
        newest = self.committer.newest
        return self._first_meta if newest is None else newest.meta

    @property
    def is_background(self) -> bool:
        """Whether this is called by one of the threads behind it."""
        return self.committer.is_current or self.compactor.is_current

    def save(self, meta: str, pause: AbstractContextManager[object] | None) -> Job:
        """Captures the regions.

        Raises:
            CheckpointError: an earlier save has failed.
            Others: as `Capturer.capture`.
        """
        generation = (
            self.committer.generation
        )  # a failure that the next line does not see makes the job stale
        self._settle()
        self._wait_for_others()
        kind = Kind.DELTA if self._has_base() else Kind.BASE
        linear = self._linear() if kind is Kind.BASE else ()
        job = self._job = Job(self.next_number, meta, kind, linear, generation)
        self.next_number += 1
        try:
            self._capture(job, pause)
        except StaleJobError:
            self._settle()
            raise
        except BaseException:
            self._cancel(job)
            raise
        self._in_flight.append(job)
        self._job = None
        return job

    def wait(self) -> None:
        """Waits until everything captured is committed.

        Raises:
            CheckpointError: what went wrong.
        """
        self.committer.drain()
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
        self.committer.stop()
        self.compactor.stop()

    def _has_base(self) -> bool:
        # Whether a delta will have something to stand on. (If a base that is on its way fails, so does what
        # is captured after it.) In this order: a job is "captured" until the committer knows of its base.
        on_its_way = any(job.kind is Kind.BASE and job.state == "captured" for job in self._in_flight)
        return on_its_way or self.committer.has_base

    def _capture(self, job: Job, pause: AbstractContextManager[object] | None) -> None:
        captured = self._capturer.capture(
            job.captures,
            functools.partial(self.committer.take, job),
            everything=job.kind is Kind.BASE,
            pause=pause,
            max_pause=self._max_pause,
        )
        job.end_capture(captured, self._max_pause)
        self.committer.seal(job)

    def _cancel(self, job: Job) -> None:
        self.committer.cancel(job)
        self._job = None

    def _settle(self) -> None:
        # Before anything new: an interrupted save gives its pages back, and a failure is told.
        if self._job is not None:
            self._cancel(self._job)
        if self.committer.has_failed:
            self.committer.drain()
            raise self.committer.take_failure()
        if self.compactor.has_found_damage:  # then what deltas stand on is lost
            self.compactor.has_found_damage = False
            self.committer.forget_base()

    def _wait_for_others(self) -> None:
        self._in_flight = [job for job in self._in_flight if job.state == "captured"]
        if len(self._in_flight) >= _MOST_IN_FLIGHT:
            self.wait()

    def _linear(self) -> tuple[bool, ...]:
        views = [region.view for region in self._capturer.regions]
        return tuple(
            self._maps and not self._compression.suits(len(view), functools.partial(_sample, view))
            for view in views
        )


def _sample(view: memoryview, piece: slice) -> bytes:
    return contents(view[piece])
