"""Diffs as bytes.

    header    magic, version, and how many regions, changes and bytes of contents there are
    regions   for each: its length, the length of its name, and the name; then zeros up to a multiple of 8
    changes   for each: region, start, stop, and where its contents begin
    before    what the bytes were, one change after the other
    after     what they are, likewise
    checksum  BLAKE2b-256 of everything before it

Everything is little-endian; ``docs/snapshot.md`` has it in detail.
"""

from __future__ import annotations

import hashlib
import struct

from dirtytrack.errors import DiffError
from dirtytrack.native import ffi, lib
from dirtytrack.snapshot._changes import ROW
from dirtytrack.snapshot._messages import quoted

_MAGIC = b"\x89DTDIFF\n"
_VERSION = 1
_HEADER = struct.Struct("<8sIIQQ")
_REGION = struct.Struct("<QI")
_DIGEST = 32


def encode(sizes: dict[str, int], table: bytes, before: bytes, after: bytes) -> bytes:
    """Encodes a diff: the regions' lengths by name, its rows, and its contents before and after."""
    head = bytearray(_HEADER.pack(_MAGIC, _VERSION, len(sizes), len(table) // (8 * ROW), len(before)))
    for name, nbytes in sizes.items():
        encoded = name.encode("utf-8", "surrogatepass")
        head += _REGION.pack(nbytes, len(encoded)) + encoded
    head += bytes(-len(head) % 8)
    body = b"".join((head, table, before, after))
    return body + hashlib.blake2b(body, digest_size=_DIGEST).digest()


def decode(data: bytes) -> tuple[dict[str, int], bytes, bytes, bytes]:
    """Decodes what `encode` was given. Everything is checked, and no more memory is taken than *data* has.

    Raises:
        DiffError: the bytes are no diff, damaged, or of another version.
    """
    if len(data) < _HEADER.size + _DIGEST or not data.startswith(_MAGIC):
        raise DiffError("these bytes are no diff, or not all of one")
    _, version, regions, changes, nbytes = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise DiffError(f"a diff of version {version}: this is a reader of version {_VERSION}")
    stop = len(data) - _DIGEST
    if hashlib.blake2b(memoryview(data)[:stop], digest_size=_DIGEST).digest() != data[stop:]:
        raise DiffError("the diff is damaged: its checksum does not match")
    sizes, at = _regions(data, regions, stop)
    if at + changes * 8 * ROW + 2 * nbytes != stop:
        raise DiffError("the diff is damaged: its parts have other lengths than it says")
    table = data[at : at + changes * 8 * ROW]
    before = data[stop - 2 * nbytes : stop - nbytes]
    rows, limits = ffi.from_buffer("struct dt_change[]", table), ffi.new("uint64_t[]", list(sizes.values()))
    if not lib.dt_changes_valid(rows, changes, limits, len(sizes), nbytes):
        raise DiffError("the diff is damaged: its changes are out of order or out of their regions")
    return sizes, table, before, data[stop - nbytes : stop]


def _regions(data: bytes, count: int, stop: int) -> tuple[dict[str, int], int]:
    sizes: dict[str, int] = {}
    at = _HEADER.size
    for _ in range(count):
        if at + _REGION.size > stop:
            raise DiffError("the diff is damaged: its regions are cut off")
        nbytes, length = _REGION.unpack_from(data, at)
        at += _REGION.size
        try:
            name = data[at : min(at + length, stop)].decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise DiffError("the diff is damaged: a name is not UTF-8") from error
        at += length
        if name in sizes or not 0 < nbytes < 2**63:
            raise DiffError(
                f"the diff is damaged: region {quoted(name)} is there twice, or of {nbytes} bytes"
            )
        sizes[name] = nbytes
    padding = data[at : at + -at % 8]
    if any(padding):
        raise DiffError("the diff is damaged: there is something between its regions and its changes")
    return sizes, at + -at % 8
