"""One file of a chain, run by run, and at the end its name."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from dirtytrack.checkpoint.format.codec import Bytes, checksum
from dirtytrack.checkpoint.format.description import Description
from dirtytrack.checkpoint.format.layout import Layout, stored
from dirtytrack.checkpoint.format.structures import (
    BLOCK,
    ENTRY_BYTES,
    HEADER_BYTES,
    LINEAR_ALIGNMENT,
    MAX_DESCRIPTION,
    RUN_BLOCKS,
    Encoding,
    Entry,
    Footer,
    Header,
)
from dirtytrack.checkpoint.store.protocol import Store
from dirtytrack.checkpoint.write.compression import Compression

if TYPE_CHECKING:
    from typing_extensions import Buffer

_GATHER = 1 << 20  # bytes of small runs written at once


class CheckpointWriter:
    """Writes the file of one checkpoint.

    What is stored is read until `flush` returns, and not after it.

    Attributes:
        blocks: blocks stored so far, zeros included.
        plain: bytes of the runs stored so far, before compression.
    """

    def __init__(
        self,
        store: Store,
        layouts: tuple[Layout, ...],
        compression: Compression,
        linear: tuple[bool, ...],
    ) -> None:
        """Begins a file.

        Args:
            store: where.
            layouts: the table of regions.
            compression: of the runs that are not laid out as memory is.
            linear: for each region that is stored, whether `store` lays it out as memory is.

        Raises:
            OSError: the file can't be made.
        """
        self.blocks = self.plain = self._stored = 0
        self._end = HEADER_BYTES
        own = stored(layouts)
        placed = [self._place(one, is_linear) for one, is_linear in zip(own, linear, strict=True)]
        self._layouts = (*placed, *layouts[len(own) :])
        self._encoder = compression.encoder()
        self._index = bytearray()
        self._gathered: list[Buffer] = []
        self._gathered_bytes = 0
        self._file = store.create()

    def store(self, region: int, first: int, data: memoryview, *, linear: bool = False) -> None:
        """Stores the blocks from *first* on; *linear*: in place if the region is linear; a block once."""
        for start in range(0, len(data), RUN_BLOCKS * BLOCK):
            self._store_run(region, first + start // BLOCK, data[start : start + RUN_BLOCKS * BLOCK], linear)

    def store_zeros(self, region: int, first: int, count: int) -> None:
        """Records that blocks are zeros."""
        self._index += Entry(region, Encoding.ZEROS, first, count, 0, 0, 0).pack()
        self.blocks += count

    def flush(self) -> None:
        """Hands to the system what was stored so far.

        Raises:
            OSError: it could not be written.
        """
        if self._gathered:
            self._write(self._end - self._gathered_bytes, self._gathered, self._gathered_bytes)
            self._gathered, self._gathered_bytes = [], 0

    def commit(self, header: Header, description: Description) -> int:
        """Completes the file and gives it its name; returns how many bytes it holds, holes aside.

        Args:
            header: says the name.
            description: of the checkpoint.

        Raises:
            OSError: there is no such file.
        """
        self.flush()
        described = description.encode(self._layouts)
        if len(described) > MAX_DESCRIPTION:
            raise OSError(errno.EFBIG, f"its description has {len(described)} bytes")
        packed = header.pack()
        footer = Footer(
            self._end,
            len(self._index) // ENTRY_BYTES,
            len(described),
            checksum(self._index),
            checksum(described),
            int.from_bytes(packed[-8:], "little"),
        )
        tail: list[bytes | bytearray] = [self._index, described, footer.pack()]
        self._file.write(self._end, tail)
        self._file.write(0, [packed])
        self._file.publish(str(header.name))
        return len(packed) + self._stored + sum(map(len, tail))

    def discard(self) -> None:
        """Removes the file, if it is not committed."""
        self._file.discard()

    def _place(self, layout: Layout, is_linear: bool) -> Layout:
        if not is_linear:
            return layout.at(None)
        start = -(-self._end // LINEAR_ALIGNMENT) * LINEAR_ALIGNMENT
        self._end = start + layout.nbytes
        return layout.at(start)

    def _store_run(self, region: int, first: int, data: memoryview, linear: bool) -> None:
        count = -(-len(data) // BLOCK)
        start = self._layouts[region].linear
        self.blocks += count
        self.plain += len(data)
        if linear and start is not None:
            encoding: int = Encoding.RAW
            stored: Bytes = data
            offset = start + first * BLOCK
            self._write(offset, [data], len(data))
        else:
            encoding, stored = self._encoder.encode(region, data)
            offset = self._end
            self._gather(stored)
        self._index += Entry(region, encoding, first, count, offset, len(stored), checksum(stored)).pack()

    def _gather(self, stored: Any) -> None:
        self._gathered.append(stored)
        self._gathered_bytes += len(stored)
        self._end += len(stored)
        if self._gathered_bytes >= _GATHER:
            self.flush()

    def _write(self, offset: int, buffers: list[Buffer], nbytes: int) -> None:
        self._file.write(offset, buffers)
        self._stored += nbytes
