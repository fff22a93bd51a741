"""The writer of a chain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from dirtytrack._lifetime.turns import in_turn
from dirtytrack.checkpoint._arguments import check_meta, check_pause, check_regions
from dirtytrack.checkpoint._opening import Opened
from dirtytrack.checkpoint.read.lineage import first_few_of
from dirtytrack.checkpoint.save import Save
from dirtytrack.checkpoint.schedule import Schedule
from dirtytrack.checkpoint.statistics import Statistics
from dirtytrack.checkpoint.store import Place
from dirtytrack.checkpoint.store.lock import LockName
from dirtytrack.checkpoint.store.urls import StoreOptions
from dirtytrack.checkpoint.write import origin
from dirtytrack.checkpoint.write.compression import CompressionName
from dirtytrack.checkpoint.write.experience import Forecast
from dirtytrack.checkpoint.write.keep import Keep
from dirtytrack.checkpoint.write.options import Options
from dirtytrack.checkpoint.write.retained import Retained
from dirtytrack.tracking import Session


class Checkpointer(Opened):
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
                regions of which samples do; "zstd" what becomes a tenth; "none" nothing. Of deltas "auto"
                tries the less the longer nothing gained by it. A base that is not compressed can be loaded
                lazily.
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

    def forecast(self) -> Forecast:
        """Tells how large the next save would be now, and how long its pause. It changes nothing.

        How many pages it would copy is known exactly, by a look that arms nothing. How many of their blocks
        are new, how far these can be compressed and how fast they are copied is what the last saves found.

        Raises:
            RegionLostError: a region's memory is gone.
            KernelError: as `Cursor.peek`.
            ClosedError, ForkedError: not a Checkpointer of this process any more.
        """
        self._check()
        return self._forecast()

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
        """Has the saves from here on be of one region more. The next one stores what that holds.

        Args:
            name: one that no region has.
            memory: as for the constructor.

        Raises:
            CheckpointError: an earlier save could not be written, and nothing was done: call it again.
            ValueError: there is a region of that name.
            Others: as for the constructor.
            ClosedError, ForkedError: not a Checkpointer of this process any more.
        """
        self._check()
        if name in self._tracked.holdings.memories:
            raise ValueError(f"there is a region {name!r} already: rebind() it, or choose another name")
        self._bind(lambda memories: {**memories, name: memory})

    def remove(self, name: str) -> None:
        """Leaves a region out of the saves from here on, and ends its tracking.

        Older checkpoints have it as before.

        Raises:
            KeyError: there is no such region.
            ValueError: it is the last one.
            CheckpointError, ClosedError, ForkedError: as `add`.
        """
        self._check()
        self._known([name])
        self._bind(lambda memories: {one: memory for one, memory in memories.items() if one != name})

    def rebind(self, regions: Mapping[str, object]) -> None:
        """Gives regions other memory: a tensor that got new storage, a mapping that was lost, a larger table.

        The next save reads all of the new memory, and stores the blocks of 4096 bytes that differ from those
        of the old one, counted from the region's first byte; those behind its end, and its last one if that
        is shorter, are new. Of sparse memory all that is populated is stored. Older checkpoints stay as they
        are. Memory that was given earlier and whose object has moved is found at its new place, too.

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

    def retain(self, checkpoints: Iterable[str], *, since: str | None = None) -> None:
        """Says which checkpoints `keep` and `compact` must not remove, in place of those of the last call.

        It may be called from a `Save.add_done_callback`, and right after a save, which need not be committed.

        Args:
            checkpoints: identifiers of states, such as `Save.id`; those that are not there do no harm.
            since: identifier of one that stays with all that came after it. A *mirror* then gets each of
                them, however far it is behind; else it leaves out what became superfluous meanwhile.

        Raises:
            TypeError, ValueError: no identifiers of checkpoints.
            ClosedError, ForkedError: not a Checkpointer of this process any more.
        """
        self._check_usable()
        self._pipeline.compactor.retained = Retained.of(checkpoints, since)

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

        It raises what `flush` raises. There is nothing to do before the first save is committed.
        """
        self._check()
        self._compact(wait)

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
    def _forecast(self) -> Forecast:
        self._check()
        return self._pipeline.forecast()

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
