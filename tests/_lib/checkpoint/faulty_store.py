"""A store whose operations fail, one in turn, whatever it keeps its files in."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar

from dirtytrack.checkpoint.store.packed import Ending
from dirtytrack.checkpoint.store.protocol import Claim, Condition, Exchange, NewFile, Store, StoredFile, Usage
from dirtytrack.native import ffi

_T = TypeVar("_T")


class Trouble:
    """Decides which operation fails.

    Attributes:
        struck: the name of the one that did; None so far.
        count: how many there were.
    """

    def __init__(self, at: int, *, late: bool = False, lasting: bool = False, code: int = errno.EIO) -> None:
        """Makes operation number *at* fail, counted from 1.

        Args:
            at: which one.
            late: it is done, and fails then, as if its answer had been lost.
            lasting: also all after it, until `mend`.
            code: errno of the failure.
        """
        self.at = at
        self.struck: str | None = None
        self.count = 0
        self._late, self._lasting, self._code = late, lasting, code
        self._is_mended = False
        self._mutex = threading.Lock()

    def mend(self) -> None:
        """Nothing fails any more."""
        self._is_mended = True

    def step(self, name: str, act: Callable[[], _T]) -> _T:
        """Does what *act* does, or fails."""
        with self._mutex:
            self.count += 1
            strikes = self.count == self.at or (self._lasting and self.count > self.at)
            strikes &= not self._is_mended
            if strikes:
                self.struck = name
        if strikes and self._late:
            act()
        if strikes:
            raise OSError(self._code, os.strerror(self._code), name)
        return act()


class FaultyStore:
    """Another store, with trouble."""

    def __init__(self, store: Store, trouble: Trouble) -> None:
        self._store, self._trouble = store, trouble

    @property
    def place(self) -> str:
        """The other's."""
        return self._store.place

    @property
    def maps(self) -> bool:
        """The other's."""
        return self._store.maps

    def locate(self, name: str) -> str:
        """Never fails."""
        return self._store.locate(name)

    def names(self) -> list[str]:
        """May fail, as all below."""
        return self._trouble.step("names", self._store.names)

    def adopt(self, other: Store, names: Sequence[str]) -> None:
        """Of another one with trouble."""
        assert isinstance(other, FaultyStore)
        self._trouble.step("adopt", lambda: self._store.adopt(other._store, names))

    def has_folders(self, names: Sequence[str]) -> bool:
        """May fail."""
        return self._trouble.step("has_folders", lambda: self._store.has_folders(names))

    def unreadable(self) -> list[tuple[str, str]]:
        """May fail."""
        return self._trouble.step("unreadable", self._store.unreadable)

    def usage(self) -> list[Usage]:
        return self._trouble.step("usage", self._store.usage)

    def newest_names(self) -> list[str] | None:
        return self._trouble.step("names", self._store.newest_names)

    def expect(self, names: Sequence[str]) -> None:
        """Never fails."""
        self._store.expect(names)

    def open(self, name: str) -> StoredFile:
        opened = self._trouble.step("open", lambda: self._store.open(name))
        return FaultyFile(opened, self._trouble)

    def create(self, name: str = "", first: bytes = b"", most: int = 0) -> NewFile:
        made = self._trouble.step("create", lambda: self._store.create(name, first, most))
        return FaultyNewFile(made, self._trouble)

    def remove(self, names: Sequence[str], instead: Sequence[Exchange] = ()) -> None:
        self._trouble.step("remove", lambda: self._store.remove(names, instead))

    def claim(self) -> Claim:
        return FaultyClaim(self._trouble.step("claim", self._store.claim), self._trouble)

    def close(self) -> None:
        """Never fails."""
        self._store.close()


class FaultyFile:
    """Another file, whose reading may fail."""

    def __init__(self, file: StoredFile, trouble: Trouble) -> None:
        self._file, self._trouble, self.nbytes = file, trouble, file.nbytes

    def expect(self, spans: Iterable[tuple[int, int]]) -> None:
        """Never fails."""
        self._file.expect(spans)

    def read_into(self, offset: int, buffers: Sequence[memoryview], checksum: Any = None) -> None:
        self._trouble.step("read_into", lambda: self._file.read_into(offset, buffers, checksum))

    def skip_hole(self, start: int, stop: int) -> int:
        return self._trouble.step("skip_hole", lambda: self._file.skip_hole(start, stop))

    def map(self, offset: int, nbytes: int) -> Any:
        return self._trouble.step("map", lambda: self._file.map(offset, nbytes))

    def close(self) -> None:
        self._file.close()


class FaultyNewFile:
    """Another new file, whose writing may fail."""

    def __init__(self, file: NewFile, trouble: Trouble) -> None:
        self._file, self._trouble = file, trouble

    @property
    def is_fixed(self) -> bool:
        """The other's."""
        return self._file.is_fixed

    def write(self, offset: int, buffers: Sequence[Any]) -> int:
        return self._trouble.step("write", lambda: self._file.write(offset, buffers))

    def write_segments(self, pack: Any, first: int, stop: int) -> None:
        self._trouble.step("write", lambda: self._file.write_segments(pack, first, stop))

    def write_batch(self, pack: Any, batch: Any) -> None:
        self._trouble.step("write", lambda: self._file.write_batch(pack, batch))

    def prepare(self, _name: str, _ending: Ending, _condition: Condition, _revoked: Any) -> Any:
        return ffi.NULL

    def publish(
        self,
        name: str,
        ending: Ending | None = None,
        condition: Condition | None = None,
        footing: Sequence[str] | None = (),
    ) -> None:
        if ending is not None:
            ending.write_batches(self.write)
        if condition is not None:
            condition.check()
        if ending is not None:
            ending.write_end(self.write)
        self._trouble.step("publish", lambda: self._file.publish(name, footing=footing))

    def discard(self) -> None:
        self._file.discard()


class FaultyClaim:
    """Another claim, whose renewal may fail."""

    def __init__(self, claim: Claim, trouble: Trouble) -> None:
        self._claim, self._trouble = claim, trouble

    def holds(self, _names: Collection[str]) -> bool:
        """It never knows."""
        return False

    def native(self, _names: Collection[str]) -> None:
        """Nor does native code."""

    def renew(self) -> None:
        self._trouble.step("renew", self._claim.renew)

    def close(self) -> None:
        self._claim.close()
