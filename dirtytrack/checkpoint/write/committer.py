"""Behind a save: one thread that hashes, compresses, writes and commits what was captured, in order."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import Any

from dirtytrack._lifetime.background import Background
from dirtytrack.checkpoint.format.layout import stored
from dirtytrack.checkpoint.format.structures import NO_PARENT, Header, Kind, block_count
from dirtytrack.checkpoint.store.protocol import GO_ON, Claim, Condition, Store, StoreRemovedError
from dirtytrack.checkpoint.write.block_hashes import BlockHashes
from dirtytrack.checkpoint.write.capture import Capture
from dirtytrack.checkpoint.write.checkpoint_writer import CheckpointWriter
from dirtytrack.checkpoint.write.compression import Compression
from dirtytrack.checkpoint.write.footing import Footing, FootingLostError
from dirtytrack.checkpoint.write.job import Job, StaleJobError
from dirtytrack.checkpoint.write.origin import Origin
from dirtytrack.checkpoint.write.staging import Loan, Staging
from dirtytrack.errors import CheckpointError


class Committer:
    """Writes jobs to a store, one after the other.

    What is put to it is done in order by its thread. When a job fails, so do all that began before that was
    known: they are deltas to a state that will not exist. A failure stays until it is taken; one that it
    did not foresee stays for good, and nothing is written after it.

    Attributes:
        parent: the checkpoint last committed; NO_PARENT before the first one.
        has_base: whether deltas have something to stand on, as far as is known.
        newest: the job last committed, if any.
        generation: how many jobs have failed.
    """

    def __init__(
        self,
        origin: Origin,
        store: Store,
        claim: Claim,
        hashes: BlockHashes,
        staging: Staging,
        compression: Compression,
        committed: Callable[[int], None],
    ) -> None:
        self.parent = origin.parent
        self.has_base = origin.parent != NO_PARENT
        self.newest: Job | None = None
        self.generation = 0
        self._chain = origin.chain
        self._layouts, self._table = origin.layouts, origin.table
        self._store = store
        self._footing = Footing(store, origin.files)
        self._claim = claim
        self._hashes = hashes
        self._staging = staging
        self._compression = compression
        self._committed = committed
        self._blocks = sum(block_count(layout.nbytes) for layout in stored(origin.layouts))
        self._open: tuple[Job, CheckpointWriter] | None = None
        self._failed: list[int] = []
        self._cause: Exception | None = None  # until it is told
        self._last_cause: Exception | None = None
        self._thread = Background("dirtytrack checkpoint")

    def take(self, job: Job, capture: Capture, loan: Loan) -> None:
        """Hands over what was copied into a loan.

        Raises:
            StaleJobError: the job was revoked, or has failed meanwhile: cancel it.
        """
        everything = job.kind is Kind.BASE and capture in job.captures[:1]  # none, where it was revoked
        batches = [*capture.batches(loan, everything=everything)]
        # Who saves a base waits for it, and so can do a part of the work.
        hashes = [self._hashes.of(batch) for batch in batches if everything]
        self._thread.put(partial(self._take, job, batches, loan, hashes))
        if job.revoked[0] or not self._is_current(job):
            raise StaleJobError

    def seal(self, job: Job) -> None:
        """Hands over that the job is whole: it is to be committed."""
        self._thread.put(partial(self._seal, job))

    def cancel(self, job: Job) -> None:
        """Revokes a job, and gives back all that it has, unless it was sealed; it has when this returns."""
        job.revoked[0] = True
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

    def take_failure(self) -> CheckpointError | None:
        """The failure, once; drain first. None if somebody else was told in the meantime."""
        cause, self._cause = self._cause, None  # no call: nobody comes in between
        numbers, self._failed = self._failed, []
        return self._error(cause, numbers) if cause or self._thread.failure else None

    def failure_of(self, job: Job) -> CheckpointError:
        """What kept a job that has failed from being committed, whether somebody was told or not."""
        return self._error(self._last_cause, [job.number])

    def start_thread(self) -> None:
        """Starts the thread, which somebody has to `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Does what was put before, and ends the thread."""
        self._thread.stop()

    def _error(self, cause: Exception | None, failed: list[int]) -> CheckpointError:
        if (unforeseen := self._thread.failure) is not None:
            message = f"the writer gave up ({unforeseen!r}): close this Checkpointer. {GO_ON}"
            error = CheckpointError(errno.EIO, message, self._store.place)
            error.__cause__ = unforeseen
            return error
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

    def _take(self, job: Job, batches: list[Any], loan: Loan, _hashes: list[Any]) -> None:
        # The hashes are not used here: the batches refer to them.
        try:
            if job.state == "captured" and self._is_current(job):
                writer = self._writer(job)
                for batch in batches:
                    writer.store(batch)
        except Exception as error:
            self._fail(job, error)
        finally:
            self._staging.give_back(loan)

    def _seal(self, job: Job) -> None:
        if job.state != "captured":  # it was cancelled, or this was done
            return
        try:
            published = self._publish(job) if self._is_current(job) else None
        except Exception as error:
            self._fail(job, error)
            published = None
        if published is not None:
            self._arrive(job, *published)
            return
        self._abort(job)
        self._cause = self._cause or self._last_cause  # also if that was told: this job was not in it
        self._failed.append(job.number)
        job.fail()

    def _cancel(self, job: Job) -> None:
        if job.state != "committed":
            self._abort(job)
            job.fail()
        self._staging.give_back_all(job.captures)

    def _is_current(self, job: Job) -> bool:
        return job.generation == self.generation and self._thread.failure is None

    def _fail(self, job: Job, error: Exception) -> None:
        self._discard()
        if isinstance(error, FootingLostError):
            self.forget_base()
        self._last_cause = error
        self._cause = self._cause or error
        self._failed.append(job.number)
        self.generation += 1

    def _abort(self, job: Job) -> None:
        if self._open is not None and self._open[0] is job:
            self._discard()
        for capture in job.captures:
            capture.epoch.abort()
        job.captures.clear()

    def _discard(self) -> None:
        self._hashes.abort()
        if self._open is not None:
            _, writer = self._open
            self._open = None
            writer.discard()

    def _writer(self, job: Job) -> CheckpointWriter:
        if self._open is None or self._open[0] is not job:
            self._discard()
            if job.kind is Kind.BASE:
                self._hashes.begin_base()
            linear = job.linear if job.kind is Kind.BASE else (False,) * len(stored(self._layouts))
            writer = CheckpointWriter(self._store, self._layouts, self._compression, linear, self._hashes)
            self._open = job, writer
        return self._open[1]

    def _publish(self, job: Job) -> tuple[Header, CheckpointWriter, int]:
        writer = self._writer(job)
        # A delta that has everything needs no parent.
        whole = len(job.captures) == 1 and writer.blocks == self._blocks
        kind = Kind.BASE if whole else job.kind
        header = Header(kind, self._chain, job.id, self.parent, job.file, job.number)

        def find_out() -> None:
            self._claim.renew()
            if kind is Kind.DELTA:
                self._footing.check()

        names = self._footing.names if kind is Kind.DELTA else frozenset()
        condition = Condition(self._claim, names, find_out)
        return header, writer, writer.commit(header, job.describe(self._table, writer.blocks), condition)

    def _arrive(self, job: Job, header: Header, writer: CheckpointWriter, nbytes: int) -> None:
        # The file is there: what comes next is a delta to it, even if this is not done to its end.
        self.parent, self.newest, self._open = header.checkpoint, job, None
        self._footing.committed(header.name)
        self._hashes.commit()
        if header.kind is Kind.BASE:
            self.has_base = True
        for capture in job.captures:
            capture.epoch.settle()
        job.commit(header.kind, writer.blocks, writer.plain, nbytes)
        self._committed(job.number)


def _remedy(cause: Exception | None) -> str:
    if isinstance(cause, StoreRemovedError):
        return "Close this Checkpointer, and begin a new chain"
    if isinstance(cause, FootingLostError):
        return "Save again: the next save holds everything, as a base"
    return "What was captured is in the next save; make room, or repair what failed, and save again"
