"""A process of a group whose saves are decided by the votes of all."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any

from dirtytrack._lifetime.undo import Undo
from dirtytrack.errors import ChainError, CheckpointError, GroupError
from dirtytrack.group.ballots import Ballots, patience_for
from dirtytrack.group.garbage import collect
from dirtytrack.group.part_writer import PartWriter
from dirtytrack.group.record import Record
from dirtytrack.group.records import Records
from dirtytrack.group.save import GroupSave
from dirtytrack.group.settings import Settings
from dirtytrack.group.voter import Job, Voter


class Voting:
    """One process of a run that votes on its saves. For one thread at a time.

    Attributes:
        place: of the group.
        rank: of the process.
        title: what messages call it.
    """

    def __init__(self, settings: Settings, run: Record, rank: int, undo: Undo) -> None:
        """Restores the state with which the run begins.

        Args:
            settings: of the process.
            run: that it belongs to.
            rank: of the process.
            undo: ends what this begins.

        Raises:
            GroupError: the process does not see the record by which rank 0 has opened the group.
            Others: as `PartWriter`.
        """
        records = Records(settings.root.bucket())
        if records.find(run.number) is None:
            raise GroupError(
                f"record {run.number}, by which rank 0 has opened the group, is not in {settings.place} "
                "here: the path has to be one that all processes see, or each node's own, with mirror="
            )
        self.place, self.rank, self.title = settings.place, rank, f"rank {rank} of {run.world}"
        self._settings, self._records, self._run = settings, records, run
        self._ballots = Ballots(records, run, rank, settings.keep, patience_for(run.world))
        self._writer = PartWriter(settings, records, run, run.state, self._ballots.folder(rank))
        undo.callback(self._writer.give_up)
        self._voter = Voter(self._ballots, self._writer.is_durable, self._committed)
        undo.callback(self._voter.stop)
        self._voter.start_thread()
        self._last: Job | None = None

    @property
    def newest(self) -> Record | None:
        """The newest state that is known to be committed, or with which the run began."""
        return self._voter.newest or self._writer.first

    @property
    def first(self) -> Record | None:
        """The one with which it began."""
        return self._writer.first

    def save(self, meta: Any, text: str, pause: AbstractContextManager[object] | None) -> GroupSave:
        """Captures this process's part, as `GroupCheckpointer.save` says; *text* is the meta as JSON.

        Raises:
            BusyError, RegionLostError, KernelError: as there.
        """
        self._voter.raise_overtaken()
        self._last = job = self._voter.begin(text, self._writer.names)  # the others count on a vote now
        try:
            part = self._writer.capture(meta, pause)
        except BaseException as error:
            self._voter.failed(job, error)
            if not isinstance(error, CheckpointError):
                raise
        else:
            self._voter.captured(job, part)
            self._retain()
        return self._save_of(job)

    @property
    def can_wait(self) -> bool:
        """Whether the newest save can be waited for: the caller is not in the middle of one."""
        return self._last is None or not self._voter.is_behind_caller(self._last)

    def settle(self) -> None:
        """Waits until all saves are decided. What the newest has come to is told, unless it was.

        In the middle of a save of the same thread, those before it.

        Raises:
            As `GroupCheckpointer.flush`.
        """
        last = self._last
        for job in self._voter.pending:
            if self._voter.is_behind_caller(job):
                return
            self._wait_for(job)
        if last is not None and not last.is_told and not (last.state == "overtaken" and self._voter.is_told):
            self._save_of(last).wait(0)

    def bind(self, regions: Mapping[str, object]) -> None:
        """Has the saves from here on be of these regions.

        Raises:
            As `Checkpointer.bind`.
        """
        self._writer.bind(regions)

    def end(self, is_normal: bool) -> None:
        """Closes the chain; normally it waits for all saves, and for the others to end, too.

        Raises:
            As `GroupCheckpointer.close`.
        """
        try:
            with suppress(CheckpointError):  # it is a vote
                self._writer.close()
            if is_normal:
                self.settle()
        finally:
            self._voter.stop()
            self._voter.end(self._voter.begun + 1)
        if is_normal and self._voter.overtaken is None:
            self._wait_for_others()

    def forget(self) -> None:
        """Ends this copy of it, in a forked child."""
        self._writer.close()

    def _wait_for_others(self) -> None:
        try:
            self._voter.wait_for_ends(self._voter.begun + 1, self._settings.timeout)
        except ChainError as error:
            raise GroupError(f"{self.place}: {error}") from None
        except TimeoutError as error:
            raise TimeoutError(errno.ETIMEDOUT, str(error), self.place) from None

    def _wait_for(self, job: Job) -> None:
        while job.state == "captured":
            seen = self._voter.progress
            try:
                self._voter.wait_for(job, self._settings.timeout)
            except TimeoutError:
                if self._voter.progress == seen:
                    raise

    def _save_of(self, job: Job) -> GroupSave:
        return GroupSave(job, self._voter, self.place)

    def _retain(self) -> None:
        if self._settings.keep is None:
            return
        undecided = [job.part.id for job in self._voter.pending if job.part is not None]
        if self._voter.overtaken is None:  # else some are neither, and yet may be committed
            self._writer.retain(self._voter.committed.copy(), self._ballots.known, undecided)

    def _committed(self, record: Record) -> None:
        committed, keep = self._voter.committed, self._settings.keep
        for number in [one for one in committed if keep is None or not record.stays(one)]:
            del committed[number]
        if keep is None:
            return
        if record.number % self._run.world == self.rank:  # one of them, each in its turn
            with suppress(OSError, ChainError):
                collect(self._records, self._settings.grace_period)
