"""The bytes of a diff, against a reader and a writer that follow the guide."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _lib.snapshot.diff_bytes import BEFORE, COMPRESSED, Row, body_of, pack, read, seal, varint
from dirtytrack import DiffError
from dirtytrack.snapshot import Diff

pytestmark = pytest.mark.anywhere

_MOST = 2**63 - 1


@st.composite
def _diffs(draw):
    """Regions with names of any kind, and changes in order."""
    names = draw(st.lists(st.text(max_size=9), unique=True, max_size=4))
    regions = [(name.encode("utf-8", "surrogatepass"), draw(st.integers(1, _MOST))) for name in names]
    rows = []
    for place, (_, nbytes) in enumerate(regions):
        shift = draw(st.integers(0, max(0, nbytes - 300)))
        edges = sorted(draw(st.sets(st.integers(0, min(nbytes, 300)), max_size=8)))
        edges = edges[: len(edges) // 2 * 2]
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            contents = draw(st.binary(min_size=2 * (stop - start), max_size=2 * (stop - start)))
            before, after = contents[: stop - start], contents[stop - start :]
            rows.append(Row(place, start + shift, stop + shift, before, after))
    return names, regions, rows


def _meant(names, rows, before=True):
    return [(names[row.region], row.start, row.stop, before * row.before, row.after) for row in rows]


def _found(diff):
    return [(*one[:3], bytes(one.before), bytes(one.after)) for one in diff]


@pytest.mark.slow
@given(_diffs(), st.booleans(), st.sampled_from([0, COMPRESSED]))
def test_what_the_guide_says_is_read(diff, before, compressed):
    """Byte for byte, of any buffer; and written again as the guide says."""
    names, regions, rows = diff
    data = pack(body_of(regions, rows, before=before), BEFORE * before | compressed)
    for given_ in (data, bytearray(data), memoryview(data + data)[: len(data)]):
        found = Diff.from_bytes(given_)
        assert list(found.sizes.items()) == list(zip(names, (one for _, one in regions), strict=True))
        assert _found(found) == _meant(names, rows, before)
        assert found.one_sided is not before
        again = found.to_bytes(compress="none")
        assert again == pack(body_of(regions, rows, before=before), BEFORE * before)


@pytest.mark.slow
@given(_diffs(), st.booleans(), st.sampled_from(["auto", "zstd", "none"]))
def test_what_is_written_is_what_the_guide_says(diff, before, compress):
    """An independent reader finds it; and so does the library."""
    names, regions, rows = diff
    one = Diff.from_bytes(pack(body_of(regions, rows), BEFORE))
    data = one.to_bytes(compress=compress, before=before)
    assert read(data) == (regions, [row._replace(before=before * row.before) for row in rows])
    found = Diff.from_bytes(data)
    assert _found(found) == _meant(names, rows, before)
    assert (found == one) is before
    assert pickle.loads(pickle.dumps(found)) == found


@pytest.mark.slow
@settings(max_examples=1000)
@given(
    diff=_diffs(),
    at=st.integers(0, 1 << 16),
    value=st.one_of(
        st.sampled_from([0, 1, 127, 128, 2**31, 2**32 - 1, _MOST, 2**63, 2**64 - 1, 2**64]).map(varint),
        st.binary(min_size=1, max_size=12),
    ),
    replace=st.integers(0, 12),
    flags=st.sampled_from([0, BEFORE, COMPRESSED, BEFORE | COMPRESSED]),
)
def test_forged_bytes(diff, at, value, replace, flags):
    """With anything put anywhere, and the checksum made right: refused, or a diff of just these bytes."""
    _, regions, rows = diff
    body = body_of(regions, rows)
    at %= len(body)
    body = body[:at] + value + body[at + replace :]
    try:
        found = Diff.from_bytes(pack(body, flags))
    except DiffError:
        return
    assert found.to_bytes(compress="none") == pack(body, flags & BEFORE)
    for one in found:
        assert 0 <= one.start < one.stop <= found.sizes[one.region]
        assert len(one.after) == one.stop - one.start


_ONE = [(b"a", 1)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pack(body_of([], []), 0, version=1), "version 1: this is a reader of version 2"),
        (pack(body_of([], []), 4), "flags 0x4"),
        (pack(body_of([*_ONE, *_ONE], []), 0), "'a' is there twice"),
        (pack(body_of([(b"\xff", 1)], []), 0), "not UTF-8"),
        (pack(body_of([(b"a", 1 << 63)], []), 0), "9223372036854775808 bytes"),
        (pack(body_of([(b"a", 0)], []), 0), "or of 0 bytes"),
        (pack(body_of(_ONE, []) + b"\0", 0), "contents have other lengths"),
        (pack(body_of(_ONE, []), 0, nbytes=9), "its body has another length"),
        (pack(body_of(_ONE, []), COMPRESSED, nbytes=9), "is damaged"),
        (pack(varint(1 << 60), 0), "regions are cut off"),
        (pack(b"\x80", 0), "regions are cut off"),
        (pack(b"\x80\x00", 0), "a number is not one"),
        (pack(b"\xff" * 9 + b"\x7f", 0), "a number is not one"),
        (pack(varint(1) + varint(9) + varint(1) + b"a" + varint(1 << 60), 0), "fewer changes than it says"),
        (seal(pack(body_of(_ONE, []), 0)[:24]), "its body has another length"),
        (b"", "not all of one"),
        (bytes(1000), "are no diff"),
    ],
)
def test_what_is_wrong_is_told(data, message):
    """In words."""
    with pytest.raises(DiffError, match=message):
        Diff.from_bytes(data)


def _changes(*numbers, sizes=(10,), flags=0, contents=0):
    """A diff whose regions have the numbers given as their changes, gap and length in turn."""
    body = varint(len(sizes))
    for place, (size, one) in enumerate(zip(sizes, numbers, strict=True)):
        body += varint(size) + varint(2) + b"r%d" % place + varint(len(one) // 2)
    body += b"".join(varint(number) for one in numbers for number in one)
    return pack(body + bytes(contents * (2 if flags & BEFORE else 1)), flags)


@pytest.mark.parametrize(
    "data",
    [
        _changes([0, 11], contents=11),
        _changes([5, 0], contents=0),
        _changes([11, 1], contents=1),
        _changes([5, 5, 0, 1], contents=6),
        _changes([2**64 - 1, 2], contents=2),
        _changes([0, 2**64 - 1], contents=0),
        _changes([0, 2], contents=1),
        _changes([0, 2], contents=3),
        _changes([0, 2], flags=BEFORE, contents=1),
        _changes([0, _MOST], [0, _MOST], [0, 5], sizes=(_MOST, _MOST, 64), contents=3),  # 2**64 + 3 bytes
        _changes([0, _MOST, 0, _MOST], [0, 4], sizes=(_MOST, 64), contents=2),
    ],
)
def test_changes_that_can_not_be(data):
    """Out of order, of bounds, of proportion: a right checksum does not help."""
    with pytest.raises(DiffError):
        Diff.from_bytes(data)
    assert len(Diff.from_bytes(_changes([5, 2, 1, 1, 0, 1], contents=4))) == 3


def test_damaged_bytes():
    """Every truncation, and every byte changed."""
    rows = [Row(0, 1, 2, b"a", b"b"), Row(0, 9, 10, b"a", b"c")]
    for flags in (BEFORE, BEFORE | COMPRESSED):
        data = pack(body_of([(b"a", 10)], rows), flags)
        assert len(Diff.from_bytes(data)) == 2
        for at in range(len(data)):
            for damaged in (data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], data + b"\0"):
                with pytest.raises(DiffError):
                    Diff.from_bytes(damaged)


def test_a_little_that_claims_to_be_much():
    """It takes no more memory than the limit; more than that has to be asked for."""
    nbytes = 1 << 25
    body = body_of([(b"a", nbytes)], [Row(0, 0, nbytes, b"", bytes(nbytes))], before=False)
    bomb, lie = pack(body, COMPRESSED), pack(body, COMPRESSED, nbytes=1 << 20)
    assert len(bomb) < 10_000
    tracemalloc.start()
    try:
        with pytest.raises(
            DiffError, match=f"a diff of {len(body)} bytes, compressed to .* raise max_nbytes"
        ):
            Diff.from_bytes(bomb, max_nbytes=1 << 20)
        with pytest.raises(DiffError, match="is damaged"):  # says less than it has
            Diff.from_bytes(lie, max_nbytes=1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert Diff.from_bytes(bomb, max_nbytes=None).nbytes == Diff.from_bytes(bomb).nbytes == nbytes
    plain = pack(body, 0)  # as large as it says
    assert Diff.from_bytes(plain, max_nbytes=0).nbytes == nbytes
    for wrong, error in ((-1, ValueError), ("x", TypeError)):
        with pytest.raises(error):
            Diff.from_bytes(bomb, max_nbytes=wrong)


def test_what_compresses_is_compressed():
    """By default where it gains, and by order always; what is little, or noise, stays as it is."""
    often = [Row(0, at, at + 1, b"a", b"b") for at in range(0, 4000, 4)]
    many = Diff.from_bytes(pack(body_of([(b"a", 4000)], often), BEFORE))
    plain, packed = many.to_bytes(compress="none"), many.to_bytes()
    assert len(plain) == 56 + 1 + 2 + 1 + 1 + 2 + 1000 * (2 + 2)
    assert len(packed) < 200
    assert len(many.to_bytes(before=False)) < len(packed)
    noise = random.Random(1).randbytes(3000)
    few = Diff.from_bytes(pack(body_of([(b"a", 3000)], [Row(0, 0, 3000, b"", noise)], before=False), 0))
    assert few.to_bytes() == few.to_bytes(compress="none")
    assert few.to_bytes(compress="zstd") != few.to_bytes()
    with pytest.raises(ValueError, match="compress is one of auto, zstd, none, not 'gzip'"):
        few.to_bytes(compress="gzip")


_WITHOUT_ZSTD = """
import sys
sys.modules.update({{"zstandard": None, "compression": None}})
from dirtytrack.snapshot import Diff
diff = Diff.from_bytes({plain!r})
assert diff.to_bytes() == {plain!r}
try:
    {act}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            "diff.to_bytes(compress='zstd')",
            'compress="zstd" needs zstandard: pip install "dirtytrack[checkpoint]"',
        ),
        (
            "Diff.from_bytes({packed!r})",
            "the diff is compressed, and to read it needs zstandard: pip install",
        ),
    ],
)
def test_without_the_library(act, message):
    """Everything but compressed diffs; these name the extra."""
    rows = [Row(0, at, at + 1, b"a", b"b") for at in range(0, 999, 4)]
    body = body_of([(b"a", 999)], rows)
    plain, packed = pack(body, BEFORE), pack(body, BEFORE | COMPRESSED)
    program = _WITHOUT_ZSTD.format(plain=plain, act=act.format(packed=packed))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert message in done.stdout


