"""Numbered commits in a bucket, each made by one writer, whoever else tries and whatever answers get lost.

A commit is a small object that is put only if there is none of its name; commit n + 1 follows commit n. The
name is 10^20 - 1 - n, so that the newest is listed first. The greatest is found by a page of the listing, and
from there by asking for the next number until there is none: a listing that comes late does no harm. Where a
page is not in order the whole listing is read.

Numbers that were superseded long ago may be removed, and then be made again by a writer that slept meanwhile.
So after each commit its writer looks for a greater one, and has lost if there is any.
"""

from __future__ import annotations

import errno
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from dirtytrack._json import check, parse
from dirtytrack.checkpoint.format.codec import checksum
from dirtytrack.checkpoint.store.bucket import Bucket, Found, retried
from dirtytrack.checkpoint.store.protocol import GO_ON, OvertakenError, UnreadableError
from dirtytrack.errors import UnsupportedError

_VERSION = 1
PROBES = "probe/"
_LAST = 10**20 - 1
_NAME = re.compile(r"([0-9]{20})\.json")
_STEPS = 1000  # numbers to ask for one by one, before the whole listing is read
_TRIES = 20  # to find a commit that is neither removed nor replaced meanwhile
_MOST_MEMORY = 1 << 30  # bytes that an object takes when it is read
_OWN_ATTEMPTS = 100  # of this writer that may have got there after they were given up

_logger = logging.getLogger("dirtytrack.checkpoint")


class Commit(NamedTuple):
    """A commit.

    Attributes:
        number: from 1.
        writer: identifier of who made it, 32 hexadecimal digits.
        write: which of that writer's attempts.
        body: what it says, as of JSON.
        data: the whole object.
    """

    number: int
    writer: str
    write: int
    body: Mapping[str, Any]
    data: bytes


