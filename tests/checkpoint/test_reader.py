"""One file: what it holds, and every way in which it may not be what the document says."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import sys
import tracemalloc

import pytest

from _lib import zstd
from _lib.checkpoint import forge, independent_reader
from _lib.checkpoint.files import open_file, opened, segments
from _lib.checkpoint.forge import BLOCK, IN_PLACE, RAW, SEGMENT_BYTES, ZEROS, ZSTD, File, Run
from _lib.checkpoint.intercept import intercepted
from _lib.support import resident_bytes
from dirtytrack._json import footprint
from dirtytrack.checkpoint.format import description
from dirtytrack.checkpoint.format.layout import Layout
from dirtytrack.checkpoint.format.structures import Encoding, FormatError
from dirtytrack.checkpoint.read.lineage import Node
from dirtytrack.checkpoint.read.state import State
from dirtytrack.kernel.touch import Memory

pytestmark = pytest.mark.anywhere

NBYTES = 10 * BLOCK + 100
SIZES = [NBYTES, 5]
SIXTEEN = bytes(range(16)) * (BLOCK // 16)


def _file(kind=forge.BASE, **more):
    regions = [forge.region("a", NBYTES), forge.region("b", 5, dtype="|u1", shape=[5])]
    runs = [
        Run(0, 1, 2 * SIXTEEN, more=[Run(0, 5, SIXTEEN), Run(1, 0, b"54321")]),
        Run(0, 9, SIXTEEN + b"x" * 100, ZSTD),
        Run(0, 4, 3, more=[Run(0, 8, 1)]),
        Run(1, 0, b"12345"),
    ]
    return File(7, runs, regions, kind, forge.checkpoint_id(6), **more)


def _delta():
    return _file(forge.DELTA)


def _table():
    return tuple(map(Layout.from_json, _file().regions))


def _entry_of(one):
    first, *more = [(run.extent, run.first, run.count) for run in one.runs.native]
    encoding, _, offset, length, checksum = one.segment
    return (first[0], encoding, *first[1:], offset, length, checksum, more)


@pytest.mark.parametrize("kind", [forge.BASE, forge.DELTA])
def test_a_file_says_what_was_written(tmp_path, kind):
    """Header, description, length and segments, as an independent writer put them there."""
    forged = _file(kind)
    path = forged.write(tmp_path)
    with opened(path) as file:
        assert str(file.name) == path.name
        assert file.nbytes == path.stat().st_size
        assert file.header[1:] == (forged.chain, forged.checkpoint, forged.parent, forged.file, 7)
        regions = forged.regions if kind == forge.BASE else []
        assert json.loads(json.dumps([layout.to_json() for layout in file.layouts])) == regions
        described = forged.description()
        said = file.description
        assert (json.loads(said.meta), said.created) == (described["meta"], described["created"])
        assert (said.consistency, said.statistics) == (described["consistency"], described["statistics"])
        assert [*map(_entry_of, segments(file, SIZES))] == forged.payload()[1]


def _stored(file):
    return [one for one in segments(file, SIZES) if one.segment.encoding != Encoding.ZEROS]


def _expected(forged):
    return [run.content() for run in forged.runs if not isinstance(run.data, int)]


@pytest.mark.parametrize("kind", [forge.BASE, forge.DELTA])
def test_segments_are_read(tmp_path, kind):
    """Raw and compressed, with and without memory for them."""
    forged = _file(kind)
    with opened(forged.write(tmp_path)) as file:
        stored = _stored(file)
        assert [bytes(file.read(one)) for one in stored] == _expected(forged)
        buffer = memoryview(bytearray(SEGMENT_BYTES))
        assert [bytes(file.read(one, buffer)) for one in stored] == _expected(forged)
        lengths = [one.segment.length for one in stored]
        assert list(file.verify(_table())) == [sum(lengths[: count + 1]) for count in range(3)]


def test_what_is_in_place_is_read_from_there(tmp_path):
    """Runs that lie apart in the file, of two regions, are one segment."""
    regions = [forge.region("a", NBYTES, linear=65536), forge.region("b", 5, linear=65536 * 2)]
    more = [Run(0, 8, 2 * SIXTEEN, IN_PLACE), Run(1, 0, b"12345", IN_PLACE)]
    forged = File(1, [Run(0, 3, SIXTEEN, IN_PLACE, more=more)], regions)
    path = forged.write(tmp_path)
    whole = path.read_bytes()
    assert whole[65536 + 8 * BLOCK : 65536 + 10 * BLOCK] == 2 * SIXTEEN
    assert whole[65536 * 2 : 65536 * 2 + 5] == b"12345"
    with opened(path) as file:
        (one,) = segments(file, SIZES)
        assert bytes(file.read(one)) == 3 * SIXTEEN + b"12345"


def test_the_independent_reader_agrees(tmp_path):
    """It reads what the independent writer wrote."""
    forged = _file()
    read = independent_reader.read_file(forged.write(tmp_path))
    found = list(independent_reader.read_segments(read, forged.regions_as_read()))
    assert [runs for runs, _ in found] == [[one.blocks for one in [run, *run.more]] for run in forged.runs]
    assert [data for _, data in found if data is not None] == _expected(forged)
    assert read.description == forged.description()


def _text(**changes):
    return json.dumps({**_file().description(), **changes}).encode()


def _regions(*rows, **changes):
    return _text(regions=[{**forge.region("a", NBYTES), **changes}, *rows])


def _entry(**changes):
    def twist(entries):
        return [entries[0]._replace(**changes), *entries[1:]]

    return {"twist": twist}


U32, U64 = struct.Struct("<I").pack, struct.Struct("<Q").pack
BAD_HEADERS = [
    ({0: b"\x88"}, "no checkpoint file"),
    ({8: U32(1)}, "version 1"),
    ({8: U32(2)}, "version 2"),
    ({8: U32(4)}, "version 4"),
    ({12: U32(0)}, "impossible values"),
    ({12: U32(3)}, "impossible values"),
    ({12: U32(2)}, r"written as 0000000007-\w+\.delta"),
    ({32: bytes(16)}, "impossible values"),
    ({32: forge.checkpoint_id(6)}, "impossible values"),
    ({12: U32(2), 48: bytes(16)}, "without a parent"),
    ({64: b"other"}, "written as"),
    ({72: U64(8)}, "written as 0000000008"),
    ({72: U64(0)}, "impossible values"),
    ({72: U64(2**63)}, "impossible values"),
    ({80: U32(512)}, "impossible values"),
    ({119: b"\1"}, "impossible values"),
]
BAD_FOOTERS = [
    ({0: U64(127)}, "footer says"),
    ({0: U64(2**64 - 1)}, "footer says"),
    ({8: U64(5)}, "footer says"),
    ({8: U64(0)}, "footer says"),
    ({8: U64(2**63)}, "footer says"),
    ({16: U64(2**64 - 1)}, "footer says"),
    ({24: bytes(8)}, "index is damaged"),
    ({32: bytes(8)}, "description is damaged"),
    ({40: bytes(8)}, "different files"),
]
BAD_TEXTS = [
    (b"", "something else"),
    (b"\xff{}", "something else"),
    (b"[]", "something else"),
    (b"{}", "something else"),
    (b"[" * 100_000, "something else"),
    (_text().decode().encode("utf-16"), "something else"),
    (_text(regions=[]), "empty"),
    (_text(regions=None), "something else"),
    (_regions(forge.region("a", 3)), "twice"),
    (_regions(name=""), "something else"),
    (_regions(name="x" * 256), "something else"),
    (_regions(name="\ud800"), "something else"),
    (_regions(name=3), "something else"),
    (_regions(nbytes=-1), "something else"),
    (_regions(nbytes=2**62), "something else"),
    (_regions(nbytes=1.5), "something else"),
    (_regions(nbytes=True), "something else"),
    (_regions(shape=[1]), "no known kind"),
    (_regions(dtype=3, shape=[1]), "no known kind"),
    (_regions(dtype="|u1", shape=[-1]), "something else"),
    (_regions(linear=4096), "can't be mapped"),
    (_regions(forge.region("b", 3, linear=65536), linear=65536), "lies on another"),
    (_regions(forge.region("b", 3, linear=65536), linear=131072), "lies on another"),
    (_regions(forge.region("b", 3), nbytes=0), "comes after"),
    (_regions(forge.region("b", 0, linear=65536)), "comes after"),
    (_regions(forge.region("b", NBYTES, same_as=0), forge.region("c", 3)), "comes after"),
    (_regions(forge.region("b", NBYTES, same_as=1)), "a region that there is not"),
    (_regions(forge.region("b", 3, same_as=0)), "a region that there is not"),
    (_regions(forge.region("b", 0, same_as=0)), "a region that there is not"),
    (_regions(forge.region("b", NBYTES, same_as=-1)), "something else"),
    (_regions(forge.region("b", NBYTES, same_as="a")), "something else"),
    *[(_text(table=name), "something else") for name in (None, 7, "", "0" * 31, "0" * 33, "A" * 32, ["0"])],
    (_text(created="now"), "something else"),
    (_text(created=float("inf")), "something else"),
    (_text(created=10**400), "something else"),
    (_text(consistency="sure"), "impossible values"),
    (_text(consistency=None), "impossible values"),
    (_text(statistics=[]), "impossible values"),
    (_text(consistency=[]), "impossible values"),
    (_text(consistency={}), "impossible values"),
    (_text(meta=float("nan")), "NaN is no JSON"),
    (_text(meta=[float("inf")]), "Infinity is no JSON"),
    (_text().replace(b'"meta"', b'"meta": 1e999, "other"'), "not JSON compliant"),
    (_text(meta=1).replace(b'"meta"', b'"meta": 2, "meta"'), "twice"),
    (_text().replace(b'"regions"', b'"regions": [], "regions"'), "twice"),
    (_regions().replace(b'"nbytes"', b'"nbytes": 1, "nbytes"'), "twice"),
    (_text(meta=0).replace(b'"meta": 0', b'"meta": ' + b"9" * 5000), "5000 digits"),
    (_text(statistics={"a": "b"}).replace(b'"b"', b"-" + b"9" * 5000), "digits"),
    (_regions(dtype="<f4," * 200_000, shape=[1]), "a dtype of 800000 characters"),
    (_regions(dtype=3, shape=[1], name="n" * 100_000), "something else"),
    (_regions(shape=["x" * 100_000]), "something else"),
    (_regions(name=["x" * 100_000] * 100), "something else"),
]
BAD_SEGMENTS = [
    (_entry(region=2), "region 2 of 2"),
    (_entry(region=2**64 - 1), "of 2"),
    (_entry(encoding=4), "encoding 4, which is not known"),
    (_entry(first=10), "does not have"),
    (_entry(first=2**64 - 1), "does not have"),
    (_entry(count=0), "does not have"),
    (_entry(count=2**64 - 1), "does not have"),
    (_entry(count=1), "impossible length"),
    (_entry(count=5), "do not follow each other"),
    (_entry(first=6), "do not follow each other"),
    (_entry(region=1, first=0, count=1), "do not follow each other"),
    (_entry(more=[]), "impossible length"),
    (_entry(more=[(0, 5, 1), (1, 1, 1)]), "does not have"),
    (_entry(more=[(0, 5, 1), (2, 0, 1)]), "region 2 of 2"),
    (_entry(length=BLOCK), "impossible length"),
    (_entry(encoding=ZSTD), "impossible length"),
    (_entry(encoding=ZSTD, length=0), "impossible length"),
    (_entry(offset=127), "outside of the payload"),
    (_entry(offset=128 + 100_000), "outside of the payload"),
    (_entry(offset=2**64 - 1), "outside of the payload"),
    (_entry(offset=128 + BLOCK), "lie on each other"),
    (_entry(encoding=ZEROS), "stores zeros"),
    (_entry(encoding=ZEROS, offset=0, length=0), "stores zeros"),
    (_entry(encoding=IN_PLACE), "in two places"),
    (_entry(encoding=IN_PLACE, offset=0), "not linear"),
]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"header": change}, reason) for change, reason in BAD_HEADERS]
    + [({"footer": change}, reason) for change, reason in BAD_FOOTERS]
    + [({"text": text}, reason) for text, reason in BAD_TEXTS],
)
def test_a_file_that_is_not_as_the_document_says_is_not_opened(tmp_path, changes, reason):
    """All checksums fit, and yet it is refused, with a reason; no descriptor is left open."""
    path = _file().write(tmp_path, **changes)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FormatError, match=reason):
        open_file(path)
    assert os.listdir("/proc/self/fd") == before


def test_digits_are_counted_whatever_python_would_read(tmp_path):
    """A number whose conversion takes long is not converted."""
    path = _file().write(tmp_path, text=_text(meta=0).replace(b'"meta": 0', b'"meta": ' + b"9" * 50_000))
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        with pytest.raises(FormatError, match="50000 digits"):
            open_file(path)
    finally:
        sys.set_int_max_str_digits(before)


@pytest.mark.parametrize("what", ["[]", "{}", "[[]]", '{"a":0}', "0", '"a"', "1.5", "257"])
def test_a_description_takes_memory_by_its_length(tmp_path, what):
    """64 MiB for each MiB of it, whatever it holds."""
    text = _text(meta="meta").replace(b'"meta": "meta"', b'"meta": [' + f"{what},".encode() * 300_000 + b"0]")
    path = _file().write(tmp_path, text=text)
    assert _peak(lambda: open_file(path).close()) < 64 * len(text)


def test_a_description_that_would_take_too_much_is_not_decoded(tmp_path, monkeypatch):
    """It is weighed before: here from a limit on that is a byte lower than what it weighs."""
    text = _text(meta=[[]] * 10_000)
    path = _file().write(tmp_path, text=text)
    monkeypatch.setattr(description, "MAX_DESCRIPTION_MEMORY", footprint(text))
    open_file(path).close()
    monkeypatch.setattr(description, "MAX_DESCRIPTION_MEMORY", footprint(text) - 1)
    with pytest.raises(FormatError, match=r"as objects its JSON may take 1\.4 MiB"):
        open_file(path)


@pytest.mark.parametrize("step", [0, 1, BLOCK, 8 * BLOCK - 1])
def test_segments_that_lie_on_each_other_are_refused(tmp_path, step):
    """So that reading takes no longer than the file is; all checksums fit."""
    data = b"".join(at.to_bytes(8, "big") for at in range(16 * BLOCK // 8))
    forged = File(1, [Run(0, 0, data)], [forge.region("a", 8 * BLOCK)])

    def twist(_):
        for at in (0, step):
            yield 0, RAW, 0, 8, 128 + at, 8 * BLOCK, forge.xxh3_64(data[at : at + 8 * BLOCK])

    with opened(forged.write(tmp_path, twist=twist)) as file, pytest.raises(FormatError, match="lie on each"):
        list(file.verify(file.layouts))


def test_a_block_is_in_place_once(tmp_path):
    """In one segment or in several; so that reading takes no longer than the file is."""
    forged = File(1, [Run(0, 0, 3 * SIXTEEN), Run(0, 3, SIXTEEN)], [forge.region("a", 5 * BLOCK)])
    forge.lay_out(forged)
    with opened(forged.write(tmp_path)) as file:
        assert len(list(file.verify(file.layouts))) == 2
    forged.runs = [Run(0, 0, 3 * SIXTEEN, IN_PLACE), Run(0, 2, SIXTEEN, IN_PLACE)]
    with opened(forged.write(tmp_path)) as file, pytest.raises(FormatError, match="in place twice"):
        list(file.verify(file.layouts))


def test_a_delta_has_nothing_in_place(tmp_path):
    """It has no regions of its own."""
    forged = _delta()
    with (
        opened(forged.write(tmp_path, **_entry(encoding=IN_PLACE, offset=0))) as file,
        pytest.raises(FormatError, match="not linear"),
    ):
        list(file.verify(_table()))


@pytest.mark.parametrize("write", [_file, _delta])
@pytest.mark.parametrize(("changes", "reason"), BAD_SEGMENTS)
def test_a_segment_that_points_elsewhere_is_refused(tmp_path, write, changes, reason):
    """An index may be intact and yet say what can't be."""
    with opened(write().write(tmp_path, **changes)) as file:
        with pytest.raises(FormatError, match=reason):
            segments(file, SIZES)
        with pytest.raises(FormatError, match=reason):
            list(file.verify(_table()))


