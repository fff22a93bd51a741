"""How a save of many processes is decided: each puts a vote, and whoever sees all of them puts the record.

A vote is a small object that never changes, so all who see a set of votes come to the same decision, and it
does not matter who puts it. A vote that something went wrong decides at once that nothing is committed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from dirtytrack._lifetime.interruptible_pool import run_all
from dirtytrack.checkpoint.records import Found, Keep, UnreadableError, retried, sealed, unsealed
from dirtytrack.errors import ChainError
from dirtytrack.group.coordinator import SHOWN, ranks_of
from dirtytrack.group.record import Part, Record, shortened
from dirtytrack.group.records import Records, overtaken

VoteState = Literal["saved", "failed", "ended"]

_FORMAT = "dirtytrack vote"
_NAME = re.compile(r"([0-9]{10})/([0-9]{6})-(saved|failed|ended)\.json")
_REQUEST = 0.02  # seconds, about
_LEAST_PATIENCE = 0.25
_THREADS = 16  # that read votes, where there are more


class Vote(NamedTuple):
    """What a process says of a save.

    Attributes:
        save: which, counted from 1 in each run.
        rank: of the process.
        state: "saved": its part is durable; "failed"; "ended": it has closed, and this save is none of its.
        meta: digest of the save's meta.
        part: identifier and number of its checkpoint, where that is saved.
        error: what went wrong.
        names: of the part's regions; none: those with which the process has opened the group.
    """

    save: int
    rank: int
    state: VoteState
    meta: str = ""
    part: tuple[str, int] = ("", 0)
    error: str = ""
    names: tuple[str, ...] = ()


class _Listed(NamedTuple):
    # A vote in a listing.
    state: VoteState
    found: Found


def digest(meta: str) -> str:
    """Of a meta as JSON text; the order of keys does not matter."""
    plain = json.dumps(json.loads(meta), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()[:32]


def patience_for(world: int) -> float:
    """Seconds in which one process reads the votes of so many, and some."""
    return _LEAST_PATIENCE + 2 * _REQUEST * world / _THREADS


class Ballots:
    """The votes of a run, and what they decide. For one thread at a time.

    Attributes:
        run: the record by which it was opened.
        rank: of this process.
        known: the newest record of the run that this process has read or made, or the run's own.
        states: those that stay by that, the newest last; without a policy none.
        seen: votes of the save that was looked at last.
    """

    def __init__(
        self, records: Records, run: Record, rank: int, keep: Keep | None = None, patience: float = 0.0
    ) -> None:
        """Prepares for the first save.

        Args:
            records: of the group.
            run: that this process belongs to.
            rank: of the process.
            keep: which states stay. None: all.
            patience: seconds for which a set of votes is left to who cast the last of them. Else all who
                look meanwhile would read all votes.
        """
        self._patience, self._whole = patience, (0, 0.0)  # the save of which all votes were seen, and when
        self.run, self.rank, self._keep, self.known = run, rank, keep, run
        self.states = [] if keep is None else records.states(run)
        self.seen = 0
        self._is_after_failure = False  # that the save before the next one was not committed
        self._records, self._bucket = records, records.bucket
        self._prefix = f"votes/{run.run}/"

    def number(self, save: int) -> int:
        """Of the record that decides a save."""
        return self.run.number + save

    def folder(self, rank: int) -> str:
        """Of the chain that a process writes in this run, below the group's place."""
        return f"parts/{self.run.run}/{rank:06}"

    def cast(self, vote: Vote) -> None:
        """Puts this process's vote; a second time it does nothing.

        Raises:
            OSError: it is not there, or may be there: cast it again.
        """
        head = {"format": _FORMAT, "version": 1, "incarnation": self.run.incarnation}
        key = f"{self._prefix}{vote.save:010}/{vote.rank:06}-{vote.state}.json"
        body = {**head, **vote._asdict()}
        if not vote.names or sorted(vote.names) in map(sorted, self.run.names[vote.rank : vote.rank + 1]):
            del body["names"]  # as a rule
        self._bucket.put_new(key, sealed(body))

    def decide(self, save: int, meta: str | None = None) -> Record | None:
        """The record that decides a save, which is made if the votes say so; None: it is open.

        The saves before it have to be decided.

        Args:
            save: which.
            meta: of it, as JSON text. None: it is not this process's.

        Raises:
            BusyError: another run has opened the group.
            ChainError: a record or a vote is damaged.
            OSError: as the place says.
        """
        found = self._records.find(self.number(save))
        if found is None:
            found = self._count(save, meta)
        if found is None:
            return None
        if found.incarnation != self.run.incarnation:
            overtaken(self._records.place, found)
        if self._keep is not None:
            self._learn(found)
        self.known = found
        self._is_after_failure = found.kind == "aborted"
        return found

    def _learn(self, found: Record) -> None:
        newest = self.states[-1].number if self.states else 0
        if found.state > newest:  # another one's only where this process is far behind
            self.states += [found] if found.kind == "committed" else self._records.states(found)
        self.states = [one for one in self.states if found.stays(one.number)]

    @property
    def place(self) -> str:
        """Of the group, for messages."""
        return self._records.place

    def tally(self, save: int) -> dict[int, VoteState]:
        """What each process has said of a save so far. Who has ended says so of all later ones."""
        return {rank: vote.state for rank, vote in self._list(save).items()}

    def clear(self, save: int) -> None:
        """Removes the votes of saves up to this one, which are decided."""
        keys = [one.key for one in retried(lambda: [*self._bucket.find(self._prefix)])]
        names = {key: _NAME.fullmatch(key.removeprefix(self._prefix)) for key in keys}
        self._bucket.delete([key for key, name in names.items() if name and int(name[1]) <= save])

    def _list(self, save: int) -> dict[int, _Listed]:
        # Who has ended votes no more. That vote is of an earlier save, which was not committed then, so
        # nobody has removed it; only after such a save it is worth a look at all votes.
        prefix = self._prefix if self._is_after_failure else f"{self._prefix}{save:010}/"
        found: list[Found] = retried(lambda: [*self._bucket.find(prefix)])
        votes: dict[int, _Listed] = {}
        ended: dict[int, _Listed] = {}
        for one in found:
            name = _NAME.fullmatch(one.key.removeprefix(self._prefix))
            if name is None or int(name[2]) >= self.run.world:
                continue
            state: Any = name[3]
            if int(name[1]) == save:
                votes[int(name[2])] = _Listed(state, one)
            elif int(name[1]) < save and state == "ended":
                ended[int(name[2])] = _Listed(state, one)
        return ended | votes

    def _count(self, save: int, meta: str | None) -> Record | None:
        listed = self._list(save)
        self.seen = len(listed)
        wrong = {rank: one for rank, one in listed.items() if one.state != "saved"}
        if meta is not None and self.rank not in listed:  # it was there
            return self._find_removed(save)
        if len(listed) < self.run.world and not wrong:
            return None
        if len(wrong) == self.run.world and all(one.state == "ended" for one in wrong.values()):
            return None  # all have closed: there is no such save
        if not wrong and not self._is_next(save, listed):
            return None
        chosen = [one.found.key for one in (wrong or listed).values()]
        try:
            votes = sorted(self._read(chosen), key=lambda vote: vote.rank)
        except FileNotFoundError:  # it is decided, and they were removed
            return self._records.find(self.number(save))
        reason = self._wrong(votes)
        number, run = self.number(save), self.run
        made = Record(number, "aborted", run.incarnation, run.number, self.known.state, 0.0, run.world)
        made = made._replace(oldest=self.known.oldest, kept=self.known.kept)
        if reason:
            return self._records.offer(made._replace(reason=reason))
        parts = tuple(Part(self.folder(vote.rank), *vote.part, self._names(vote)) for vote in votes)
        known = None if meta is None else json.loads(meta)
        made = made._replace(kind="committed", state=number, parts=parts, meta=known)
        made = self._records.offer(made.retaining(self._keep, [*self.states, made]))
        with suppress(OSError):  # nobody needs that they are gone
            self.clear(save)
        return made

    def _is_next(self, save: int, listed: Mapping[int, _Listed]) -> bool:
        # Whether it is this process's turn to decide by all votes: it cast the last one, or who did does not.
        last = max(listed, key=lambda rank: (listed[rank].found.modified, rank))
        if self._whole[0] != save:
            self._whole = save, time.monotonic()
        return last == self.rank or time.monotonic() - self._whole[1] >= self._patience

    def _find_removed(self, save: int) -> Record | None:
        # Of a save whose votes were removed, since it is decided.
        number, newest = self.number(save), self._records.newest()
        found = self._records.find(number)
        if found is not None or newest is None or newest.number <= number:
            return found
        if newest.incarnation != self.run.incarnation:
            return newest
        reason = "this process was so far behind that the record which decided it was removed"
        return newest._replace(number=number, kind="aborted", reason=reason)

    def _names(self, vote: Vote) -> tuple[str, ...]:
        return vote.names or self.run.names[vote.rank]

    def _wrong(self, votes: list[Vote]) -> str:
        failed = [vote for vote in votes if vote.state == "failed"]
        if failed:
            return "; ".join(f"rank {vote.rank} could not save: {vote.error}" for vote in failed[:SHOWN])
        ended = [vote for vote in votes if vote.state == "ended"]
        if ended:
            ranks = ranks_of([vote.rank for vote in ended])
            return (
                f"{ranks} closed after {ended[0].save - 1} saves, and others save once more. "
                "Nothing is committed until all of them are started again"
            )
        first = votes[0]
        others = [vote.rank for vote in votes if vote.meta != first.meta]
        if others:
            return f"{ranks_of(others)} gave another meta than rank {first.rank}: it has to be the same"
        owners: dict[str, int] = {}
        for vote in votes:
            for name in self._names(vote):
                if (owner := owners.setdefault(name, vote.rank)) != vote.rank:
                    return f"rank {owner} and rank {vote.rank} both have {name!r}: it belongs to one process"
        return ""

    def _read(self, keys: list[str]) -> Iterable[Vote]:
        def read(key: str) -> Vote:
            try:
                return self._decode(key, retried(lambda: self._bucket.get(key)))
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError, UnreadableError) as error:
                raise ChainError(f"{self._records.place}/{key} is damaged: {shortened(error)}") from None

        if len(keys) <= _THREADS:
            return [read(key) for key in keys]
        votes: dict[str, Vote] = {}

        def add(key: str) -> None:
            votes[key] = read(key)

        run_all([functools.partial(add, key) for key in keys], threads=_THREADS)
        return votes.values()

    def _decode(self, key: str, data: bytes) -> Vote:
        body = unsealed(data)
        if (body.pop("format"), body.pop("version")) != (_FORMAT, 1):
            raise UnreadableError("another format")
        incarnation, (identifier, number) = body.pop("incarnation"), body.pop("part")
        names = tuple(map(str, body.pop("names", ())))
        vote = Vote(part=(str(identifier), int(number)), names=names, **body)
        told = f"{self._prefix}{vote.save:010}/{vote.rank:06}-{vote.state}.json"
        if (told, incarnation) != (key, self.run.incarnation):
            raise UnreadableError(f"it was put as {told}")
        return vote
