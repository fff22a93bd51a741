"""What each block held when last committed, as a hash: a block that holds it again is not stored again."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Sequence
from typing import Any

from dirtytrack.kernel.touch import Memory
from dirtytrack.native import ffi, lib

_new = ffi.new_allocator(lib.dt_hashes_new, lib.dt_hashes_free, should_clear_after_alloc=False)


class BlockHashes:
    """A hash of 128 bits for every block: SipHash-2-4 with a key of this writer's own.

    The key is random and written nowhere, so nobody can prepare two blocks with one hash. The table says what
    the file that is being written will hold; a failure makes it again what is committed. It is the library's
    own memory. Used by one thread at a time.

    Attributes:
        native: the ``struct dt_hashes``.
    """

    def __init__(self, sizes: Sequence[int], before: BlockHashes | None = None) -> None:
        """Nothing is committed of regions of these lengths, which is to say that they are zeros.

        Args:
            sizes: the lengths, in bytes.
            before: those of other regions, which it may `follow`: they have the same key.

        Raises:
            MemoryError: there is none for the table.
        """
        native: Any = _new("struct dt_hashes *")
        self.native = native
        native.key = [secrets.randbits(64) for _ in range(2)] if before is None else before.native.key
        _check(lib.dt_hashes_open(self.native, ffi.new("uint64_t[]", sizes), len(sizes)))

    def of(self, batch: Any) -> Any:
        """Hashes the blocks of a ``struct dt_captured``, which has them as long as the result lives.

        Any thread may do that, beside the one that uses all else.
        """
        batch.hashes = hashes = ffi.new("struct dt_hash[]", batch.blocks)
        lib.dt_captured_hash(self.native, batch)
        return hashes

    def follow(self, before: BlockHashes, places: Sequence[int], counts: Sequence[int]) -> None:
        """What is committed is what is committed of other regions. Nothing may be on its way, here or there.

        Args:
            before: of the others.
            places: for each region, which of the others has become it.
            counts: the first so many blocks of that; what is behind them is zeros.
        """
        native = (ffi.new("uint64_t[]", places), ffi.new("uint64_t[]", counts))
        lib.dt_hashes_follow(self.native, before.native, *native)

    def begin_base(self) -> None:
        """What is on its way begins anew, and holds nothing but zeros so far.

        Raises:
            MemoryError: abort it.
        """
        _check(lib.dt_hashes_clear(self.native))

    def commit(self) -> None:
        """What was on its way has arrived. This can't fail."""
        lib.dt_hashes_commit(self.native)

    def abort(self) -> None:
        """What was on its way will not arrive. This can't fail."""
        lib.dt_hashes_abort(self.native)

    def learn(self, region: int, memory: Memory, first: int, stop: int) -> int:
        """The blocks [first, stop) of a region are committed as memory has them.

        Args:
            region: its place.
            memory: of all of it.
            first: the first block.
            stop: the one after the last.

        Returns:
            How many are not zeros.

        Raises:
            MemoryError: there is none.
            KernelError: the memory can't be read.
        """
        found: Any = ffi.new("uint64_t *")
        refused: Any = ffi.new("uint64_t *")
        error = lib.dt_hashes_learn(self.native, region, memory.address, first, stop, found, refused)
        if error and -error != errno.ENOMEM:
            raise memory.refused(error, refused[0], write=False)
        _check(error)
        return int(found[0])


def _check(error: int) -> None:
    if error:
        raise MemoryError
