"""The writer of a chain."""

from __future__ import annotations

import atexit
import functools
import json
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self, Unpack

from dirtytrack._lifetime.closable import Owner
from dirtytrack._lifetime.handle import Handle
from dirtytrack._lifetime.turns import in_turn
from dirtytrack._lifetime.undo import Undo
from dirtytrack.checkpoint._arguments import check_ids, check_meta, check_pause, check_regions
from dirtytrack.checkpoint.format.layout import Layout
from dirtytrack.checkpoint.format.structures import NO_PARENT
from dirtytrack.checkpoint.read.lineage import first_few_of
from dirtytrack.checkpoint.save import Save
from dirtytrack.checkpoint.schedule import Schedule
from dirtytrack.checkpoint.statistics import Statistics
from dirtytrack.checkpoint.store import Place, find_place, open_store
from dirtytrack.checkpoint.store.lock import LockName
from dirtytrack.checkpoint.store.protocol import Store
from dirtytrack.checkpoint.store.urls import StoreOptions
from dirtytrack.checkpoint.write import origin
from dirtytrack.checkpoint.write.capture import Capturer
from dirtytrack.checkpoint.write.committer import Committer
from dirtytrack.checkpoint.write.compaction import Compactor
from dirtytrack.checkpoint.write.compression import Compression, CompressionName
from dirtytrack.checkpoint.write.keep import Keep
from dirtytrack.checkpoint.write.metrics import publish
from dirtytrack.checkpoint.write.mirror import Mirror
from dirtytrack.checkpoint.write.options import Keywords, Options
from dirtytrack.checkpoint.write.pipeline import Pipeline
from dirtytrack.checkpoint.write.reconciling import open_mirror
from dirtytrack.checkpoint.write.table import Table
from dirtytrack.checkpoint.write.tracked import Tracked
from dirtytrack.errors import ClosedError, ForkedError
from dirtytrack.native import lib
from dirtytrack.tracking import Region, Session

_Begin = Callable[[Store, list[Layout], dict[str, Region]], origin.Origin]

_open_ones: weakref.WeakSet[Checkpointer] = weakref.WeakSet()
_abandoned: list[Checkpointer] = []


@atexit.register
def _close_all() -> None:
    failures: list[BaseException] = []
    for checkpointer in (*_open_ones, *_abandoned):
        try:
            checkpointer.close()
        except BaseException as error:
            failures.append(error)
    if failures:
        raise BaseExceptionGroup("checkpointers that were still open when Python ended", failures)


def _tell(listeners: tuple[Callable[[int], None], ...], number: int) -> None:
    for tell in listeners:
        tell(number)


