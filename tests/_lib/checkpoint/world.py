"""Memory that a test saves: unaligned regions, some on one page, with changes of every kind."""

from __future__ import annotations

import hashlib
import mmap
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _lib.support import PAGE_SIZE
from dirtytrack import Session
from dirtytrack.checkpoint import Checkpointer, restore

BLOCK = 4096
DIGEST_BYTES = 16

Contents = dict[str, bytes]


class World:
    """Three regions in one mapping: a large one, and two that begin on the page where it ends.

    Attributes:
        regions: memory by name.
        written: pages of the mapping that were written since the log was last emptied.
    """

    def __init__(self, blocks: int, seed: int, offset: int = 1001) -> None:
        """Makes them, half full; the first has *blocks* blocks and begins at byte *offset*."""
        sizes = {"first": blocks * BLOCK - 333, "second": 7, "third": 2 * BLOCK + 77}
        self._draw = random.Random(seed)
        self._memory = mmap.mmap(-1, sum(sizes.values()) + 2 * PAGE_SIZE)
        self.regions: dict[str, memoryview] = {}
        self._starts: dict[str, int] = {}
        self.written: set[int] = set()
        for name, nbytes in sizes.items():
            self.regions[name] = memoryview(self._memory)[offset : offset + nbytes]
            self._starts[name] = offset
            offset += nbytes
            self._write(name, 0, self._draw.randbytes(nbytes // 2))

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each region."""
        return {name: len(region) for name, region in self.regions.items()}

    def checkpointer(self, path: Path, session: Session, others: int = 0, **options: Any) -> Checkpointer:
        """One that waits for no disk. Where other threads run it does not compress.

        Then what a save has captured is written before its thread has the GIL.
        """
        compression = "none" if others else "auto"
        return Checkpointer(
            path, self.regions, session=session, fsync=False, compression=compression, **options
        )

    def contents(self) -> Contents:
        """A copy of everything."""
        return {name: bytes(region) for name, region in self.regions.items()}

    def digest(self) -> bytes:
        """One hash of everything."""
        return digest(self.contents())

    def pages(self, name: str) -> set[int]:
        """The written pages that a region touches, counted from its first one."""
        start, nbytes = self._starts[name], len(self.regions[name])
        first, stop = start // PAGE_SIZE, -(-(start + nbytes) // PAGE_SIZE)
        return {page - first for page in self.written if first <= page < stop}

    def scribble(self) -> None:
        """Changes a few places; now and then everything, or nothing."""
        kind = self._draw.choice(_KINDS)
        for name in self._draw.choices([*self.regions], k=self._draw.randint(1, 4)):
            nbytes = len(self.regions[name])
            start = 0 if kind is _everything else self._draw.randrange(nbytes)
            length = nbytes if kind is _everything else self._draw.randint(1, 3 * BLOCK)
            self._write(name, start, kind(self._draw, bytes(self.regions[name][start : start + length])))

    def touch(self, name: str = "first", at: int = 0) -> None:
        """Changes one byte."""
        self._write(name, at, bytes([(self.regions[name][at] + 1) % 256]))

    def _write(self, name: str, start: int, data: bytes) -> None:
        if data:
            self.regions[name][start : start + len(data)] = data
            first = self._starts[name] + start
            self.written.update(range(first // PAGE_SIZE, (first + len(data) - 1) // PAGE_SIZE + 1))


def digest(contents: Contents) -> bytes:
    """One hash of the regions, by name."""
    hashed = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for name, data in sorted(contents.items()):
        hashed.update(f"{name} {len(data)}:".encode() + data)
    return hashed.digest()


def restored(path: os.PathLike[str] | str, sizes: dict[str, int], at: int | str | None = None) -> Contents:
    """What `restore` gives, into memory that held something else."""
    into = {name: bytearray(b"\x55" * nbytes) for name, nbytes in sizes.items()}
    restore(path, into=into, at=at)
    return {name: bytes(data) for name, data in into.items()}


def _random(draw: random.Random, old: bytes) -> bytes:
    return draw.randbytes(len(old))


def _byte(draw: random.Random, old: bytes) -> bytes:
    return bytes([(old[0] + 1) % 256])


def _zeros(draw: random.Random, old: bytes) -> bytes:
    return bytes(len(old))


def _text(draw: random.Random, old: bytes) -> bytes:
    return (f"{draw.random()} " * len(old))[: len(old)].encode()


def _same(draw: random.Random, old: bytes) -> bytes:
    return old


def _nothing(draw: random.Random, old: bytes) -> bytes:
    return b""


def _everything(draw: random.Random, old: bytes) -> bytes:
    return draw.choice([_random, _text, _zeros])(draw, old)


_KINDS: list[Callable[[random.Random, bytes], bytes]] = [
    *[_random, _byte, _byte, _zeros, _text, _same] * 3,
    _nothing,
    _everything,
]
