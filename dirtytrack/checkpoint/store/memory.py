"""A store in this process's memory: for tests, and to show how little a store has to be."""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from dirtytrack.checkpoint.store.packed import Ending, write_packed, write_placed
from dirtytrack.checkpoint.store.protocol import GO_ON, Condition, Exchange, Store, UnreadableError, Usage
from dirtytrack.errors import BusyError
from dirtytrack.native import ffi, lib

if TYPE_CHECKING:
    from typing_extensions import Buffer


def _nobody() -> None:
    return None


class MemoryStore:
    """Files in a dictionary. They live as long as the store does, and `close` does nothing.

    Attributes:
        files: the contents by name.
        unfinished: files that have none yet, or whose writers died.
        writer: gives who has the claim, as long as it lives.
        mutex: for who claims.
    """

    maps = False
    place = "memory"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.unfinished: set[MemoryNewFile] = set()
        self.writer: Callable[[], MemoryClaim | None] = _nobody
        self.mutex = threading.RLock()

    def locate(self, name: str) -> str:
        """See `Store`."""
        return f"{self.place}/{name}"

    def names(self) -> list[str]:
        """See `Store`."""
        return list(self.files)

    def newest_names(self) -> None:
        """See `Store`."""

    def has_folders(self, names: Sequence[str]) -> bool:
        """See `Store`. There is nothing else."""
        return False

    def unreadable(self) -> list[tuple[str, str]]:
        """See `Store`. A file is all that says that it is there."""
        return []

    def usage(self) -> list[Usage]:
        """See `Store`."""
        named = [Usage(name, len(data), False) for name, data in self.files.copy().items()]
        return named + [Usage(f"unfinished {id(file)}", file.nbytes, True) for file in self.unfinished.copy()]

    def expect(self, names: Sequence[str]) -> None:
        """See `Store`."""

    def open(self, name: str) -> MemoryFile:
        """See `Store`."""
        data = self.files.get(name)
        if data is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.locate(name))
        return MemoryFile(data)

    def create(self, name: str = "", first: bytes = b"", most: int = 0) -> MemoryNewFile:
        """See `Store`."""
        return MemoryNewFile(self)

    def remove(self, names: Sequence[str], instead: Sequence[Exchange] = ()) -> None:
        """See `Store`."""
        for name in names:
            self.files.pop(name, None)

    def adopt(self, other: Store, names: Sequence[str]) -> None:
        """See `Store`."""
        if not isinstance(other, MemoryStore):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), other.place)
        for name in names:
            if name not in other.files:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), other.locate(name))
            self.files[name] = other.files[name]

    def claim(self) -> MemoryClaim:
        """See `Store`."""
        claim = MemoryClaim(self)
        self.unfinished.clear()
        return claim

    def close(self) -> None:
        """See `Store`."""


class MemoryFile:
    """See `StoredFile`."""

    def __init__(self, data: bytes) -> None:
        self.nbytes = len(data)
        self._data = memoryview(data)

    def expect(self, spans: Iterable[tuple[int, int]]) -> None:
        """See `StoredFile`."""

    def read_into(self, offset: int, buffers: Sequence[memoryview], checksum: Any = None) -> None:
        """See `StoredFile`."""
        for buffer in buffers:
            piece = self._data[offset : offset + len(buffer)]
            if len(piece) < len(buffer):
                raise UnreadableError("its length has changed")
            buffer[:] = piece
            if checksum is not None:
                lib.dt_checksum_add(checksum, ffi.from_buffer("uint8_t[]", piece), len(piece))
            offset += len(piece)

    def skip_hole(self, start: int, stop: int) -> int:
        """See `StoredFile`."""
        return min(start, stop)

    def map(self, offset: int, nbytes: int) -> NoReturn:
        """See `StoredFile`."""
        raise OSError(errno.ENODEV, f"{nbytes} bytes at {offset} of a file in memory can't be mapped")

    def close(self) -> None:
        """See `StoredFile`."""


class MemoryNewFile:
    """See `NewFile`."""

    is_fixed = False

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._data = bytearray()
        store.unfinished.add(self)

    @property
    def nbytes(self) -> int:
        """How much was written so far."""
        return len(self._data)

    def write(self, offset: int, buffers: Sequence[Buffer]) -> int:
        """See `NewFile`."""
        data = b"".join(buffers)
        self._data.extend(bytes(max(0, offset + len(data) - len(self._data))))
        self._data[offset : offset + len(data)] = data
        return offset + len(data)

    def write_segments(self, pack: Any, first: int, stop: int) -> None:
        """See `NewFile`."""
        write_placed(pack, first, stop, self.write)

    def write_batch(self, pack: Any, batch: Any) -> None:
        """See `NewFile`."""
        write_packed(pack, batch, self.write)

    def prepare(self, name: str, ending: Ending, condition: Condition, revoked: Any) -> Any:
        """See `NewFile`."""
        return ffi.NULL

    def publish(
        self,
        name: str,
        ending: Ending | None = None,
        condition: Condition | None = None,
        footing: Sequence[str] | None = (),
    ) -> None:
        """See `NewFile`. There is no disk."""
        if ending is not None:
            ending.write_batches(self.write)
        if condition is not None:
            condition.check()
        if ending is not None:
            ending.write_end(self.write)
        data = bytes(self._data)
        if self._store.files.setdefault(name, data) is not data:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self._store.locate(name))
        self._store.unfinished.discard(self)

    def discard(self) -> None:
        """See `NewFile`."""
        self._store.unfinished.discard(self)


class MemoryClaim:
    """See `Claim`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        with store.mutex:
            if store.writer() is not None:
                raise self._busy(f"This process ({os.getpid()}) writes to it already: use one Checkpointer")
            store.writer = weakref.ref(self)

    def holds(self, names: Collection[str]) -> bool:
        """See `Claim`."""
        return self._store.writer() is self and all(name in self._store.files for name in names)

    def native(self, _names: Collection[str]) -> None:
        """See `Claim`."""

    def renew(self) -> None:
        """See `Claim`."""
        if self._store.writer() is not self:
            raise self._busy(f"Another writer has been here. Close this Checkpointer. {GO_ON}")

    def close(self) -> None:
        """See `Claim`."""
        with self._store.mutex:
            if self._store.writer() is self:
                self._store.writer = _nobody

    def _busy(self, remedy: str) -> BusyError:
        return BusyError(errno.EBUSY, f"claim {self._store.place}", remedy=remedy)
