"""The writer of a group: what each of its processes has."""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self, Unpack

from dirtytrack._lifetime.background import is_own_thread
from dirtytrack._lifetime.closable import Owner
from dirtytrack._lifetime.handle import Handle
from dirtytrack._lifetime.undo import Undo
from dirtytrack.checkpoint.records import Keep, Keywords, StoreOptions, check_meta
from dirtytrack.errors import ClosedError, ForkedError
from dirtytrack.group import driver
from dirtytrack.group.coordinator import Coordinator
from dirtytrack.group.opening import join_together
from dirtytrack.group.save import GroupSave
from dirtytrack.group.settings import Settings
from dirtytrack.group.voting import Voting
from dirtytrack.group.worker import Worker
from dirtytrack.native import lib

_abandoned: list[GroupCheckpointer] = []  # by garbage collection in a thread of this library; open to the end


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

    def __init__(self) -> None:
        """Use `open`."""
        raise TypeError("a group is opened by all of its processes: GroupCheckpointer.open()")

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
            **keywords: as for `Checkpointer`. *keep* is of states of the group, and the same in all
                processes: the number of newest ones that stay, or a `Keep`.
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
        self = cls.__new__(cls)
        self._set_up()
        try:
            if at is None or isinstance(at, int):
                given = functools.partial(Settings.of, path, regions, timeout, keywords)
                self._member = join_together(coordinator, given, at, strict, self._undo)
            else:
                if coordinator is not None:
                    raise TypeError("who has a driver needs no coordinator")
                self._member = Worker(Settings.of(path, regions, timeout, keywords), at, self._undo)
        except BaseException:
            self._undo.close()
            raise
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
        keep: int | Keep | None = None,
        store_options: StoreOptions | None = None,
        grace_period: float | None = None,
    ) -> int:
        """Commits in a driver what its workers have prepared: for all of them or for none.

        The votes of the newest state are no other one: a driver whose answer got lost may call it again.

        Args:
            path: as for `begin`.
            votes: what each worker's `prepare` has returned, of one step, in any order.
            strict: whether the names of all votes together have to be those of the group, so that no worker
                was forgotten.
            keep: how many newest states stay, or a `Keep`. None: all. The workers' *keep* is the same.
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
        newest = self._member.newest
        return None if newest is None else json.loads(json.dumps(newest.meta))

    @property
    def number(self) -> int:
        """The number of that state; 0 where there is none."""
        newest = self._member.newest
        return 0 if newest is None else newest.number

    @property
    def resumed(self) -> bool:
        """Whether it goes on with a state that was there, and so has restored its memory."""
        return self._member.first is not None

    @property
    def rank(self) -> int:
        """Of this process."""
        return self._member.rank

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
            wait: whether to wait until the state is committed; not in the middle of another save of the same
                thread (the handler of a signal), which has to return first.
            pause: as for `Checkpointer.save`.

        Raises:
            BusyError: another run has opened the group, so nothing is committed any more.
            RegionLostError, KernelError: memory is gone or can't be read. The others are told.
            TypeError, ValueError: of the arguments; nothing was done, and the others wait for the same save.
            ClosedError, ForkedError: not a GroupCheckpointer of this process any more.
            CheckpointError: with *wait*, as `GroupSave.wait`.
        """
        text = check_meta(meta)
        self._check_caller()
        with self._mutex:
            self._check()
            if not isinstance(self._member, Voting):
                raise RuntimeError(f"{self!r} has a driver: prepare(), and have the driver commit() that")
            save = self._member.save(meta, text, pause)
            can_wait = self._member.can_wait
        if wait and can_wait:
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
        self._check_caller()
        with self._mutex:
            self._check()
            if not isinstance(self._member, Worker):
                raise RuntimeError(f"{self!r} has no driver: save()")
            return self._member.prepare(meta, text, pause)

    def bind(self, regions: Mapping[str, object]) -> None:
        """Has this process's saves from here on be of these regions: others, or the same in other memory.

        Its next part is a base, where names, sizes or elements are others. A name still belongs to one
        process: hand it over between two saves, or that one is not committed.

        Args:
            regions: as for `open`.

        Raises:
            CheckpointError: an earlier save could not be written, and nothing was done: call it again.
            TypeError, ValueError: of the arguments.
            ClosedError, ForkedError: not a GroupCheckpointer of this process any more.
        """
        self._check_caller()
        with self._mutex:
            self._check()
            self._member.bind(regions)

    def flush(self) -> None:
        """Waits until it is known what becomes of all saves so far.

        In the middle of a save of the same thread (the handler of a signal) it waits for those before that.

        Raises:
            CheckpointError: the newest of them is not committed, and that was not told before.
            BusyError: another run has opened the group, the same.
            TimeoutError: there was no progress for *timeout* seconds.
            ClosedError, ForkedError: not a GroupCheckpointer of this process any more.
        """
        self._check_caller()
        with self._mutex:
            self._check()
            if isinstance(self._member, Voting):  # what is prepared is durable
                self._member.settle()

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

    def _set_up(self) -> None:
        self._mutex, self._process = threading.RLock(), lib.dt_address_space()
        self._begun: Undo | None
        self._begun = self._undo = Undo()
        self._member: Voting | Worker

    def _close(self, *, is_normal: bool) -> None:
        if not lib.dt_is_address_space(self._process):
            self._member.forget()
            self._closed = True
            return
        if is_own_thread():  # garbage is collected there, too; it can't wait for itself
            _abandoned.append(self)
            return
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            try:
                self._member.end(is_normal)
            finally:
                self._undo.close()

    def _is_forgotten(self) -> bool:
        return bool(lib.dt_is_address_space(self._process))

    def _check_caller(self) -> None:
        # Before the mutex: a thread may hold it that a child does not have, as one that waits in flush; or
        # that waits for the thread which calls this.
        if not lib.dt_is_address_space(self._process):
            raise ForkedError(f"{self!r} belongs to another process, which goes on with it")
        if is_own_thread():
            raise RuntimeError(
                f"{self!r} was called by a destructor that the garbage collector runs in a thread of this "
                "library, or by a callback of a save: set a flag there, and call it later"
            )

    def _check(self) -> None:
        if self._closed:
            raise ClosedError(f"{self!r} is closed: open the group again")

    def __repr__(self) -> str:
        if not hasattr(self, "_member"):  # where a repr of its opening is taken
            return "<dirtytrack.group.GroupCheckpointer: not open>"
        state = "closed" if self._closed else self._member.title
        return f"<dirtytrack.group.GroupCheckpointer on {self._member.place}: {state}>"
