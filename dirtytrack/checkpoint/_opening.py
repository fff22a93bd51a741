"""Where a Checkpointer begins and where it ends."""

from __future__ import annotations

import atexit
import functools
import threading
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, Unpack

from dirtytrack._lifetime.closable import Owner
from dirtytrack._lifetime.handle import Handle
from dirtytrack._lifetime.turns import in_turn
from dirtytrack._lifetime.undo import Undo
from dirtytrack.checkpoint._arguments import check_regions
from dirtytrack.checkpoint.format.layout import Layout
from dirtytrack.checkpoint.format.structures import NO_PARENT
from dirtytrack.checkpoint.store import Place, find_place, open_store
from dirtytrack.checkpoint.store.protocol import Store
from dirtytrack.checkpoint.write import origin
from dirtytrack.checkpoint.write.capture import Capturer
from dirtytrack.checkpoint.write.committer import Committer
from dirtytrack.checkpoint.write.compactor import Compactor
from dirtytrack.checkpoint.write.compression import Compression
from dirtytrack.checkpoint.write.metrics import publish
from dirtytrack.checkpoint.write.mirror import Mirror
from dirtytrack.checkpoint.write.options import Keywords, Options
from dirtytrack.checkpoint.write.pipeline import Pipeline
from dirtytrack.checkpoint.write.reconciling import find_mirror, pair
from dirtytrack.checkpoint.write.table import Table, fits
from dirtytrack.checkpoint.write.tip import Tip
from dirtytrack.checkpoint.write.tracked import Tracked
from dirtytrack.errors import ClosedError, ForkedError
from dirtytrack.native import lib
from dirtytrack.tracking import Region

_Begin = Callable[[Store, list[Layout], dict[str, Region]], origin.Origin]

_open_ones: weakref.WeakSet[Opened] = weakref.WeakSet()
_abandoned: list[Opened] = []


@atexit.register
def _close_all() -> None:
    failures: list[BaseException] = []
    for checkpointer in (*_open_ones, *_abandoned):
        try:
            checkpointer.close()
        except BaseException as error:
            failures.append(error)
    if failures:  # of a group Python shows no more than the title at its end
        told = f"checkpointers that were still open when Python ended: {'; '.join(map(str, failures))}"
        raise BaseExceptionGroup(told, failures)


def _tell(listeners: tuple[Callable[[int], None], ...], number: int) -> None:
    for tell in listeners:
        tell(number)


class Opened(Handle, Owner):
    """A chain that this process writes: the ways to begin one or to go on with it, and the end of that.

    It gets hold of the directory, the memory and the threads behind it, and lets go of them. What can be done
    in between is the `Checkpointer`'s.
    """

    @classmethod
    def resume(
        cls,
        path: Place,
        into: Mapping[str, object],
        *,
        at: int | str | None = None,
        strict: bool = True,
        progress: Callable[[int, int], None] | None = None,
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
                default. If False, what both have is restored, other memory stays as it is and is in the next
                save, and other regions of the chain are left out of what is saved from here on. Older
                checkpoints stay as they are.
            progress: told how much is restored, as for `restore`.
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
        begin = functools.partial(origin.resume, at=at, strict=strict, progress=progress)
        self._set_up(path, into, Options.of(keywords, f"{cls.__name__}.resume"), begin, create=False)
        return self

    @classmethod
    def open(
        cls,
        path: Place,
        regions: Mapping[str, object],
        *,
        strict: bool = True,
        progress: Callable[[int, int], None] | None = None,
        **keywords: Unpack[Keywords],
    ) -> Self:
        """Resumes the chain in a directory, or at a URL, if there is one, else starts it.

        A directory with files of a chain and no intact checkpoint is a ChainError: a new chain is never
        started over what somebody may still repair. `resumed` tells which it was.

        Args and errors: as for `resume` and the constructor.
        """
        self = cls.__new__(cls)
        begin = functools.partial(origin.start_or_resume, strict=strict, progress=progress)
        self._set_up(path, regions, Options.of(keywords, f"{cls.__name__}.open"), begin)
        return self

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._closed

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
        if not hasattr(self, "_store"):  # where a repr of its opening is taken
            return "<dirtytrack.checkpoint.Checkpointer: not open>"
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
        far = find_mirror(options, self._descriptors)
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
        mirrored = pair(self._store, far, self._descriptors, is_new=begin is origin.start)
        start = begin(self._store, holdings.layouts, holdings.regions)
        table = committed = Table(start.layouts, start.regions, options)
        if not fits(start.layouts, holdings.layouts):
            table = Table(holdings.layouts, holdings.regions, options, committed)
        self._resumed = start.parent != NO_PARENT
        held = origin.learn(start.regions, committed) if self._resumed else 0
        # What is written from here on is its own.
        consumer = self._tracked.listen(f"checkpoint of {self._store.place}", table, committed, undo)
        table.staging.touch(held)  # the most that a save needs, as far as is known
        compression = Compression(options.compression)
        compactor = Compactor(self._store, claim, compression, options.policy, start.numbers)
        undo.callback(compactor.stop)
        compactor.start_thread()
        listeners = [compactor.committed]
        self._mirror, self._mirror_timeout = None, options.mirror_timeout
        if mirrored is not None:
            mirror = Mirror(self._store, mirrored.mirror, mirrored.files, options.mirror_bandwidth)
            self._mirror = mirror
            undo.callback(mirror.stop)
            mirror.start_thread()
            publish(mirror)
            listeners.append(mirror.committed)
        tell = functools.partial(_tell, tuple(listeners))
        tip = Tip(start, committed, self._store, claim, compression)
        committer = Committer(tip, self._store, tell)
        if self._mirror is not None:
            self._mirror.follow(tip.footing)
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
