"""Behind a save: one thread that hashes, compresses, writes and commits what was captured, in order."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import Any

from dirtytrack._lifetime.background import Background, others_run
from dirtytrack.checkpoint.format.structures import Kind
from dirtytrack.checkpoint.store.protocol import GO_ON, OvertakenError, Store, StoreRemovedError
from dirtytrack.checkpoint.write.capture import Capture
from dirtytrack.checkpoint.write.footing import FootingLostError
from dirtytrack.checkpoint.write.job import Job, Piece, StaleJobError
from dirtytrack.checkpoint.write.staging import Loan
from dirtytrack.checkpoint.write.tip import Begun, Published, Tip
from dirtytrack.errors import CheckpointError
from dirtytrack.native import ffi


class Committer:
    """Writes jobs to a store, one after the other.

    What is put to it is done in order by its thread. When a job fails, so do all that began before that was
    known: they are deltas to a state that will not exist. A failure stays until it is taken; one that it
    did not foresee stays for good, and nothing is written after it.

    Attributes:
        has_base: whether deltas have something to stand on, as far as is known.
        newest: the job last committed, if any.
        generation: how many jobs have failed.
    """

    def __init__(self, tip: Tip, store: Store, committed: Callable[[int], None]) -> None:
        self.has_base = bool(tip.footing.files)
        self.newest: Job | None = None
        self.generation = 0
        self._tip, self._store = tip, store
        self._committed = committed
        self._open: Begun | None = None
        self._failed: list[int] = []
        self._cause: Exception | None = None  # until it is told
        self._last_cause: Exception | None = None
        self._thread = Background("dirtytrack checkpoint")

    def take(self, job: Job, capture: Capture, loan: Loan, is_last: bool) -> None:
        """Hands over what was copied into a loan, the last of the job or not; that is kept until `seal`.

        Raises:
            StaleJobError: the job was revoked, or has failed meanwhile: cancel it.
        """
        everything = job.kind is Kind.BASE and capture in job.captures[:1]  # none, where it was revoked
        batches = [*capture.batches(loan, everything=everything)]
        # Who saves a base waits for it, and so can do a part of the work.
        hashes = [job.table.hashes.of(batch) for batch in batches if everything]
        piece = Piece(batches, loan, hashes)
        if is_last:
            job.last = piece
        else:
            self._thread.put(partial(self._take, job, piece))
        if job.revoked[0] or not self._is_current(job):
            raise StaleJobError

    def seal(self, job: Job) -> None:
        """Hands over that the job is whole: it is to be committed."""
        if job.last is not None:
            self._thread.put(partial(self._take, job, job.last), self._prepare(job, job.last))
        self._thread.put(partial(self._seal, job))

    def cancel(self, job: Job) -> None:
        """Revokes a job, and gives back all that it has, unless it was sealed; it has when this returns."""
        job.revoked[0] = True
        if job.last is not None:
            job.last.revoked[0] = True
        self._thread.put(partial(self._cancel, job))
        self.drain()

    def drain(self) -> None:
        """Waits until all that was put before is done."""
        self._thread.drain()

    def forget_base(self) -> None:
        """Deltas have nothing to stand on any more, before the next base is committed."""
        self.has_base = False

    @property
    def is_current(self) -> bool:
        """Whether this is called by its thread."""
        return self._thread.is_current

    @property
    def has_failed(self) -> bool:
        """Whether there is a failure to take."""
        return self._cause is not None or self._thread.failure is not None

    def take_failure(self) -> OSError | None:
        """The failure, once; drain first. None if somebody else was told in the meantime."""
        cause, self._cause = self._cause, None  # no call: nobody comes in between
        numbers, self._failed = self._failed, []
        return self._error(cause, numbers) if cause or self._thread.failure else None

    def tell(self, job: Job) -> OSError:
        """What kept a job that has failed from being committed: its caller knows, and need not be told."""
        self._thread.put(partial(self._forget, job))
        return self._error(job.cause, [job.number])

    def start_thread(self) -> None:
        """Starts the thread, which somebody has to `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Does what was put before, and ends the thread."""
        self._thread.stop()

    def _error(self, cause: Exception | None, failed: list[int]) -> OSError:
        if (unforeseen := self._thread.failure) is not None:
            message = f"the writer gave up ({unforeseen!r}): close this Checkpointer. {GO_ON}"
            error = CheckpointError(errno.EIO, message, self._store.place)
            error.__cause__ = unforeseen
            return error
        if isinstance(cause, OvertakenError):  # there is no next save that could have it
            return cause.told()
        numbers = tuple(dict.fromkeys(failed))
        path = getattr(cause, "filename", None) or self._store.place
        code = getattr(cause, "errno", None) or (
            errno.ENOMEM if isinstance(cause, MemoryError) else errno.EIO
        )
        reason = getattr(cause, "strerror", None) or repr(cause)
        error = CheckpointError(
            code,
            f"checkpoint {', '.join(map(str, numbers))} not written: {reason}. {_remedy(cause)}",
            path,
            numbers,
        )
        error.__cause__ = cause
        return error

    def _take(self, job: Job, piece: Piece) -> None:
        if piece.is_taken:  # a save in the middle of another one has sealed that, too
            return
        piece.is_taken = True
        published = None
        try:
            if job.state == "captured" and self._is_current(job):
                published = self._write(job, piece)
        except Exception as error:
            if not job.revoked[0]:  # else it is about to be cancelled
                self._fail(job, error)
        finally:
            piece.revoked[0] = True
            job.table.staging.give_back(piece.loan)
        if published is not None:
            self._arrive(published)

    def _write(self, job: Job, piece: Piece) -> Published | None:
        # The last piece is written and published in one native call: beside a thread that computes each
        # return from one costs 5 ms.
        begun = self._writer(job)
        if piece is job.last and _is_sure_of_its_kind(job) and not begun.writer.compresses:
            return self._tip.publish(begun, piece.batches)
        for batch in piece.batches:
            begun.writer.store(batch)
        return None

    def _prepare(self, job: Job, piece: Piece) -> Any:
        # What its thread can do of that before it gets the GIL, which takes up to 10 ms beside one that
        # computes; NULL: nothing. An idle thread changes nothing that is looked at after that, such as that
        # an earlier job has failed or what prospects there are, and needs nothing of what is changed here;
        # unless it was given something by a save in the middle of this call: that one leaves us nothing to
        # prepare.
        given = self._thread.given
        if not others_run() or not self._thread.is_idle:
            return ffi.NULL
        is_plain = job.kind is Kind.DELTA and job.table is self._tip.table and _is_sure_of_its_kind(job)
        if not is_plain or not self._is_current(job):
            return ffi.NULL
        encoder = self._tip.encoder(job)
        if encoder.compresses:
            return ffi.NULL
        try:
            begun = self._tip.begin(job, encoder)
            errand = piece.errand = begun.writer.prepare(
                *self._tip.plan(begun), batches=piece.batches, revoked=piece.revoked
            )
        except (MemoryError, OSError):  # it fails again where that is told
            return ffi.NULL
        if self._open is None and self._thread.given == given:  # no call from here on: nobody comes between
            self._open = begun
            return errand
        begun.writer.discard()
        return ffi.NULL

    def _seal(self, job: Job) -> None:
        if job.state != "captured":  # it was cancelled, or this was done
            return
        try:
            published = self._tip.publish(self._writer(job)) if self._is_current(job) else None
        except Exception as error:
            self._fail(job, error)
            published = None
        if published is not None:
            self._arrive(published)
            return
        self._abort(job)
        self._cause = self._cause or self._last_cause  # also if that was told: this job was not in it
        self._failed.append(job.number)
        job.fail(self._last_cause)

    def _cancel(self, job: Job) -> None:
        if job.state != "committed":
            self._abort(job)
            job.fail()
        job.table.staging.give_back_all(job.captures)

    def _is_current(self, job: Job) -> bool:
        return job.generation == self.generation and self._thread.failure is None

    def _forget(self, job: Job) -> None:
        self._failed = [number for number in self._failed if number != job.number]
        if not self._failed:
            self._cause = None

    def _fail(self, job: Job, error: Exception) -> None:
        self._discard(job)
        if isinstance(error, FootingLostError):
            self.forget_base()
        self._last_cause = error
        self._cause = self._cause or error
        self._failed.append(job.number)
        self.generation += 1

    def _abort(self, job: Job) -> None:
        if self._open is not None and self._open.job is job:
            self._discard(job)
        for capture in job.captures:
            capture.epoch.abort()
        job.captures.clear()

    def _discard(self, job: Job) -> None:
        # What is being written of this job, or of one before it.
        job.table.hashes.abort()
        if self._open is not None:
            other, self._open = self._open, None
            other.job.table.hashes.abort()
            other.writer.discard()

    def _writer(self, job: Job) -> Begun:
        if self._open is None or self._open.job is not job:
            self._discard(job)
            if job.kind is Kind.BASE:
                job.table.hashes.begin_base()
            self._open = self._tip.begin(job, self._tip.encoder(job))
        return self._open

    def _arrive(self, published: Published) -> None:
        # The file is there.
        header, (job, writer, _), nbytes = published
        self.newest, self._open = job, None
        self._tip.advance(published)
        if header.kind is Kind.BASE:
            self.has_base = True
        for capture in job.captures:
            capture.epoch.settle()
        job.commit(header.kind, writer.blocks, writer.plain, nbytes)
        self._committed(job.number)


def _is_sure_of_its_kind(job: Job) -> bool:
    # Whether it is known before it is packed what kind of file it will be.
    assert job.captured is not None
    return job.kind is Kind.BASE or job.captured.blocks < job.table.blocks


def _remedy(cause: Exception | None) -> str:
    if isinstance(cause, StoreRemovedError):
        return "Close this Checkpointer, and begin a new chain"
    if isinstance(cause, FootingLostError):
        return "Save again: the next save holds everything, as a base"
    return "What was captured is in the next save; make room, or repair what failed, and save again"
