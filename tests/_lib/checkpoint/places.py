"""Places for a chain in memory that a test handles like the path of a directory."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dirtytrack.checkpoint.store.memory import MemoryStore

KINDS = ["directory", "memory"]


class MemoryPlace(MemoryStore):
    """A store in memory with as much of a Path as the tests use."""

    def __truediv__(self, name: str) -> MemoryPath:
        return MemoryPath(self, name)

    def mkdir(self, exist_ok: bool = False) -> None:
        """There is nothing to make."""
        assert exist_ok or not self.files

    def iterdir(self) -> Iterator[MemoryPath]:
        """All files that have a name."""
        return (self / name for name in [*self.files])

    def glob(self, pattern: str) -> Iterator[MemoryPath]:
        """Those whose names match."""
        return (path for path in self.iterdir() if fnmatch.fnmatch(path.name, pattern))

    def __str__(self) -> str:
        return self.place


class MemoryPath(NamedTuple):
    """A file in it."""

    where: MemoryPlace
    name: str

    def read_bytes(self) -> bytes:
        """What is in it."""
        return self.where.files[self.name]

    def write_bytes(self, data: bytes) -> None:
        """Makes it, or makes it another one."""
        self.where.files[self.name] = data

    def unlink(self) -> None:
        """Removes it."""
        del self.where.files[self.name]

    def __str__(self) -> str:
        return self.where.locate(self.name)


def place_of(kind: str, path: Path) -> Path | MemoryPlace:
    """A place of that kind; a directory has this path, and is not made."""
    return path if kind == "directory" else MemoryPlace()


def names_in(place: Path | MemoryPlace) -> list[str]:
    """The files that have a name there, and in a directory those that have none yet; sorted."""
    return sorted(os.listdir(place) if isinstance(place, Path) else place.files)


def flip(path: Path | MemoryPath, offset: int = 128) -> None:
    """Damages a byte of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(bytes(data))
