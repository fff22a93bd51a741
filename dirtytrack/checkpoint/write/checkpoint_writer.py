"""One file of a chain, batch by batch, and at the end its name."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from dirtytrack.checkpoint.format.description import COUNT_BYTES, Description
from dirtytrack.checkpoint.format.layout import Layout, stored
from dirtytrack.checkpoint.format.new_table import NewTable
from dirtytrack.checkpoint.format.structures import (
    HEADER_BYTES,
    LINEAR_ALIGNMENT,
    MAX_DESCRIPTION,
    SEGMENT_BYTES,
    Encoding,
    Header,
    Kind,
)
from dirtytrack.checkpoint.store.packed import Ending
from dirtytrack.checkpoint.store.protocol import Condition, Store
from dirtytrack.checkpoint.write.block_hashes import BlockHashes
from dirtytrack.checkpoint.write.compression import Encoder
from dirtytrack.checkpoint.write.prospects import MOST_AT_ONCE
from dirtytrack.native import ffi, lib

_new = ffi.new_allocator(lib.dt_pack_new, lib.dt_pack_free, should_clear_after_alloc=False)


class CheckpointWriter:
    """Writes the file of one checkpoint. The loops over blocks are native."""

    def __init__(
        self,
        store: Store,
        header: Header,
        layouts: tuple[Layout, ...],
        encoder: Encoder,
        nbytes: int,
        *,
        linear: tuple[bool, ...] = (),
        hashes: BlockHashes | None = None,
        new_table: NewTable | None = None,
    ) -> None:
        """Begins a file.

        Args:
            store: where.
            header: which state it will hold; `commit` may still make a base of it, if it `can_be_base`.
            layouts: the table of regions.
            encoder: of what is not laid out as memory is.
            nbytes: of all regions, about.
            linear: for each region that is stored, whether a batch of everything is laid out as memory is. If
                it is empty none is: to begin a delta takes no time for each region.
            hashes: of what need not be stored again; it is told what the file will hold.
            new_table: of a delta, if its table is another one than its parent's.

        Raises:
            OSError: the file can't be made.
        """
        self._end = HEADER_BYTES
        self._layouts, self._is_placed = layouts, bool(linear)
        self._encoder = encoder
        self._hashes = hashes
        self._new_table = new_table
        self._linear: Any = self._place(linear) if linear else ffi.NULL
        self._sizes: Any = ffi.NULL if hashes is None else hashes.native.sizes
        if hashes is None:
            self._sizes = ffi.new("uint64_t[]", [one.nbytes for one in stored(layouts)])
        pack: Any = _new("struct dt_pack *")
        self._pack = pack
        pack.sizes, pack.linear, pack.end = self._sizes, self._linear, self._end
        pack.hashes = ffi.NULL if hashes is None else hashes.native
        pack.apart, pack.limit = self._encoder.compresses, self._encoder.segment_bytes
        pack.place_limit = SEGMENT_BYTES  # whoever wants a part of it maps the file
        self._header = header
        self._prepared: Ending | None = None
        self._file = store.create(str(header.name), header.pack(), nbytes)

    @property
    def blocks(self) -> int:
        """Blocks stored so far, zeros included."""
        return int(self._pack.blocks)

    @property
    def plain(self) -> int:
        """Bytes of the blocks stored so far, without zeros and before compression."""
        return int(self._pack.plain)

    @property
    def compresses(self) -> bool:
        """Whether what it stores goes through Python."""
        return bool(self._pack.apart)

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
            for first in range(pack.batch, pack.segment_count, MOST_AT_ONCE):
                self._encode(first, min(first + MOST_AT_ONCE, pack.segment_count))

    def _encode(self, first: int, stop: int) -> None:
        segments = [one for one in self._pack.segments[first:stop] if one.encoding == Encoding.RAW]
        data = [memoryview(ffi.buffer(one.data, one.length)) for one in segments]
        with ExitStack() as held:
            for segment, (encoding, stored) in zip(segments, self._encoder.encode(data), strict=True):
                if encoding != Encoding.RAW:
                    native: Any = held.enter_context(ffi.from_buffer("uint8_t[]", stored))
                    segment.encoding, segment.data, segment.length = encoding, native, len(native)
            self._file.write_segments(self._pack, first, stop)

    def commit(
        self,
        kind: Kind,
        description: Description,
        condition: Condition | None = None,
        footing: Sequence[str] | None = (),
        *,
        batches: Sequence[Any] = (),
        counts: bool = True,
    ) -> tuple[Header, int]:
        """Completes the file and gives it its name; returns its header, and its bytes, holes aside.

        Args:
            kind: what it is in the end.
            description: of the checkpoint.
            condition: of its name.
            footing: as `NewFile.publish` has it.
            batches: to `store` before, where nothing `compresses`.
            counts: whether the description gets the number of blocks stored.

        Raises:
            OSError: there is no such file.
            Others: as the condition.
        """
        ending = self._prepared or self._ending(kind, description, batches, counts=counts)
        header = self._header._replace(kind=kind)
        self._file.publish(str(header.name), ending, condition, footing)
        return header, HEADER_BYTES + int(self._pack.written) + int(self._pack.writes[0].bytes)

    def prepare(
        self,
        kind: Kind,
        description: Description,
        condition: Condition,
        *,
        batches: Sequence[Any],
        revoked: Any,
    ) -> Any:
        """Prepares a `commit` by the same arguments, which has to follow, where nothing `compresses`.

        *revoked* is a native flag: it is not to be done any more.

        Returns:
            A ``struct dt_errand``, what native code can do of that beforehand; NULL: nothing.
        """
        self._prepared = self._ending(kind, description, batches, counts=True)
        name = str(self._header._replace(kind=kind).name)
        return self._file.prepare(name, self._prepared, condition, revoked)

    def _ending(
        self, kind: Kind, description: Description, batches: Sequence[Any], *, counts: bool
    ) -> Ending:
        if kind is Kind.BASE and not self._is_placed:
            self._place((False,) * len(stored(self._layouts)))
        table = self._layouts if kind is Kind.BASE else self._new_table
        described, count_at = (
            description.encode_uncounted(table) if counts else (description.encode(table), 0)
        )
        if len(described) > MAX_DESCRIPTION:
            raise OSError(errno.EFBIG, f"its description has {len(described)} bytes")
        header = self._header._replace(kind=kind).pack()
        kept: Any = ffi.new("uint8_t[]", header), ffi.from_buffer("uint8_t[]", described)
        native: Any = ffi.new("struct dt_ending *", (*kept, len(described), count_at, COUNT_BYTES))
        return Ending(self._pack, batches, native, kept)

    def discard(self) -> None:
        """Removes the file, if it is not committed."""
        self._file.discard()

    def _place(self, linear: tuple[bool, ...]) -> Any:
        # Where regions begin that are laid out as memory is; zeros where they are not.
        own = stored(self._layouts)
        placed = [
            self._at(one) if is_linear else one.at(None) for one, is_linear in zip(own, linear, strict=True)
        ]
        self._layouts = (*placed, *self._layouts[len(own) :])
        return ffi.new("uint64_t[]", [one.linear or 0 for one in placed])

    def _at(self, layout: Layout) -> Layout:
        start = -(-self._end // LINEAR_ALIGNMENT) * LINEAR_ALIGNMENT
        self._end = start + layout.nbytes
        return layout.at(start)
