"""Segments as the native writer makes them of blocks, and what they hold."""

from __future__ import annotations

from typing import Any

import xxhash

from dirtytrack.checkpoint.format.structures import BLOCK
from dirtytrack.checkpoint.store.packed import Ending
from dirtytrack.native import ffi, lib

_new = ffi.new_allocator(lib.dt_pack_new, lib.dt_pack_free, should_clear_after_alloc=False)


class Packed:
    """A ``struct dt_pack`` of regions of so many bytes, and what it makes of batches.

    Attributes:
        native: the struct.
        file: what a file has after the writes so far.
        data: the memory of the last batch.
    """

    def __init__(self, hashes, sizes, linear=None, limit=1 << 20, apart=False):
        self.native: Any = _new("struct dt_pack *")
        self._kept = ffi.new("uint64_t[]", sizes), ffi.new("uint64_t[]", linear or [0] * len(sizes))
        self.sizes = sizes
        self.native.sizes, self.native.linear = self._kept
        self.native.hashes = hashes.native if hashes else ffi.NULL
        self.native.limit = self.native.place_limit = limit
        self.native.apart, self.native.end = apart, 128
        self.file = bytearray(128)

    def add(self, pieces, everything=False, skip=0, hashes=None):
        """Adds (region, first block, bytes) as one batch; writes what is to be written.

        *hashes* makes the batch's before it is added.
        """
        batch = self.batch(pieces, everything, skip)
        _kept = hashes.of(batch) if hashes else None
        assert lib.dt_pack_add(self.native, batch) == 0
        self._write()
        return self.segments(self.native.batch)

    def place(self, first, stop):
        """Places segments that are apart; writes them."""
        assert lib.dt_pack_place(self.native, first, stop) == 0
        self._write()

    def _write(self):
        for piece in self.native.writes[0 : self.native.write_count]:
            self.file += bytes(max(0, piece.offset + piece.bytes - len(self.file)))
            self.file[piece.offset : piece.offset + piece.bytes] = ffi.buffer(piece.data, piece.bytes)

    def batch(self, pieces, everything=False, skip=0):
        """The native batch, until the next one."""
        self._runs: Any = ffi.new("struct dt_block_run[]", len(pieces))
        data = bytearray()
        for run, (region, first, content) in zip(self._runs, pieces, strict=True):
            count = -(-len(content) // BLOCK)
            run.extent, run.first, run.count = region, first, count
            data += bytes(content).ljust(count * BLOCK, b"\xee")
        self._runs[0].first -= skip
        self._runs[0].count += skip
        self.data: Any = ffi.new("uint8_t[]", bytes(data))
        return ffi.new("struct dt_captured *", (self._runs, skip, self.data, len(data) // BLOCK, everything))

    def segments(self, first=0):
        """The segments from one on, as (encoding, offset, length, checksum, runs)."""
        found, at = [], 0
        for number, one in enumerate(self.native.segments[0 : self.native.segment_count]):
            runs = [(run.extent, run.first, run.count) for run in self.native.runs[at : at + one.runs]]
            at += one.runs
            if number >= first:
                found.append((one.encoding, one.offset, one.length, one.checksum, runs))
        return found

    def blocks(self, segments):
        """What they hold, by (region, block): bytes, or None for zeros; no block may be there twice."""
        held = {}
        for encoding, offset, length, checksum, runs in segments:
            data = b""
            for region, first, count in runs:
                stop = min((first + count) * BLOCK, self.sizes[region])
                start = offset + len(data) if encoding == 1 else self._kept[1][region] + first * BLOCK
                content = bytes(self.file[start : start + stop - first * BLOCK]) if encoding else None
                data += content or b""
                for at in range(count):
                    assert (region, first + at) not in held
                    held[region, first + at] = content and content[at * BLOCK : (at + 1) * BLOCK]
            assert len(data) == length
            assert checksum == (xxhash.xxh3_64_intdigest(data) if encoding else 0)
        return held

    @property
    def buffer(self):
        """The memory of the last batch."""
        return memoryview(ffi.buffer(self.data))

    def ending(self, *batches, description=b"{}", header=bytes(128), count_at=0, count_bytes=0):
        """What a file gets at last."""
        kept = [ffi.new("uint8_t[]", one) for one in (header, description)]
        native = ffi.new("struct dt_ending *", (*kept, len(description), count_at, count_bytes))
        return Ending(self.native, batches, native, kept)

    def end(self, **said):
        """Index, description and footer."""
        ending = self.ending(**said)
        assert lib.dt_pack_end(self.native, ending.native) == 0
        tail, header = self.native.writes[0 : self.native.write_count]
        assert (tail.offset, header.offset, header.data) == (self.native.end, 0, ending.native.header)
        return bytes(ffi.buffer(tail.data, tail.bytes))

    def index(self):
        """The bytes of the index."""
        return self.end()[: -len(b"{}") - 64]
