"""Behind the saves of one process of a group: a thread that votes, and learns what becomes of each save."""

from __future__ import annotations

import errno
import functools
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Literal

from dirtytrack._lifetime.background import Background
from dirtytrack._lifetime.callbacks import Callbacks
from dirtytrack.checkpoint import Save
from dirtytrack.errors import BusyError, ChainError, CheckpointError, ForkedError
from dirtytrack.group.ballots import Ballots, Vote, digest
from dirtytrack.group.record import Record
from dirtytrack.native import lib

SaveState = Literal["captured", "committed", "aborted", "overtaken", "abandoned"]

_FIRST_WAIT = 0.005  # seconds between a look and the next one, twice as many each time
_LEAST_LONGEST_WAIT = 0.25
_LOOKS_PER_SECOND = 100  # of all processes together, at most
_TOO_EARLY = "it closed before its part was where the others can read it"

_logger = logging.getLogger("dirtytrack.group")


class Job:
    """A save of the group, as its process knows it.

    Attributes:
        save: which of the run, from 1.
        number: of the record that decides it.
        meta: as JSON text.
        names: of the regions of this process's part.
        part: this process's own; None until it is captured.
        failure: why there is none; "" else.
        state: "captured" until it is decided.
        cause: why it is not committed.
        is_cast: whether this process has voted.
        is_told: whether somebody was told that it is not committed.
        capturer: identifier of the thread that is about to capture the part; None: that is over.
        process: where that was.
    """

    def __init__(self, save: int, number: int, meta: str, names: tuple[str, ...] = ()) -> None:
        self.save, self.number, self.meta, self.names = save, number, meta, names
        self.part: Save | None = None
        self.failure = ""
        self.state: SaveState = "captured"
        self.cause = ""
        self.is_cast = self.is_told = False
        self.capturer: int | None = threading.get_ident()
        self.process = lib.dt_address_space()
        self._callbacks = Callbacks(_logger)

    def when_done(self, act: Callable[[], object]) -> None:
        """Has something done when it is decided: by the thread that learns it, or now."""
        self._callbacks.add(act)
        if self.state != "captured":
            self._tell()

    def settle(self, state: SaveState, cause: str = "") -> None:
        """It is decided."""
        self.cause = cause
        self.state = state
        self._tell()

    def _tell(self) -> None:
        self._callbacks.call(f"save {self.number} of a group")


