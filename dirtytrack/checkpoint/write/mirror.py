"""Behind a chain in a directory: a thread that keeps a copy of it in an object store, in order."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Literal, NamedTuple

from dirtytrack._lifetime.background import Background
from dirtytrack.checkpoint.format.structures import FileName, FormatError, Kind
from dirtytrack.checkpoint.read.checkpoint_file import CheckpointFile
from dirtytrack.checkpoint.store.protocol import Exchange, OvertakenError, Store
from dirtytrack.checkpoint.write.copying import copy_file
from dirtytrack.checkpoint.write.footing import Footing, FootingLostError

MirrorState = Literal["idle", "uploading", "waiting", "overtaken", "closed"]

_FIRST_WAIT, _LONGEST_WAIT = 0.2, 30.0  # seconds between a failure and the next attempt
_SHORTEST_WAIT = 0.01  # of what bandwidth asks for
_LOOK = 0.2  # seconds after which who waits looks whether there was any progress

_logger = logging.getLogger("dirtytrack.checkpoint")


class _AbandonedError(Exception):
    """Nobody waits for the copy any more."""


class _ReplacedError(Exception):
    """A compaction has removed a file that was about to be copied, and has others instead of it."""


@dataclass(frozen=True)
class MirrorStatistics:
    """How far a mirror is.

    Attributes:
        place: its URL.
        state: "idle": it has everything; "uploading"; "waiting" after a failure, to try again; "overtaken":
            another writer has committed to it, and this one does not any more; "closed".
        checkpoint: number of the newest checkpoint that it has; 0: none.
        behind: checkpoints that the directory has committed since.
        lag: seconds since the oldest of them was committed.
        nbytes: bytes uploaded so far.
        failures: attempts that failed.
        last_failure: what the last one was about; "" if there was none.
    """

    place: str
    state: MirrorState
    checkpoint: int
    behind: int
    lag: float
    nbytes: int
    failures: int
    last_failure: str


class _Pending(NamedTuple):
    # A checkpoint that the copy does not have: since when, and what it stood on then.
    since: float
    files: list[str]


class Mirror:
    """Uploads what is committed to a store, and makes the copy short when the chain becomes so.

    Whatever it finds, it makes the copy's newest state that of the chain: so it goes on after any failure,
    and after a crash, where it was. What was committed since comes before that, in order, each as a state of
    its own, as far as it is there: what a compaction removes before it was uploaded is not missed.
    """

    def __init__(
        self, store: Store, target: Store, files: Sequence[str], bandwidth: float | None = None
    ) -> None:
        """Begins, when its thread is started, with what the newest state stands on.

        Args:
            store: of the chain.
            target: of the copy, whose claim somebody has.
            files: the newest state, a base first; or nothing.
            bandwidth: bytes per second at most. None: as many as there can be.
        """
        self._store, self._target, self._bandwidth = store, target, bandwidth
        self._files = [*files]
        self._footing: Footing | None = None
        self._pending: dict[int, _Pending] = {}  # checkpoints that the copy does not have
        self._spared: set[str] = set()  # older files, which the chain had when the copy was made short
        self._number = 0
        self._state: MirrorState = "idle"
        self._overtaken: OvertakenError | None = None
        self._nbytes = self._failures = 0
        self._last_failure: Exception | None = None
        self._is_abandoned = False
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._thread = Background("dirtytrack mirror")
        self._due = 0.0  # when bandwidth allows the next byte

    def start_thread(self) -> None:
        """Starts the thread, which somebody has to `stop`."""
        self._thread.start()
        self._thread.put(self._run)

    def follow(self, footing: Footing) -> None:
        """From here on the newest state is what a writer's next delta stands on."""
        self._footing = footing

    def committed(self, number: int) -> None:
        """Is told of every checkpoint that was committed, by the thread that has committed it."""
        if self._footing is not None:
            self._files = self._footing.files
        self._pending[number] = _Pending(time.monotonic(), self._files)
        self._thread.put(self._run)

    def wait(self, timeout: float | None) -> None:
        """Waits until the copy has everything.

        Args:
            timeout: seconds without any progress after which to give up. None: never.

        Raises:
            TimeoutError: there was none. It goes on trying.
            BusyError: another writer has committed to the copy; told once.
        """
        done: SimpleQueue[None] = SimpleQueue()
        self._wake.put(None)  # it need not finish its pause
        self._thread.put(self._run)
        self._thread.put(lambda: done.put(None))
        seen, deadline = self._nbytes, time.monotonic() + (timeout or 0)
        while True:
            try:
                done.get(timeout=_LOOK)
                break
            except Empty:
                if self._nbytes != seen:
                    seen, deadline = self._nbytes, time.monotonic() + (timeout or 0)
                if timeout is not None and time.monotonic() >= deadline:
                    raise self._late(timeout) from self._last_failure
        if self._overtaken is not None and self._state == "overtaken":
            self._state = "closed"
            raise self._overtaken.told()

    def abandon(self) -> None:
        """What is not uploaded by now is not to be, and nobody has to wait for it."""
        self._is_abandoned = True
        self._wake.put(None)

    def stop(self) -> None:
        """Does the same, and ends the thread."""
        self.abandon()
        self._thread.stop()
        self._state = "closed"

    @property
    def is_current(self) -> bool:
        """Whether this is called by its thread."""
        return self._thread.is_current

    def statistics(self) -> MirrorStatistics:
        """How far it is."""
        pending = [one.since for one in self._pending.copy().values()]
        return MirrorStatistics(
            self._target.place,
            self._state,
            self._number,
            len(pending),
            time.monotonic() - min(pending) if pending else 0.0,
            self._nbytes,
            self._failures,
            "" if self._last_failure is None else str(self._last_failure),
        )

    def _late(self, timeout: float) -> TimeoutError:
        behind = len(self._pending)
        return TimeoutError(
            errno.ETIMEDOUT,
            f"the mirror is {behind} checkpoints behind, and made no progress for {timeout:g} s: "
            f"{self._last_failure or 'no answer'}. The directory has them, and whoever opens both goes on",
            self._target.place,
        )

    def _run(self) -> None:
        wait = _FIRST_WAIT
        while not self._is_abandoned and self._overtaken is None:
            try:
                self._state = "uploading"
                self._synchronize()
                self._state = "idle"
                return
            except _AbandonedError:
                return
            except _ReplacedError:
                continue
            except OvertakenError as error:
                self._overtaken, self._state = error, "overtaken"
                self._fail(error)
            except (OSError, FormatError) as error:
                self._state = "waiting"
                self._fail(error)
                self._pause(wait)
                wait = min(2 * wait, _LONGEST_WAIT)

    def _fail(self, error: Exception) -> None:
        self._failures += 1
        self._last_failure = error
        _logger.warning("%s: the mirror is behind: %s", self._target.place, error)

    def _pause(self, seconds: float) -> None:
        with suppress(Empty):
            self._wake.get(timeout=seconds)

    def _synchronize(self) -> None:
        newest = self._files  # first: what comes before it is pending by now
        for number, one in sorted(self._pending.copy().items()):
            if newest and self._number < number < _number(newest[-1]):
                self._bring(self._find_files(one.files))
        self._bring(self._find_files(newest))

    def _bring(self, files: list[str]) -> None:
        # The copy has this state, and does without what the chain does without.
        if not files:
            return
        base, there = files[0], self._target.newest_names() or []
        replaced = [name for name in there if _number(name) <= _number(base)]
        if base not in there and _number(base) in map(_number, replaced):
            self._copy(base, None)  # the copy has that state, by files that are about to go
            self._shorten(base, [(replaced, base)])
            there = self._target.newest_names() or []
        if len(set(files).difference(there)) > 1:  # some may be there for another state
            there = self._target.names()
        for count, name in enumerate(files):
            if name not in there:
                self._copy(name, files[:count])
                self._note(_number(name))
        too_late = base not in there and replaced
        if too_late or not self._spared.issubset(self._store.names()):
            self._shorten(base, [])
        self._note(_number(files[-1]))

    def _find_files(self, files: Sequence[str]) -> list[str]:
        # What a state stands on now: a compaction may have made a base of some of it, or removed it.
        names = [parsed for name in files if (parsed := FileName.parse(name)) is not None]
        if not names:
            return []
        footing = Footing(self._store, names)
        try:
            footing.check()
        except FootingLostError:  # of the newest: the next save is a base, which will have everything
            return []
        return footing.files

    def _shorten(self, base: str, instead: Sequence[Exchange]) -> None:
        # The copy does without what the chain does without, and gets the bases that are kept.
        # Twice: a single listing beside a compaction may miss its base.
        names = {*self._store.names()} | {*self._store.names()}
        here, there = FileName.among(names), set(self._target.names())
        kept = []
        for name in here:
            if name.kind is Kind.BASE and name.number < _number(base) and str(name) not in there:
                with suppress(FormatError):  # nobody can read it
                    self._copy(str(name), None)
                    kept.append(str(name))
        older = {name for name in there if _number(name) <= _number(base)} - {base}
        self._spared = older.intersection(map(str, here))
        superfluous = sorted(older - self._spared, reverse=True)
        self._target.remove(superfluous, [*instead, *(([name], name) for name in kept)])

    def _copy(self, name: str, footing: Sequence[str] | None) -> None:
        try:
            with closing(CheckpointFile(self._store, name)) as file:
                copy_file(file, footing, self._target, self._told)
        except FileNotFoundError as error:
            if name in self._store.names():  # it is the target that lacks something
                raise
            raise _ReplacedError from error

    def _told(self, nbytes: int) -> None:
        # Of every few bytes that are about to be sent.
        if self._is_abandoned:
            raise _AbandonedError
        self._nbytes += nbytes
        if self._bandwidth:
            self._due = max(self._due, time.monotonic()) + nbytes / self._bandwidth
            if (early := self._due - time.monotonic()) > _SHORTEST_WAIT:
                self._pause(early)

    def _note(self, number: int) -> None:
        self._number = max(self._number, number)
        for one in [*self._pending]:
            if one <= number:
                self._pending.pop(one, None)


def _number(name: str) -> int:
    parsed = FileName.parse(name)
    return 0 if parsed is None else parsed.number
