"""A reader and a writer of a diff's bytes that follow ``docs/snapshot.md``, and nothing of the library."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from _lib import zstd

MAGIC = b"\x89DTDIFF\n"
COMPRESSED, BEFORE = 1, 2


class Row(NamedTuple):
    """A change: place of the region, start, stop, contents."""

    region: int
    start: int
    stop: int
    before: bytes
    after: bytes


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that more follow."""
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def seal(data: bytes) -> bytes:
    """With the checksum."""
    return data + hashlib.blake2b(data, digest_size=32).digest()


def pack(body: bytes, flags: int, *, version: int = 2, nbytes: int | None = None) -> bytes:
    """Header, body, checksum."""
    stored = zstd.compress(body) if flags & COMPRESSED else body
    nbytes = len(body) if nbytes is None else nbytes
    return seal(MAGIC + struct.pack("<IIQ", version, flags, nbytes) + stored)


def body_of(regions: Sequence[tuple[bytes, int]], rows: Sequence[Row], *, before: bool = True) -> bytes:
    """What stands between header and checksum."""
    body = varint(len(regions))
    for place, (name, nbytes) in enumerate(regions):
        count = sum(row.region == place for row in rows)
        body += varint(nbytes) + varint(len(name)) + name + varint(count)
    for place in range(len(regions)):
        end = 0
        for row in rows:
            if row.region == place:
                body += varint(row.start - end) + varint(row.stop - row.start)
                end = row.stop
    body += b"".join(row.after for row in rows)
    if before:
        body += b"".join(bytes(a ^ b for a, b in zip(row.before, row.after, strict=True)) for row in rows)
    return body


def read(data: bytes) -> tuple[list[tuple[bytes, int]], list[Row]]:
    """Regions by name with their lengths, and changes; one-sided ones have nothing before."""
    assert data[-32:] == hashlib.blake2b(data[:-32], digest_size=32).digest()
    version, flags, nbytes = struct.unpack("<IIQ", data[8:24])
    assert (data[:8], version, flags & ~3) == (MAGIC, 2, 0)
    stored = data[24:-32]
    body = zstd.decompress(stored) if flags & COMPRESSED else stored
    assert len(body) == nbytes
    at = iter(body)
    regions, counts = [], []
    for _ in range(_number(at)):
        size = _number(at)
        regions.append((_bytes(at, _number(at)), size))
        counts.append(_number(at))
    places = []
    for place, count in enumerate(counts):
        end = 0
        for _ in range(count):
            start = end + _number(at)
            end = start + _number(at)
            places.append((place, start, end))
    after = [_bytes(at, stop - start) for _, start, stop in places]
    before = (
        [bytes(a ^ b for a, b in zip(_bytes(at, len(new)), new, strict=True)) for new in after]
        if (flags & BEFORE)
        else [b""] * len(after)
    )
    assert not bytes(at)
    return regions, [
        Row(*place, *both) for place, both in zip(places, zip(before, after, strict=True), strict=True)
    ]


def _number(at: Iterator[int]) -> int:
    digit = next(at)
    return digit & 127 | (_number(at) << 7 if digit > 127 else 0)


def _bytes(at: Iterator[int], nbytes: int) -> bytes:
    return bytes(next(at) for _ in range(nbytes))
