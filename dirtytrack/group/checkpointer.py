"""The writer of a group: what each of its processes has."""

from __future__ import annotations

import errno
import functools
import json
import os
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Any, Self, Unpack

from dirtytrack._lifetime.closable import Owner
from dirtytrack._lifetime.handle import Handle
from dirtytrack._lifetime.undo import Undo
from dirtytrack.checkpoint import Save
from dirtytrack.checkpoint.records import Keywords, StoreOptions, check_meta
from dirtytrack.errors import ChainError, CheckpointError, ClosedError, ForkedError, GroupError
from dirtytrack.group import driver
from dirtytrack.group.ballots import Ballots
from dirtytrack.group.coordinator import Alone, Coordinator, agree
from dirtytrack.group.garbage import collect
from dirtytrack.group.opening import open_together
from dirtytrack.group.records import Part, Record, Records, overtaken
from dirtytrack.group.restoring import restore_parts
from dirtytrack.group.save import GroupSave
from dirtytrack.group.settings import Settings
from dirtytrack.group.voter import Job, Voter
from dirtytrack.native import lib

_ATTEMPTS = 3  # of a save, where earlier ones turn out to have failed
_FIRST_WAIT, _LONGEST_WAIT = 0.005, 0.25  # seconds between a look at the mirror and the next one


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
        self._is_driven = False
        self._prepared: list[str] = []
        self._process = lib.dt_address_space()

    @classmethod
    def open(
        cls,
        path: Any,
        regions: Mapping[str, object],
        *,
        coordinator: Coordinator | None = None,
        at: int | Mapping[str, Any] | None = None,
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
                the newest. Or what `begin` has returned to a driver: then there is no coordinator, and the
                driver commits what `prepare` returns.
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
        if isinstance(at, bool):
            raise TypeError(f"at is the number of a state, or what begin() has returned, not {at!r}")
        if at is not None and not isinstance(at, int):
            return cls._open_for_driver(path, regions, coordinator, at, timeout, keywords)
        coordinator = Alone() if coordinator is None else coordinator
        if not isinstance(coordinator, Coordinator):
            raise TypeError(f"coordinator has rank, world, gather, broadcast and close, not {coordinator!r}")
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
                agree(coordinator, lambda: self._join(run), lambda _: None)
            except BaseException:
                self._undo.close()
                raise
        finally:
            coordinator.close()
        self._begun, self._closed = None, False
        return self

    @staticmethod
    def begin(
        path: os.PathLike[str] | str, *, at: int | None = None, store_options: StoreOptions | None = None
    ) -> dict[str, Any]:
        """Opens a group in a driver, whose workers open it with ``at=`` what this returns.

        No earlier run can commit from here on. When workers have died, begin again, and have all of them open
        it anew.

        Args:
            path: as for `open`; where there is a *mirror*, that.
            at: the number of the state to go on from. None: the newest.
            store_options: as for `Checkpointer`.

        Returns:
            A dictionary of plain data, for the workers.

        Raises:
            FileExistsError, ChainError, BusyError, OSError: as `open`.
        """
        return driver.begin(path, at, store_options)

    @staticmethod
    def commit(
        path: os.PathLike[str] | str,
        votes: Sequence[Mapping[str, Any]],
        *,
        strict: bool = True,
        keep: int | None = None,
        store_options: StoreOptions | None = None,
        grace_period: float | None = None,
    ) -> int:
        """Commits in a driver what its workers have prepared: for all of them or for none.

        Args:
            path: as for `begin`.
            votes: what each worker's `prepare` has returned, of one step, in any order.
            strict: whether the names of all votes together have to be those of the group, so that no worker
                was forgotten.
            keep: how many newest states stay. None: all. The workers' *keep* is the same.
            store_options: as for `Checkpointer`.
            grace_period: the same.

        Returns:
            The number of the state.

        Raises:
            GroupError: the votes don't fit together, or lack names. Nothing is committed.
            BusyError: they are of a run after which another one has opened the group.
            ValueError: they are no votes.
            ChainError, OSError: as for `open`.
        """
        return driver.commit(path, votes, strict, keep, store_options, grace_period)

    @property
    def meta(self) -> Any:
        """The meta of the newest state that is known to be committed; a new copy at each access.

        None where there is none, as in a new group.
        """
        newest = self._newest
        return None if newest is None else json.loads(json.dumps(newest.meta))

    @property
    def number(self) -> int:
        """The number of that state; 0 where there is none."""
        newest = self._newest
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
        self._check_process()
        with self._mutex:
            self._check()
            if self._is_driven:
                raise RuntimeError(f"{self!r} has a driver: prepare(), and have the driver commit() that")
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

    def prepare(
        self, meta: Any = None, *, pause: AbstractContextManager[object] | None = None
    ) -> dict[str, Any]:
        """Captures this worker's part of the next state, and waits until it is durable.

        Args:
            meta: as for `save`; the same in all workers.
            pause: the same.

        Returns:
            A dictionary of plain data, for the driver's `commit`.

        Raises:
            CheckpointError: it could not be written; the pages are in the next one.
            BusyError: another run has opened the group.
            RuntimeError: it was not opened with ``at=`` what `begin` has returned.
            Others: as `save`.
        """
        text = check_meta(meta)
        self._check_process()
        with self._mutex:
            self._check()
            if not self._is_driven:
                raise RuntimeError(f"{self!r} has no driver: save()")
            part = self._capture(meta, pause)
            self._prepared.append(part.id)
            self._follow_driver()
            part.wait()
            wait = _FIRST_WAIT
            while not self._settings.is_durable(self._checkpoints, part):
                time.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
        names = tuple(sorted(self._settings.regions))
        return driver.vote(self._run, Part(self._folder, part.id, part.number, names), text)

    def flush(self) -> None:
        """Waits until it is known what becomes of all saves so far.

        Raises:
            CheckpointError: the newest of them is not committed, and that was not told before.
            BusyError: another run has opened the group, the same.
            TimeoutError: there was no progress for *timeout* seconds.
            ClosedError, ForkedError: not a GroupCheckpointer of this process any more.
        """
        self._check_process()
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

    @classmethod
    def _open_for_driver(
        cls,
        path: Any,
        regions: Mapping[str, object],
        coordinator: Coordinator | None,
        run: Mapping[str, Any],
        timeout: float | None,
        keywords: Keywords,
    ) -> Self:
        if coordinator is not None:
            raise TypeError("who has a driver needs no coordinator")
        settings = Settings.of(path, regions, keywords)
        records = Records(settings.root.bucket())
        record, state = driver.run_of(run, settings.root, records)
        self = cls(settings, 0, 0, timeout)
        try:
            self._begin(records, record, state, f"parts/{record.run}/{secrets.token_hex(8)}")
        except BaseException:
            self._undo.close()
            raise
        self._is_driven = True
        self._begun, self._closed = None, False
        return self

    def _join(self, run: Record) -> None:
        records = Records(self._settings.root.bucket())
        if records.find(run.number) is None:
            raise GroupError(
                f"record {run.number}, by which rank 0 has opened the group, is not in "
                f"{self._settings.place} here: the path has to be one that all processes see, or each node's "
                "own, with mirror="
            )
        self._ballots = Ballots(records, run, self._rank, self._settings.keep)
        self._begin(records, run, run.state, self._ballots.folder(self._rank))
        durable = functools.partial(self._settings.is_durable, self._checkpoints)
        self._voter = Voter(self._ballots, durable, self._committed)
        self._undo.callback(self._voter.stop)
        self._voter.start_thread()

    def _begin(self, records: Records, run: Record, state: int, folder: str) -> None:
        settings = self._settings
        self._records, self._run, self._folder = records, run, folder
        self._first = self._known = restore_parts(settings.root, records, state, settings.regions)
        self._checkpoints = settings.start_chain(folder)
        self._undo.callback(self._give_up)
        settings.forget_older(run.run)

    @property
    def _newest(self) -> Record | None:
        return self._known if self._is_driven else self._voter.newest or self._first

    def _give_up(self) -> None:
        with suppress(OSError):
            self._checkpoints.close()

    def _close(self, *, is_normal: bool) -> None:
        if not lib.dt_is_address_space(self._process):
            self._checkpoints.close()
            self._closed = True
            return
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            try:
                self._end(is_normal)
            finally:
                self._undo.close()

    def _end(self, is_normal: bool) -> None:
        if self._is_driven:
            self._checkpoints.close()
            return
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

    def _follow_driver(self) -> None:
        # What it has committed so far, and what of that and of what it may yet commit has to stay.
        newest = self._records.newest()
        if newest is not None and newest.incarnation != self._run.incarnation:
            overtaken(self._settings.place, newest)
        if newest is not None and newest.state and newest.state != self.number:
            self._known = self._records.find(newest.state)
        if self._settings.keep is not None:
            parts = [part for state in self._records.states() for part in state.parts]
            committed = [part.id for part in parts if part.folder == self._folder]
            if committed and committed[-1] in self._prepared:
                del self._prepared[: self._prepared.index(committed[-1])]
            self._checkpoints.retain({*committed[-self._settings.keep :], *self._prepared})

    def _committed(self, record: Record) -> None:
        keep = self._settings.keep
        if keep is None:
            return
        del self._voter.committed[:-keep]
        if record.number % self._world == self._rank:  # one of them, each in its turn
            with suppress(OSError, ChainError):
                collect(self._records, self._settings.grace_period)

    def _is_forgotten(self) -> bool:
        return bool(lib.dt_is_address_space(self._process))

    def _check_process(self) -> None:
        # Before the mutex: a thread may hold it that a child does not have, as one that waits in flush.
        if not lib.dt_is_address_space(self._process):
            raise ForkedError(f"{self!r} belongs to another process, which goes on with it")

    def _check(self) -> None:
        if self._closed:
            raise ClosedError(f"{self!r} is closed: open the group again")

    def __repr__(self) -> str:
        rank = "a driver's" if self._is_driven else f"rank {self._rank} of {self._world}"
        state = "closed" if self._closed else rank
        return f"<dirtytrack.group.GroupCheckpointer on {self._settings.place}: {state}>"