@pytest.mark.parametrize("count", [0, 1025, 2**32 - 1])
def test_a_segment_has_1_to_1024_runs(tmp_path, count):
    """A number that the index gives is no reason to read as much."""
    forged = File(1, [Run(0, 0, SIXTEEN)], [forge.region("a", BLOCK)])
    data = bytearray(forged.build())
    start = int.from_bytes(data[-64:-56], "little")
    data[start + 4 : start + 8] = count.to_bytes(4, "little")
    path = tmp_path / forged.name
    path.write_bytes(forge.reseal(bytes(data)))
    with pytest.raises(FormatError, match=f"a segment of {count} runs"):
        open_file(path)


@pytest.mark.parametrize("cut", [8, 24, 32, 48])
def test_an_index_that_ends_too_early(tmp_path, cut):
    """Within a segment or its runs."""
    forged = File(1, [Run(0, 0, SIXTEEN)], [forge.region("a", BLOCK)])
    data = forged.build()
    start, size = (int.from_bytes(data[at : at + 8], "little") for at in (len(data) - 64, len(data) - 56))
    tail = data[-64:-56] + (size - cut).to_bytes(8, "little") + data[-48:]
    path = tmp_path / forged.name
    path.write_bytes(forge.reseal(data[: start + size - cut] + data[start + size : -64] + tail))
    with pytest.raises(FormatError, match="ends within a segment"):
        open_file(path)


