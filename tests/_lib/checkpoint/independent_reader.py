"""Reads chains from ``docs/format.md`` alone: nothing of dirtytrack is imported, and speed is no concern.

Any exception from `read_file` means that the file is not valid.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import xxhash
import zstandard

BLOCK = 4096
NAME = re.compile(r"(\d{10}|[1-9]\d{10,})-([0-9a-f]{16})\.(base|delta)", re.ASCII)


class File(NamedTuple):
    kind: int
    chain: bytes
    checkpoint: bytes
    parent: bytes
    number: int
    description: dict[str, Any]
    table: list[dict[str, Any]]  # what of the regions has to be the same in the parent
    runs: list[tuple[int, int, int, bytes | None]]  # region, first block, blocks, bytes (None: zeros)


class State(NamedTuple):
    file: File
    blocks: list[dict[int, bytes]]  # of each region, the blocks that are not known to be zeros

    def content(self, region: int) -> bytes:
        """The bytes of a region."""
        owner = self.file.table[region]["same_as"]
        region = region if owner is None else owner
        nbytes = self.file.table[region]["nbytes"]
        data = bytearray(nbytes)
        for number, block in self.blocks[region].items():
            data[number * BLOCK : number * BLOCK + len(block)] = block
        return bytes(data)


def xxh3(data: bytes) -> int:
    return xxhash.xxh3_64_intdigest(data)


def check(condition: object) -> None:
    if not condition:
        raise ValueError("not as the document says")


def read_file(path: Path) -> File:
    """One file, everything checked."""
    name = NAME.fullmatch(path.name)
    check(name and not path.is_symlink() and path.is_file())
    data = path.read_bytes()
    check(len(data) >= 128 + 64)
    magic, version, kind, chain, checkpoint, parent, file, number, block = struct.unpack_from(
        "<8sII16s16s16s8sQI", data
    )
    check(magic == b"\x89DTCK\r\n\x1a" and version == 1 and kind in (1, 2) and block == BLOCK and number >= 1)
    check(data[84:120] == bytes(36) and struct.unpack_from("<Q", data, 120)[0] == xxh3(data[:120]))
    check(kind == 1 or parent != bytes(16))
    check((int(name[1]), bytes.fromhex(name[2]), name[3]) == (number, file, {1: "base", 2: "delta"}[kind]))
    footer = data[-64:]
    start, entries, length, of_index, of_text, of_header, of_footer, end = struct.unpack("<5Q8sQ8s", footer)
    check(end == b"DTCKEND\n" and of_footer == xxh3(footer[:48]) and of_header == data[120:128])
    stop = start + 48 * entries
    check(start >= 128 and length <= 67108864 and stop + length + 64 == len(data))
    index, text = data[start:stop], data[stop:-64]
    check(of_index == xxh3(index) and of_text == xxh3(text))
    description = json.loads(text.decode())
    same = ("name", "nbytes", "dtype", "shape", "order", "same_as")
    table = [{key: region.get(key) for key in same} for region in description["regions"]]
    check(table and len({region["name"] for region in table}) == len(table))
    check(all(type(region["nbytes"]) is int and region["nbytes"] >= 0 for region in table))
    lengths = [region["nbytes"] for region in table if region["nbytes"] and region["same_as"] is None]
    check(all(region["nbytes"] and region["same_as"] is None for region in table[: len(lengths)]))
    for region in table[len(lengths) :]:
        check(region["nbytes"] == (0 if region["same_as"] is None else lengths[region["same_as"]]))
    runs = [read_run(data[:start], lengths, *entry) for entry in struct.iter_unpack("<IIQQQQQ", index)]
    return File(kind, chain, checkpoint, parent, number, description, table, runs)


def read_run(
    data: bytes,
    lengths: list[int],
    region: int,
    code: int,
    first: int,
    count: int,
    offset: int,
    length: int,
    sum_: int,
) -> tuple[int, int, int, bytes | None]:
    check(region < len(lengths) and code in (0, 1, 2) and count >= 1)
    check(first + count <= -(-lengths[region] // BLOCK))
    if code == 0:
        check(offset == length == sum_ == 0)
        return region, first, count, None
    plain = min((first + count) * BLOCK, lengths[region]) - first * BLOCK
    stored = data[offset : offset + length]
    check(count <= 256 and offset >= 128 and len(stored) == length and xxh3(stored) == sum_)
    if code == 2:
        check(0 < length < plain and zstandard.get_frame_parameters(stored).content_size == plain)
        stored = zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
    check(len(stored) == plain)
    return region, first, count, stored


def read_chain(paths: Iterable[Path]) -> tuple[dict[bytes, State], dict[str, str]]:
    """The complete checkpoints by identifier that these files make up, and why others are none of theirs."""
    files, problems = {}, {}
    for path in paths:
        if NAME.fullmatch(path.name):
            try:
                files[path.name] = read_file(path)
            except Exception as error:
                problems[path.name] = repr(error)
    check(len({file.chain for file in files.values()}) <= 1)
    states: dict[bytes, State] = {}
    for name, file in sorted(files.items(), key=lambda item: (item[1].number, item[1].kind)):
        below = states.get(file.parent)
        if file.checkpoint in states:
            continue
        if file.kind == 2 and not (
            below and below.file.number < file.number and below.file.table == file.table
        ):
            problems[name] = "does not fit its parent"
            continue
        blocks = (
            [dict(held) for held in below.blocks] if file.kind == 2 and below else [{} for _ in file.table]
        )
        apply(file, blocks)
        states[file.checkpoint] = State(file, blocks)
    return states, problems


def apply(file: File, blocks: list[dict[int, bytes]]) -> None:
    """Changes the blocks of each region to those of the file."""
    for region, first, count, data in file.runs:
        if data is None:
            for number in [held for held in blocks[region] if first <= held < first + count]:
                del blocks[region][number]
        else:
            for at in range(count):
                blocks[region][first + at] = data[at * BLOCK : (at + 1) * BLOCK]
