"""Memory for the kernel to write into, in private mappings of the library's own.

Never malloc'd: a user who tracks a page of the heap would otherwise track the tracker, and find the page
written by every look at it. Blocks are pooled, because a mapping costs ten times as much as the call it
serves.
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Iterator
from contextlib import contextmanager

from dirtytrack.errors import kernel_error
from dirtytrack.native import ffi

_KEEP_BYTES = 1 << 20  # a larger block goes back to the system instead of into the pool


class Scratch:
    """One block of zero-initialised, page-aligned memory that never moves; freed with the object."""

    __slots__ = ("address", "view")

    def __init__(self, nbytes: int) -> None:
        """Map at least *nbytes* bytes."""
        size = max(nbytes, 4 * mmap.PAGESIZE)
        try:
            # Private, unlike the default of mmap: a forked child shall not scribble into the parent's block.
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError, ValueError) as error:
            raise kernel_error(
                getattr(error, "errno", None) or errno.ENOMEM,
                "mmap",
                remedy=f"Cannot map {size} bytes for the results: pass a smaller vec_len.",
            ) from None
        self.view = memoryview(memory)
        self.address = int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))


# Appending to and popping from a list are atomic, so threads, signal handlers and finalisers need no lock.
_pool: list[Scratch] = []


@contextmanager
def scratch(nbytes: int) -> Iterator[Scratch]:
    """Lend a block of at least *nbytes* bytes, its contents undefined, to this caller alone."""
    try:
        block = _pool.pop()
    except IndexError:
        block = Scratch(nbytes)
    if len(block.view) < nbytes:
        block = Scratch(nbytes)
    try:
        yield block
    finally:
        if len(block.view) <= _KEEP_BYTES:
            _pool.append(block)
