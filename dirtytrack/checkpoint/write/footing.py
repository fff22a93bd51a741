"""The files that the next delta stands on, and whether they are still there."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from dirtytrack.checkpoint.format.structures import FileName, Kind
from dirtytrack.checkpoint.store.protocol import Store


class FootingLostError(OSError):
    """Somebody removed a file that a delta would stand on: the ``filename``."""


class Footing:
    """What a delta to the newest checkpoint stands on, down to its base. For one thread at a time.

    A compaction beside it may exchange files for a base: what it keeps is complete at every instant.
    """

    def __init__(self, store: Store, files: Iterable[FileName]) -> None:
        """Stands on these files of the store: a base, and deltas in order; or on nothing."""
        self._store = store
        self._files = {name.number: name for name in files}
        self._names = {str(name) for name in self._files.values()}

    @property
    def names(self) -> frozenset[str]:
        """Those that it knows; a compaction may have exchanged them for another base meanwhile."""
        return frozenset(self._names)

    @property
    def files(self) -> list[str]:
        """The same in order, a base first."""
        return [str(name) for name in self._files.values()]

    def committed(self, name: FileName) -> None:
        """Is told of every file that was committed."""
        if name.kind is Kind.BASE:
            self._files.clear()
            self._names.clear()
        self._files[name.number] = name
        self._names.add(str(name))

    def check(self) -> None:
        """Looks for all of them. Where they are there it takes one listing.

        Raises:
            FootingLostError: one is gone.
            OSError: the store can't be listed.
        """
        before: set[str] = set()
        while not self._names <= (there := set(self._store.names())):
            lost = self._find_again(there)
            if lost is None:
                return
            if there == before:  # a single listing beside a compaction may miss its base
                message = "somebody removed a file that it would stand on"
                raise FootingLostError(errno.ENOENT, message, self._store.locate(str(lost)))
            before = there

    def _find_again(self, there: set[str]) -> FileName | None:
        # From the newest checkpoint down to a base, by whatever files they have now. Which one has none.
        bases = {name.number: name for name in FileName.among(there) if name.kind is Kind.BASE}
        found: list[FileName] = []
        for number, name in reversed(self._files.items()):
            base = bases.get(number)
            if base is None and str(name) not in there:
                return name
            found.append(base or name)
            if base is not None:
                break
        self._files = {name.number: name for name in reversed(found)}
        self._names = {str(name) for name in found}
        return None