def test_a_segment_has_at_most_4_mib(tmp_path):
    """One that is longer is refused; zeros may be of any length."""
    forged = File(1, [Run(0, 0, 1100), Run(0, 0, bytes(1024 * BLOCK))], [forge.region("a", 1100 * BLOCK)])
    with opened(forged.write(tmp_path)) as file:
        assert len(list(file.verify(file.layouts))) == 1
    forged.runs[1].data = bytes(1025 * BLOCK)
    with opened(forged.write(tmp_path)) as file, pytest.raises(FormatError, match="impossible length"):
        list(file.verify(file.layouts))


def test_the_names_offered_are_checked(tmp_path):
    """A file under another name than its own is refused."""
    path = _file().write(tmp_path)
    with pytest.raises(FormatError, match=f"written as {path.name}"):
        open_file(path.rename(tmp_path / "0000000008-0200000000000007.delta"))


def test_unknown_keys_are_ignored(tmp_path):
    """A later version may describe more."""
    forged = _file(more={"future": 1})
    forged.regions[0]["future"] = [2]
    with opened(forged.write(tmp_path)) as file:
        assert file.layouts[0].name == "a"


@pytest.mark.parametrize("kind", ["directory", "broken link", "fifo", "socket"])
def test_what_is_no_file_is_refused(tmp_path, kind):
    """And without waiting for the other end of a fifo."""
    path = tmp_path / _file().name
    with socket.socket(socket.AF_UNIX) as server:
        {
            "directory": path.mkdir,
            "broken link": lambda: path.symlink_to(tmp_path / "target"),
            "fifo": lambda: os.mkfifo(path),
            "socket": lambda: server.bind(str(path)),
        }[kind]()
        with pytest.raises(FormatError, match=r"not a regular file|symlink"):
            open_file(path)


