"""One committed file, open and checked. Whatever a file claims, reading it takes bounded memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from dirtytrack.checkpoint.format.codec import RunningChecksum, checksum
from dirtytrack.checkpoint.format.description import Description
from dirtytrack.checkpoint.format.layout import Layout, stored
from dirtytrack.checkpoint.format.new_table import NewTable
from dirtytrack.checkpoint.format.structures import (
    BLOCK,
    FOOTER_BYTES,
    HEADER_BYTES,
    SEGMENT_RECORD_BYTES,
    SEGMENT_RUNS,
    Encoding,
    FileName,
    Footer,
    FormatError,
    Header,
    Kind,
    Segment,
    Span,
    block_count,
)
from dirtytrack.checkpoint.read.block_owners import ZEROS, BlockOwners, FileTable, Runs
from dirtytrack.checkpoint.store.protocol import Store, StoredFile, UnreadableError

_INDEX_PIECE = 1 << 20
_ZEROS_PIECE = 1 << 20
_COPIED = 1 << 16  # bytes in a piece
_EXPECTED = 64  # segments

Layouts = tuple[Layout, ...]  # the table of regions


class StoredSegment(NamedTuple):
    """A segment of a file, and which blocks it holds."""

    segment: Segment
    runs: Runs


class CheckpointFile:
    """A committed file whose header, footer, index checksum and description are intact.

    What it reads later is checked when it is read: the index, and segments. Methods may be called from any
    thread.

    Attributes:
        name: under which it was opened.
        header: which state it holds.
        nbytes: its length.
        layouts: the table of regions, at least one, if it is a base; else nothing.
        new_table: that of a delta, if it is another one than its parent's; else None.
        description: of the checkpoint.
    """

    name: FileName
    header: Header
    nbytes: int
    layouts: Layouts
    new_table: NewTable | None
    description: Description

    _footer: Footer

    def __init__(self, store: Store, name: str) -> None:
        """Opens and checks a file.

        Raises:
            FormatError: it is not what its name says, or damaged.
            OSError: it can't be opened, and that is not its fault.
        """
        try:
            self._file: StoredFile = store.open(name)
        except UnreadableError as error:
            raise FormatError(str(error)) from None
        try:
            self._check(name)
        except BaseException:
            self._file.close()
            raise

    def _check(self, name: str) -> None:
        self.nbytes = self._file.nbytes
        if self.nbytes < HEADER_BYTES + FOOTER_BYTES:
            raise FormatError(f"it has {self.nbytes} bytes, too few for a header and a footer")
        header = bytes(self._read(0, HEADER_BYTES))
        self.header = Header.unpack(header)
        self.name = self.header.name
        if str(self.name) != name:
            raise FormatError(f"it was written as {self.name}")
        self._footer = Footer.unpack(
            bytes(self._read(self.nbytes - FOOTER_BYTES, FOOTER_BYTES)), header, self.nbytes
        )
        self._describe(self._read(self._footer.description_offset, self._footer.description_bytes))
        for _ in self._index():
            pass  # each checks what came before it

    def _describe(self, data: bytearray) -> None:
        if checksum(data) != self._footer.description_checksum:
            raise FormatError("its description is damaged: the checksum does not fit")
        regions, self.description = Description.decode(bytes(data), self.header.kind)
        self.layouts = regions if isinstance(regions, tuple) else ()
        self.new_table = regions if isinstance(regions, NewTable) else None

    def _index(self) -> Iterator[tuple[Segment, bytearray, int]]:
        # Each segment, the piece of the index that has it, and where in that its runs begin. They can be
        # trusted only when the last one has come.
        running = RunningChecksum()
        offset, stop = self._footer.index_offset, self._footer.description_offset
        while offset < stop:
            piece = self._read(offset, min(_INDEX_PIECE, stop - offset))
            done = 0
            while done + SEGMENT_RECORD_BYTES <= len(piece):
                segment = Segment.unpack_from(piece, done)
                if not 1 <= segment.runs <= SEGMENT_RUNS:
                    raise FormatError(f"its index has a segment of {segment.runs} runs")
                if done + segment.index_bytes > len(piece):
                    break
                yield segment, piece, done + SEGMENT_RECORD_BYTES
                done += segment.index_bytes
            if not done:
                raise FormatError("its index ends within a segment")
            running.update(memoryview(piece)[:done])
            offset += done
        if running.value() != self._footer.index_checksum:
            raise FormatError("its index is damaged: the checksum does not fit")

    def segments(self, table: FileTable) -> Iterator[StoredSegment]:
        """The segments in the order in which they apply, each within the regions and the payload.

        Args:
            table: its regions.

        Raises:
            FormatError: the file is damaged, also after segments were given.
        """
        end, above = HEADER_BYTES, (0, 0)
        for segment, piece, at in self._index():
            runs = table.load(piece, at, segment.runs)
            segment.check(end, self._footer.index_offset, runs.nbytes)
            if segment.encoding == Encoding.IN_PLACE:
                above = self._check_place(runs, above)
            elif segment.encoding != Encoding.ZEROS:
                end = segment.offset + segment.length
            yield StoredSegment(segment, runs)

    def _check_place(self, runs: Runs, above: tuple[int, int]) -> tuple[int, int]:
        # Behind which region and block the next one has to be.
        first, last = runs.native[0], runs.native[len(runs.native) - 1]
        if (first.extent, first.first) < above:
            raise FormatError("its index has a block in place twice")
        is_base = self.header.kind is Kind.BASE
        if not is_base or any(self.layouts[run.extent].linear is None for run in runs.native):
            raise FormatError("its index has something in place in a region that is not linear")
        return last.extent, last.first + last.count

    def expect(self, segments: Iterable[StoredSegment]) -> None:
        """These segments are going to be read, in this order."""
        self._file.expect(span for one in segments for span in self._spans(one))

    def _spans(self, stored: StoredSegment) -> Iterator[Span]:
        # Where its bytes are.
        if stored.segment.encoding != Encoding.IN_PLACE:
            yield stored.segment.offset, stored.segment.offset + stored.segment.length
            return
        for run in stored.runs.native:
            layout = self.layouts[run.extent]
            start = self._linear(layout)
            yield start + run.first * BLOCK, start + min((run.first + run.count) * BLOCK, layout.nbytes)

    def read(self, stored: StoredSegment, buffer: memoryview | None = None) -> bytes | memoryview:
        """The bytes of a segment's blocks, one after the other, checked.

        Args:
            stored: the segment; not one of zeros.
            buffer: memory for as many bytes as a segment may have, in which the result may lie.

        Raises:
            FormatError: the segment is damaged, or of an encoding that nothing here knows.
            ImportError: the library that decompresses it is missing.
        """
        segment, codec = stored.segment, stored.segment.codec
        data = memoryview(bytearray(segment.length)) if buffer is None else buffer[: segment.length]
        running = RunningChecksum()
        if segment.encoding == Encoding.IN_PLACE:
            self._read_in_place(stored.runs, data, running)
        else:
            self._fill(segment.offset, data, running)
        if running.value() != segment.checksum:
            raise FormatError(f"the segment {_where(stored)} is damaged: the checksum does not fit")
        if codec is None:
            return data
        try:
            return codec.decompress(data, stored.runs.nbytes)
        except ValueError as error:
            raise FormatError(f"the segment {_where(stored)} can't be decompressed: {error}") from None

    def _read_in_place(self, runs: Runs, data: memoryview, running: RunningChecksum) -> None:
        done = 0
        for run in runs.native:
            layout = self.layouts[run.extent]
            count = min((run.first + run.count) * BLOCK, layout.nbytes) - run.first * BLOCK
            self._fill(self._linear(layout) + run.first * BLOCK, data[done : done + count], running)
            done += count

    def verify(self, layouts: Layouts) -> Iterator[int]:
        """Reads the index, every segment, and what a mapping has between them; gives the bytes so far.

        Args:
            layouts: the table of regions, also of a delta.

        Raises:
            FormatError: the file is damaged.
            ImportError: as `read`.
        """
        done = 0
        sizes = [layout.nbytes for layout in stored(layouts)]
        table, named = FileTable.of_itself(sizes), BlockOwners(sizes)
        is_mapped = any(layout.linear is not None for layout in self.layouts)
        for one in self._read_ahead(self.segments(table)):
            if is_mapped:
                named.give(one.runs, ZEROS + 1)
            if one.segment.encoding != Encoding.ZEROS:
                self.read(one)
                done += one.segment.length
                yield done
        for place, layout in enumerate(self.layouts):
            if layout.linear is not None:
                start = self._linear(layout)
                for first, stop in named.spans(place, ZEROS, 0, block_count(layout.nbytes)):
                    self._check_zeros(start + first * BLOCK, start + min(stop * BLOCK, layout.nbytes))

    def _read_ahead(self, segments: Iterator[StoredSegment]) -> Iterator[StoredSegment]:
        while some := list(islice(segments, _EXPECTED)):
            self.expect(one for one in some if one.segment.encoding != Encoding.ZEROS)
            yield from some

    def pieces(self, *, holes: bool) -> Iterator[tuple[int, bytearray]]:
        """All that is in the file, unchecked, as offsets and bytes. Offsets grow, but the first comes last.

        Args:
            holes: whether what is zeros may be left out.

        Raises:
            FormatError: it can't be read.
        """
        start = HEADER_BYTES
        self._file.expect([(start, self.nbytes)])
        while start < self.nbytes:
            if holes:
                start = self._file.skip_hole(start, self.nbytes)
            piece = self._read(start, min(_COPIED, self.nbytes - start))
            if not holes or piece.strip(b"\0"):
                yield start, piece
            start += len(piece)
        yield 0, self._read(0, HEADER_BYTES)

    def map(self, region: int) -> mmap.mmap:
        """A private, writable mapping of a linear region. Nothing of it is read or checked.

        Raises:
            FormatError: the file does not hold all of it.
            OSError: it can't be mapped.
        """
        try:
            return self._file.map(self._linear(self.layouts[region]), self.layouts[region].nbytes)
        except UnreadableError as error:
            raise FormatError(str(error)) from None

    def _linear(self, layout: Layout) -> int:
        # Where it begins.
        assert layout.linear is not None
        if not HEADER_BYTES <= layout.linear <= self._footer.index_offset - layout.nbytes:
            raise FormatError(f"its region {layout.name!r} lies outside of the payload")
        return layout.linear

    def _check_zeros(self, start: int, stop: int) -> None:
        while (start := self._file.skip_hole(start, stop)) < stop:
            count = min(_ZEROS_PIECE, stop - start)
            if self._read(start, count).strip(b"\0"):
                raise FormatError(f"it holds something at {start}, where its index has nothing")
            start += count

    def _read(self, offset: int, nbytes: int) -> bytearray:
        data = bytearray(nbytes)
        self._fill(offset, memoryview(data))
        return data

    def _fill(self, offset: int, buffer: memoryview, running: RunningChecksum | None = None) -> None:
        try:
            self._file.read_into(offset, [buffer], None if running is None else running.native)
        except UnreadableError as error:
            raise FormatError(str(error)) from error

    def close(self) -> None:
        """Closes the file; idempotent. Mappings stay valid."""
        self._file.close()

    def __repr__(self) -> str:
        return f"<CheckpointFile {self.name}>"


def _where(stored: StoredSegment) -> str:
    if stored.segment.offset:
        return f"at {stored.segment.offset}"
    run = stored.runs.native[0]
    return f"with block {run.first} of region {run.extent}"
