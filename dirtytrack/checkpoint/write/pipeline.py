"""From a call to a committed checkpoint: what a Checkpointer does."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from random import Random
from time import perf_counter
from typing import TypeVar

from dirtytrack.checkpoint.format.structures import BLOCK, Kind
from dirtytrack.checkpoint.read.populated import contents
from dirtytrack.checkpoint.write.capture import Captured, Capturer, Target
from dirtytrack.checkpoint.write.committer import Committer
from dirtytrack.checkpoint.write.compactor import Compactor
from dirtytrack.checkpoint.write.compression import Compression, Sampled
from dirtytrack.checkpoint.write.experience import Experience, Forecast
from dirtytrack.checkpoint.write.job import Job, StaleJobError
from dirtytrack.checkpoint.write.origin import Origin
from dirtytrack.kernel.touch import Memory

_MOST_IN_FLIGHT = 64  # saves, which bounds the memory for those that have no blocks

_Result = TypeVar("_Result")


class Pipeline:
    """Captures states and has them written. One thread at a time; a call that is interrupted leaves no trace.

    All methods but `stop` may be called in the middle of one another, by the handler of a signal or by a
    destructor. A save in the middle of another one has it begin anew: what that one had captured so far is
    the inner one's. If it was captured as a whole, it is handed over first, and stays as it is.

    Attributes:
        meta: of the newest state that is committed, as JSON text.
        next_number: of the next checkpoint.
        capturer: of the regions that the next save is of; exchange it after `settle`, at any time.
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
        self.capturer = capturer
        self.committer = committer
        self.compactor = compactor
        self._first_meta = origin.meta
        self._compression = compression
        self._max_pause = max_pause
        self._maps = maps
        self._job: Job | None = None
        self._in_flight: list[Job] = []
        self._experience = Experience()
        # The system's own gives the GIL up, which beside a thread that computes costs each save 5 ms.
        self._random = Random(secrets.randbits(256))

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
        attempts = _Attempts(functools.partial(self._begin, meta), self._cancel)
        try:
            job = self._capture(attempts) if pause is None else self._capture_paused(attempts, pause)
            self._hand_over(job)
        except BaseException:
            attempts.give_up()
            raise
        return job

    def forecast(self) -> Forecast:
        """Tells what the next save would be like.

        Raises:
            Others: as `Capturer.written`.
        """
        capturer = self.capturer
        kind = Kind.DELTA if self._has_base() else Kind.BASE
        pages, blocks = capturer.written() if kind is Kind.DELTA else capturer.everything()
        return self._experience.forecast(kind, pages, blocks, capturer.expected(blocks * BLOCK))

    def wait(self) -> None:
        """Waits until everything captured is committed.

        Raises:
            CheckpointError: what went wrong.
        """
        self.committer.drain()
        self._raise_failure()

    def wait_for(self, job: Job) -> None:
        """Does the same, and raises also if the failure of this job was told to a call in the middle."""
        self.wait()
        if job.state == "failed":
            raise self.committer.tell(job)

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

    def end(self) -> None:
        """Does what `flush` does, before `stop`."""
        self.settle()
        self.flush()

    def stop(self) -> None:
        """Ends the threads, when they have done what they have."""
        self.committer.stop()
        self.compactor.stop()

    def settle(self) -> None:
        """Ends a save that was interrupted, or is by this call: before anything new.

        If it is whole it is handed over, else it gives its pages back.

        Raises:
            CheckpointError: a save has failed.
        """
        job = self._job
        if job is not None:
            is_whole = job.captured is not None and not job.revoked[0]
            (self._hand_over if is_whole else self._cancel)(job)
        self._raise_failure()

    def _has_base(self) -> bool:
        # Whether a delta will have something to stand on. (If a base that is on its way fails, so does what
        # is captured after it.) In this order: a job is "captured" until the committer knows of its base.
        bases = [job for job in self._in_flight if job.kind is Kind.BASE]
        on_its_way = any(job.state == "captured" for job in bases)
        return on_its_way or self.committer.has_base

    def _begin(self, meta: str) -> Job:
        while True:
            # A failure that the next line does not see makes the job stale.
            generation = self.committer.generation
            self.settle()
            self._wait_for_others()
            capturer = self.capturer
            kind = Kind.DELTA if self._has_base() else Kind.BASE
            linear = self._linear(capturer) if kind is Kind.BASE else ()
            job = Job(meta, capturer.table, kind, linear, generation, self._random)
            if self._job is None and self.capturer is capturer:  # no call from here on: nobody comes between
                self._job, job.number = job, self.next_number
                self.next_number += 1
                return job

    def _capture(self, attempts: _Attempts) -> Job:
        def capture(job: Job) -> Job:
            captured = self._capture_all(job, is_paused=False)
            job.end_capture(captured, self._max_pause)
            return job

        return attempts.run(capture)

    def _capture_paused(self, attempts: _Attempts, pause: AbstractContextManager[object]) -> Job:
        def approach(job: Job) -> None:
            if _wants_everything(job) or self._max_pause is not None:
                everything = _wants_everything(job)
                self.capturer.approach(self._target(job), everything=everything, max_pause=self._max_pause)

        def capture(job: Job) -> tuple[Job, Captured]:
            captured = self._capture_all(job, is_paused=True)
            job.end_capture(captured._replace(pause=perf_counter() - begun), self._max_pause)
            return job, captured

        attempts.run(approach)
        begun, done = perf_counter(), None
        with pause:
            done = attempts.run(capture)  # anew within it: many a manager can be entered only once
        if done is None:
            raise RuntimeError(f"{pause!r} swallowed an exception of the save: __exit__ has to let it pass")
        job, captured = done
        job.end_capture(captured._replace(pause=perf_counter() - begun), self._max_pause)
        return job

    def _capture_all(self, job: Job, *, is_paused: bool) -> Captured:
        is_base = job.kind is Kind.BASE
        return self.capturer.capture(
            self._target(job), everything=_wants_everything(job), is_base=is_base, is_paused=is_paused
        )

    def _target(self, job: Job) -> Target:
        return Target(job.captures, functools.partial(self.committer.take, job), job.revoked)

    def _hand_over(self, job: Job) -> None:
        self.committer.seal(job)
        self._in_flight.append(job)
        self._experience.add(job)
        if self._job is job:
            self._job = None

    def _cancel(self, job: Job) -> None:
        self.committer.cancel(job)
        if self._job is job:
            self._job = None

    def _raise_failure(self) -> None:
        if self.committer.has_failed:
            self.committer.drain()
            failure = self.committer.take_failure()
            if failure is not None:
                raise failure
        if self.compactor.has_found_damage:  # then what deltas stand on is lost
            self.committer.forget_base()
            self.compactor.has_found_damage = False

    def _wait_for_others(self) -> None:
        self._in_flight = [job for job in self._in_flight if job.state == "captured"]
        if len(self._in_flight) >= _MOST_IN_FLIGHT:
            self.wait()

    def _linear(self, capturer: Capturer) -> tuple[bool, ...]:
        memories = [
            Memory(region.title, region.view, "Nothing is lost: save again when it can be read")
            for region in capturer.regions
        ]
        if not self._maps:
            return (False,) * len(memories)
        sampled = [Sampled(one.nbytes, functools.partial(_sample, one)) for one in memories]
        return tuple(not is_suited for is_suited in self._compression.suited(sampled))


def _sample(memory: Memory, piece: slice) -> bytes:
    return contents(memory, piece.start, piece.stop)


def _wants_everything(job: Job) -> bool:
    return job.kind is Kind.BASE and not job.captures


class _Attempts:
    """The jobs of one save: each begins anew what another save in its middle has ended."""

    def __init__(self, begin: Callable[[], Job], cancel: Callable[[Job], None]) -> None:
        self._begin = begin
        self._cancel = cancel
        self._job: Job | None = None

    def run(self, act: Callable[[Job], _Result]) -> _Result:
        """Does a part of the save, with the job at hand or, if that becomes stale, with a new one.

        Raises:
            CheckpointError: an earlier save has failed.
        """
        while True:
            job = self._job = self._job or self._begin()
            try:
                return act(job)
            except StaleJobError:
                self._cancel(job)
                self._job = None

    def give_up(self) -> None:
        """Cancels the job at hand."""
        if self._job is not None:
            self._cancel(self._job)
