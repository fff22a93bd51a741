"""Writes files of a chain from ``docs/format.md`` alone, as they should be or not, without dirtytrack.

Identifiers are counted, so that every run makes the same files.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import xxhash

from _lib import zstd

BLOCK = 4096
ZEROS, RAW, ZSTD, IN_PLACE = range(4)
SEGMENT_BYTES = 1024 * BLOCK
BASE, DELTA = 1, 2
CHAIN = b"the chain's name"
FIRST = bytes(16)
TABLE = "7ab1e" + "0" * 27
EXTENSIONS = {BASE: "base", DELTA: "delta"}

Content = dict[str, bytes]
Where = Any  # a directory's path, or what is handled like one


class Entry(NamedTuple):
    """A segment of the index: its first run, how and where it is stored, and its other runs."""

    region: int
    encoding: int
    first: int
    count: int
    offset: int
    length: int
    checksum: int
    more: Sequence[tuple[int, int, int]] = ()

    def pack(self) -> bytes:
        """Its bytes."""
        fields = self.encoding, 1 + len(self.more), self.offset, self.length, self.checksum
        runs = [(self.region, self.first, self.count), *self.more]
        return struct.pack("<IIQQQ", *fields) + b"".join(struct.pack("<QQQ", *run) for run in runs)


def xxh3_64(data: bytes) -> int:
    return xxhash.xxh3_64_intdigest(data)


def checkpoint_id(number: int) -> bytes:
    return b"state" + number.to_bytes(11, "big") if number else FIRST


def region(name: str, nbytes: int, **more: Any) -> dict[str, Any]:
    """A row of the table of regions: bytes, unless *more* says otherwise."""
    plain = {"dtype": None, "shape": None, "order": None, "page_size": 4096}
    return {"name": name, "nbytes": nbytes, **plain, **more}


@dataclass
class Run:
    """Blocks to store: *data*, or that many zeros. *offset* is where; by default behind what was stored.

    They are a segment, together with *more* of their kind.
    """

    region: int
    first: int
    data: bytes | int
    encoding: int = RAW
    offset: int | None = None
    more: list[Run] = field(default_factory=list)

    @property
    def blocks(self) -> tuple[int, int, int]:
        """What it is, as the index has it."""
        count = self.data if isinstance(self.data, int) else -(-len(self.data) // BLOCK)
        return self.region, self.first, count

    def content(self) -> bytes:
        """The bytes of the whole segment."""
        return b"".join(one.data for one in [self, *self.more] if isinstance(one.data, bytes))


@dataclass
class File:
    """What goes into a file. `build` makes its bytes."""

    number: int
    runs: list[Run]
    regions: list[dict[str, Any]]
    kind: int = BASE
    parent: bytes = FIRST
    checkpoint: bytes = b""
    chain: bytes = CHAIN
    file: bytes = b""
    more: dict[str, Any] = field(default_factory=dict)  # of the description
    items: list[Any] | None = None  # what a delta says of its table, if that is another one

    def __post_init__(self) -> None:
        self.checkpoint = self.checkpoint or checkpoint_id(self.number)
        self.file = self.file or bytes([self.kind]) + self.number.to_bytes(7, "big")

    @property
    def name(self) -> str:
        return f"{self.number:010}-{self.file.hex()}.{EXTENSIONS[self.kind]}"

    def description(self) -> dict[str, Any]:
        statistics = {"pause": 0.25, "rounds": 1, "blocks_written": 2, "blocks_stored": 1}
        return {
            "table": TABLE,
            **({"regions": self.regions} if self.kind == BASE else {}),
            **({"regions": self.items} if self.items is not None else {}),
            "meta": {"step": self.number},
            "created": 1e9 + self.number,
            "consistency": "proven",
            "statistics": statistics,
            **self.more,
        }

    def regions_as_read(self) -> list[dict[str, Any]]:
        """The table with all keys, as the independent reader has it."""
        return [{"same_as": None, "linear": None, **row} for row in self.regions]

    def payload(self) -> tuple[bytearray, list[Entry]]:
        """The file up to the index, without the header; and the entries."""
        ends = [128] + [row["linear"] + row["nbytes"] for row in self.regions if row.get("linear")]
        payload = bytearray(max(ends))
        entries: list[Entry] = []
        for run in self.runs:
            (region, first, count), more = run.blocks, [one.blocks for one in run.more]
            if isinstance(run.data, int):
                entries.append(Entry(region, ZEROS, first, count, 0, 0, 0, more))
                continue
            stored = content = run.content()
            if run.encoding == ZSTD:
                stored = zstd.compress(content)
            if run.encoding == IN_PLACE:
                offset = 0
                for one in [run, *run.more]:
                    assert isinstance(one.data, bytes)
                    _put(payload, self.regions[one.region]["linear"] + one.first * BLOCK, one.data)
            else:
                offset = len(payload) if run.offset is None else run.offset
                _put(payload, offset, stored)
            entries.append(
                Entry(region, run.encoding, first, count, offset, len(stored), xxh3_64(stored), more)
            )
        return payload, entries

    def build(
        self,
        *,
        header: dict[int, bytes] | None = None,
        footer: dict[int, bytes] | None = None,
        twist: Callable[[list[Entry]], Iterable[tuple[Any, ...]]] = list,
        text: bytes | None = None,
    ) -> bytes:
        """The file.

        Args:
            header: bytes to put at offsets of the header before it gets its checksum.
            footer: the same of the footer.
            twist: makes other entries of the entries.
            text: instead of the description.
        """
        payload, entries = self.payload()
        index = b"".join(Entry(*entry).pack() for entry in twist(entries))
        text = json.dumps(self.description()).encode() if text is None else text
        identity = (self.chain, self.checkpoint, self.parent, self.file, self.number)
        head = struct.pack(
            "<8sII16s16s16s8sQI36s", b"\x89DTCK\r\n\x1a", 3, self.kind, *identity, BLOCK, bytes(36)
        )
        head = sealed(head, header)
        tail = (
            struct.pack("<QQQQQ", len(payload), len(index), len(text), xxh3_64(index), xxh3_64(text))
            + head[-8:]
        )
        return head + payload[128:] + index + text + sealed(tail, footer) + b"DTCKEND\n"

    def write(self, directory: Where, **changes: Any) -> Any:
        """Writes it under its name."""
        path = directory / self.name
        path.write_bytes(self.build(**changes))
        return path


def _put(payload: bytearray, offset: int, data: bytes) -> None:
    payload += bytes(max(offset - len(payload), 0))
    payload[offset : offset + len(data)] = data


def sealed(structure: bytes, changes: dict[int, bytes] | None = None) -> bytes:
    """The structure, with changes, and its checksum."""
    data = bytearray(structure)
    for offset, piece in (changes or {}).items():
        data[offset : offset + len(piece)] = piece
    return bytes(data) + struct.pack("<Q", xxh3_64(bytes(data)))


def reseal(data: bytes) -> bytes:
    """A file with all checksums made to fit again, as far as it can be taken apart."""
    if len(data) < 192:
        return data
    head, tail = sealed(data[:120]), bytearray(data[-64:])
    body = bytearray(head + data[128:-64])
    start, size, length = struct.unpack_from("<QQQ", tail)
    stop = start + size
    if 128 <= start <= stop <= stop + length == len(body):
        at = start
        while at + 32 <= stop:
            code, count, offset, stored = struct.unpack_from("<IIQQ", body, at)
            if 128 <= offset < offset + stored <= start:
                struct.pack_into("<Q", body, at + 24, xxh3_64(bytes(body[offset : offset + stored])))
            if code == IN_PLACE and at + 32 + 24 * count <= stop:
                runs = struct.iter_unpack("<QQQ", body[at + 32 : at + 32 + 24 * count])
                with suppress(Exception):
                    struct.pack_into("<Q", body, at + 24, xxh3_64(_in_place(bytes(body[stop:]), body, runs)))
            at += 32 + 24 * count
        struct.pack_into("<QQ", tail, 24, xxh3_64(bytes(body[start:stop])), xxh3_64(bytes(body[stop:])))
    return bytes(body) + sealed(bytes(tail[:40]) + head[-8:]) + tail[56:]


def _in_place(text: bytes, body: bytearray, runs: Iterator[tuple[int, ...]]) -> bytes:
    regions = json.loads(text)["regions"]
    pieces = []
    for region, first, count in runs:
        start, nbytes = regions[region]["linear"], regions[region]["nbytes"]
        pieces.append(body[start + first * BLOCK : start + min((first + count) * BLOCK, nbytes)])
    return b"".join(pieces)


def runs(place: int, old: bytes, new: bytes, encoding: int = RAW) -> Iterator[Run]:
    """What differs, in runs: zeros as such, and otherwise at most 256 blocks in one."""
    count = -(-len(new) // BLOCK)
    blocks = [new[at * BLOCK : (at + 1) * BLOCK] for at in range(count)]
    kinds = [
        None if blocks[at] == old[at * BLOCK : (at + 1) * BLOCK] else any(blocks[at]) for at in range(count)
    ]
    first = 0
    while first < count:
        stop = first + 1
        while stop < count and kinds[stop] == kinds[first] and stop - first < 256:
            stop += 1
        if kinds[first] is not None:
            data = b"".join(blocks[first:stop])
            shorter = encoding == ZSTD and len(zstd.compress(data)) < len(data)
            yield Run(place, first, data if kinds[first] else stop - first, ZSTD if shorter else RAW)
        first = stop


def history(
    states: list[Content],
    *,
    encoding: int = RAW,
    linear: bool = False,
    together: bool = False,
    rows: dict[str, dict[str, Any]] | None = None,
) -> list[File]:
    """The files of a chain through these states: a base, and deltas.

    Args:
        states: the content of each region by name.
        encoding: of what is stored, where that makes it shorter.
        linear: whether the base's regions are.
        together: whether what is new of a state is one segment, or one of zeros and one of all else.
        rows: more of the table of regions, by name.
    """
    table: list[dict[str, Any]] = []
    name = TABLE
    files: list[File] = []
    for number, state in enumerate(states, 1):
        old = table
        table = [region(name, len(data), **(rows or {}).get(name, {})) for name, data in state.items()]
        before, items = _gone_on(old, table, states[number - 2] if files else {})
        if files and table != old:
            name = TABLE[:-4] + f"{number:04}"
        stored = [
            run
            for place, name in enumerate(state)
            for run in runs(place, before[name], state[name], encoding)
        ]
        if together:
            stored = gathered(stored, encoding)
        kind = DELTA if files else BASE
        file = File(number, stored, [dict(row) for row in table], kind, checkpoint_id(number - 1))
        file.more["table"] = name
        file.items = items if files and table != old else None
        files.append(file)
    if linear:
        lay_out(files[0])
    return files


def base_of(file: File, state: Content) -> File:
    """A base for the checkpoint of a delta, as compaction makes one."""
    empty = {name: bytes(len(data)) for name, data in state.items()}
    stored = [run for place, name in enumerate(state) for run in runs(place, empty[name], state[name])]
    return File(file.number, stored, file.regions, BASE, file.parent, file.checkpoint, more=file.more)


def _gone_on(
    old: list[dict[str, Any]], table: list[dict[str, Any]], before: Content
) -> tuple[Content, list[Any]]:
    # What the regions of a table begin with, and what is said of the table.
    places = {row["name"]: place for place, row in enumerate(old) if row["nbytes"]}
    content, items = {}, []
    for row in table:
        place, nbytes, begun = places.get(row["name"]), row["nbytes"], bytearray(row["nbytes"])
        if place is not None:
            was = before[row["name"]]
            whole = nbytes if len(was) == nbytes else min(len(was), nbytes) // BLOCK * BLOCK
            begun[:whole] = was[:whole]
        content[row["name"]] = bytes(begun)
        if place is None or not nbytes:
            items.append(row)
        else:
            items.append(place if old[place] == row else {**row, "from": place})
    return content, items


def gathered(stored: list[Run], encoding: int) -> list[Run]:
    """The same runs in one segment of zeros, and one of what is none."""
    segments = []
    for kind in (bytes, int):
        runs = [run for run in stored if isinstance(run.data, kind)]
        if runs:
            first, *more = runs
            segment = Run(*first.blocks[:2], first.data, more=more)
            if encoding == ZSTD and len(zstd.compress(segment.content())) < len(segment.content()):
                segment.encoding = ZSTD
            segments.append(segment)
    return segments


def lay_out(file: File) -> None:
    """Makes a base linear."""
    end = 128
    for place, row in enumerate(file.regions):
        row["linear"] = -(-end // 65536) * 65536
        end = row["linear"] + row["nbytes"]
        for run in file.runs:
            if run.region == place and not isinstance(run.data, int):
                run.encoding = IN_PLACE


def write(directory: Where, files: list[File]) -> Where:
    """Writes all of them into a directory, made if need be, or to a place in memory; returns it."""
    directory.mkdir(exist_ok=True)
    for file in files:
        file.write(directory)
    return directory
