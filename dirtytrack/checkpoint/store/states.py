"""What the commits of a chain in a bucket say: which files its newest state has, and which others stay."""

from __future__ import annotations

import errno
from typing import NamedTuple, Self

from dirtytrack.checkpoint.store.commits import Commit, CommitLog
from dirtytrack.checkpoint.store.protocol import UnreadableError

NOT_YET = 0  # the commit of a file that none names


class Entry(NamedTuple):
    """A file, as a commit names it.

    Attributes:
        name: of the file.
        nbytes: its length.
        tail: bytes at its end that are needed to open it; 0: not known.
        commit: the commit by which it became one of the chain's.
    """

    name: str
    nbytes: int
    tail: int
    commit: int


class State(NamedTuple):
    """What a commit says.

    Attributes:
        number: of the commit.
        floor: the newest commit up to this one that is a floor; 0: none.
        files: of its state, the base first.
        others: a floor's: all other files that stay. Else nothing.
    """

    number: int
    floor: int
    files: tuple[Entry, ...]
    others: tuple[Entry, ...]

    @classmethod
    def of(cls, commit: Commit) -> Self:
        """Reads it.

        Raises:
            UnreadableError: it says something else.
        """
        try:
            files, others = (
                tuple(
                    Entry(str(name), int(nbytes), int(tail), int(number))
                    for name, nbytes, tail, number in body
                )
                for body in (commit.body["files"], commit.body["others"])
            )
            return cls(commit.number, int(commit.body["floor"]), files, others)
        except (KeyError, TypeError, ValueError) as error:
            raise UnreadableError(
                f"commit {commit.number} does not say which files it has: {error!r}"
            ) from None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All that it names."""
        return self.files + self.others


NOTHING = State(0, 0, (), ())


def read_newest(log: CommitLog) -> tuple[Commit | None, State]:
    """The newest commit, and what it says.

    Raises:
        OSError: as the bucket says; or no commit can be read.
    """
    try:
        newest = log.newest()
        return newest, NOTHING if newest is None else State.of(newest)
    except UnreadableError as error:
        raise OSError(errno.EIO, f"no commit can be read: {error}", log.place) from None
