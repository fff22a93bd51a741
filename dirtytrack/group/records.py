"""The records of a group: who opened it, what was committed, what was not. ``docs/format.md`` has the bytes.

They are numbered without gaps, and each is put only if there is none of its number. A run opens the group by
the next number; its first save is decided by the number after that, its second by the one after that, until
another run has opened it: from there on the first one can't commit any more. That is the whole fence.
"""

from __future__ import annotations

import errno
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, NoReturn, Self

from dirtytrack.checkpoint.records import Bucket, Commit, CommitLog, UnreadableError
from dirtytrack.errors import BusyError, ChainError

Kind = Literal["opened", "committed", "aborted"]

_PREFIX = "records/"
_FORMAT = "dirtytrack group"
_AHEAD = 64  # records that are read at once
_READERS = 16  # threads
_TRIES = 100  # to open a group, beside others that do so, too

# What becomes a part of a path is nothing but this: a record may come from anybody.
RUN_NAME = re.compile(r"[0-9]{10,}-[0-9a-f]{16}")
_INCARNATION = re.compile(r"[0-9a-f]{16}")
_FOLDER = re.compile(r"parts/[0-9]{10,}-[0-9a-f]{16}/[0-9a-f]{6,16}")


class Part(NamedTuple):
    """What one process has of a state: a checkpoint of a chain of its own.

    Attributes:
        folder: of the chain, below the group's place.
        id: identifier of the checkpoint.
        number: the same checkpoint's.
        names: of its regions.
    """

    folder: str
    id: str
    number: int
    names: tuple[str, ...]

    @classmethod
    def of(cls, body: Sequence[Any]) -> Self:
        """As JSON has it.

        Raises:
            TypeError, ValueError: it is none.
        """
        folder, identifier, number, names = body
        if not _FOLDER.fullmatch(folder):
            raise ValueError(f"folder {folder!r}")
        return cls(folder, str(identifier), _whole(number, "number"), tuple(map(str, names)))


class Record(NamedTuple):
    """A record.

    Attributes:
        number: its own.
        kind: "opened", "committed" or "aborted".
        incarnation: of the run that it belongs to, random.
        opened: the number by which that run opened the group.
        state: the number of the newest record up to this one that is committed; 0: there is none.
        created: when it was made, by the clock of who made it, in seconds since 1970.
        world: processes of the run; 0: a driver's, who knows them.
        parts: of what was committed.
        names: of an opened one: those of each process.
        meta: of what was committed.
        oldest: no state with a smaller number stays. It never falls.
        reason: why something was not.
    """

    number: int
    kind: Kind
    incarnation: str
    opened: int
    state: int
    created: float
    world: int
    parts: tuple[Part, ...] = ()
    names: tuple[tuple[str, ...], ...] = ()
    meta: Any = None
    oldest: int = 0
    reason: str = ""

    @classmethod
    def of(cls, commit: Commit, created: float = 0.0) -> Self:
        """Reads it.

        Raises:
            UnreadableError: it is none.
        """
        body = commit.body
        try:
            if (kind := body["kind"]) not in ("opened", "committed", "aborted"):
                raise ValueError(f"kind {kind!r}")
            made = cls(
                commit.number,
                kind,
                body["incarnation"],
                _whole(body["opened"], "opened"),
                _whole(body["state"], "state"),
                float(body.get("created", created)),
                _whole(body["world"], "world"),
                tuple(map(Part.of, body.get("parts", ()))),
                tuple(tuple(map(str, names)) for names in body.get("names", ())),
                body.get("meta"),
                _whole(body.get("oldest", 0), "oldest"),
                str(body.get("reason", "")),
            )
            made.check()
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UnreadableError(f"record {commit.number} of a group says nothing: {error!r}") from None
        return made

    def check(self) -> None:
        """Makes sure that it leads to nothing but older records, and parts of its own run.

        Raises:
            TypeError, ValueError: it does.
        """
        if not _INCARNATION.fullmatch(self.incarnation):
            raise ValueError(f"incarnation {self.incarnation!r}")
        is_state = self.kind == "committed"
        if self.state != self.number if is_state else self.state >= self.number:
            raise ValueError(f"state {self.state}")  # who looks for states goes from there on
        if not 0 < self.opened <= self.number:
            raise ValueError(f"opened {self.opened}")
        for part in self.parts:
            if not part.folder.startswith(f"parts/{self.run}/"):
                raise ValueError(f"folder {part.folder!r} of another run")

    @property
    def run(self) -> str:
        """The name of its run, of which there is only one: what it writes has it in its place."""
        return run_name(self.opened, self.incarnation)

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return self._asdict()


def _whole(value: Any, what: str) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{what} {value!r}")
    return value


def run_name(opened: int, incarnation: str) -> str:
    """Of the run that has opened a group by that number."""
    return f"{opened:010}-{incarnation}"


