"""What each block held when last committed, as a hash: a block that holds it again is not stored again.

There are two tables of hashes. *committed* is what the newest committed file says, *working* what the file
that is being written will say. A save changes *working* alone, and notes where. When its file is committed,
*committed* has to become the same there; when it fails, *working* has to become again what it was. Either
copy takes memory, which there may not be, and a commit that has happened must not fail for it. So `commit`
and `abort` only say which copy is due. The next save makes it, before anything else; if there is no memory
for it then, that save fails, and the copy stays due.

The hash of a block of zeros is zeros: an untouched table says what a reader finds where no file holds
anything, and memory that was never touched takes no room in it.
"""

from __future__ import annotations

import mmap
import secrets
from collections.abc import Iterator

from dirtytrack.checkpoint.format import blocks
from dirtytrack.checkpoint.format.codec import HASH_BYTES, block_hash
from dirtytrack.checkpoint.format.structures import BLOCK, block_count
from dirtytrack.kernel.anonymous import map_anonymous

_Tables = list[mmap.mmap]  # a hash for each block of each region

_ZEROS = bytes(HASH_BYTES)  # the hash of a block of zeros
_PIECE = 1 << 16  # bytes of a table that are copied at once


class BlockHashes:
    """A hash of 128 bits for every block, of what is committed and of what is on its way.

    The seed is drawn anew by every writer and written nowhere, so nobody can prepare two blocks with one
    hash. Used by one thread at a time.
    """

    def __init__(self, sizes: list[int]) -> None:
        """Nothing is committed of regions of these lengths, which is to say that they are zeros."""
        self._seed = secrets.randbits(64)
        self._committed = [_table(nbytes) for nbytes in sizes]
        self._working = [_table(nbytes) for nbytes in sizes]
        self._touched: list[tuple[int, int, int]] = []  # region, and bytes [start, stop) of its tables
        # The two copies, as (from, to), made beforehand: to say that one is due takes no memory.
        self._copy_after_commit = self._working, self._committed
        self._copy_after_abort = self._committed, self._working
        self._due_copy: tuple[_Tables, _Tables] | None = None

    def changes(
        self, region: int, first: int, data: memoryview, *, everything: bool
    ) -> Iterator[blocks.BlockRun]:
        """The blocks from *first* on that hold something else than what is on its way already.

        With *everything* all of them but zeros, for a base, which need not say where it holds nothing.
        """
        self._make_due_copy()
        kinds = blocks.classify(data)
        fresh = self._hash(data, kinds)
        table, start = self._working[region], first * HASH_BYTES
        stop = start + len(fresh)
        self._touched.append((region, start, stop))
        old = table[start:stop]
        if old != fresh:
            table[start:stop] = fresh
        if everything:
            kinds = kinds.replace(bytes([blocks.ZEROS]), bytes([blocks.OMITTED]))
        else:
            for at in range(0, len(fresh), HASH_BYTES):
                if fresh[at : at + HASH_BYTES] == old[at : at + HASH_BYTES]:
                    kinds[at // HASH_BYTES] = blocks.OMITTED
        return blocks.runs_of(first, data, kinds)

    def begin_base(self) -> None:
        """What is on its way begins anew, and holds nothing but zeros so far."""
        self._make_due_copy()
        for region, table in enumerate(self._working):
            self._touched.append((region, 0, len(table)))
            table.madvise(mmap.MADV_DONTNEED)

    def commit(self) -> None:
        """What was on its way has arrived. This can't fail."""
        self._due_copy = self._due_copy or self._copy_after_commit

    def abort(self) -> None:
        """What was on its way will not arrive. This can't fail."""
        self._due_copy = self._due_copy or self._copy_after_abort

    def learn(self, region: int, first: int, data: memoryview) -> int:
        """The blocks from *first* on are committed with these bytes. How many are not zeros."""
        kinds = blocks.classify(data)
        found = kinds.count(blocks.DATA)
        if found:
            fresh, start = self._hash(data, kinds), first * HASH_BYTES
            for tables in (self._committed, self._working):
                tables[region][start : start + len(fresh)] = fresh
        return found

    def _hash(self, data: memoryview, kinds: bytearray) -> bytes:
        seed = self._seed
        return b"".join(
            [
                _ZEROS if kind == blocks.ZEROS else block_hash(data[at : at + BLOCK], seed)
                for at, kind in zip(range(0, len(data), BLOCK), kinds, strict=True)
            ]
        )

    def _make_due_copy(self) -> None:
        if self._due_copy is not None:
            source, target = self._due_copy
            for region, first, end in self._touched:
                for start in range(first, end, _PIECE):
                    piece = slice(start, min(start + _PIECE, end))
                    if target[region][piece] != source[region][piece]:  # else nothing is to be touched
                        target[region][piece] = source[region][piece]
            self._touched.clear()
            self._due_copy = None


def _table(nbytes: int) -> mmap.mmap:
    return map_anonymous(block_count(nbytes) * HASH_BYTES)
