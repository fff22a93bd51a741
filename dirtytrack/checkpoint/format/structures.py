"""The fixed structures of a checkpoint file: ``docs/format.md`` as code. Bytes in, checked values out."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Literal, NamedTuple, Self

from dirtytrack.checkpoint.format.codec import CODECS, Codec, checksum

VERSION = 3
BLOCK = 4096
SEGMENT_BYTES = 1 << 22  # a segment has at most so many, not being zeros: no reader needs more for one
SEGMENT_RUNS = 1024  # at most
LINEAR_ALIGNMENT = 65536  # a multiple of every page size
MAX_DESCRIPTION = 1 << 26
MAX_DESCRIPTION_MEMORY = 1 << 30  # bytes that it takes as objects
MAX_NUMBER = (1 << 63) - 1
NO_PARENT = bytes(16)

_MAGIC = b"\x89DTCK\r\n\x1a"
_END = b"DTCKEND\n"
_PREFIX = struct.Struct("<8sI")  # of the header, in every version
_HEADER = struct.Struct("<8sII16s16s16s8sQI36s")
_FOOTER = struct.Struct("<QQQQQQ")
_CHECKSUM = struct.Struct("<Q")
_SEGMENT = struct.Struct("<IIQQQ")
_NAME = re.compile(r"(\d{10,20})-([0-9a-f]{16})\.(base|delta)")

_SHOWN = 200  # characters of a text that comes from a file

Span = tuple[int, int]  # blocks [start, stop) of a region

HEADER_BYTES = _HEADER.size + 8
FOOTER_BYTES = _FOOTER.size + 16
SEGMENT_RECORD_BYTES = _SEGMENT.size  # in the index, before those of its runs
RUN_RECORD_BYTES = 24


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
    """How a segment is stored without a codec; all other numbers are those of codecs."""

    ZEROS = 0
    RAW = 1
    IN_PLACE = 3  # in the linear regions of its runs


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
        unpack = {VERSION: cls._unpack_version_3}.get(version)
        if unpack is None:
            raise FormatError(f"its format has version {version}, and only version {VERSION} is known here")
        return unpack(data)

    @classmethod
    def _unpack_version_3(cls, data: bytes) -> Self:
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
    index_bytes: int
    description_bytes: int
    index_checksum: int
    description_checksum: int
    header_checksum: int

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
        return self.index_offset + self.index_bytes


class Segment(NamedTuple):
    """Blocks that are stored together, and where. Which they are its runs say, which follow in the index."""

    encoding: int
    runs: int
    offset: int
    length: int
    checksum: int

    @classmethod
    def unpack_from(cls, data: bytearray, at: int) -> Self:
        """The segment whose 32 bytes begin there, as it is: `check` it."""
        return cls(*_SEGMENT.unpack_from(data, at))

    @property
    def index_bytes(self) -> int:
        """What it and its runs take in the index."""
        return SEGMENT_RECORD_BYTES + self.runs * RUN_RECORD_BYTES

    @property
    def codec(self) -> Codec | None:
        """What the stored bytes have to be decompressed by; None if nothing.

        Raises:
            FormatError: nothing here knows their encoding.
        """
        if self.encoding in Encoding.__members__.values():
            return None
        codec = CODECS.get(self.encoding)
        if codec is None:
            raise FormatError(
                f"its index has a segment of encoding {self.encoding}, which is not known here: "
                "a later version of dirtytrack may read it"
            )
        return codec

    def check(self, payload_start: int, payload_stop: int, nbytes: int) -> None:
        """Refuses a segment that lies outside of its part of the payload, or that nothing here can read.

        Args:
            payload_start: where the segment before it ends.
            payload_stop: the offset of the index.
            nbytes: of its blocks.

        Raises:
            FormatError: with the reason.
        """
        codec = self.codec
        if self.encoding == Encoding.ZEROS:
            if self.offset or self.length or self.checksum:
                raise FormatError("its index stores zeros")
            return
        fits = self.length == nbytes if codec is None else 0 < self.length < nbytes
        if nbytes > SEGMENT_BYTES or not fits:
            raise FormatError("its index has a segment of an impossible length")
        if self.encoding == Encoding.IN_PLACE:
            if self.offset:
                raise FormatError("its index has a segment in two places")
        elif self.offset < payload_start or self.offset + self.length > payload_stop:
            raise FormatError(
                "its index points outside of the payload, or has segments that lie on each other"
            )


def shortened(text: str) -> str:
    """The text as a part of a message: what is left out of its middle is three dots."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}"


def block_count(nbytes: int) -> int:
    """The number of blocks of a region."""
    return -(-nbytes // BLOCK)


def _expect(intact: bool, what: str) -> None:
    if not intact:
        raise FormatError(f"{what} is damaged: the checksum does not fit")