class CommitLog:
    """The commits below a prefix of a bucket. For one thread at a time.

    Attributes:
        place: the bucket's, for messages.
        number: the greatest that this log knows of; 0: none.
        is_lost: whether another writer has committed what this one was about to.
    """

    def __init__(self, bucket: Bucket, prefix: str = "commits/", kind: str = "dirtytrack commit") -> None:
        """Reads nothing yet.

        Args:
            bucket: where they are.
            prefix: of their keys.
            kind: what their ``format`` says.
        """
        self.place = bucket.place
        self.number = 0
        self.is_lost = False
        self._bucket, self._prefix, self._kind = bucket, prefix, kind
        self._writer, self._write = secrets.token_hex(16), 0

    def key(self, number: int) -> str:
        """Of the object that is a commit."""
        return f"{self._prefix}{_LAST - number:020}.json"

    def locate(self, number: int) -> str:
        """Its whole place, for messages."""
        return f"{self._bucket.place}/{self.key(number)}"

    def newest(self) -> Commit | None:
        """The greatest commit that is intact; `number` is the greatest of all. None: there is none.

        Raises:
            UnreadableError: none that is there is intact; of the greatest.
            OSError: as the bucket says.
        """
        for _ in range(_TRIES):
            self.number = self._greatest()
            if not self.number:
                return None
            try:
                return self.read(self.number)
            except FileNotFoundError:
                continue  # a newer one came, and this was removed
            except UnreadableError as error:
                return self._below(error)
        raise OSError(errno.EIO, "its commits change faster than they can be read", self._bucket.place)

    def read(self, number: int) -> Commit:
        """A commit.

        Raises:
            FileNotFoundError: there is none of that number.
            UnreadableError: it is damaged, or of a version that is not known here.
            OSError: as the bucket says.
        """
        try:
            data: bytes = retried(lambda: self._bucket.get(self.key(number)))
            return _decode(data, number, self._kind)
        except (ValueError, KeyError, TypeError, RecursionError, UnreadableError) as error:
            raise UnreadableError(f"{self.locate(number)} is damaged: {error}") from None

    def all(self) -> dict[int, Found]:
        """All that are there, by number; the listing may lack the latest."""
        found = {}
        for one in self._bucket.find(self._prefix):
            number = self._number_of(one)
            if number is not None:
                found[number] = one
        return found

    def unreadable(self, after: int) -> list[tuple[str, str]]:
        """The keys of those of greater numbers that are damaged, and what is wrong with each."""
        found = []
        for number in sorted(number for number in retried(self.all) if number > after):
            try:
                self.read(number)
            except FileNotFoundError:
                continue
            except UnreadableError as error:
                wrong = str(error).removeprefix(f"{self.locate(number)} is damaged: ")
                found.append((self.key(number), f"{wrong}; what it committed can't be restored"))
        return found

    def append(self, make: Callable[[int], Mapping[str, Any]]) -> Commit:
        """Makes the next commit, with what *make* says for its number.

        Raises:
            OvertakenError: somebody else has made it, or a later one: `is_lost` from here on.
            OSError: it is not there, or may be there: that turns out at the next attempt.
        """
        self.check()
        for _ in range(_OWN_ATTEMPTS):
            number = self.number + 1
            commit = self._encode(number, make(number))
            there = self._put(commit)
            self.number = number
            if (there.writer, there.write) == (commit.writer, commit.write):
                greatest = max(self._listed(), default=number)
                if greatest > number:  # a listing that is late by a grace period there is not
                    self._lose(greatest)
                return commit
            if there.writer != commit.writer:
                self._lose(number)
            # An earlier attempt of its own got there after it was given up: the next number, then.
        raise OSError(errno.EIO, "it answers nothing but what was asked long ago", self.locate(self.number))

    def offer(self, number: int, body: Mapping[str, Any]) -> Commit:
        """Makes a commit if there is none of that number, and returns the one that is there then.

        It is for those who agree on what comes next, whoever of them makes it. `newest` tells whether the
        number was one that was removed long ago.

        Raises:
            OSError: none is there, or may be there.
        """
        there = self._put(self._encode(number, body))
        self.number = max(self.number, number)
        return there

    def check(self) -> None:
        """Makes sure that it is not known to have lost.

        Raises:
            OvertakenError: it has.
        """
        if self.is_lost:
            self._lose(self.number)

    def remove(self, numbers: Sequence[int]) -> None:
        """Removes commits; the oldest first, so that whatever ends this, what is left has no gap."""
        self._bucket.delete([self.key(number) for number in sorted(numbers)])

    def probe(self, newest: Commit | None) -> None:
        """Finds out whether the bucket keeps its word not to replace what is there.

        By putting again what is there already, the newest commit or an object of its own: nothing is lost if
        it does not.

        Raises:
            UnsupportedError: it does not; the message says what to do.
            OSError: as the bucket says, where it can't be written for instance.
        """
        key = f"{PROBES}{secrets.token_hex(16)}" if newest is None else self.key(newest.number)
        data = b"dirtytrack tries whether this can be put twice\n" if newest is None else newest.data
        if newest is None:
            self._bucket.put_new(key, data)
        replaced = self._bucket.put_new(key, data)
        if newest is None:
            self._bucket.delete([key])
        if replaced:
            raise UnsupportedError(
                errno.EOPNOTSUPP,
                f"put an object only if it is not there to {self._bucket.place}",
                remedy="The store ignores this condition (If-None-Match: *) and replaces the object, so "
                "two writers would destroy each other's checkpoints: use a store that has "
                "conditional writes, or a directory",
            )

    def _encode(self, number: int, body: Mapping[str, Any]) -> Commit:
        self._write += 1
        head = {"format": self._kind, "version": _VERSION, "number": number}
        head |= {"writer": self._writer, "write": self._write, "created": time.time()}
        return Commit(number, self._writer, self._write, body, sealed({**head, **body}))

    def _put(self, commit: Commit) -> Commit:
        # What is there once an attempt was made.
        failure: OSError | None = None
        try:
            if self._bucket.put_new(self.key(commit.number), commit.data):
                return commit
        except PermissionError:
            raise
        except OSError as error:
            failure = error
        try:
            return self.read(commit.number)
        except UnreadableError as error:
            raise OSError(errno.EIO, str(error), self.locate(commit.number)) from failure
        except FileNotFoundError:
            told = "the store says that it is there, and does not have it"
            raise failure or OSError(errno.EIO, told, self.locate(commit.number)) from None

    def _lose(self, number: int) -> NoReturn:
        self.is_lost = True
        raise OvertakenError(
            errno.EBUSY,
            f"commit to {self._bucket.place}",
            remedy=f"Another writer has made commit {number}. Close this Checkpointer. {GO_ON}",
        )

    def _listed(self) -> list[int]:
        # Numbers in the listing, the greatest among them.
        listed = [self._number_of(one) for one in retried(lambda: self._bucket.first_page(self._prefix))]
        numbers = [number for number in listed if number is not None]
        if numbers != sorted(numbers, reverse=True):  # then the first page need not have the greatest
            numbers = list(retried(self.all))
        return numbers

    def _greatest(self) -> int:
        greatest = max(self._listed(), default=0)
        greatest = max(greatest, self.number if greatest else 0)
        for _ in range(_STEPS):
            if not self._is_there(greatest + 1):
                return greatest
            greatest += 1
        return max(greatest, *retried(self.all))

    def _is_there(self, number: int) -> bool:
        try:
            retried(lambda: self._bucket.size(self.key(number)))
        except FileNotFoundError:
            return False
        return True

    def _below(self, error: UnreadableError) -> Commit:
        # The greatest commit that is intact, where that of the greatest number is not.
        for number in sorted(retried(self.all), reverse=True):
            if number < self.number:
                try:
                    commit = self.read(number)
                except (UnreadableError, FileNotFoundError):
                    continue
                _logger.warning("%s: commit %d is used instead", error, number)
                return commit
        raise error

    def _number_of(self, found: Found) -> int | None:
        match = _NAME.fullmatch(found.key.removeprefix(self._prefix))
        return None if match is None else _LAST - int(match[1])


def sealed(body: Mapping[str, Any]) -> bytes:
    """JSON on a line, and its checksum on another.

    Raises:
        ValueError: it is more than `unsealed` reads.
    """
    line = json.dumps(body, separators=(",", ":")).encode()
    check(line, _MOST_MEMORY)
    return b"%s\n%016x\n" % (line, checksum(line))


def unsealed(data: bytes) -> dict[str, Any]:
    """The same back.

    Raises:
        ValueError, RecursionError: it is damaged.
    """
    line, _, end = data.partition(b"\n")
    if end != b"%016x\n" % checksum(line):
        raise ValueError("the checksum does not fit")
    body = parse(line, _MOST_MEMORY)
    if not isinstance(body, dict):
        raise ValueError("it is no object")
    return body


def _decode(data: bytes, number: int, kind: str) -> Commit:
    body = unsealed(data)
    if body["format"] != kind or body["version"] != _VERSION:
        raise ValueError(f"its format is {body['format']!r}, version {body['version']!r}")
    if body["number"] != number:
        raise ValueError(f"it was written as commit {body['number']!r}")
    return Commit(number, str(body["writer"]), int(body["write"]), body, data)
