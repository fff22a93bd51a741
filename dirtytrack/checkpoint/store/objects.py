"""A store that is a bucket of an object store. ``docs/format.md`` has its layout.

A file is an object of its own, below ``data/``, and nobody's before a commit names it. A commit names all
files of the state that it is, so that a reader needs the greatest one and nothing else. One that makes the
chain shorter is a *floor*: it names all that stays, and no commit below it counts any more.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import threading
import weakref
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from dirtytrack._lifetime.interruptible_pool import run_all
from dirtytrack.checkpoint.store.bucket import Bucket, Found, retried
from dirtytrack.checkpoint.store.commits import CommitLog
from dirtytrack.checkpoint.store.garbage import DATA, collect
from dirtytrack.checkpoint.store.object_file import ObjectFile, opening
from dirtytrack.checkpoint.store.protocol import Exchange, Store, UnreadableError, Usage
from dirtytrack.checkpoint.store.ranges import Ranges
from dirtytrack.checkpoint.store.states import NOT_YET, Entry, State, read_newest
from dirtytrack.checkpoint.store.uploads import Upload
from dirtytrack.errors import BusyError

GRACE_PERIOD = 3600.0  # seconds

_COPIES = 16  # at a time
_WALKS = 20  # at most, beside a writer that compacts all the time

_logger = logging.getLogger("dirtytrack.checkpoint")


class ObjectStore:
    """See `Store`. A file that was removed stays readable for the grace period."""

    maps = False

    def __init__(self, bucket: Bucket, grace_period: float = GRACE_PERIOD) -> None:
        """Looks at nothing yet.

        Args:
            bucket: where.
            grace_period: seconds for which what no commit names any more stays.
        """
        self.grace_period = grace_period
        self.bucket = bucket
        self._entries: dict[str, Entry] = {}
        self._claim: ObjectClaim | None = None
        self._uploads: weakref.WeakSet[Upload] = weakref.WeakSet()
        self._ranges = Ranges(lambda one: retried(lambda: bucket.get_range(*one)))
        self._mutex, self._uploading = threading.RLock(), threading.Lock()

    @property
    def place(self) -> str:
        """Its URL."""
        return self.bucket.place

    def locate(self, name: str) -> str:
        """See `Store`."""
        return f"{self.place}/{DATA}{name}"

    def names(self) -> list[str]:
        """See `Store`."""
        return [one.name for one in self.live()]

    def newest_names(self) -> list[str]:
        """See `Store`."""
        return [one.name for one in self.know(self._newest().entries)]

    def has_folders(self, names: Sequence[str]) -> bool:
        """See `Store`."""
        return all(retried(functools.partial(self.bucket.first_page, f"{name}/")) for name in names)

    def unreadable(self) -> list[tuple[str, str]]:
        """See `Store`. Commits are."""
        log = CommitLog(self.bucket)
        return log.unreadable(read_newest(log)[1].number)

    def usage(self) -> list[Usage]:
        """See `Store`. What no commit names is unfinished."""
        live = set(self.names())
        found = [one._replace(key=one.key.removeprefix(DATA)) for one in retried(self._list_data)]
        return [Usage(one.key, one.nbytes, one.key not in live) for one in found]

    def expect(self, names: Iterable[str]) -> None:
        """See `Store`."""
        entries = [self._entries[name] for name in names if name in self._entries]
        self._ranges.expect(
            one for entry in entries for one in opening(DATA + entry.name, entry.nbytes, entry.tail)
        )

    def open(self, name: str) -> ObjectFile:
        """See `Store`."""
        entry = self._entries.get(name)
        nbytes = retried(lambda: self.bucket.size(DATA + name)) if entry is None else entry.nbytes
        return ObjectFile(self._ranges, self.locate(name), DATA + name, nbytes)

    def create(self, name: str = "", first: bytes = b"", most: int = 0) -> Upload:
        """See `Store`."""
        upload = Upload(self.bucket, DATA, name, first, most, self._published)
        with self._uploading:
            self._uploads.add(upload)
        return upload

    def remove(self, names: Sequence[str], instead: Sequence[Exchange] = ()) -> None:
        """See `Store`. The objects stay for the grace period."""
        if not names and not instead:
            return
        with self._mutex:
            claim = self._claimed()
            before = [one.name for one in claim.state.files]
            live = {one.name: one for one in self.live() if one.name not in names}
            files = claim.exchange(before, instead)
            for _, base in instead:
                live.setdefault(base, self._entries[base])
            kept = [live[name] for name in files] if live.keys() >= set(files) else []
            claim.commit(kept, [one for one in live.values() if one not in kept])
            self._collect_garbage(claim)

    def adopt(self, other: Store, names: Sequence[str]) -> None:
        """See `Store`. The service makes copies, many at a time."""
        if not isinstance(other, ObjectStore):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), other.place)
        copies = [functools.partial(self.bucket.copy_from, other.bucket, DATA + name) for name in names]
        run_all(copies, threads=_COPIES)
        with self._mutex:
            self._claimed().commit([other._entries[name]._replace(commit=NOT_YET) for name in names])

    def claim(self) -> ObjectClaim:
        """See `Store`. It keeps nobody out: of two that have one, the second to commit learns that it lost.

        What the dead have left is removed in its time, by who makes the chain shorter.

        Raises:
            BusyError: this very store has one.
            UnsupportedError: the bucket does not keep its word not to replace what is there.
        """
        with self._mutex:
            if self._claim is not None:
                raise BusyError(
                    errno.EBUSY, f"claim {self.place}", remedy=f"This process ({os.getpid()}) has it already"
                )
            claim = ObjectClaim(self, CommitLog(self.bucket))
            self.know(claim.state.entries)
            self._claim = claim
            return claim

    def give_back(self, claim: ObjectClaim) -> None:
        """Nobody has the claim any more, if that one had it."""
        with self._mutex:
            if self._claim is claim:
                self._claim = None

    def live(self, *, floor: int | None = None) -> list[Entry]:
        """All files that commits from the newest floor on name, or from that commit on."""
        for _ in range(_WALKS):
            newest = self._newest()
            try:
                return self.know(self._walk(newest, newest.floor if floor is None else floor))
            except FileNotFoundError:
                continue  # a commit was removed: there is a newer floor
        raise OSError(errno.EIO, "its commits change faster than they can be read", self.place)

    def close(self) -> None:
        """See `Store`."""
        self._ranges.close()

    def _newest(self) -> State:
        with self._mutex:
            return read_newest(CommitLog(self.bucket))[1] if self._claim is None else self._claim.state

    def _walk(self, newest: State, floor: int) -> list[Entry]:
        # Each commit names the files of its state, which are commits of their own: those need not be read.
        found = {one.name: one for one in newest.entries}
        log, covered = CommitLog(self.bucket), {one.commit for one in newest.files} | {newest.number}
        numbers = retried(log.all)
        is_cut = newest.number and max(floor, 1) not in numbers  # or it comes late
        if is_cut and self._newest().floor != newest.floor:
            raise FileNotFoundError(errno.ENOENT, "there is a newer floor", self.place)
        for number in sorted(numbers, reverse=True):
            if floor <= number < newest.number and (number not in covered or number == floor):
                try:
                    state = State.of(log.read(number))
                except UnreadableError as error:
                    _logger.warning("%s: left out", error)
                    continue
                covered |= {one.commit for one in state.files}
                found = {one.name: one for one in state.entries} | found
        return [*found.values()]

    def know(self, entries: Sequence[Entry]) -> list[Entry]:
        """Remembers what commits say of files."""
        self._entries.update((one.name, one) for one in entries)
        return [*entries]

    def _published(self, name: str, nbytes: int, tail: int, footing: Sequence[str] | None) -> None:
        with self._mutex:
            claim = self._claimed()
            entry = self._entries[name] = Entry(name, nbytes, tail, NOT_YET)
            if footing is not None:
                claim.commit([*(self._entries[one] for one in claim.exchange(footing)), entry])

    def _collect_garbage(self, claim: ObjectClaim) -> None:
        def needed(floor: int) -> set[str]:
            with self._uploading:
                coming = {one.name for one in self._uploads}
            uncommitted = {name for name, one in [*self._entries.items()] if one.commit == NOT_YET}
            return coming | uncommitted | {one.name for one in self.live(floor=floor)}

        collect(self.bucket, claim.log, claim.state.floor, needed, self.grace_period)

    def _claimed(self) -> ObjectClaim:
        if self._claim is None:
            raise OSError(errno.EPERM, "it is not claimed", self.place)
        return self._claim

    def _list_data(self) -> list[Found]:
        return [*self.bucket.find(DATA)]


class ObjectClaim:
    """See `Claim`. It knows the newest commit, and makes the next one.

    Attributes:
        state: the newest commit, as far as it knows.
        log: of the commits.
    """

    def __init__(self, store: ObjectStore, log: CommitLog) -> None:
        """Finds the newest commit, and whether the bucket can be trusted with the next one.

        Raises:
            UnsupportedError: it can't.
            OSError: as the bucket says.
        """
        self._store, self.log = store, log
        self._exchanged: list[tuple[list[str], str]] = []
        newest, self.state = read_newest(log)
        log.probe(newest)

    def holds(self, names: Collection[str]) -> bool:
        """See `Claim`. Whether somebody else commits is found out by committing."""
        return not self.log.is_lost

    def native(self, names: Collection[str]) -> None:
        """See `Claim`."""

    def renew(self) -> None:
        """See `Claim`."""
        self.log.check()

    def close(self) -> None:
        """See `Claim`."""
        self._store.give_back(self)

    def exchange(self, files: Sequence[str], instead: Sequence[Exchange] = ()) -> list[str]:
        """What a state stands on, by the bases made for it since; also by these, from now on."""
        self._exchanged += [([*old], new) for old, new in instead]
        found = [*files]
        for old, new in self._exchanged:
            if found[: len(old)] == old:
                found[: len(old)] = [new]
        return found

    def commit(self, files: Sequence[Entry], others: Sequence[Entry] | None = None) -> None:
        """Makes the next commit; a floor, if it names others.

        Raises:
            BusyError: somebody else has.
            OSError: it is not known to be there.
        """

        def make(number: int) -> Mapping[str, Any]:
            floor = self.state.floor if others is None else number
            new = [
                [one._replace(commit=number) if one.commit == NOT_YET else one for one in named]
                for named in (files, others or ())
            ]
            return {"floor": floor, "files": new[0], "others": new[1]}

        self.state = State.of(self.log.append(make))
        self._store.know(self.state.entries)