def test_a_symlink_is_followed(tmp_path):
    """In a directory of one's own; the file has to be what the name says."""
    file, other = _file(), _file(file=b"another!")
    (tmp_path / "target").write_bytes(file.build())
    for one in (file, other):
        (tmp_path / one.name).symlink_to("target")
    with opened(tmp_path / file.name) as found:
        assert found.header.number == file.number
    with pytest.raises(FormatError, match="it was written as"):
        open_file(tmp_path / other.name)


@pytest.mark.parametrize("nbytes", [0, 1, 127, 128, 191])
def test_a_file_may_be_too_short(tmp_path, nbytes):
    """For a header and a footer."""
    path = tmp_path / _file().name
    path.write_bytes(_file().build()[:nbytes])
    with pytest.raises(FormatError, match=f"{nbytes} bytes, too few"):
        open_file(path)


def _peak(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_index_of_any_length_takes_little_memory(tmp_path):
    """A sparse file whose index is 192 MiB of zeros, with the right checksum."""
    nbytes = 48 << 22
    forged = File(1, [], [forge.region("a", 1)])
    whole = forged.build()
    text = whole[128:-64]
    tail = struct.pack("<QQQQQ", 128, nbytes, len(text), forge.xxh3_64(bytes(nbytes)), forge.xxh3_64(text))
    path = tmp_path / forged.name
    with open(path, "wb") as out:
        out.write(whole[:128])
        out.seek(128 + nbytes)
        out.write(text + forge.sealed(tail + whole[120:128]) + b"DTCKEND\n")

    def read():
        with pytest.raises(FormatError, match="a segment of 0 runs"):
            open_file(path)

    assert _peak(read) < 16 << 20


def test_a_description_has_a_bound(tmp_path):
    """One of more than 64 MiB is refused before it is read."""
    forged = File(1, [], [forge.region("a", 1)])
    path = forged.write(tmp_path, text=bytes((64 << 20) + 1))

    def read():
        with pytest.raises(FormatError, match="its description has 67108865 bytes"):
            open_file(path)

    assert _peak(read) < 1 << 20


ZSTD_FRAME = zstd.compress(SIXTEEN)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(zstd.compress(bytes(1 << 26)), id="of 64 MiB"),
        pytest.param(zstd.compress(SIXTEEN[1:]), id="too short"),
        pytest.param(ZSTD_FRAME + ZSTD_FRAME, id="two"),
        pytest.param(ZSTD_FRAME + b"x", id="with something behind it"),
        pytest.param(ZSTD_FRAME[:-1], id="cut off"),
        pytest.param(b"no frame", id="none"),
    ],
)
def test_a_frame_gives_exactly_the_segment(tmp_path, frame):
    """Any other is damage, although its checksum fits, and takes no memory for what it claims."""
    forged = File(1, [Run(0, 0, frame)], [forge.region("a", BLOCK)])

    def twist(entries):
        return [(0, ZSTD, 0, 1, *entries[0][4:])]

    path = forged.write(tmp_path, twist=twist)
    with opened(path) as file:
        (one,) = segments(file, [BLOCK])

        def read():
            with pytest.raises(FormatError, match="can't be decompressed"):
                file.read(one)

        assert _peak(read) < 1 << 20


