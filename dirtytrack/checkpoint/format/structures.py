"""The fixed structures of a checkpoint file: ``docs/format.md`` as code. Bytes in, checked values out."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Literal, NamedTuple, Self

from dirtytrack.checkpoint.format.codec import CODECS, Codec, checksum

VERSION = 1
BLOCK = 4096
RUN_BLOCKS = 256  # a stored run has at most so many, so a reader needs no more than 1 MiB for one
LINEAR_ALIGNMENT = 65536  # a multiple of every page size
MAX_DESCRIPTION = 1 << 26
MAX_NUMBER = (1 << 63) - 1
NO_PARENT = bytes(16)

_MAGIC = b"\x89DTCK\r\n\x1a"
_END = b"DTCKEND\n"
_PREFIX = struct.Struct("<8sI")  # of the header, in every version
_HEADER = struct.Struct("<8sII16s16s16s8sQI36s")
_FOOTER = struct.Struct("<QQQQQQ")
_CHECKSUM = struct.Struct("<Q")
_ENTRY = struct.Struct("<IIQQQQQ")
_NAME = re.compile(r"(\d{10,20})-([0-9a-f]{16})\.(base|delta)")

_SHOWN = 200  # characters of a text that comes from a file

Span = tuple[int, int]  # blocks [start, stop) of a region

HEADER_BYTES = _HEADER.size + 8
FOOTER_BYTES = _FOOTER.size + 16
ENTRY_BYTES = _ENTRY.size


class FormatError(ValueError):
    """The bytes are not what ``docs/format.md`` says. The message is the reason, without the file's name.

    It is short, whatever the bytes are.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(shortened(reason))


class Kind(IntEnum):
    """What a file holds."""

    BASE = 1
    DELTA = 2

    @property
    def label(self) -> Literal["base", "delta"]:
        """The end of the file's name, and what users call it."""
        return "base" if self is Kind.BASE else "delta"


class Encoding(IntEnum):
    """How a run is stored without a codec; all other numbers are those of codecs."""

    ZEROS = 0
    RAW = 1


class FileName(NamedTuple):
    """What the name of a committed file says."""

    number: int
    file: bytes
    kind: Kind

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """None for any other name."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        parsed = cls(int(match[1]), bytes.fromhex(match[2]), Kind[match[3].upper()])
        return parsed if str(parsed) == name and parsed.number <= MAX_NUMBER else None

    @classmethod
    def among(cls, names: Iterable[str]) -> list[Self]:
        """Those of these names that are names of committed files, by number."""
        return sorted(filter(None, map(cls.parse, names)))

    def __str__(self) -> str:
        return f"{self.number:010}-{self.file.hex()}.{self.kind.label}"


class Header(NamedTuple):
    """Which state a file holds; the identifiers are bytes, all random."""

    kind: Kind
    chain: bytes
    checkpoint: bytes
    parent: bytes
    file: bytes
    number: int

    def pack(self) -> bytes:
        """Its 128 bytes."""
        packed = _HEADER.pack(
            _MAGIC,
            VERSION,
            self.kind,
            self.chain,
            self.checkpoint,
            self.parent,
            self.file,
            self.number,
            BLOCK,
            bytes(36),
        )
        return packed + _CHECKSUM.pack(checksum(packed))

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The header from a file's first 128 bytes.

        Raises:
            FormatError: with the reason.
        """
        if len(data) < _PREFIX.size:
            raise FormatError("it is too short for a header")
        magic, version = _PREFIX.unpack_from(data)
        if magic != _MAGIC:
            raise FormatError("it is no checkpoint file")
        unpack = {VERSION: cls._unpack_version_1}.get(version)
        if unpack is None:
            raise FormatError(f"its format has version {version}, and only version {VERSION} is known here")
        return unpack(data)

    @classmethod
    def _unpack_version_1(cls, data: bytes) -> Self:
        if len(data) < HEADER_BYTES:
            raise FormatError("it is too short for a header")
        _, _, kind, chain, checkpoint, parent, file, number, block, zeros = _HEADER.unpack_from(data)
        _expect(_CHECKSUM.unpack_from(data, _HEADER.size)[0] == checksum(data[: _HEADER.size]), "its header")
        if kind not in Kind.__members__.values() or block != BLOCK or zeros != bytes(36):
            raise FormatError("its header holds impossible values")
        if not 1 <= number <= MAX_NUMBER or checkpoint in (NO_PARENT, parent):
            raise FormatError("its header holds impossible values")
        if kind == Kind.DELTA and parent == NO_PARENT:
            raise FormatError("it is a delta without a parent")
        return cls(Kind(kind), chain, checkpoint, parent, file, number)

    @property
    def name(self) -> FileName:
        """The name under which it is committed."""
        return FileName(self.number, self.file, self.kind)


