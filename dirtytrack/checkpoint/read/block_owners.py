"""Which stored run holds each block of a region, where several files of a chain hold some of them."""

from __future__ import annotations

import itertools
import mmap
import sys
from collections.abc import Iterator
from typing import NamedTuple

from dirtytrack.checkpoint.format.structures import BLOCK, Encoding, Entry, Span, block_count
from dirtytrack.checkpoint.read.checkpoint_file import CheckpointFile
from dirtytrack.checkpoint.store.system import MAP_NORESERVE

ZEROS = 0  # the owner of a block that no run holds

_OWNER_BYTES = 4
_OWNERS_PER_PAGE = mmap.PAGESIZE // _OWNER_BYTES


class StoredRun(NamedTuple):
    """A run of blocks that a file holds: not one of zeros."""

    file: CheckpointFile
    entry: Entry

    def lies_in(self, base: CheckpointFile) -> bool:
        """Whether a mapping of the linear region in this base has it in place."""
        linear = base.layouts[self.entry.region].linear
        in_place = linear is not None and self.entry.offset == linear + self.entry.first * BLOCK
        return self.file is base and self.entry.encoding == Encoding.RAW and in_place


class BlockOwners:
    """The owner of each block of one region: the last run that holds it, or `ZEROS`.

    An owner is a number: the run's place in `runs`, from 1. The numbers are in memory that is only touched
    where a run is stored, so a region of zeros of any length takes none.

    Attributes:
        nbytes: of the region.
        runs: those that were added, in order.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.runs: list[StoredRun] = []
        self._owners: mmap.mmap | None = None

    def add(self, file: CheckpointFile, entry: Entry) -> None:
        """Blocks of an entry belong to it from here on."""
        if entry.encoding == Encoding.ZEROS:
            self._forget(entry.first, entry.first + entry.blocks)
            return
        if self._owners is None:
            self._owners = self._obtain(file)
        self.runs.append(StoredRun(file, entry))
        self._set(entry.first, entry.first + entry.blocks, len(self.runs))

    def is_zero(self, start: int, stop: int) -> bool:
        """Whether no run holds any of these blocks."""
        return not self._numbers(start, stop).strip(b"\0")

    def groups(self, start: int, stop: int) -> Iterator[tuple[int, Span]]:
        """These blocks as spans with one owner each, in order."""
        for owner, group in itertools.groupby(memoryview(self._numbers(start, stop)).cast("I")):
            end = start + len(list(group))
            yield owner, (start, end)
            start = end

    def owned(self, owner: int, start: int, stop: int) -> list[Span]:
        """What of these blocks belongs to an owner, in order."""
        numbers, mark = self._numbers(start, stop), _mark(owner)
        if numbers == mark * (stop - start):
            return [(start, stop)]
        if mark not in numbers:
            return []
        return [span for who, span in self.groups(start, stop) if who == owner]

    def bytes_of(self, span: Span) -> slice:
        """Where these blocks are in the region: the last one may be short."""
        return slice(span[0] * BLOCK, min(span[1] * BLOCK, self.nbytes))

    def _obtain(self, file: CheckpointFile) -> mmap.mmap:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        try:
            return mmap.mmap(-1, block_count(self.nbytes) * _OWNER_BYTES, flags=flags)
        except OSError as error:
            raise MemoryError(f"{file.name} has a region of {self.nbytes} bytes, too many to read") from error

    def _set(self, start: int, stop: int, owner: int) -> None:
        assert self._owners is not None
        self._owners[start * _OWNER_BYTES : stop * _OWNER_BYTES] = _mark(owner) * (stop - start)

    def _forget(self, start: int, stop: int) -> None:
        # Whole pages of numbers are dropped, so that zeros of any length take no memory and no time.
        if self._owners is None:
            return
        first, last = -(-start // _OWNERS_PER_PAGE), stop // _OWNERS_PER_PAGE
        if first < last:
            self._owners.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)
            self._set(start, first * _OWNERS_PER_PAGE, ZEROS)
            start = last * _OWNERS_PER_PAGE
        self._set(start, stop, ZEROS)

    def _numbers(self, start: int, stop: int) -> bytes:
        # The owners of these blocks, one after another.
        if self._owners is None:
            return bytes((stop - start) * _OWNER_BYTES)
        return self._owners[start * _OWNER_BYTES : stop * _OWNER_BYTES]


def _mark(owner: int) -> bytes:
    return owner.to_bytes(_OWNER_BYTES, sys.byteorder)