def test_one_sided():
    """It is applied and merged, and says what it can't do."""
    old, new, newer = bytes(10), b"\1" * 4 + bytes(6), b"\1\1\2\2\2" + bytes(5)

    def diff(start, before, after):
        row = Row(0, start, start + len(after), before, after)
        return Diff.from_bytes(pack(body_of([(b"a", 10)], [row]), BEFORE))

    first, second = diff(0, old[:4], new[:4]), diff(2, new[2:5], newer[2:5])
    one, two = (Diff.from_bytes(each.to_bytes(before=False)) for each in (first, second))
    memory = bytearray(old)
    one.apply(memory)
    assert memory == new
    assert one.one_sided
    assert not first.one_sided
    assert (one[0].before, one[0].after) == (b"", b"\1" * 4)
    assert repr(one[0]) == "Change('a', 0, 4,  -> 01 01 01 01)"
    for act in (one.invert, lambda: one.apply(bytearray(10), check=True)):
        with pytest.raises(DiffError, match="is one-sided: it does not say what the bytes were"):
            act()
    for both in (one.merge(two), first.merge(two), one.merge(second)):
        memory = bytearray(old)
        both.apply(memory)
        assert (memory, both.one_sided, len(both)) == (newer, True, 1)
        assert both.to_bytes(before=True) == both.to_bytes()
    with pytest.raises(DiffError, match="byte 3 of 'a' is 1 after the first diff and 0 before the second"):
        one.merge(diff(3, b"\0", b"\5"))


def test_messages_stay_short():
    """However long a name is, and however many there are."""
    long = b"n" * 1_000_000
    with pytest.raises(DiffError) as caught:
        Diff.from_bytes(pack(body_of([(long, 1), (long, 1)], []), 0))
    messages = [str(caught.value)]
    many = Diff.from_bytes(pack(body_of([(b"%d" % one + long[:99], 9) for one in range(9999)], []), BEFORE))
    one = Diff.from_bytes(pack(body_of([(long, 9)], [Row(0, 1, 2, b"a", b"b")]), BEFORE))
    for act in (
        lambda: many.apply(),
        lambda: many.apply({"a": bytearray(1)}),
        lambda: one.apply(bytearray(8)),
        lambda: one.apply(bytearray(9), check=True),
        lambda: one.merge(one),
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