class Footer(NamedTuple):
    """Where the index and the description are, and what they must add up to."""

    index_offset: int
    entries: int
    description_bytes: int
    index_checksum: int
    description_checksum: int
    header_checksum: int

    def pack(self) -> bytes:
        """Its 64 bytes."""
        packed = _FOOTER.pack(*self)
        return packed + _CHECKSUM.pack(checksum(packed)) + _END

    @classmethod
    def unpack(cls, data: bytes, header: bytes, file_bytes: int) -> Self:
        """The footer from the last 64 bytes of a file with this header and length.

        Raises:
            FormatError: with the reason.
        """
        if len(data) < FOOTER_BYTES or not data.endswith(_END):
            raise FormatError("it has no footer: it was cut off, or never completed")
        footer = cls(*_FOOTER.unpack_from(data))
        _expect(_CHECKSUM.unpack_from(data, _FOOTER.size)[0] == checksum(data[: _FOOTER.size]), "its footer")
        length = footer.description_offset + footer.description_bytes + FOOTER_BYTES
        if footer.index_offset < HEADER_BYTES or length != file_bytes:
            raise FormatError(f"it has {file_bytes} bytes, and its footer says {length}")
        if footer.description_bytes > MAX_DESCRIPTION:
            raise FormatError(f"its description has {footer.description_bytes} bytes")
        if footer.header_checksum != _CHECKSUM.unpack_from(header, _HEADER.size)[0]:
            raise FormatError("its header and its footer belong to different files")
        return footer

    @property
    def description_offset(self) -> int:
        """Where the index ends."""
        return self.index_offset + self.entries * ENTRY_BYTES


class Entry(NamedTuple):
    """A run of blocks of one region, and where its bytes are stored."""

    region: int
    encoding: int
    first: int
    blocks: int
    offset: int
    length: int
    checksum: int

    def pack(self) -> bytes:
        """Its 48 bytes."""
        return _ENTRY.pack(*self)

    @classmethod
    def unpack_many(cls, data: bytes) -> list[Self]:
        """The entries in whole multiples of 48 bytes, as they are: `check` them."""
        return [cls(*fields) for fields in _ENTRY.iter_unpack(data)]

    @property
    def codec(self) -> Codec | None:
        """What the stored bytes have to be decompressed by; None if nothing.

        Raises:
            FormatError: nothing here knows their encoding.
        """
        if self.encoding in (Encoding.ZEROS, Encoding.RAW):
            return None
        codec = CODECS.get(self.encoding)
        if codec is None:
            raise FormatError(
                f"its index has a run of encoding {self.encoding}, which is not known here: "
                "a later version of dirtytrack may read it"
            )
        return codec

    def check(self, region_bytes: list[int], payload_stop: int) -> None:
        """Refuses an entry that lies outside of its region or of the payload, or that nothing here can read.

        Args:
            region_bytes: the lengths of the regions.
            payload_stop: the offset of the index.

        Raises:
            FormatError: with the reason.
        """
        codec = self.codec
        if self.region >= len(region_bytes):
            raise FormatError(f"its index names region {self.region} of {len(region_bytes)}")
        nbytes = region_bytes[self.region]
        if self.blocks < 1 or self.first + self.blocks > block_count(nbytes):
            raise FormatError(f"its index names blocks that region {self.region} does not have")
        if self.encoding == Encoding.ZEROS:
            if self.offset or self.length or self.checksum:
                raise FormatError("its index stores zeros")
            return
        plain = run_bytes(nbytes, self.first, self.blocks)
        fits = self.length == plain if codec is None else 0 < self.length < plain
        if self.blocks > RUN_BLOCKS or not fits:
            raise FormatError("its index has a run of an impossible length")
        if self.offset < HEADER_BYTES or self.offset + self.length > payload_stop:
            raise FormatError("its index points outside of the payload")


def shortened(text: str) -> str:
    """The text as a part of a message: what is left out of its middle is three dots."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}"


def block_count(nbytes: int) -> int:
    """The number of blocks of a region."""
    return -(-nbytes // BLOCK)


def run_bytes(nbytes: int, first: int, count: int) -> int:
    """The bytes in a run of blocks of a region: its last block may be shorter than a block."""
    return min((first + count) * BLOCK, nbytes) - first * BLOCK


def gaps(spans: list[Span], stop: int) -> Iterator[Span]:
    """What of the blocks [0, stop) is in no span."""
    at = 0
    for start, end in [*sorted(spans), (stop, stop)]:
        if at < start:
            yield at, start
        at = max(at, end)


def _expect(intact: bool, what: str) -> None:
    if not intact:
        raise FormatError(f"{what} is damaged: the checksum does not fit")
