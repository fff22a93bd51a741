"""Blocks to segments: which, how many, where; the writes make a file that holds them."""

from __future__ import annotations

import struct
import zlib

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from _lib.checkpoint.packed import Packed
from dirtytrack.checkpoint.format.structures import BLOCK
from dirtytrack.native import ffi

pytestmark = pytest.mark.anywhere

SIZES = [5 * BLOCK + 100, 7, 3 * BLOCK]
PLACES = [(region, block) for region, nbytes in enumerate(SIZES) for block in range(-(-nbytes // BLOCK))]


def _block(region, block, value):
    nbytes = min(BLOCK, SIZES[region] - block * BLOCK)
    return bytes([value, region, block, 9][: min(nbytes, 4)]).ljust(nbytes, b"\1") if value else bytes(nbytes)


def _pieces(values):
    # The blocks that have a value, as runs with their bytes.
    pieces = []
    for (region, block), value in zip(PLACES, values, strict=True):
        if value is None:
            continue
        content = _block(region, block, value)
        if pieces and pieces[-1][0] == region and pieces[-1][1] + len(pieces[-1][2]) // BLOCK == block:
            pieces[-1] = (region, pieces[-1][1], pieces[-1][2] + content)
        else:
            pieces.append((region, block, content))
    return pieces


def _expected(values, zeros):
    return {
        place: _block(*place, value) if value else None
        for place, value in zip(PLACES, values, strict=True)
        if value or (value == 0 and zeros)
    }


VALUES = st.lists(st.sampled_from([None, 0, 1, 2]), min_size=len(PLACES), max_size=len(PLACES)).filter(
    lambda values: set(values) != {None}
)


@given(batches=st.lists(VALUES, min_size=1, max_size=3), blocks=st.integers(1, 5))
def test_everything_that_is_given_is_in_segments(batches, blocks):
    """As it was, each block of a batch once, behind what the file has; a batch begins segments of its own."""
    packed = Packed(None, SIZES, limit=blocks * BLOCK)
    for values in batches:
        segments = packed.add(_pieces(values))
        assert packed.blocks(segments) == _expected(values, zeros=True)
        for encoding, offset, length, _, runs in segments:
            assert runs == sorted(runs)
            assert length <= blocks * BLOCK
            assert (encoding, offset, length) == (0, 0, 0) or encoding == 1
    stored = [one for one in packed.segments() if one[0] == 1]
    ends = [128, *(offset + length for _, offset, length, *_ in stored)]
    assert [offset for _, offset, *_ in stored] == ends[:-1]
    assert (len(packed.file), packed.native.end) == (ends[-1], ends[-1])
    given_blocks = [value for values in batches for value in values if value is not None]
    assert packed.native.blocks == len(given_blocks)
    assert packed.native.plain == ends[-1] - 128


@given(values=VALUES, linear=st.lists(st.booleans(), min_size=3, max_size=3), blocks=st.integers(1, 5))
def test_a_base_has_linear_regions_in_place(values, linear, blocks):
    """And others behind them; zeros are nowhere."""
    places = [65536 * (1 + region) * is_linear for region, is_linear in enumerate(linear)]
    packed = Packed(None, SIZES, places, limit=blocks * BLOCK)
    packed.native.end = end = 65536 * 4
    segments = packed.add(_pieces(values), everything=True)
    assert packed.blocks(segments) == _expected(values, zeros=False)
    for encoding, offset, _, _, runs in segments:
        assert all((encoding == 3) == linear[region] for region, *_ in runs)
        assert encoding == 1 or offset == 0
    for region, place in enumerate(places):
        if place:
            assert not any(packed.file[place + SIZES[region] : place + 65536])
    assert not any(packed.file[128:65536])
    assert packed.native.end - end == sum(length for encoding, _, length, *_ in segments if encoding == 1)


def test_few_writes_for_many_segments():
    """What lies one behind the other is written as one, whatever is left out in between."""
    packed = Packed(None, [100 * BLOCK], limit=BLOCK)
    data = b"".join(bytes([at % 3 % 2, at]) * (BLOCK // 2) if at % 3 else bytes(BLOCK) for at in range(100))
    segments = packed.add([(0, 0, data)], everything=True)
    assert (len(segments), packed.native.write_count) == (66, 1)
    packed = Packed(None, [100 * BLOCK], [65536], limit=3 * BLOCK)
    segments = packed.add([(0, 0, data)], everything=True)
    assert (len(segments), packed.native.write_count) == (22, 33)


def test_the_first_run_may_have_been_begun_before():
    """A piece of staging memory begins anywhere in the runs of its capture."""
    packed = Packed(None, SIZES)
    (one,) = packed.add([(0, 3, _block(0, 3, 1) + _block(0, 4, 2)), (2, 0, _block(2, 0, 1))], skip=3)
    assert one[4] == [(0, 3, 2), (2, 0, 1)]
    assert packed.blocks([one]) == {(0, 3): _block(0, 3, 1), (0, 4): _block(0, 4, 2), (2, 0): _block(2, 0, 1)}


@pytest.mark.parametrize("value", [0, 1])
def test_a_segment_has_at_most_1024_runs(value):
    """Of zeros or anything else, and of as many blocks as fit."""
    pieces = [(0, at, bytes([value]) * BLOCK) for at in range(0, 5000, 2)]
    packed = Packed(None, [5000 * BLOCK], limit=1 << 30)
    assert [len(one[4]) for one in packed.add(pieces)] == [1024, 1024, 452]


def test_segments_that_the_caller_stores():
    """To compress them: their bytes are told, and nothing is written but what is in place."""
    packed = Packed(None, SIZES, [65536, 0, 0], apart=True)
    segments = packed.add(_pieces([1] * len(PLACES)), everything=True)
    assert [(encoding, offset) for encoding, offset, *_ in segments] == [(3, 0), (1, 0)]
    assert [piece.offset for piece in packed.native.writes[0 : packed.native.write_count]] == [65536]
    with pytest.raises(OSError, match="Invalid argument"):  # nobody could read such a file
        packed.ending().write_end(lambda _offset, _buffers: pytest.fail("it was written"))
    raw = packed.native.segments[1]
    data = bytes(packed.buffer[int(raw.data - packed.data) : int(raw.data - packed.data) + raw.length])
    assert data == _block(1, 0, 1) + b"".join(_block(2, at, 1) for at in range(3))


def test_segments_that_the_caller_has_encoded():
    """They are placed one behind the other, each with the sum of what is stored; zeros have no place."""
    packed = Packed(None, SIZES, limit=2 * BLOCK, apart=True)
    values = [1, 2, 0, 1, 2, 1, 1, 0, 2, 1]
    packed.add(_pieces(values))
    raw = [one for one in packed.native.segments[0 : packed.native.segment_count] if one.encoding == 1]
    plain = [bytes(ffi.buffer(one.data, one.length)) for one in raw]
    assert len(raw) == 4
    kept = {at: ffi.new("uint8_t[]", zlib.compress(plain[at])) for at in (1, 3)}
    for at, data in kept.items():
        raw[at].encoding, raw[at].data, raw[at].length = 7, data, len(data)
    stored = [bytes(ffi.buffer(kept[at])) if at in kept else one for at, one in enumerate(plain)]
    for first, stop in ((0, 3), (3, packed.native.segment_count)):
        packed.place(first, stop)
    assert packed.file[128:] == b"".join(stored)
    assert packed.native.end == len(packed.file)
    assert packed.native.written == len(packed.file) - 128
    *found, zeros = packed.segments()
    ends = [128 + sum(map(len, stored[: at + 1])) for at in range(len(stored))]
    assert [offset for _, offset, *_ in found] == [128, *ends[:-1]]
    assert [length for _, _, length, *_ in found] == [len(one) for one in stored]
    assert [checksum for *_, checksum, _ in found] == [xxhash.xxh3_64_intdigest(one) for one in stored]
    assert zeros[:4] == (0, 0, 0, 0)


def test_the_index_is_as_documented():
    """32 bytes for a segment, then 24 for each run."""
    packed = Packed(None, SIZES)
    packed.add([(0, 1, _block(0, 1, 3)), (0, 3, bytes(BLOCK)), (1, 0, _block(1, 0, 3))])
    (raw, zeros) = packed.segments()
    assert packed.index() == struct.pack(
        "<IIQQQ 3Q3Q IIQQQ 3Q", 1, 2, 128, BLOCK + 7, raw[3], 0, 1, 1, 1, 0, 1, 0, 1, 0, 0, 0, 0, 3, 1
    )
    assert zeros == (0, 0, 0, 0, [(0, 3, 1)])


@pytest.mark.parametrize("blocks", [0, 3])
def test_the_end_is_as_documented(blocks):
    """Index, description with the number of blocks in its place, and a footer that sums up both."""
    packed = Packed(None, [1 << 20])
    if blocks:
        packed.add([(0, 1, b"x" * blocks * BLOCK)])
    header = bytes(range(128))
    tail = packed.end(description=b'{"n": xxxxxx}', header=header, count_at=6, count_bytes=6)
    index, described, footer = tail[: -13 - 64], tail[-13 - 64 : -64], tail[-64:]
    assert index == packed.index()
    assert described == b'{"n": %-6d}' % blocks
    expected = struct.pack(
        "<5Q", packed.native.end, len(index), 13, *map(xxhash.xxh3_64_intdigest, (index, described))
    )
    expected += header[-8:]
    assert footer == expected + struct.pack("<Q", xxhash.xxh3_64_intdigest(expected)) + b"DTCKEND\n"
