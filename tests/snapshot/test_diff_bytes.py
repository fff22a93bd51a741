"""The bytes of a diff, against an encoder of their own that follows the guide."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dirtytrack import DiffError
from dirtytrack.snapshot import Diff

pytestmark = pytest.mark.anywhere

_HEADER = 32


def _sealed(body):
    return bytes(body) + hashlib.blake2b(body, digest_size=32).digest()


def _encode(regions, rows, before, after, version=1):
    body = b"\x89DTDIFF\n" + struct.pack("<IIQQ", version, len(regions), len(rows), len(before))
    for name, nbytes in regions:
        body += struct.pack("<QI", nbytes, len(name)) + name
    body += bytes(-len(body) % 8) + b"".join(struct.pack("<4Q", *row) for row in rows)
    return _sealed(body + before + after)


@st.composite
def _diffs(draw):
    """Regions with names of any kind, and changes in order; the encoded bytes, and what they mean."""
    names = draw(st.lists(st.text(max_size=9), unique=True, max_size=4))
    regions = [(name.encode("utf-8", "surrogatepass"), draw(st.integers(1, 2**63 - 1))) for name in names]
    rows, at = [], 0
    for place, (_, nbytes) in enumerate(regions):
        edges = draw(st.sets(st.integers(0, min(nbytes, 300)), max_size=8))
        edges = sorted(edges)[: len(edges) // 2 * 2]
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            rows.append((place, start, stop, at))
            at += stop - start
    contents = draw(st.binary(min_size=2 * at, max_size=2 * at))
    before, after = contents[:at], contents[at:]
    meant = [
        (names[place], start, stop, before[at : at + stop - start], after[at : at + stop - start])
        for place, start, stop, at in rows
    ]
    return (
        _encode(regions, rows, before, after),
        dict(zip(names, (one for _, one in regions), strict=True)),
        meant,
    )


@pytest.mark.slow
@given(_diffs())
def test_there_and_back(diff):
    """Byte for byte, and change for change."""
    data, sizes, meant = diff
    for given_ in (data, bytearray(data), memoryview(data + data)[: len(data)]):
        found = Diff.from_bytes(given_)
        assert found.sizes == sizes
        assert [(*one[:3], bytes(one.before), bytes(one.after)) for one in found] == meant
        assert found.to_bytes() == data


@pytest.mark.slow
@settings(max_examples=1000)
@given(
    diff=_diffs(),
    at=st.integers(0, 1 << 16),
    value=st.sampled_from([0, 1, 2, 7, 8, 255, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]),
    width=st.sampled_from([1, 4, 8]),
)
def test_forged_numbers(diff, at, value, width):
    """With any number put anywhere, and the checksum made right: refused, or a diff of just these bytes."""
    body = bytearray(diff[0][:-32])
    at %= len(body)
    body[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
    data = _sealed(body)
    try:
        found = Diff.from_bytes(data)
    except DiffError:
        return
    assert found.to_bytes() == data
    assert sum(len(one.before) + len(one.after) for one in found) == 2 * found.nbytes <= len(data)
    for one in found:
        assert 0 <= one.start < one.stop <= found.sizes[one.region]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_encode([], [], b"", b"", version=2), "version 2: this is a reader of version 1"),
        (_encode([(b"a", 1), (b"a", 1)], [], b"", b""), "'a' is there twice"),
        (_encode([(b"\xff", 1)], [], b"", b""), "not UTF-8"),
        (_encode([(b"a", 1 << 63)], [], b"", b""), "9223372036854775808 bytes"),
        (_sealed(_encode([(b"a", 1)], [], b"", b"")[:-33] + b"\1"), "between its regions and its changes"),
        (_sealed(_encode([(b"a", 1)], [], b"", b"")[:-32] + b"\0"), "other lengths"),
        (b"", "not all of one"),
        (bytes(1000), "are no diff"),
    ],
)
def test_what_is_wrong_is_told(data, message):
    """In words."""
    with pytest.raises(DiffError, match=message):
        Diff.from_bytes(data)


_MOST = 2**63 - 1


@pytest.mark.parametrize(
    "rows",
    [
        [(0, 0, _MOST, 0), (1, 0, _MOST, _MOST), (2, 0, 5, 2**64 - 2)],  # 2**64 + 3 bytes
        [(0, 0, _MOST, 0), (0, _MOST, 2**64 - 1, _MOST), (2, 0, 4, 2**64 - 1)],
        [(2, 0, 4, 0)],  # more than there are
        [(2, 0, 2, 0)],  # fewer
    ],
)
def test_lengths_that_wrap(rows):
    """Sums of 64 bits are no sums: each length has to be there."""
    with pytest.raises(DiffError, match="out of order or out of their regions"):
        Diff.from_bytes(_encode([(b"a", _MOST), (b"b", _MOST), (b"c", 64)], rows, b"xxx", b"yyy"))


def test_messages_stay_short():
    """However long a name is, and however many there are."""
    long = b"n" * 1_000_000
    with pytest.raises(DiffError) as caught:
        Diff.from_bytes(_encode([(long, 1), (long, 1)], [], b"", b""))
    messages = [str(caught.value)]
    many = Diff.from_bytes(_encode([(b"%d" % one + long[:99], 9) for one in range(9999)], [], b"", b""))
    one = Diff.from_bytes(_encode([(long, 9)], [(0, 1, 2, 0)], b"a", b"b"))
    for act in (
        lambda: many.apply(),
        lambda: many.apply({"a": bytearray(1)}),
        lambda: one.apply(bytearray(8)),
        lambda: one.apply(bytearray(9), check=True),
        lambda: many.merge(one),
    ):
        with pytest.raises(DiffError) as caught:
            act()
        messages.append(str(caught.value))
    with pytest.raises(KeyError) as missing:
        many.of("a")
    messages += [str(missing.value), repr(one), repr(many)]
    assert max(map(len, messages)) < 1000


def test_what_is_no_buffer():
    """A TypeError, as for every function that takes bytes."""
    with pytest.raises(TypeError):
        Diff.from_bytes("text")