class Checkpointer(Handle, Owner):
    """Saves regions of memory to a directory: first everything, then what was written since.

    ``with Checkpointer.open(path, {"weights": w}) as checkpoints:`` starts a chain there or goes on with
    the one it finds; ``checkpoints.save(meta={"step": step})`` is a state that `restore` gives back bit for
    bit. It has a cursor of its own, so other users of the session do not disturb it, and it takes the write
    lock of the directory.

    A save is captured when `save` returns. A background thread hashes, compresses and writes it, in order,
    with memory bounded by *staging_bytes*. When a write fails, everything captured after that state fails
    with it. Nothing is lost by that: the pages are in the next save. The next `save`, `flush` or `close`
    raises one `CheckpointError`.

    All methods may be called from any thread; they take turns. What calls one in the middle of another in the
    same thread, the handler of a signal or a destructor, need not wait: its call is done at once, within the
    other one. A save that is interrupted by another one begins anew when that is done; `close` takes effect
    when the outermost call returns. In a forked child every call but `close` raises ForkedError, and nothing
    is written.
    """

    def __init__(
        self,
        path: Place,
        regions: Mapping[str, object],
        *,
        session: Session | None = None,
        keep: int | Keep | None = None,
        compression: CompressionName = "auto",
        fsync: bool = True,
        lock: LockName = "record",
        staging_bytes: int | None = None,
        max_pause: float | None = None,
        store_options: StoreOptions | None = None,
        grace_period: float | None = None,
        mirror: str | None = None,
        mirror_timeout: float | None = 300.0,
        mirror_bandwidth: float | None = None,
    ) -> None:
        """Starts a new chain.

        Args:
            path: the directory, which is made if it is not there, or the URL of a place in an object store:
                ``s3://bucket/run-1``, ``gs://``, ``az://``, ``memory://name``. It may not hold a chain.
            regions: memory by name: what `Session.track` takes, or a region of the session.
            session: the session to track with. Default: that of the regions, or `default_session`.
            keep: number of newest checkpoints that stay. When there are more than twice as many, a background
                thread writes a base for the oldest of them and removes everything older. A `Keep` says which
                older ones stay. None, the default: all stay.
            compression: "auto", the default, compresses what becomes at least a third smaller, in a base the
                regions of which samples do; "zstd" what becomes a tenth; "none" nothing. A base that is not
                compressed can be loaded lazily.
            fsync: whether each checkpoint is on the disk before it counts as committed. Without, nothing is
                synced, not even by a compaction: a crash of the machine may cost the last checkpoints or all;
                a crash of the process costs none.
            lock: how other processes are kept from writing to the directory: "record", the default, by a
                record lock of fcntl(2), which ends with this process. "none" keeps out nobody but a second
                Checkpointer of this process: for file systems without such locks, where you see to it. Who
                was there first then learns of another writer by a BusyError at its next commit, but for one
                that commits at the same instant.
            staging_bytes: bytes of memory for what is captured and not yet written. A save that finds too
                little free waits for the disk, so give it what a few saves take. Default: a quarter of the
                regions, from 64 MiB to 1 GiB.
            max_pause: bound of the pause in seconds, for ``save(pause=...)``. None, the default: no bound.
            store_options: of a URL: the keywords of ``obstore.store.from_url``, such as ``region`` or
                ``endpoint``; what is not given obstore finds in the environment, credentials too. A directory
                has none.
            grace_period: of a URL: seconds for which files that no checkpoint needs any more stay, for the
                sake of who is reading them. Default: an hour.
            mirror: the URL of a place in an object store, to which what the directory has committed is copied
                behind it, in order. *store_options* and *grace_period* are the mirror's then. `resume` and
                `open` go on with whichever continues the other: on a new machine with the mirror.
            mirror_timeout: seconds without any progress of the mirror after which `flush` and `close` stop
                waiting for it, with a TimeoutError. Default: 300. None: never.
            mirror_bandwidth: bytes per second that the mirror takes at most. Default: no bound.

        Raises:
            FileExistsError: the directory holds a chain: `resume` or `open` it.
            NotADirectoryError, PermissionError: the path can't be such a directory.
            BusyError: another Checkpointer writes to it, here or in the process that the message names. Of
                two that write to a URL, the second to commit gets one, from its save.
            TypeError, ValueError: of the arguments; nothing was touched.
            ImportError: without xxhash or zstandard, or for a URL obstore, naming the extra.
            UnsupportedError: as for `Session.track`; or the file system has no record locks, or the object
                store replaces what it should not, and the message says what to do.
            Others: as for `Session.track`.
        """
        self._set_up(
            path,
            regions,
            Options(
                session,
                keep,
                compression,
                fsync,
                lock,
                staging_bytes,
                max_pause,
                store_options,
                grace_period,
                mirror,
                mirror_timeout,
                mirror_bandwidth,
            ),
            origin.start,
        )

    @classmethod
    def resume(
        cls,
        path: Place,
        into: Mapping[str, object],
        *,
        at: int | str | None = None,
        strict: bool = True,
        **keywords: Unpack[Keywords],
    ) -> Self:
        """Restores a chain into memory, and goes on with it: the next save is a delta to what was restored.

        Nobody may write to the memory until this returns; what is written after it is in the next save.

        Args:
            path: the directory of the chain, or its URL.
            into: memory for every region of the chain, by name, wherever it lies.
            at: the checkpoint to go on from, by number or identifier. Later ones stay; the next save begins
                a branch beside them, and is the newest. Default: the newest checkpoint that is intact.
            strict: whether the memory has to have the names of the chain, all and no others, which is the
                default. If False, what both have is restored, other memory stays as it is, and other regions
                of the chain are left out of what is saved from here on; the next save is a base then. Older
                checkpoints stay as they are.
            **keywords: as for the constructor.

        Raises:
            FileNotFoundError: there is no such directory.
            ChainError: no checkpoint can be restored, or the memory does not fit: other names, sizes,
                elements; without *strict*, no name in common, or other sizes or elements under one name. The
                memory is as it was, unless the message says that a file turned out damaged.
            KernelError: memory can't be touched, as for `restore`.
            BusyError, TypeError, ValueError, ImportError: as for the constructor.
        """
        self = cls.__new__(cls)
        begin = functools.partial(origin.resume, at=at, strict=strict)
        self._set_up(path, into, Options(**keywords), begin, create=False)
        return self

    @classmethod
    def open(
        cls,
        path: Place,
        regions: Mapping[str, object],
        *,
        strict: bool = True,
        **keywords: Unpack[Keywords],
    ) -> Self:
        """Resumes the chain in a directory, or at a URL, if there is one, else starts it.

        A directory with files of a chain and no intact checkpoint is a ChainError: a new chain is never
        started over what somebody may still repair. `resumed` tells which it was.

        Args and errors: as for `resume` and the constructor.
        """
        self = cls.__new__(cls)
        begin = functools.partial(origin.start_or_resume, strict=strict)
        self._set_up(path, regions, Options(**keywords), begin)
        return self

    @property
    def meta(self) -> Any:
        """The meta of the newest committed save, or until then of the resumed checkpoint.

        A new copy at each access; None where there is none, as in a new chain.
        """
        return json.loads(self._pipeline.meta)

    @property
    def resumed(self) -> bool:
        """Whether it goes on with a chain that was there, and so has restored its memory."""
        return self._resumed

    def statistics(self) -> Statistics:
        """What it has committed, and how far its mirror is; at any time, also when it is closed."""
        newest = self._pipeline.committer.newest
        return Statistics(
            None if newest is None else newest.number,
            None if self._mirror is None else self._mirror.statistics(),
        )

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._closed

    def save(
        self, meta: Any = None, *, wait: bool = False, pause: AbstractContextManager[object] | None = None
    ) -> Save:
        """Captures the regions as they are now.

        The first save copies everything, at the speed of the disk. Each later one copies what was written
        since the one before, and returns.

        Without writers beside it a save is exact. If other threads write meanwhile, the pages are looked at
        again after the copy: either none was written, or the save and its file say
        ``consistency="unproven"``. What the threads wrote is in the next save. To stop them pass *pause*.

        Args:
            meta: anything that JSON can hold, integers of at most 4300 digits. `restore` returns it.
            wait: whether to wait until the save is committed.
            pause: a context manager in whose block nobody writes to the regions. With *max_pause* set, what
                has been written so far is copied before the block is entered, round by round, until the rest
                is expected to fit, or no longer shrinks. The manager must not write to the regions either.

        Returns:
            What was captured. The figures of the file are known once it is committed.

        Raises:
            CheckpointError: an earlier save could not be written, and this one was not begun: call it again.
                Or this one could not be written, with *wait*; its pages are in the next one.
            BusyError: of an object store: another writer has committed to it. It is not raised again by
                `close`.
            RegionLostError: a region's memory is gone. Nothing was saved.
            KernelError: memory can't be read now (EFAULT: guard pages, or beyond the end of a file; EACCES, a
                KernelPermissionError: protected). It names the region, the addresses and the remedy. Nothing
                was saved, and nothing is lost: the next save has it.
            TypeError, ValueError: of the arguments; nothing was done.
            ClosedError, ForkedError: not a Checkpointer of this process any more.
            RuntimeError: called by a destructor that the garbage collector runs in the thread that writes,
                which can't wait for itself. This goes for `flush` and `compact`, too.
        """
        self._check()
        return self._save(check_meta(meta), check_pause(pause), wait)

    def save_every(
        self, *, steps: int | None = None, seconds: float | None = None, sigterm: bool = False
    ) -> Schedule:
        """Makes a schedule, to be called once a step: ``schedule(meta)`` saves when that is due.

        Args:
            steps: save at each call of this number, so every tenth with 10.
            seconds: save when so many have passed since the last save of the schedule.
            sigterm: whether SIGTERM is waited for, from now until this is closed: then the next call saves,
                waits until that is committed, and raises SystemExit. What ends the process runs as ever.

        Raises:
            TypeError, ValueError: of the arguments; or SIGTERM, and this is not the main thread.
        """
        return Schedule(self, steps, seconds, sigterm)

    def add(self, name: str, memory: object) -> None:
        """Has the saves from here on be of one region more. The next one is a base, the chain goes on.

        Args:
            name: one that no region has.
            memory: as for the constructor.

        Raises:
            CheckpointError: an earlier save could not be written, and nothing was done: call it again.
            ValueError: there is a region of that name. Others: as for the constructor.
            ClosedError, ForkedError: not a Checkpointer of this process any more.
        """
        self._check()
        if name in self._tracked.holdings.memories:
            raise ValueError(f"there is a region {name!r} already: rebind() it, or choose another name")
        self._bind(lambda memories: {**memories, name: memory})

    def remove(self, name: str) -> None:
        """Leaves a region out of the saves from here on, and ends its tracking. The next save is a base.

        Older checkpoints have it as before.

        Raises:
            KeyError: there is no such region. ValueError: it is the last one.
            CheckpointError, ClosedError, ForkedError: as `add`.
        """
        self._check()
        self._known([name])
        self._bind(lambda memories: {one: memory for one, memory in memories.items() if one != name})

    def rebind(self, regions: Mapping[str, object]) -> None:
        """Gives regions other memory: a tensor that got new storage, a mapping that was lost, a larger table.

        Memory of the same size and elements goes on where the old one was: the next save reads all of it, and
        stores the blocks that differ. With other sizes or elements the next save is a base. Either way the
        chain goes on, and older checkpoints stay as they are. Memory that was given earlier and whose object
        has moved is found at its new place, too.

        Raises:
            KeyError: there is no such region.
            CheckpointError, ClosedError, ForkedError: as `add`. Others: as for the constructor.
        """
        self._check()
        self._known(regions)
        self._bind(lambda memories: {**memories, **regions}, frozenset(regions))

    def bind(self, regions: Mapping[str, object]) -> None:
        """Has the saves from here on be of these regions: `add`, `remove` and `rebind` in one.

        What lies where it lay under the same name is tracked on.

        Raises:
            CheckpointError, ClosedError, ForkedError: as `add`. Others: as for the constructor.
        """
        self._check()
        self._bind(lambda _: regions)

    def retain(self, checkpoints: Iterable[str]) -> None:
        """Says which checkpoints `keep` and `compact` must not remove, in place of those of the last call.

        It may be called from a `Save.add_done_callback`, and right after a save, which need not be committed.

        Args:
            checkpoints: identifiers of states, such as `Save.id`; those that are not there do no harm.

        Raises:
            TypeError, ValueError: no identifiers of checkpoints.
            ClosedError, ForkedError: not a Checkpointer of this process any more.
        """
        self._check_usable()
        self._pipeline.compactor.retained = check_ids(checkpoints)

    def flush(self) -> None:
        """Waits until everything captured is committed, for a compaction under way, and for the mirror.

        Raises:
            TimeoutError: the mirror made no progress for *mirror_timeout*. It goes on.
            BusyError: another writer has committed to the mirror. Told once; the directory is not concerned.
            CheckpointError: some of it could not be written; it says what. The pages are in the next save.
            ChainError: the compaction found a damaged file. No checkpoint is lost by it.
            ClosedError, ForkedError: not a Checkpointer of this process any more.
        """
        self._check()
        self._flush()

    def compact(self, *, wait: bool = False) -> None:
        """Shortens the chain: the oldest checkpoint to keep becomes a base, older ones are removed.

        The newest *keep* checkpoints stay; if that is None, the newest alone. A background thread does this,
        beside later saves. Readers that have the chain open are not disturbed.

        Args:
            wait: whether to wait until it is done, as `flush` does.

        Raises:
            As `flush`; there is nothing to do before the first save is committed.
        """
        self._check()
        self._compact(wait)

    def close(self) -> None:
        """Commits what was captured, ends the tracking, and gives up the directory; idempotent.

        It waits for the mirror as `flush` does; but not at the end of a block that an exception has ended.

        In a forked child this only closes the child's copies of descriptors. If an interrupt ends the wait,
        call it again; at the latest, Python does so when it exits. Called in the middle of another method by
        the handler of a signal, it commits what was captured before, and the rest is done when that returns.

        Raises:
            CheckpointError, ChainError: as `flush`. It is closed all the same, and those checkpoints are not
            there.
        """
        if self._closed:
            return
        if not lib.dt_is_address_space(self._process):
            self._closed = True
            self._descriptors.close()
        elif self._pipeline.is_background:  # garbage is collected there, too; it can't wait for itself
            _abandoned.append(self)
        else:
            self._close()
            if not self._closed:  # it is in the middle of another call
                self._pipeline.flush()

    def _is_forgotten(self) -> bool:
        return bool(lib.dt_is_address_space(self._process))

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"next checkpoint {self._pipeline.next_number}"
        return f"<dirtytrack.checkpoint.Checkpointer on {self._store.place}: {state}>"

    def _set_up(
        self,
        path: Place,
        memories: Mapping[str, object],
        options: Options,
        begin: _Begin,
        *,
        create: bool = True,
    ) -> None:
        place, checked = find_place(path), check_regions(memories)
        self._begun = self._undo = Undo()
        try:
            self._begin(place, checked, options, begin, create)
        except BaseException:
            self._undo.close()
            raise
        self._begun, self._closed = None, False

    def _begin(
        self, place: Place, memories: dict[str, object], options: Options, begin: _Begin, create: bool
    ) -> None:
        undo = self._undo
        self._tracked = Tracked(memories, options, undo)
        holdings = self._tracked.holdings
        self._descriptors = Undo()
        undo.callback(self._descriptors.close)
        self._store = open_store(
            place,
            self._descriptors,
            create=create or options.mirror is not None,
            fsync=options.fsync,
            lock=options.lock,
            options=None if options.mirror else options.store_options,
            grace_period=options.grace_period,
        )
        claim = self._store.claim()
        self._descriptors.callback(claim.close)
        pair = open_mirror(self._store, options, self._descriptors, is_new=begin is origin.start)
        start = begin(self._store, holdings.layouts, holdings.regions)
        table = Table(start.table, start.layouts, options)
        self._resumed = start.parent != NO_PARENT
        held = origin.learn(holdings.regions, table) if start.files else 0
        # What is written from here on is its own.
        consumer = self._tracked.listen(f"checkpoint of {self._store.place}", start.layouts, undo)
        table.staging.touch(held)  # the most that a save needs, as far as is known
        compression = Compression(options.compression)
        compactor = Compactor(self._store, claim, compression, options.policy, start.numbers)
        undo.callback(compactor.stop)
        compactor.start_thread()
        listeners = [compactor.committed]
        self._mirror, self._mirror_timeout = None, options.mirror_timeout
        if pair is not None:
            mirror = self._mirror = Mirror(self._store, pair.mirror, pair.files, options.mirror_bandwidth)
            undo.callback(mirror.stop)
            mirror.start_thread()
            publish(mirror)
            listeners.append(mirror.committed)
        tell = functools.partial(_tell, tuple(listeners))
        committer = Committer(start, table, self._store, claim, compression, tell)
        if self._mirror is not None:
            self._mirror.follow(committer.footing)
        undo.callback(committer.stop)
        committer.start_thread()
        capturer = Capturer(consumer, table)
        self._pipeline = Pipeline(
            start,
            capturer,
            committer,
            compactor,
            compression,
            options.max_pause,
            self._store.maps and self._mirror is None,  # holes would be uploaded
        )
        self._process = lib.dt_address_space()
        self._mutex = threading.RLock()
        self._in_turn = self._is_ending = False
        _open_ones.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._mirror is not None:
            self._mirror.abandon()
        super().__exit__(kind, error, trace)

    @in_turn
    def _save(self, meta: str, pause: AbstractContextManager[object] | None, wait: bool) -> Save:
        self._check()
        job = self._pipeline.save(meta, pause)
        if wait:
            self._pipeline.wait_for(job)
        return Save(job, self._pipeline.committer)

    @in_turn
    def _bind(
        self,
        change: Callable[[Mapping[str, object]], Mapping[str, object]],
        anew: frozenset[str] = frozenset(),
    ) -> None:
        self._check()
        self._tracked.exchange(self._pipeline, lambda memories: check_regions(change(memories)), anew)

    def _known(self, names: Iterable[str]) -> None:
        there = self._tracked.holdings.memories
        if strange := [name for name in names if name not in there]:
            raise KeyError(f"there is no region {strange[0]!r}: add() it. There are {first_few_of(there)}")

    @in_turn
    def _flush(self) -> None:
        self._check()
        self._pipeline.flush()
        self._wait_for_mirror()

    @in_turn
    def _compact(self, wait: bool) -> None:
        self._check()
        self._pipeline.flush()
        self._pipeline.compactor.start()
        if wait:
            self._pipeline.flush()
            self._wait_for_mirror()

    @in_turn
    def _close(self) -> None:
        self._is_ending = True

    def _end(self) -> None:
        if self._closed:
            return
        try:
            self._pipeline.end()
            self._wait_for_mirror()
        except Exception:
            self._release()
            raise
        self._release()

    def _release(self) -> None:
        self._pipeline.stop()  # before anything that it uses goes
        self._undo.close()
        self._closed = True

    def _wait_for_mirror(self) -> None:
        if self._mirror is not None:
            self._mirror.wait(self._mirror_timeout)

    def _check(self) -> None:
        self._check_usable()
        if self._pipeline.is_background:
            raise RuntimeError(
                f"{self!r} was called by a destructor that the garbage collector runs in the thread that "
                "writes, or by a callback of a save: set a flag there, and call it later"
            )

    def _check_usable(self) -> None:
        if not lib.dt_is_address_space(self._process):
            raise ForkedError(
                f"{self!r} belongs to another process, which goes on with it: open another directory here"
            )
        if self._is_ending:
            raise ClosedError(f"{self!r} is closed: resume the chain")
