"""One committed file, open and checked. Whatever a file claims, reading it takes bounded memory."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Iterator

from dirtytrack.checkpoint.format.codec import RunningChecksum, checksum
from dirtytrack.checkpoint.format.description import Description
from dirtytrack.checkpoint.format.layout import Layout, stored
from dirtytrack.checkpoint.format.structures import (
    BLOCK,
    ENTRY_BYTES,
    FOOTER_BYTES,
    HEADER_BYTES,
    Encoding,
    Entry,
    FileName,
    Footer,
    FormatError,
    Header,
    Kind,
    Span,
    block_count,
    gaps,
    run_bytes,
)
from dirtytrack.checkpoint.store.protocol import Store, StoredFile, UnreadableError
from dirtytrack.kernel.touch import Memory

_INDEX_PIECE = 4096 * ENTRY_BYTES
_ZEROS_PIECE = 1 << 20
_COPIED = 1 << 16  # bytes in a piece


class CheckpointFile:
    """A committed file whose header, footer, index checksum and description are intact.

    What it reads later is checked when it is read: entries of the index, and runs. Methods may be called from
    any thread.

    Attributes:
        name: under which it was opened.
        header: which state it holds.
        nbytes: its length.
        layouts: the table of regions, at least one.
        table: what of that table must be the same in the parent.
        description: of the checkpoint.
    """

    name: FileName
    header: Header
    nbytes: int
    layouts: tuple[Layout, ...]
    table: tuple[tuple[object, ...], ...]
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
        header = self._read(0, HEADER_BYTES)
        self.header = Header.unpack(header)
        self.name = self.header.name
        if str(self.name) != name:
            raise FormatError(f"it was written as {self.name}")
        self._footer = Footer.unpack(
            self._read(self.nbytes - FOOTER_BYTES, FOOTER_BYTES), header, self.nbytes
        )
        self._describe(self._read(self._footer.description_offset, self._footer.description_bytes))
        for _ in self._index():
            pass

    def _describe(self, data: bytes) -> None:
        if checksum(data) != self._footer.description_checksum:
            raise FormatError("its description is damaged: the checksum does not fit")
        self.layouts, self.description = Description.decode(data)
        try:
            self.table = tuple(layout.identity for layout in self.layouts)
        except RecursionError:
            raise FormatError("its table of regions is nested too deep") from None

    def _index(self) -> Iterator[bytes]:
        # The index in pieces of whole entries. They can be trusted only when the last one has come.
        running = RunningChecksum()
        stop = self._footer.description_offset
        for offset in range(self._footer.index_offset, stop, _INDEX_PIECE):
            piece = self._read(offset, min(_INDEX_PIECE, stop - offset))
            running.update(piece)
            yield piece
        if running.intdigest() != self._footer.index_checksum:
            raise FormatError("its index is damaged: the checksum does not fit")

    def entries(self) -> Iterator[Entry]:
        """The index, in the order in which its entries apply, each within its region and the payload.

        Raises:
            FormatError: the file is damaged, also after entries were given.
        """
        lengths = [layout.nbytes for layout in stored(self.layouts)]
        payload = self._footer.index_offset - HEADER_BYTES
        length = 0
        for piece in self._index():
            for entry in Entry.unpack_many(piece):
                entry.check(lengths, self._footer.index_offset)
                length += entry.length
                if payload < length <= payload + entry.length and self._distinct_bytes() > payload:
                    raise FormatError("its runs lie on each other, and are not the same")
                yield entry

    def read(self, entry: Entry, buffer: memoryview | None = None) -> bytes | memoryview:
        """The bytes of a stored run, checked.

        Args:
            entry: of the run.
            buffer: memory for as many bytes as a run may have, in which the result may lie.

        Raises:
            FormatError: the run is damaged, or of an encoding that nothing here knows.
            ImportError: the library that decompresses it is missing.
        """
        codec = entry.codec
        stored = memoryview(bytearray(entry.length)) if buffer is None else buffer[: entry.length]
        self._read_stored(entry, stored)
        if codec is None:
            return stored
        nbytes = run_bytes(self.layouts[entry.region].nbytes, entry.first, entry.blocks)
        try:
            return codec.decompress(stored, nbytes)
        except ValueError as error:
            raise FormatError(f"the run at {entry.offset} can't be decompressed: {error}") from None

    def read_in_place(self, entry: Entry, target: Memory, start: int, stop: int) -> bool:
        """Reads a stored run to the bytes [start, stop) of memory, and checks it there.

        Returns:
            False if it is compressed, or the memory is not steady, or can't be touched: use `read`.

        Raises:
            FormatError: the run is damaged.
        """
        if entry.codec is not None or not target.is_steady:
            return False
        try:
            self._read_stored(entry, target.view[start:stop])
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise
            return False
        return True

    def verify(self) -> Iterator[int]:
        """Reads the index, every stored run, and what a mapping has between them; gives the bytes so far.

        Raises:
            FormatError: the file is damaged.
            ImportError: as `read`.
        """
        done = 0
        placed: dict[int, list[Span]] = {place: [] for place in self._linear_regions()}
        seen: set[tuple[int, ...]] = set()
        for entry in self.entries():
            if entry.region in placed:
                _join(placed[entry.region], entry.first, entry.first + entry.blocks)
            run = self._run_of(entry)
            if entry.encoding != Encoding.ZEROS and run not in seen:
                seen.add(run)
                self.read(entry)
                done += entry.length
                yield done
        for place, spans in placed.items():
            start, nbytes = self._linear(place), self.layouts[place].nbytes
            for first, stop in gaps(spans, block_count(nbytes)):
                self._check_zeros(start + first * BLOCK, start + min(stop * BLOCK, nbytes))

    def _distinct_bytes(self) -> int:
        # Of all stored runs; one to which several entries point counts once.
        runs = {self._run_of(entry) for piece in self._index() for entry in Entry.unpack_many(piece)}
        return sum(length for _, length, *_ in runs)

    def _run_of(self, entry: Entry) -> tuple[int, ...]:
        # What tells whether two entries store the same bytes in the same place.
        nbytes = 0 if entry.region >= len(self.layouts) else self.layouts[entry.region].nbytes
        plain = run_bytes(nbytes, entry.first, entry.blocks)
        return entry.offset, entry.length, entry.encoding, entry.checksum, plain

    def pieces(self, *, holes: bool) -> Iterator[tuple[int, bytes]]:
        """All that is in the file, unchecked, as offsets and bytes. Offsets grow, but the first comes last.

        Args:
            holes: whether what is zeros may be left out.

        Raises:
            FormatError: it can't be read.
        """
        start = HEADER_BYTES
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
            return self._file.map(self._linear(region), self.layouts[region].nbytes)
        except UnreadableError as error:
            raise FormatError(str(error)) from None

    def _linear_regions(self) -> list[int]:
        if self.header.kind is not Kind.BASE:
            return []
        return [place for place, layout in enumerate(self.layouts) if layout.linear is not None]

    def _linear(self, region: int) -> int:
        # Where it begins.
        layout = self.layouts[region]
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

    def _read_stored(self, entry: Entry, buffer: memoryview) -> None:
        self._fill(entry.offset, buffer)
        if checksum(buffer) != entry.checksum:
            raise FormatError(f"the run at {entry.offset} is damaged: the checksum does not fit")

    def _read(self, offset: int, nbytes: int) -> bytes:
        data = bytearray(nbytes)
        self._fill(offset, memoryview(data))
        return bytes(data)

    def _fill(self, offset: int, buffer: memoryview) -> None:
        try:
            self._file.read_into(offset, [buffer])
        except UnreadableError as error:
            raise FormatError(str(error)) from error

    def close(self) -> None:
        """Closes the file; idempotent. Mappings stay valid."""
        self._file.close()

    def __repr__(self) -> str:
        return f"<CheckpointFile {self.name}>"


def _join(spans: list[Span], start: int, stop: int) -> None:
    # Appends, or makes the last one longer.
    if spans and spans[-1][1] == start:
        start = spans.pop()[0]
    spans.append((start, stop))