def test_damaged_segments_are_found(tmp_path):
    """Each kind, by its checksum."""
    forged = _file()
    data = bytearray(forged.build())
    for entry in forged.payload()[1]:
        if entry.encoding != ZEROS:
            data[entry.offset + entry.length - 1] ^= 1
    path = tmp_path / forged.name
    path.write_bytes(data)
    with opened(path) as file:
        for one in _stored(file):
            with pytest.raises(FormatError, match=f"the segment at {one.segment.offset} is damaged"):
                file.read(one)
        with pytest.raises(FormatError, match="the segment at 128 is damaged"):
            list(file.verify(file.layouts))


def test_damage_in_place_is_found(tmp_path):
    """It is named by its first block."""
    forged = File(1, [Run(0, 3, SIXTEEN)], [forge.region("a", NBYTES)])
    forge.lay_out(forged)
    data = bytearray(forged.build())
    data[65536 + 4 * BLOCK - 1] ^= 1
    path = tmp_path / forged.name
    path.write_bytes(data)
    with (
        opened(path) as file,
        pytest.raises(FormatError, match="the segment with block 3 of region 0 is damaged"),
    ):
        list(file.verify(file.layouts))


def test_what_changes_under_an_open_file_is_found(tmp_path):
    """An index that is another one by now, and a file that was cut off."""
    path = _file().write(tmp_path)
    with opened(path) as file:
        with open(path, "r+b") as other:
            other.seek(-64 - len(_text()) - 56 + 24, os.SEEK_END)
            other.write(b"\xff")
        with pytest.raises(FormatError, match="index is damaged"):
            segments(file, SIZES)
        os.truncate(path, 200)
        with pytest.raises(FormatError, match="length has changed"):
            segments(file, SIZES)