class Voter:
    """Votes for the saves of a process, in order, and learns how they are decided.

    Attributes:
        newest: the record of the newest state that is known to be committed by this run.
        committed: identifiers of this process's parts of such states, by their numbers.
        overtaken: that another run has opened the group, once it is known.
        is_told: whether somebody was told that.
        last_failure: what the last request that failed said.
        progress: grows whenever something was learnt.
        begun: how many saves have begun.
    """

    def __init__(
        self,
        ballots: Ballots,
        is_durable: Callable[[Save], bool],
        committed: Callable[[Record], object],
    ) -> None:
        """Does nothing yet.

        Args:
            ballots: of the run.
            is_durable: whether what is committed locally is where the others can read it; a CheckpointError
                says that it never will be.
            committed: is called by the thread, after each state of this process's own that was committed.
        """
        self.newest: Record | None = None
        self.committed: dict[int, str] = {}
        self.overtaken: BusyError | None = None
        self.is_told = False
        self.last_failure: Exception | None = None
        self.progress = 0
        self.begun = 0
        self._numbers, self._decided = itertools.count(1), 0
        self._beginner: int | None = None  # identifier of the thread in which a save begins
        self._ballots, self._is_durable, self._was_committed = ballots, is_durable, committed
        self._pending: deque[Job] = deque()
        self._longest_wait = max(_LEAST_LONGEST_WAIT, 2 * ballots.run.world / _LOOKS_PER_SECOND)
        self._is_abandoned = False
        self._logged: set[tuple[object, ...]] = set()  # kinds of failures, since the last decision
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._thread = Background("dirtytrack group")

    def start_thread(self) -> None:
        """Starts the thread, which somebody has to `stop`."""
        self._thread.start()

    def begin(self, meta: str, names: tuple[str, ...] = ()) -> Job:
        """A save begins: from here on it will be decided, whatever becomes of it.

        Another one may begin in the middle of this, by the handler of a signal, and come before it or after
        it. They are decided in the order of their numbers.

        Args:
            meta: as JSON text.
            names: of the regions of this process's part.
        """
        before, self._beginner = self._beginner, threading.get_ident()
        try:
            save = next(self._numbers)
            job = Job(save, self._ballots.number(save), meta, names)
            self._pending.append(job)
            self.begun = max(self.begun, save)
        finally:
            self._beginner = before
        return job

    def captured(self, job: Job, part: Save) -> None:
        """The process's own part is captured."""
        job.part, job.capturer = part, None
        part.add_done_callback(lambda _: self._wake.put(None))
        self._thread.put(self._run)

    def failed(self, job: Job, error: BaseException) -> None:
        """There is no part."""
        job.failure, job.capturer = f"{type(error).__name__}: {error}", None
        self._wake.put(None)
        self._thread.put(self._run)

    @property
    def pending(self) -> list[Job]:
        """Those that are not decided, as far as is known."""
        return sorted(self._pending.copy(), key=lambda job: job.save)

    def is_behind_caller(self, job: Job) -> bool:
        """Whether the caller's thread is in the middle of this save, or of one before it.

        Then it calls from the handler of a signal or a destructor, and the save is decided when that returns.
        """
        mine, pending = threading.get_ident(), self.pending
        if any(one.capturer == mine and one.save <= job.save for one in pending):
            return True
        is_missing = {*range(self._decided + 1, job.save)} - {one.save for one in pending}
        return self._beginner == mine and bool(is_missing)

    def wait_for(self, job: Job, timeout: float | None) -> None:
        """Waits until it is known what becomes of a save.

        Raises:
            TimeoutError: it is not.
            RuntimeError: called by the thread itself, or in the middle of a save.
            ForkedError: called in a child of the process that saves.
        """
        if job.state != "captured":
            return
        if not lib.dt_is_address_space(job.process):
            raise ForkedError(f"save {job.number} of the group is of another process: wait for it there")
        if self._thread.is_current:
            raise RuntimeError(
                f"save {job.number} of the group is decided by the thread that waits for it: use another"
            )
        if self.is_behind_caller(job):
            raise RuntimeError(
                f"save {job.number} of the group is decided when the save has returned in the middle of "
                "which it was called: wait for it then"
            )
        arrived: SimpleQueue[None] = SimpleQueue()
        job.when_done(functools.partial(arrived.put, None))
        self._wake.put(None)  # it looks now
        try:
            arrived.get(timeout=timeout)
        except Empty:
            why = f": {self.last_failure}" if self.last_failure is not None else ""
            raise TimeoutError(
                errno.ETIMEDOUT,
                f"save {job.number} of the group is not decided after {timeout} s{why}. A process is slow, "
                "or has died: then start all of them again",
                self._ballots.place,
            ) from None

    def end(self, save: int) -> None:
        """Votes that this process has ended before that save; if it can't, the others are not told."""
        with suppress(OSError, ChainError):
            self._ballots.cast(Vote(save, self._ballots.rank, "ended"))

    def raise_overtaken(self) -> None:
        """Tells that another run has opened the group, if it is known.

        Raises:
            BusyError: it has.
        """
        if self.overtaken is not None:
            self.is_told = True
            told = self.overtaken
            raise BusyError(told.errno or errno.EBUSY, told.call, remedy=told.remedy) from told

    def wait_for_ends(self, save: int, timeout: float | None) -> None:
        """Waits until all others have ended before that save, too.

        Raises:
            TimeoutError: some don't, and made no progress for so many seconds.
            ChainError: they have saved once more; that is not committed.
            BusyError, OSError: as `Ballots.decide`.
        """
        wait, seen, since = _FIRST_WAIT, -1, time.monotonic()
        while True:
            votes = self._ballots.tally(save)
            if any(state != "ended" for state in votes.values()):
                record = self._ballots.decide(save)
                raise ChainError("" if record is None else record.reason)
            if len(votes) >= self._ballots.run.world:
                return
            if len(votes) > seen:
                seen, since = len(votes), time.monotonic()
            elif timeout is not None and time.monotonic() - since > timeout:
                missing = sorted(set(range(self._ballots.run.world)) - votes.keys())
                raise TimeoutError(f"ranks {missing[:8]} have not closed after {timeout:g} s")
            self._pause(wait)
            wait = min(2 * wait, self._longest_wait)

    def abandon(self) -> None:
        """What is not decided by now stays so here."""
        self._is_abandoned = True
        self._wake.put(None)

    def stop(self) -> None:
        """Does the same, and ends the thread; what is left is abandoned.

        Its votes are cast all the same, or tried to: without one the others would wait for ever.
        """
        self.abandon()
        self._thread.stop()
        try:
            if self.overtaken is None:
                self._cast_last()
        finally:
            self._settle_all("abandoned")

    def _cast_last(self) -> None:
        for job in self.pending:
            if not job.is_cast:
                vote = Vote(job.save, self._ballots.rank, "failed", digest(job.meta), error=_TOO_EARLY)
                try:
                    with suppress(Exception):  # whatever that is, it is too early
                        vote = self._vote(job) or vote
                    self._ballots.cast(vote)
                except (OSError, ChainError):
                    return
                job.is_cast = True

    def _run(self) -> None:
        wait = _FIRST_WAIT
        while self._pending and not self._is_abandoned and self.overtaken is None:
            try:
                if self._step():
                    wait = _FIRST_WAIT
                    self.progress += 1
                    continue
            except BusyError as error:
                self.overtaken = error
                break
            except Exception as error:  # whatever it is, the others count on this thread
                if (kind := _kind_of(error)) not in self._logged:
                    self._logged.add(kind)
                    numbers = [job.number for job in self.pending]
                    _logger.warning("saves %s of a group wait, and are tried again: %s", numbers, error)
                self.last_failure = error
            self._pause(wait)
            wait = min(2 * wait, self._longest_wait)
        if self.overtaken is not None:  # also what began when that was not known, and came afterwards
            self._settle_all("overtaken")

    def _step(self) -> bool:
        # Whether anything was done.
        done = False
        for job in self.pending:
            vote = None if job.is_cast else self._vote(job)
            if vote is not None:
                self._ballots.cast(vote)
                job.is_cast = done = True
        job = self.pending[0]
        if job.save != self._decided + 1 or not job.is_cast:
            return done
        record = self._ballots.decide(job.save, job.meta)
        if record is None:
            return done
        if record.kind == "committed":
            self.newest = record
            if job.part is not None:
                self.committed[record.number] = job.part.id
            job.settle("committed")
        else:
            level = logging.DEBUG if self._ballots.rank else logging.WARNING  # once for all of them
            _logger.log(level, "save %d of a group was not committed: %s", record.number, record.reason)
            job.settle("aborted", record.reason)
        self._decided = job.save
        self._logged.clear()
        self._pending.remove(job)
        if record.kind == "committed":
            self._was_committed(record)
        return True

    def _vote(self, job: Job) -> Vote | None:
        # None: it is too early.
        head, rank = digest(job.meta), self._ballots.rank
        if job.failure:
            return Vote(job.save, rank, "failed", head, error=job.failure)
        part = job.part
        if part is None or not part.done:
            return None
        if part.state == "failed":
            try:
                part.wait(0)
            except OSError as error:
                return Vote(job.save, rank, "failed", head, error=str(error))
        try:
            if not self._is_durable(part):
                return None
        except CheckpointError as error:
            return Vote(job.save, rank, "failed", head, error=str(error))
        return Vote(job.save, rank, "saved", head, (part.id, part.number), names=job.names)

    def _settle_all(self, state: SaveState) -> None:
        # One after the other: another thread may add some meanwhile.
        with suppress(IndexError):
            while True:
                self._pending[0].settle(state)
                self._pending.popleft()

    def _pause(self, seconds: float) -> None:
        with suppress(Empty):
            self._wake.get(timeout=seconds)
            while True:
                self._wake.get_nowait()


def _kind_of(error: Exception) -> tuple[object, ...]:
    # An error of the system names a temporary file, which is another one at each attempt.
    number = error.errno if isinstance(error, OSError) else None
    return type(error), str(error) if number is None else number
