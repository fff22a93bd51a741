"""A record of a group: what it says, and what it may say. ``docs/format.md`` has the bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Self

from dirtytrack.checkpoint.records import Candidate, Commit, Keep, UnreadableError

Kind = Literal["opened", "committed", "aborted"]

# What becomes a part of a path is nothing but this: a record may come from anybody.
RUN_NAME = re.compile(r"[0-9]{10,}-[0-9a-f]{16}")
_INCARNATION = re.compile(r"[0-9a-f]{16}")
_MOST_NAME = 255  # bytes of a region's
_MOST_TOLD = 300  # characters of what is wrong
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
        return cls(folder, str(identifier), _whole(number, "number"), tuple(map(_name, names)))


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
        oldest: no state with a smaller number stays, but for those kept. It never falls.
        kept: numbers of the older ones that stay all the same, ascending. None ever comes back.
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
    kept: tuple[int, ...] = ()
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
                tuple(tuple(map(_name, names)) for names in body.get("names", ())),
                body.get("meta"),
                _whole(body.get("oldest", 0), "oldest"),
                tuple(_whole(number, "kept") for number in body.get("kept", ())),
                str(body.get("reason", "")),
            )
            made.check()
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UnreadableError(
                f"record {commit.number} of a group says nothing: {shortened(error)}"
            ) from None
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
        first_other = min(self.oldest, self.state + 1)
        if any(number >= above for number, above in pairwise((*self.kept, first_other))):
            raise ValueError(f"kept {self.kept}")
        for part in self.parts:
            if not part.folder.startswith(f"parts/{self.run}/"):
                raise ValueError(f"folder {part.folder!r} of another run")

    @property
    def run(self) -> str:
        """The name of its run, of which there is only one: what it writes has it in its place."""
        return run_name(self.opened, self.incarnation)

    def stays(self, number: int) -> bool:
        """Whether a state of that number is to stay."""
        return number >= self.oldest or number in self.kept

    def retaining(self, policy: Keep | None, states: Sequence[Record]) -> Self:
        """The same, which says what is to stay from here on.

        Args:
            policy: that chooses; None: what did before.
            states: all that did, by number, with this one if it is one.
        """
        if policy is None or not states:
            return self
        known = [Candidate(one.number, one.created, one.meta) for one in states]
        newest = known[-policy.newest :]
        oldest = max(self.oldest, newest[0].number)
        stay = policy.chosen(known) | {one.number for one in newest}
        return self._replace(oldest=oldest, kept=tuple(sorted(one for one in stay if one < oldest)))

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return self._asdict()


def shortened(error: Exception) -> str:
    """What is wrong, as a part of a message: it may repeat what anybody has written."""
    return repr(error)[:_MOST_TOLD]


def _name(value: Any) -> str:
    name = str(value)
    if len(name.encode()) > _MOST_NAME:
        raise ValueError(f"a name of {len(name)} characters")
    return name


def _whole(value: Any, what: str) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{what} {value!r}")
    return value


def run_name(opened: int, incarnation: str) -> str:
    """Of the run that has opened a group by that number."""
    return f"{opened:010}-{incarnation}"


def as_record(body: Mapping[str, Any]) -> Record:
    """What `Record.to_json` has made, after a journey as plain data.

    Raises:
        TypeError, ValueError, KeyError: it is none.
    """
    fields = dict(body)
    fields["parts"] = tuple(map(Part.of, fields["parts"]))
    fields["kept"] = tuple(fields["kept"])
    fields["names"] = tuple(tuple(map(str, names)) for names in fields["names"])
    made = Record(**fields)
    made.check()
    return made
