"""Diffs as bytes.

    header    magic, version, flags, and how many bytes the body has
    body      perhaps compressed
        regions   for each: its length, its name, and how many changes it has
        changes   for each: how far it is from the one before, and its length
        after     what the bytes are, one change after the other
        before    what they were, likewise, XOR after; may be left out
    checksum  BLAKE2b-256 of everything before it

``docs/snapshot.md`` has it to the byte.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_left
from typing import Any, Literal, get_args

from dirtytrack._zstd import zstd
from dirtytrack.errors import DiffError
from dirtytrack.native import ffi, lib
from dirtytrack.snapshot._changes import ROW
from dirtytrack.snapshot._messages import quoted
from dirtytrack.snapshot._parts import Parts

Compress = Literal["auto", "zstd", "none"]

_MAGIC = b"\x89DTDIFF\n"
_VERSION = 2
_HEADER = struct.Struct("<8sIIQ")
_IS_COMPRESSED, _HAS_BEFORE = 1, 2  # flags
_DIGEST = 32
_LEVEL = 1
_LITTLE = 256  # bytes; so few are not worth compressing
_NO_ZSTD = 'needs zstandard: pip install "dirtytrack[checkpoint]"'


def encode(parts: Parts, compress: Compress) -> bytes:
    """Encodes a diff.

    Raises:
        ValueError: no way to compress.
        ImportError: it is to be compressed, and there is no library for it.
    """
    if compress not in get_args(Compress):
        raise ValueError(f"compress is one of {', '.join(get_args(Compress))}, not {compress!r}")
    rows = ffi.from_buffer("struct dt_change[]", parts.table)
    body = b"".join((_regions(parts), _changes(rows), parts.after, _difference(parts)))
    stored = _compressed(body, compress)
    flags = (_IS_COMPRESSED if stored is not body else 0) | (0 if parts.before is None else _HAS_BEFORE)
    whole = _HEADER.pack(_MAGIC, _VERSION, flags, len(body)) + stored
    return whole + _checksum(whole)


def _checksum(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()


def _regions(parts: Parts) -> bytes:
    head = bytearray(_varint(len(parts.sizes)))
    regions, begin = memoryview(parts.table).cast("Q")[::ROW], 0
    for place, (name, nbytes) in enumerate(parts.sizes.items()):
        end = bisect_left(regions, place + 1, begin)
        encoded = name.encode("utf-8", "surrogatepass")
        head += _varint(nbytes) + _varint(len(encoded)) + encoded + _varint(end - begin)
        begin = end
    return bytes(head)


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _changes(rows: Any) -> bytes:
    packed = bytearray(lib.dt_pack(rows, len(rows), ffi.NULL))
    with ffi.from_buffer("uint8_t[]", packed) as out:
        lib.dt_pack(rows, len(rows), out)
    return bytes(packed)


def _difference(parts: Parts) -> bytes:
    return b"" if parts.before is None else _xor(parts.before, parts.after)


def _xor(one: bytes, other: bytes) -> bytes:
    mixed = bytearray(len(one))
    with ffi.from_buffer("uint8_t[]", mixed) as out:
        lib.dt_xor(out, ffi.from_buffer(one), ffi.from_buffer(other), len(one))
    return bytes(mixed)


def _compressed(body: bytes, compress: Compress) -> bytes:
    # The body itself where that is not to be, can't be, or gains nothing.
    if compress == "none" or (compress == "auto" and len(body) < _LITTLE):
        return body
    library = zstd()
    if library is None:
        if compress == "zstd":
            raise ImportError(f'compress="zstd" {_NO_ZSTD}')
        return body
    (packed,) = map(bytes, library.compressor(_LEVEL)([body]))
    return packed if compress == "zstd" or len(packed) < len(body) else body


def decode(data: bytes, limit: int) -> Parts:
    """Decodes what `encode` has made of a diff; everything is checked.

    Args:
        data: the bytes.
        limit: bytes; a compressed body may have no more.

    Raises:
        DiffError: the bytes are no diff, damaged, of another version, or too large.
        ImportError: they are compressed, and there is no library for it.
    """
    if len(data) < _HEADER.size + _DIGEST or not data.startswith(_MAGIC):
        raise DiffError("these bytes are no diff, or not all of one")
    _, version, flags, nbytes = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise DiffError(f"a diff of version {version}: this is a reader of version {_VERSION}")
    if _checksum(memoryview(data)[:-_DIGEST]) != data[-_DIGEST:]:
        raise DiffError("the diff is damaged: its checksum does not match")
    if flags & ~(_IS_COMPRESSED | _HAS_BEFORE):
        raise DiffError(f"the diff is damaged: it has flags {flags:#x}")
    body = data[_HEADER.size : -_DIGEST]
    if flags & _IS_COMPRESSED:
        body = _decompressed(body, nbytes, limit)
    elif len(body) != nbytes:
        raise DiffError("the diff is damaged: its body has another length than it says")
    return _parts(_Reader(body), bool(flags & _HAS_BEFORE))


def _decompressed(body: bytes, nbytes: int, limit: int) -> bytes:
    if nbytes > limit:
        raise DiffError(f"a diff of {nbytes} bytes, compressed to {len(body)}: raise max_nbytes to read it")
    library = zstd()
    if library is None:
        raise ImportError(f"the diff is compressed, and to read it {_NO_ZSTD}")
    try:
        return library.decompress(body, nbytes)
    except ValueError as error:
        raise DiffError(f"the diff is damaged: {error}") from None


class _Reader:
    # Reads a body from its beginning.

    def __init__(self, body: bytes) -> None:
        self.body, self.at = body, 0

    def bytes(self, nbytes: int) -> bytes:
        if nbytes > len(self.body) - self.at:
            raise DiffError("the diff is damaged: its regions are cut off")
        self.at += nbytes
        return self.body[self.at - nbytes : self.at]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            digit = self.bytes(1)[0]
            value |= (digit & 0x7F) << shift
            if digit < 0x80 and (digit or not shift) and value < 2**64:
                return value
            if digit < 0x80:
                break
        raise DiffError("the diff is damaged: a number is not one")


def _parts(reader: _Reader, has_before: bool) -> Parts:
    sizes, counts = _read_regions(reader)
    table, nbytes = _read_changes(reader, list(sizes.values()), counts)
    if nbytes * (1 + has_before) != len(reader.body) - reader.at:
        raise DiffError("the diff is damaged: its contents have other lengths than it says")
    after = reader.bytes(nbytes)
    return Parts(sizes, table, _xor(reader.bytes(nbytes), after) if has_before else None, after)


def _read_regions(reader: _Reader) -> tuple[dict[str, int], list[int]]:
    sizes: dict[str, int] = {}
    counts = []
    for _ in range(reader.varint()):
        nbytes = reader.varint()
        encoded = reader.bytes(reader.varint())
        try:
            name = encoded.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise DiffError("the diff is damaged: a name is not UTF-8") from error
        if name in sizes or not 0 < nbytes < 2**63:
            raise DiffError(
                f"the diff is damaged: region {quoted(name)} is there twice, or of {nbytes} bytes"
            )
        sizes[name] = nbytes
        counts.append(reader.varint())
    return sizes, counts


def _read_changes(reader: _Reader, sizes: list[int], counts: list[int]) -> tuple[bytes, int]:
    count, rest = sum(counts), len(reader.body) - reader.at
    if not count:
        return b"", 0
    if count > rest // 2:  # each takes two bytes, at least
        raise DiffError("the diff is damaged: it has fewer changes than it says")
    rows, nbytes = ffi.new("struct dt_change[]", count), ffi.new("uint64_t *")
    packed = ffi.from_buffer("uint8_t[]", reader.body) + reader.at
    limits, numbers = ffi.new("uint64_t[]", sizes), ffi.new("uint64_t[]", counts)
    read = lib.dt_unpack(packed, rest, limits, numbers, len(sizes), rows, nbytes)
    if not read:
        raise DiffError("the diff is damaged: its changes are cut off or out of their regions")
    reader.at += read
    return bytes(ffi.buffer(rows)), int(nbytes[0])
