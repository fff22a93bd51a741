"""One file of a chain, batch by batch, and at the end its name."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from dirtytrack.checkpoint.format.codec import checksum
from dirtytrack.checkpoint.format.description import Description
from dirtytrack.checkpoint.format.layout import Layout, stored
from dirtytrack.checkpoint.format.new_table import NewTable
from dirtytrack.checkpoint.format.structures import (
    HEADER_BYTES,
    LINEAR_ALIGNMENT,
    MAX_DESCRIPTION,
    SEGMENT_BYTES,
    Encoding,
    Footer,
    Header,
    Kind,
)
from dirtytrack.checkpoint.store.protocol import Condition, Store
from dirtytrack.checkpoint.write.block_hashes import BlockHashes
from dirtytrack.checkpoint.write.compression import Compression
from dirtytrack.native import ffi, lib

_new = ffi.new_allocator(lib.dt_pack_new, lib.dt_pack_free, should_clear_after_alloc=False)


class CheckpointWriter:
    """Writes the file of one checkpoint. The loops over blocks are native."""

    def __init__(
        self,
        store: Store,
        header: Header,
        layouts: tuple[Layout, ...],
        compression: Compression,
        linear: tuple[bool, ...],
        hashes: BlockHashes | None = None,
        new_table: NewTable | None = None,
    ) -> None:
        """Begins a file.

        Args:
            store: where.
            header: which state it will hold; `commit` may still make a base of it, if it `can_be_base`.
            layouts: the table of regions.
            compression: of what is not laid out as memory is.
            linear: for each region that is stored, whether a batch of everything is laid out as memory is.
            hashes: of what need not be stored again; it is told what the file will hold.
            new_table: of a delta, if its table is another one than its parent's.

        Raises:
            OSError: the file can't be made.
        """
        own = stored(layouts)
        self._end = HEADER_BYTES
        placed = [self._place(one, is_linear) for one, is_linear in zip(own, linear, strict=True)]
        self._layouts = (*placed, *layouts[len(own) :])
        self._encoder = compression.encoder()
        self._hashes = hashes
        self._new_table = new_table
        self._sizes: Any = ffi.new("uint64_t[]", [one.nbytes for one in own])
        self._linear: Any = ffi.new("uint64_t[]", [one.linear or 0 for one in placed])
        pack: Any = _new("struct dt_pack *")
        self._pack = pack
        pack.sizes, pack.linear, pack.end = self._sizes, self._linear, self._end
        pack.hashes = ffi.NULL if hashes is None else hashes.native
        pack.apart, pack.limit = self._encoder.compresses, self._encoder.segment_bytes
        pack.place_limit = SEGMENT_BYTES  # whoever wants a part of it maps the file
        self._header = header
        self._file = store.create(str(header.name), header.pack(), sum(one.nbytes for one in own))

    @property
    def blocks(self) -> int:
        """Blocks stored so far, zeros included."""
        return int(self._pack.blocks)

    @property
    def plain(self) -> int:
        """Bytes of the blocks stored so far, without zeros and before compression."""
        return int(self._pack.plain)

    @property
    def can_be_base(self) -> bool:
        """Whether it may still become one, if it was begun as a delta."""
        return not self._file.is_fixed

    def store(self, batch: Any) -> None:
        """Stores what is to be stored of a ``struct dt_captured``; its memory is free when this returns.

        Raises:
            MemoryError, OSError: discard the file.
        """
        pack = self._pack
        self._file.write_batch(pack, batch)
        if pack.apart:
            for at in range(pack.batch, pack.segment_count):
                if pack.segments[at].encoding == Encoding.RAW:
                    self._compress(pack.segments[at])

    def _compress(self, segment: Any) -> None:
        data = memoryview(ffi.buffer(segment.data, segment.length))
        encoding, stored = self._encoder.encode(data)
        if encoding != Encoding.RAW:
            segment.encoding, segment.length, segment.checksum = encoding, len(stored), checksum(stored)
        segment.offset = self._pack.end
        self._pack.end = self._file.write(segment.offset, [stored])
        self._pack.written += len(stored)

    def commit(
        self,
        kind: Kind,
        description: Description,
        condition: Condition | None = None,
        footing: Sequence[str] | None = (),
    ) -> tuple[Header, int]:
        """Completes the file and gives it its name; returns its header, and its bytes, holes aside.

        Args:
            kind: what it is in the end.
            description: of the checkpoint.
            condition: of its name.
            footing: as `NewFile.publish` has it.

        Raises:
            OSError: there is no such file.
            Others: as the condition.
        """
        header = self._header._replace(kind=kind)
        described = description.encode(self._layouts if header.kind is Kind.BASE else self._new_table)
        if len(described) > MAX_DESCRIPTION:
            raise OSError(errno.EFBIG, f"its description has {len(described)} bytes")
        packed, index = header.pack(), bytearray(lib.dt_pack_index_bytes(self._pack))
        with ffi.from_buffer("uint8_t[]", index) as to:
            index_checksum = lib.dt_pack_index(self._pack, to)
        footer = Footer(
            self._pack.end,
            len(index),
            len(described),
            index_checksum,
            checksum(described),
            int.from_bytes(packed[-8:], "little"),
        )
        tail = b"".join((index, described, footer.pack()))
        self._file.publish(str(header.name), [(self._pack.end, tail), (0, packed)], condition, footing)
        return header, len(packed) + int(self._pack.written) + len(tail)

    def discard(self) -> None:
        """Removes the file, if it is not committed."""
        self._file.discard()

    def _place(self, layout: Layout, is_linear: bool) -> Layout:
        if not is_linear:
            return layout.at(None)
        start = -(-self._end // LINEAR_ALIGNMENT) * LINEAR_ALIGNMENT
        self._end = start + layout.nbytes
        return layout.at(start)
