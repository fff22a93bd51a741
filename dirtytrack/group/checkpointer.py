"""The writer of a group: what each of its processes has."""

from __future__ import annotations

import errno
import functools
import json
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Any, Self, Unpack

from dirtytrack._lifetime.closable import Owner
from dirtytrack._lifetime.handle import Handle
from dirtytrack._lifetime.undo import Undo
from dirtytrack.checkpoint import Save
from dirtytrack.checkpoint.records import Keywords, check_meta
from dirtytrack.errors import ChainError, CheckpointError, ClosedError, ForkedError, GroupError
from dirtytrack.group.ballots import Ballots
from dirtytrack.group.coordinator import Alone, Coordinator, agree
from dirtytrack.group.garbage import collect
from dirtytrack.group.opening import open_together
from dirtytrack.group.records import Record, Records
from dirtytrack.group.restoring import restore_parts
from dirtytrack.group.save import GroupSave
from dirtytrack.group.settings import Settings
from dirtytrack.group.voter import Job, Voter
from dirtytrack.native import lib

_ATTEMPTS = 3  # of a save, where earlier ones turn out to have failed


class GroupCheckpointer(Handle, Owner):
    """Saves the memory of many processes as one state, which is there for all of them or for none.

    In each process ``with GroupCheckpointer.open(path, {"shard-3": array}, coordinator=...) as checkpoints:``
    begins a group at a place that all see, or goes on with the one that is there, and
    ``checkpoints.save(meta={"step": step})`` is called by all of them, as often and with the same meta.
    `GroupChain` reads what was committed.

    A save is captured when `save` returns, and nobody waits for the others then: behind it each process
    writes its part, and votes by a small object. Whoever sees the last vote puts the record that commits
    the state. If a process could not save, that state is not committed by any, and the next one has
    everything. So a training goes on with the newest state that all have, whoever is killed when.

    Opening is done by all processes together, and a run that opens a group ends the one before: what that one
    saves is not committed any more, even if it was only asleep.

    Methods may be called from any thread; they take turns.
    """

    def __init__(self, settings: Settings, rank: int, world: int, timeout: float | None) -> None:
        """Use `open`."""
        self._settings, self._rank, self._world, self._timeout = settings, rank, world, timeout
        self._undo = Undo()
        self._begun: Undo | None = self._undo
        self._mutex = threading.RLock()
        self._saves = 0
        self._last: Job | None = None
        self._process = lib.dt_address_space()

    @classmethod
    def open(
        cls,
        path: Any,
        regions: Mapping[str, object],
        *,
        coordinator: Coordinator | None = None,
        at: int | None = None,
        strict: bool = True,
        timeout: float | None = 300.0,
        **keywords: Unpack[Keywords],
    ) -> Self:
        """Begins a group, or restores the newest state of the one that is there and goes on with it.

        All processes call this, and it ends when all of them are ready, with the same state, or fails in all
        of them.

        Args:
            path: a directory that all processes see, or a URL as for `Checkpointer`. With *mirror*, a
                directory of this machine.
            regions: this process's memory by name. A name belongs to one process. It need not be the same
                one the next time, nor as many processes.
            coordinator: how the processes find together: `torch_coordinator`, `mpi_coordinator`,
                `file_coordinator`, or one of your own. It is closed by this. None, the default: there is only
                this process.
            at: the number of the state to go on from; later ones are no longer the newest then. Default:
                the newest.
            strict: whether the names of all processes together have to be those of the group, which is the
                default. If False, what is new begins as it is in memory, and what is missing is left out.
            timeout: seconds without any progress after which `flush` and `close` stop waiting for the other
                processes. Default: 300. None: never.
            **keywords: as for `Checkpointer`. *keep* is the number of newest states of the group that stay.
                With *mirror*, a URL, each process writes to its own *path* and the group is in the mirror: a
                state is committed when all of it is there.

        Raises:
            GroupError: the processes don't fit together: a name twice, names that the group does not have,
                another path; or another process has failed, and it says which, where and why.
            FileExistsError: a chain is there that is no group's.
            ChainError: the state can't be restored, or memory does not fit it.
            TimeoutError, OSError: a process did not come, as the coordinator says.
            BusyError: another run has opened the group meanwhile.
            Others: as for `Checkpointer`; the other processes get a GroupError then.
        """
        coordinator = coordinator or Alone()
        try:
            settings: Settings | Exception
            try:
                settings = Settings.of(path, regions, keywords)
            except Exception as error:
                settings = error
            run = open_together(coordinator, settings, at, strict)
            assert isinstance(settings, Settings)  # else that was raised
            self = cls(settings, coordinator.rank, coordinator.world, timeout)
            try:
                agree(coordinator, lambda: self._begin(run), lambda _: None)
            except BaseException:
                self._undo.close()
                raise
        finally:
            coordinator.close()
        self._begun, self._closed = None, False
        return self

    @property
    def meta(self) -> Any:
        """The meta of the newest state that is known to be committed; a new copy at each access.

        None where there is none, as in a new group.
        """
        newest = self._voter.newest or self._first
        return None if newest is None else json.loads(json.dumps(newest.meta))

    @property
    def number(self) -> int:
        """The number of that state; 0 where there is none."""
        newest = self._voter.newest or self._first
        return 0 if newest is None else newest.number

    @property
    def resumed(self) -> bool:
        """Whether it goes on with a state that was there, and so has restored its memory."""
        return self._first is not None

    @property
    def rank(self) -> int:
        """Of this process."""
        return self._rank

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._closed

    def save(
        self, meta: Any = None, *, wait: bool = False, pause: AbstractContextManager[object] | None = None
    ) -> GroupSave:
        """Captures this process's part of the next state.

        All processes call it as often as each other, with the same meta. It waits for none of them. If the
        part can't be written that is no error here: it is a vote, by which the state is not committed.

        Args:
            meta: as for `Checkpointer.save`; the same in all processes.
            wait: whether to wait until the state is committed.
            pause: as for `Checkpointer.save`.

        Raises:
            BusyError: another run has opened the group, so nothing is committed any more.
            RegionLostError, KernelError: memory is gone or can't be read. The others are told.
            TypeError, ValueError: of the arguments; nothing was done, and the others wait for the same save.
            ClosedError, ForkedError: not a GroupCheckpointer of this process any more.
            CheckpointError: with *wait*, as `GroupSave.wait`.
        """
        text = check_meta(meta)
        with self._mutex:
            self._check()
            self._voter.raise_overtaken()
            self._saves += 1
            job = self._last = Job(self._saves, self._ballots.number(self._saves), text)
            self._voter.begin(job)  # from here on the others count on a vote
            try:
                part = self._capture(meta, pause)
            except BaseException as error:
                self._voter.failed(job, error)
                if not isinstance(error, CheckpointError):
                    raise
            else:
                self._voter.captured(job, part)
                self._retain()
        save = self._save_of(job)
        if wait:
            save.wait()
        return save

    def flush(self) -> None:
        """Waits until it is known what becomes of all saves so far.

        Raises:
            CheckpointError: the newest of them is not committed, and that was not told before.
            BusyError: another run has opened the group, the same.
            TimeoutError: there was no progress for *timeout* seconds.
            ClosedError, ForkedError: not a GroupCheckpointer of this process any more.
        """
        with self._mutex:
            self._check()
            self._settle()

    def close(self) -> None:
        """Waits until all saves are decided and the other processes close, too; idempotent.

        At the end of a block that an exception has ended it waits for nobody, and the others are told.

        Raises:
            CheckpointError, BusyError: as `flush`.
            GroupError: others have saved more often; that is not committed.
            TimeoutError: there was no progress for *timeout* seconds. It is closed all the same.
        """
        self._close(is_normal=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(is_normal=kind is None)

    def _begin(self, run: Record) -> None:
        settings = self._settings
        self._records = Records(settings.root.bucket())
        if self._records.find(run.number) is None:
            raise GroupError(
                f"record {run.number}, by which rank 0 has opened the group, is not in {settings.place} "
                "here: the path has to be one that all processes see, or each node's own, with mirror="
            )
        self._first = restore_parts(settings.root, self._records, run.state, settings.regions)
        self._ballots = Ballots(self._records, run, self._rank, settings.keep)
        self._checkpoints = settings.start_chain(self._ballots.folder(self._rank))
        self._undo.callback(self._give_up)
        durable = functools.partial(settings.is_durable, self._checkpoints)
        self._voter = Voter(self._ballots, durable, self._committed)
        self._undo.callback(self._voter.stop)
        self._voter.start_thread()
        settings.forget_older(run.run)

    def _give_up(self) -> None:
        with suppress(OSError):
            self._checkpoints.close()

    def _close(self, *, is_normal: bool) -> None:
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            try:
                if lib.dt_is_address_space(self._process):
                    self._end(is_normal)
                else:
                    self._checkpoints.close()
            finally:
                if lib.dt_is_address_space(self._process):
                    self._undo.close()

    def _end(self, is_normal: bool) -> None:
        try:
            with suppress(CheckpointError):  # it is a vote
                self._checkpoints.close()
            if is_normal:
                self._settle()
        finally:
            self._voter.stop()
            self._voter.end(self._saves + 1)
        if is_normal and self._voter.overtaken is None:
            self._wait_for_others()

    def _wait_for_others(self) -> None:
        try:
            self._voter.wait_for_ends(self._saves + 1, self._timeout)
        except ChainError as error:
            raise GroupError(f"{self._settings.place}: {error}") from None
        except TimeoutError as error:
            raise TimeoutError(errno.ETIMEDOUT, str(error), self._settings.place) from None

    def _settle(self) -> None:
        # Until all are decided. What the newest has come to is told, unless it was.
        for job in self._voter.pending:
            self._wait_for(job)
        last = self._last
        if last is not None and not last.is_told and not (last.state == "overtaken" and self._voter.is_told):
            self._save_of(last).wait(0)

    def _wait_for(self, job: Job) -> None:
        while job.state == "captured":
            seen = self._voter.progress
            try:
                self._voter.wait_for(job, self._timeout)
            except TimeoutError:
                if self._voter.progress == seen:
                    raise

    def _save_of(self, job: Job) -> GroupSave:
        return GroupSave(job, self._voter, self._settings.place)

    def _capture(self, meta: Any, pause: AbstractContextManager[object] | None) -> Save:
        for left in reversed(range(_ATTEMPTS)):
            try:
                return self._checkpoints.save(meta, pause=pause)
            except CheckpointError:  # mostly an earlier one's, and this one was not begun
                if not left:
                    raise
        raise AssertionError("unreachable")

    def _retain(self) -> None:
        # What others may yet commit, and what they have: `keep` of the process's own chain knows neither.
        keep = self._settings.keep
        if keep is not None:
            undecided = [job.part.id for job in self._voter.pending if job.part is not None]
            self._checkpoints.retain({*self._voter.committed[-keep:], *undecided})

    def _committed(self, record: Record) -> None:
        keep = self._settings.keep
        if keep is None:
            return
        del self._voter.committed[:-keep]
        if record.number % self._world == self._rank:  # one of them, each in its turn
            with suppress(OSError, ChainError):
                collect(self._records, record.run, keep, self._settings.grace_period)

    def _is_forgotten(self) -> bool:
        return bool(lib.dt_is_address_space(self._process))

    def _check(self) -> None:
        if not lib.dt_is_address_space(self._process):
            raise ForkedError(f"{self!r} belongs to another process, which goes on with it")
        if self._closed:
            raise ClosedError(f"{self!r} is closed: open the group again")

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"rank {self._rank} of {self._world}"
        return f"<dirtytrack.group.GroupCheckpointer on {self._settings.place}: {state}>"
