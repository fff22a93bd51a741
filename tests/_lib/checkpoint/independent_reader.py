"""Reads chains from ``docs/format.md`` alone: nothing of dirtytrack is imported, and speed is no concern.

Any exception from `read_file` means that the file is not valid.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from _lib import zstd

BLOCK = 4096
NAME = re.compile(r"(\d{10}|[1-9]\d{10,})-([0-9a-f]{16})\.(base|delta)", re.ASCII)


class File(NamedTuple):
    kind: int
    chain: bytes
    checkpoint: bytes
    parent: bytes
    number: int
    description: dict[str, Any]
    table: list[dict[str, Any]]  # the regions; empty in a delta, whose description may say what they are
    data: bytes  # up to the index
    index: bytes


class State(NamedTuple):
    file: File
    table: list[dict[str, Any]]
    blocks: list[dict[int, bytes]]  # of each region, the blocks that are not known to be zeros

    def content(self, region: int) -> bytes:
        """The bytes of a region."""
        owner = self.table[region]["same_as"]
        region = region if owner is None else owner
        nbytes = self.table[region]["nbytes"]
        data = bytearray(nbytes)
        for number, block in self.blocks[region].items():
            data[number * BLOCK : number * BLOCK + len(block)] = block
        return bytes(data)


def xxh3_64(data: bytes) -> int:
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
    check(magic == b"\x89DTCK\r\n\x1a" and version == 3 and kind in (1, 2) and block == BLOCK and number >= 1)
    check(data[84:120] == bytes(36) and struct.unpack_from("<Q", data, 120)[0] == xxh3_64(data[:120]))
    check(kind == 1 or parent != bytes(16))
    check((int(name[1]), bytes.fromhex(name[2]), name[3]) == (number, file, {1: "base", 2: "delta"}[kind]))
    footer = data[-64:]
    start, size, length, of_index, of_text, of_header, of_footer, end = struct.unpack("<5Q8sQ8s", footer)
    check(end == b"DTCKEND\n" and of_footer == xxh3_64(footer[:48]) and of_header == data[120:128])
    stop = start + size
    check(start >= 128 and length <= 67108864 and stop + length + 64 == len(data))
    index, text = data[start:stop], data[stop:-64]
    check(of_index == xxh3_64(index) and of_text == xxh3_64(text))
    description = json.loads(text.decode())
    check(re.fullmatch("[0-9a-f]{32}", description["table"]))
    table = read_table(description["regions"]) if kind == 1 else []
    return File(kind, chain, checkpoint, parent, number, description, table, data[:start], index)


def read_table(regions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = ("name", "nbytes", "dtype", "shape", "order", "same_as", "linear")
    table = [{key: region.get(key) for key in keys} for region in regions]
    check(table and len({region["name"] for region in table}) == len(table))
    check(all(type(region["nbytes"]) is int and region["nbytes"] >= 0 for region in table))
    lengths = [region["nbytes"] for region in table if region["nbytes"] and region["same_as"] is None]
    check(all(region["nbytes"] and region["same_as"] is None for region in table[: len(lengths)]))
    for region in table[len(lengths) :]:
        check(region["nbytes"] == (0 if region["same_as"] is None else lengths[region["same_as"]]))
        check(region["linear"] is None)
    end = 128
    for region in table:
        if region["linear"] is not None:
            check(region["linear"] % 65536 == 0 and region["linear"] >= end)
            end = region["linear"] + region["nbytes"]
    return table


def read_segments(
    file: File, table: list[dict[str, Any]]
) -> Iterator[tuple[list[tuple[int, int, int]], bytes | None]]:
    """The segments in order: runs (region, first block, blocks) and their bytes, or None for zeros."""
    lengths = [region["nbytes"] for region in table if region["nbytes"] and region["same_as"] is None]
    at, end, above = 0, 128, (0, 0)
    while at < len(file.index):
        code, count, offset, length, sum_ = struct.unpack_from("<IIQQQ", file.index, at)
        check(code in (0, 1, 2, 3) and 1 <= count <= 1024)
        records = file.index[at + 32 : at + 32 + 24 * count]
        at += 32 + 24 * count
        runs = list(struct.iter_unpack("<QQQ", records))
        check(len(runs) == count)
        low = above if code == 3 else (0, 0)
        for region, first, blocks in runs:
            check(region < len(lengths) and blocks >= 1 and (region, first) >= low)
            check(first + blocks <= -(-lengths[region] // BLOCK))
            low = region, first + blocks
        sizes = [
            min((first + blocks) * BLOCK, lengths[region]) - first * BLOCK for region, first, blocks in runs
        ]
        if code == 0:
            check(offset == length == sum_ == 0)
            yield runs, None
            continue
        if code == 3:
            check(file.kind == 1 and offset == 0)
            above = low
            places = [table[region]["linear"] + first * BLOCK for region, first, _ in runs]
            check(all(place + size <= len(file.data) for place, size in zip(places, sizes, strict=True)))
            stored = b"".join(
                file.data[place : place + size] for place, size in zip(places, sizes, strict=True)
            )
        else:
            check(offset >= end)
            stored = file.data[offset : offset + length]
            end = offset + length
        check(len(stored) == length and xxh3_64(stored) == sum_ and sum(sizes) <= 4194304)
        if code == 2:
            check(0 < length < sum(sizes))
            check(zstd.content_size(stored) == sum(sizes))
            stored = zstd.decompress(stored)
        check(len(stored) == sum(sizes))
        yield runs, stored


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
        is_another = "regions" in file.description
        if file.kind == 2 and not (
            below
            and below.file.number < file.number
            and is_another == (below.file.description["table"] != file.description["table"])
        ):
            problems[name] = "does not fit its parent"
            continue
        try:
            if file.kind == 1 or below is None:
                table, blocks = file.table, [{} for _ in file.table]
            elif is_another:
                table, blocks = follow(below, file.description["regions"])
            else:
                table, blocks = below.table, [dict(held) for held in below.blocks]
            apply(file, table, blocks)
        except Exception as error:
            problems[name] = repr(error)
        else:
            states[file.checkpoint] = State(file, table, blocks)
    return states, problems


def follow(below: State, items: list[Any]) -> tuple[list[dict[str, Any]], list[dict[int, bytes]]]:
    """The table that such items make of the parent's, and the blocks that its regions go on with."""
    check(type(items) is list)
    rows: list[dict[str, Any]] = []
    blocks: list[dict[int, bytes]] = []
    places: dict[int, int] = {}
    for item in items:
        if type(item) is int:
            origin, row = item, dict(below.table[item], linear=None)
            if row["same_as"] is not None:
                row["same_as"] = places[row["same_as"]]
        else:
            origin, row = item.get("from"), item
            check(row.get("linear") is None)
        check(origin is None or (type(origin) is int and origin >= 0 and origin not in places))
        held: dict[int, bytes] = {}
        if origin is not None:
            check(type(item) is int or all(map(is_stored, (row, below.table[origin]))))
            places[origin] = len(rows)
            sizes = [min(BLOCK, max(0, row["nbytes"] - number * BLOCK)) for number in below.blocks[origin]]
            there = zip(below.blocks[origin].items(), sizes, strict=True)
            held = {number: block for (number, block), size in there if len(block) == size}
        rows.append(row)
        blocks.append(held)
    return read_table(rows), blocks


def is_stored(row: dict[str, Any]) -> bool:
    return row["nbytes"] > 0 and row.get("same_as") is None


def apply(file: File, table: list[dict[str, Any]], blocks: list[dict[int, bytes]]) -> None:
    """Changes the blocks of each region to those of the file."""
    for runs, data in read_segments(file, table):
        at = 0
        for region, first, count in runs:
            if data is None:
                for number in [held for held in blocks[region] if first <= held < first + count]:
                    del blocks[region][number]
                continue
            for number in range(first, first + count):
                size = min(BLOCK, table[region]["nbytes"] - number * BLOCK)
                blocks[region][number] = data[at : at + size]
                at += size
