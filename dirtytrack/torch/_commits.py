"""The commits of many processes: small records beside their chains, each made once, with a number."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from dirtytrack.checkpoint.records import CommitLog, Root, UnreadableError

_PREFIX = "states/"
_FORMAT = "dirtytrack state of DCP"
_CHAIN = re.compile(r"rank-[0-9]{5,}-[0-9a-f]{16}")  # nothing else becomes a part of a path


class Commits:
    """Commits below a directory or a URL. One that is damaged counts as none. For one thread at a time."""

    def __init__(self, root: Root) -> None:
        """Asks for nothing yet."""
        self._root = root
        self._log = CommitLog(root.bucket(), _PREFIX, _FORMAT)

    def numbers(self) -> list[int]:
        """The numbers that are taken, ascending."""
        return sorted(self._log.all())

    def read(self, number: int) -> Mapping[str, Any] | None:
        """What was committed under a number; None: nothing that is whole."""
        try:
            body = self._log.read(number).body
            if all(_CHAIN.fullmatch(chain) for chain, _ in body["chains"]):
                return body
        except (FileNotFoundError, UnreadableError, KeyError, TypeError, ValueError):
            pass
        return None

    def begin(self) -> None:
        """Gets to know the newest one, after which the next one is made.

        Raises:
            UnsupportedError: the place replaces what is there: two runs would destroy each other's commits.
            OSError: as the place says.
        """
        with suppress(UnreadableError):
            self._log.newest()
        self._log.probe(None)

    def make(self, content: Mapping[str, Any]) -> None:
        """Makes the next commit: it is durable when this returns.

        Raises:
            BusyError: somebody else has made one since `begin`.
            OSError: as the place says; there is none, or that turns out with the next one.
        """
        self._log.append(lambda _number: content)

    def remove(self, numbers: Iterable[int], chains: Iterable[str]) -> None:
        """Removes commits, and then chains that no other one needs."""
        self._log.remove([*numbers])
        for chain in chains:
            place = self._root.below(chain)
            if isinstance(place, str):
                bucket = self._root.bucket()
                bucket.delete([one.key for one in bucket.find(f"{chain}/")])
            else:
                shutil.rmtree(place, ignore_errors=True)