def test_a_file_that_was_cut_off_is_not_mapped(tmp_path):
    """Whoever touched such a mapping would be killed."""
    forged = File(1, [], [forge.region("a", 3 * BLOCK)])
    forge.lay_out(forged)
    path = forged.write(tmp_path)
    with opened(path) as file:
        assert file.map(0)[:] == bytes(3 * BLOCK)
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(FormatError, match="length has changed"):
            file.map(0)


@pytest.mark.parametrize(("code", "kind"), [(errno.EIO, FormatError), (errno.ENOMEM, OSError)])
def test_a_bad_disk_is_damage(tmp_path, code, kind):
    """EIO is the file's fault; other errors are not, and stay what they are."""
    path = _file().write(tmp_path)

    def fail(call):
        return call.fail(code) if call.name == "dt_read_file" else call.run()

    with intercepted(fail), pytest.raises(kind, match=os.strerror(code)) as caught:
        open_file(path)
    assert isinstance(caught.value, FormatError) == (kind is FormatError)


def test_a_file_that_may_not_be_opened_is_an_error(tmp_path):
    """The system's own; it says nothing about the file."""
    with pytest.raises(FileNotFoundError) as caught:
        open_file(tmp_path / _file().name)
    assert caught.value.filename == str(tmp_path / _file().name)


def test_filling_takes_memory_for_a_segment_and_no_more(tmp_path):
    """Which is used again for the next one."""
    runs = [Run(0, first, 256 * SIXTEEN, RAW) for first in range(0, 1024, 256)]
    with opened(File(1, runs, [forge.region("a", 1024 * BLOCK)]).write(tmp_path)) as file:
        target = memoryview(bytearray(1024 * BLOCK))
        state = State(Node(file, None, file.layouts))
        before = resident_bytes()
        assert _peak(lambda: state.fill({0: Memory("the target", target, "")})) < 64 << 10
        assert resident_bytes() - before < 4 << 20
        assert target == 1024 * SIXTEEN
