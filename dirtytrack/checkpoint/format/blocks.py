"""Blocks: which of them are zeros, and runs of one kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from dirtytrack.checkpoint.format.structures import BLOCK
from dirtytrack.native import ffi, lib

OMITTED, DATA, ZEROS = 0, 1, 2  # kinds of blocks

_RUNS = re.compile(rb"\x01+|\x02+")  # of DATA, or of ZEROS
_KIND_OF_MASK = bytes([DATA, ZEROS, *range(2, 256)])  # the native mask has 1 for zeros


class BlockRun(NamedTuple):
    """Adjacent blocks of one kind: *blocks* of them from *first* on, with their bytes or None for zeros."""

    first: int
    blocks: int
    data: memoryview | None


def classify(data: memoryview) -> bytearray:
    """The kind of each block of *data*, DATA or ZEROS."""
    mask = bytearray(-(-len(data) // BLOCK))
    lib.dt_zero_blocks(ffi.from_buffer("uint8_t[]", data), len(data), ffi.from_buffer("uint8_t[]", mask))
    return mask.translate(_KIND_OF_MASK)


def runs_of(first: int, data: memoryview, kinds: bytearray) -> Iterator[BlockRun]:
    """The blocks of *data*, which begins with block *first*, in runs of one kind; without those OMITTED."""
    for run in _RUNS.finditer(kinds):
        start, stop = run.span()
        part = data[start * BLOCK : stop * BLOCK] if kinds[start] == DATA else None
        yield BlockRun(first + start, stop - start, part)
