"""Memory of the library's own, through which bytes go that the kernel copies from or to that of a user."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager

from dirtytrack.checkpoint.format.structures import SEGMENT_BYTES
from dirtytrack.tracking import alloc


def own_memory(nbytes: int) -> mmap.mmap:
    """Memory on huge pages where there are any: the kernel pins what it copies, and those as wholes."""
    try:
        return alloc(nbytes, huge=True)
    except OSError:
        return alloc(nbytes)


class Buffers:
    """Memory for segments on their way, used again and again, by any thread."""

    def __init__(self) -> None:
        self._free: list[memoryview] = []

    @contextmanager
    def lend(self) -> Iterator[memoryview]:
        """Memory for a segment until the block ends; if that ends by an exception it is freed."""
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = memoryview(own_memory(SEGMENT_BYTES))
        yield buffer
        self._free.append(buffer)