class Records:
    """The records of a group. For one thread at a time.

    Attributes:
        place: of the group, for messages.
        log: the numbered objects that they are.
        bucket: where they are.
    """

    def __init__(self, bucket: Bucket) -> None:
        """Reads nothing yet."""
        self.bucket = bucket
        self.place = bucket.place
        self.log = CommitLog(bucket, _PREFIX, _FORMAT)

    def newest(self) -> Record | None:
        """The one with the greatest number that is intact; None: there is none.

        Raises:
            ChainError: none is intact.
            OSError: as the place says.
        """
        try:
            found = self.log.newest()
            return None if found is None else Record.of(found)
        except UnreadableError as error:
            raise ChainError(str(error)) from error

    def find(self, number: int) -> Record | None:
        """The one of that number, if it is there.

        Raises:
            ChainError: it is damaged.
            OSError: as the place says.
        """
        try:
            return Record.of(self.log.read(number))
        except FileNotFoundError:
            return None
        except UnreadableError as error:
            raise ChainError(str(error)) from error

    def states(self, newest: Record | None = None) -> list[Record]:
        """All that were committed and are to stay, the newest last; up to the one that the newest record has.

        Args:
            newest: that record. None: it is looked for.
        """
        newest = newest or self.newest()
        found: list[Record] = []
        ahead: dict[int, Future[Record | None]] = {}
        number = 0 if newest is None else newest.state
        while newest is not None and number and number >= newest.oldest:
            if number not in ahead:
                ahead = self._read_ahead(range(number, max(number - _AHEAD, newest.oldest - 1, 0), -1))
            record = ahead[number].result()
            if record is None:  # from there on down there is no gap
                break
            if record.kind == "committed":
                found.append(record)
            number = number - 1 if record.kind == "committed" else record.state
        return found[::-1]

    def _read_ahead(self, numbers: Iterable[int]) -> dict[int, Future[Record | None]]:
        # Most of them are wanted; what is wrong with one that is not does no harm.
        with ThreadPoolExecutor(_READERS, "dirtytrack records") as pool:
            return {number: pool.submit(self.find, number) for number in numbers}

    def offer(self, record: Record) -> Record:
        """Makes it, if there is none of its number; returns the one that is there then.

        Raises:
            BusyError: there are newer ones, of another run: the number was removed long ago.
            ChainError: what is there is damaged.
            ValueError: it can't be a record: nothing was made.
            OSError: none is there, or may be there.
        """
        record.check()
        body = {"kind": record.kind, "incarnation": record.incarnation, "opened": record.opened}
        body |= {"state": record.state, "oldest": record.oldest, "world": record.world}
        if record.kind == "opened":
            body["names"] = record.names
        elif record.kind == "committed":
            body |= {"meta": record.meta, "parts": record.parts}
        else:
            body["reason"] = record.reason
        try:
            there = Record.of(self.log.offer(record.number, body), time.time())
        except UnreadableError as error:
            raise ChainError(str(error)) from error
        newest = self.newest() if there.incarnation == record.incarnation else None
        if newest is not None and newest.number > there.number and newest.incarnation != there.incarnation:
            overtaken(self.place, newest)
        return there

    def open(self, names: Sequence[Sequence[str]], at: int | None = None, keep: int | None = None) -> Record:
        """Opens the group for a new run: no earlier one can commit from here on.

        Args:
            names: of the parts of each process; none: a driver knows them.
            at: the number of the state to begin with. None: the newest.
            keep: how many of the states that are there stay. None: as before.

        Raises:
            ChainError: there is no such state.
            UnsupportedError: the place replaces what is there.
            BusyError: others open it all the time.
            OSError: as the place says.
        """
        incarnation = secrets.token_hex(8)
        self.log.probe(None)
        for _ in range(_TRIES):
            newest = self.newest()
            number = self.log.number + 1
            state, oldest = (0, 0) if newest is None else (newest.state, newest.oldest)
            if at is not None:
                state = self._check_state(at)
            elif keep is not None:
                oldest = max(oldest, *(one.number for one in self.states()[-keep:][:1]), 0)
            mine = Record(number, "opened", incarnation, number, state, 0.0, len(names), oldest=oldest)
            mine = mine._replace(names=tuple(map(tuple, names)))
            if self.offer(mine).incarnation == incarnation:
                return mine
        raise BusyError(
            errno.EBUSY, f"open {self.place}", remedy="Others open it all the time: two groups in one place?"
        )

    def _check_state(self, number: int) -> int:
        record = self.find(number)
        newest = self.newest()
        oldest = 0 if newest is None else newest.oldest
        if record is None or record.kind != "committed" or number < oldest:
            raise ChainError(f"{self.place} has no state {number}; it has {self._numbers()}")
        return number

    def _numbers(self) -> str:
        return ", ".join(str(one.number) for one in self.states()[-10:]) or "none"


def overtaken(place: str, record: Record) -> NoReturn:
    """Raises that another run has opened a group.

    Raises:
        BusyError: always.
    """
    raise BusyError(
        errno.EBUSY,
        f"commit to {place}",
        remedy=f"Record {record.number} there is of another run, {record.run}, which has opened the group "
        f"since: a restart of this one, or two groups in one place. What this process saves is not "
        "committed any more: end it, or give the other group another place",
    )


def as_record(body: Mapping[str, Any]) -> Record:
    """What `Record.to_json` has made, after a journey as plain data.

    Raises:
        TypeError, ValueError, KeyError: it is none.
    """
    fields = dict(body)
    fields["parts"] = tuple(map(Part.of, fields["parts"]))
    fields["names"] = tuple(tuple(map(str, names)) for names in fields["names"])
    made = Record(**fields)
    made.check()
    return made
