"""The records of a group: who opened it, what was committed, what was not. ``docs/format.md`` has the bytes.

They are numbered without gaps, and each is put only if there is none of its number. A run opens the group by
the next number; its first save is decided by the number after that, its second by the one after that, until
another run has opened it: from there on the first one can't commit any more. That is the whole fence.
"""

from __future__ import annotations

import errno
import functools
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import NoReturn

from dirtytrack._lifetime.interruptible_pool import run_all
from dirtytrack.checkpoint.records import Bucket, CommitLog, Keep, UnreadableError
from dirtytrack.errors import BusyError, ChainError
from dirtytrack.group.record import Record

_PREFIX = "records/"
_FORMAT = "dirtytrack group"
_AHEAD = 64  # records that are read at once
_READERS = 16  # threads
_TRIES = 100  # to open a group, beside others that do so, too


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

    def unreadable(self, newest: Record | None) -> list[tuple[str, str]]:
        """The keys of damaged records after the newest one that is intact, and what is wrong with each.

        Those before it that are needed are an error of `states`.
        """
        return self.log.unreadable(newest.number if newest is not None else 0)

    def states(self, newest: Record | None = None) -> list[Record]:
        """All that were committed and are to stay, the newest last; up to the one that the newest record has.

        Args:
            newest: that record. None: it is looked for.
        """
        newest = newest or self.newest()
        if newest is None:
            return []
        kept = map(_there, self._read_ahead(newest.kept).values())
        older = [one for one in kept if one is not None and one.kind == "committed"]
        return older + self._find_newer(newest)

    def _find_newer(self, newest: Record) -> list[Record]:
        # The states up to that of the newest record, from the oldest one that stays by its number alone.
        found: list[Record] = []
        ahead: dict[int, Record | Exception | None] = {}
        number = newest.state
        while number and number >= newest.oldest:
            if number not in ahead:
                ahead = self._read_ahead(range(number, max(number - _AHEAD, newest.oldest - 1, 0), -1))
            record = _there(ahead[number])
            if record is None:  # from there on down there is no gap
                break
            if record.kind == "committed":
                found.append(record)
            number = number - 1 if record.kind == "committed" else record.state
        return found[::-1]

    def _read_ahead(self, numbers: Iterable[int]) -> dict[int, Record | Exception | None]:
        # Most of them are wanted; what is wrong with one that is not does no harm.
        found: dict[int, Record | Exception | None] = dict.fromkeys(numbers)

        def read(number: int) -> None:
            try:
                found[number] = self.find(number)
            except Exception as error:
                found[number] = error

        run_all([functools.partial(read, number) for number in found], threads=_READERS)
        return found

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
        body["kept"] = record.kept
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

    def open(self, names: Sequence[Sequence[str]], at: int | None = None, keep: Keep | None = None) -> Record:
        """Opens the group for a new run: no earlier one can commit from here on.

        Args:
            names: of the parts of each process; none: a driver knows them.
            at: the number of the state to begin with. None: the newest.
            keep: which of the states that are there stay. None: as before.

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
            mine = Record(number, "opened", incarnation, number, 0, 0.0, len(names))
            mine = mine._replace(names=tuple(map(tuple, names)))
            if newest is not None:
                state = newest.state if at is None else self._check_state(at, newest)
                kept = tuple(one for one in newest.kept if one <= state)  # the others are of another branch
                mine = mine._replace(state=state, oldest=newest.oldest, kept=kept)
            elif at is not None:
                raise ChainError(f"{self.place} has no state {at}; it has none")
            if keep is not None:
                mine = mine.retaining(keep, self.states(mine))
            if self.offer(mine).incarnation == incarnation:
                return mine
        raise BusyError(
            errno.EBUSY, f"open {self.place}", remedy="Others open it all the time: two groups in one place?"
        )

    def _check_state(self, number: int, newest: Record) -> int:
        record = self.find(number)
        if record is None or record.kind != "committed" or not newest.stays(number):
            there = ", ".join(str(one.number) for one in self.states(newest)[-10:]) or "none"
            raise ChainError(f"{self.place} has no state {number}; it has {there}")
        return number


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


def _there(found: Record | Exception | None) -> Record | None:
    if isinstance(found, Exception):
        raise found
    return found
