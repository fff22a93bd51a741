"""What each block held when last committed, as a hash: a block that holds it again is not stored again.

There are two tables of hashes. *committed* is what the newest committed file says, *working* what the file
that is being written will say. A save changes *working* alone, and notes where. When its file is committed,
*committed* has to become the same there; when it fails, *working* has to become again what it was. Either
copy takes memory, which there may not be, and a commit that has happened must not fail for it. So `commit`
and `abort` only say which copy is due. The next save makes it, before anything else; if there is no memory
for it then, that save fails, and the copy stays due.
"""

from __future__ import annotations

import mmap
import secrets
from collections.abc import Iterator

from dirtytrack.checkpoint.format import blocks
from dirtytrack.checkpoint.format.codec import HASH_BYTES, block_hash
from dirtytrack.checkpoint.format.structures import BLOCK, RUN_BLOCKS, block_count

_Tables = list[mmap.mmap]  # a hash for each block of each region; zeros where nothing is known


class BlockHashes:
    """A hash of 128 bits for every block, of what is committed and of what is on its way.

    The seed is drawn anew by every writer and written nowhere, so nobody can prepare two blocks with one
    hash. Used by one thread at a time.
    """

    def __init__(self, sizes: list[int]) -> None:
        """Knows nothing of regions of these lengths."""
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
        fresh = self._hash(data)
        table, start = self._working[region], first * HASH_BYTES
        stop = start + len(fresh)
        self._touched.append((region, start, stop))
        old, table[start:stop] = table[start:stop], fresh
        kinds = blocks.classify(data)
        if everything:
            kinds = kinds.replace(bytes([blocks.ZEROS]), bytes([blocks.OMITTED]))
        else:
            for at in range(0, len(fresh), HASH_BYTES):
                if fresh[at : at + HASH_BYTES] == old[at : at + HASH_BYTES]:
                    kinds[at // HASH_BYTES] = blocks.OMITTED
        return blocks.runs_of(first, data, kinds)

    def commit(self) -> None:
        """What was on its way has arrived. This can't fail."""
        self._due_copy = self._due_copy or self._copy_after_commit

    def abort(self) -> None:
        """What was on its way will not arrive. This can't fail."""
        self._due_copy = self._due_copy or self._copy_after_abort

    def learn(self, region: int, data: memoryview) -> None:
        """The region is committed with these bytes: all of it."""
        for start in range(0, len(data), RUN_BLOCKS * BLOCK):
            fresh = self._hash(data[start : start + RUN_BLOCKS * BLOCK])
            at = start // BLOCK * HASH_BYTES
            for tables in (self._committed, self._working):
                tables[region][at : at + len(fresh)] = fresh

    def _hash(self, data: memoryview) -> bytes:
        seed = self._seed
        return b"".join([block_hash(data[at : at + BLOCK], seed) for at in range(0, len(data), BLOCK)])

    def _make_due_copy(self) -> None:
        if self._due_copy is not None:
            source, target = self._due_copy
            for region, start, stop in self._touched:
                target[region][start:stop] = source[region][start:stop]
            self._touched.clear()
            self._due_copy = None


def _table(nbytes: int) -> mmap.mmap:
    return mmap.mmap(-1, block_count(nbytes) * HASH_BYTES)
