"""What each block held when last committed, as a hash: a block that holds it again is not stored again."""

from __future__ import annotations

import mmap
import secrets
from collections.abc import Iterator

from dirtytrack.checkpoint.format import blocks
from dirtytrack.checkpoint.format.codec import HASH_BYTES, block_hash
from dirtytrack.checkpoint.format.structures import BLOCK, block_count


class BlockHashes:
    """A hash of 128 bits for every block, of what is committed and of what is on its way.

    The seed is drawn anew by every writer and written nowhere, so nobody can prepare two blocks with one
    hash. Used by one thread at a time.
    """

    def __init__(self, sizes: list[int]) -> None:
        self._seed = secrets.randbits(64)
        self._committed = [_table(nbytes) for nbytes in sizes]
        self._working = [_table(nbytes) for nbytes in sizes]
        self._touched: list[tuple[int, int, int]] = []
        # Which tables have to become the same as which where they were touched, before anything else.
        self._arrival = self._working, self._committed
        self._loss = self._committed, self._working
        self._due: tuple[list[mmap.mmap], list[mmap.mmap]] | None = None

    def changes(
        self, region: int, first: int, data: memoryview, *, everything: bool
    ) -> Iterator[blocks.BlockRun]:
        """The blocks from *first* on that hold something else than what is on its way already.

        With *everything* all of them but zeros, for a base, which need not say where it holds nothing.
        """
        self._level()
        fresh = self._hash(data)
        table, start = self._working[region], first * HASH_BYTES
        stop = start + len(fresh)
        self._touched.append((region, start, stop))
        old, table[start:stop] = table[start:stop], fresh
        kinds = blocks.kinds(data)
        if everything:
            kinds = kinds.replace(bytes([blocks.ZEROS]), bytes([blocks.OMITTED]))
        else:
            for at in range(0, len(fresh), HASH_BYTES):
                if fresh[at : at + HASH_BYTES] == old[at : at + HASH_BYTES]:
                    kinds[at // HASH_BYTES] = blocks.OMITTED
        return blocks.runs(first, data, kinds)

    def commit(self) -> None:
        """What was on its way has arrived. This can't fail."""
        self._due = self._due or self._arrival

    def abort(self) -> None:
        """What was on its way will not arrive. This can't fail."""
        self._due = self._due or self._loss

    def learn(self, region: int, data: memoryview) -> None:
        """The region is committed with these bytes: all of it."""
        for start in range(0, len(data), 256 * BLOCK):
            fresh = self._hash(data[start : start + 256 * BLOCK])
            at = start // BLOCK * HASH_BYTES
            self._committed[region][at : at + len(fresh)] = self._working[region][at : at + len(fresh)] = (
                fresh
            )

    def _hash(self, data: memoryview) -> bytes:
        seed = self._seed
        return b"".join([block_hash(data[at : at + BLOCK], seed) for at in range(0, len(data), BLOCK)])

    def _level(self) -> None:
        # If there is no memory for it, it is still due.
        if self._due is not None:
            source, target = self._due
            for region, start, stop in self._touched:
                target[region][start:stop] = source[region][start:stop]
            self._touched.clear()
            self._due = None


def _table(nbytes: int) -> mmap.mmap:
    return mmap.mmap(-1, block_count(nbytes) * HASH_BYTES)
