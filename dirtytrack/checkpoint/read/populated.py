"""What of the user's memory may hold anything but zeros, found out without touching it."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator

from dirtytrack.checkpoint.format.structures import Span
from dirtytrack.errors import KernelError
from dirtytrack.kernel.mappings import Kind, overlapping
from dirtytrack.kernel.proc import open_proc
from dirtytrack.kernel.touch import Memory

_ENTRY_BYTES = 8  # of /proc/PID/pagemap, for each page
_AT_ONCE = 1 << 17  # entries
# Of an entry's last byte: in memory, or swapped out.
_FLAGS = bytes(int(byte & 0xC0 != 0) for byte in range(256))
_RUNS = re.compile(rb"\x01+")


def populated(address: int, nbytes: int) -> list[Span]:
    """The bytes of memory that may hold anything but zeros, as spans in order.

    Private anonymous memory that has no page is zeros. Of all else, and where that can't be asked, it is
    everything. Nothing is touched.
    """
    if not nbytes:
        return []
    try:
        found = list(_populated(address, address + nbytes))
    except (OSError, KernelError):
        return [(0, nbytes)]
    clipped = [(max(start - address, 0), min(stop - address, nbytes)) for start, stop in found]
    return _joined(clipped)


def contents(memory: Memory, start: int, stop: int) -> bytes:
    """A copy of the bytes [start, stop) of memory; what has no page is zeros, and stays without one.

    Raises:
        KernelError: some of them can't be read.
    """
    copy = bytearray(stop - start)
    for low, high in populated(memory.address + start, stop - start):
        memory.read(start + low, memoryview(copy)[low:high])
    return bytes(copy)


def is_hollow(address: int, nbytes: int) -> bool:
    """Whether what is not populated of this memory is zeros: it is private and anonymous, all of it."""
    try:
        return all(one.kind is Kind.ANONYMOUS for one in overlapping(address, address + nbytes))
    except KernelError:
        return False


def _populated(start: int, stop: int) -> Iterator[Span]:
    with open_proc("pagemap") as file:
        for mapping in overlapping(start, stop):
            first, end = max(mapping.start, start), min(mapping.stop, stop)
            if start < first:  # a hole: who looks there is told
                yield start, first
            start = end
            if mapping.kind is Kind.ANONYMOUS:
                yield from _pages(file.fileno(), first // mmap.PAGESIZE, -(-end // mmap.PAGESIZE))
            else:
                yield first, end
        if start < stop:
            yield start, stop


def _pages(fd: int, first: int, stop: int) -> Iterator[Span]:
    for start in range(first, stop, _AT_ONCE):
        count = min(_AT_ONCE, stop - start)
        entries = os.pread(fd, count * _ENTRY_BYTES, start * _ENTRY_BYTES)
        if len(entries) < count * _ENTRY_BYTES:
            raise OSError("/proc/self/pagemap ends early")
        flags = entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES].translate(_FLAGS)
        for run in _RUNS.finditer(flags):
            yield (start + run.start()) * mmap.PAGESIZE, (start + run.end()) * mmap.PAGESIZE


def _joined(spans: list[Span]) -> list[Span]:
    joined: list[Span] = []
    for start, stop in spans:
        if joined and joined[-1][1] == start:
            start = joined.pop()[0]
        joined.append((start, stop))
    return joined
