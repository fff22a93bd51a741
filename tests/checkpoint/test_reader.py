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
import zstandard

from _lib.checkpoint import forge, independent_reader
from _lib.checkpoint.files import open_file, opened
from _lib.checkpoint.forge import BLOCK, RAW, ZEROS, ZSTD, File, Run
from _lib.support import resident_bytes
from dirtytrack.checkpoint.format.structures import Encoding, FormatError
from dirtytrack.checkpoint.read.state import State
from dirtytrack.kernel.touch import Memory

pytestmark = pytest.mark.anywhere

NBYTES = 10 * BLOCK + 100
SIXTEEN = bytes(range(16)) * (BLOCK // 16)


def _file(**more):
    regions = [forge.region("a", NBYTES), forge.region("b", 5, dtype="|u1", shape=[5])]
    runs = [
        Run(0, 1, 2 * SIXTEEN),
        Run(0, 9, SIXTEEN + b"x" * 100, ZSTD),
        Run(0, 4, 3),
        Run(1, 0, b"12345"),
    ]
    return File(7, runs, regions, forge.DELTA, forge.checkpoint_id(6), **more)


def test_a_file_says_what_was_written(tmp_path):
    """Header, description, length and entries, as an independent writer put them there."""
    forged = _file()
    path = forged.write(tmp_path)
    with opened(path) as file:
        assert str(file.name) == path.name
        assert file.nbytes == path.stat().st_size
        assert file.header[1:] == (forged.chain, forged.checkpoint, forged.parent, forged.file, 7)
        assert json.loads(json.dumps([layout.to_json() for layout in file.layouts])) == forged.regions
        described = forged.description()
        said = file.description
        assert (json.loads(said.meta), said.created) == (described["meta"], described["created"])
        assert (said.consistency, said.statistics) == (described["consistency"], described["statistics"])
        assert list(file.entries()) == forged.payload()[1]


def test_runs_are_read(tmp_path):
    """Raw and compressed, with and without memory for them."""
    forged = _file()
    expected = [run.data for run in forged.runs if not isinstance(run.data, int)]
    with opened(forged.write(tmp_path)) as file:
        stored = [entry for entry in file.entries() if entry.encoding != Encoding.ZEROS]
        assert [bytes(file.read(entry)) for entry in stored] == expected
        for entry, data in zip(stored, expected, strict=True):
            assert file.read(entry, memoryview(bytearray(3 * BLOCK))) == data
        assert list(file.verify()) == [
            2 * BLOCK,
            2 * BLOCK + stored[1].length,
            2 * BLOCK + stored[1].length + 5,
        ]


def test_the_independent_reader_agrees(tmp_path):
    """It reads what the independent writer wrote."""
    forged = _file()
    read = independent_reader.read_file(forged.write(tmp_path))
    assert [run[3] for run in read.runs] == [
        None if isinstance(run.data, int) else run.data for run in forged.runs
    ]
    assert read.description == forged.description()


def _text(**changes):
    return json.dumps({**_file().description(), **changes}).encode()


def _regions(*rows, **changes):
    return _text(regions=[{**forge.region("a", NBYTES), **changes}, *rows])


def _entry(**changes):
    names = ("region", "encoding", "first", "count", "offset", "length", "checksum")

    def twist(entries):
        return [tuple({**dict(zip(names, entries[0], strict=True)), **changes}.values()), *entries[1:]]

    return {"twist": twist}


U32, U64 = struct.Struct("<I").pack, struct.Struct("<Q").pack
BAD_HEADERS = [
    ({0: b"\x88"}, "no checkpoint file"),
    ({8: U32(2)}, "version 2"),
    ({12: U32(0)}, "impossible values"),
    ({12: U32(3)}, "impossible values"),
    ({12: U32(1)}, r"written as 0000000007-\w+\.base"),
    ({32: bytes(16)}, "impossible values"),
    ({32: forge.checkpoint_id(6)}, "impossible values"),
    ({48: bytes(16)}, "without a parent"),
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
    (_regions(forge.region("b", 3), nbytes=0), "comes after"),
    (_regions(forge.region("b", 0, linear=65536)), "comes after"),
    (_regions(forge.region("b", NBYTES, same_as=0), forge.region("c", 3)), "comes after"),
    (_regions(forge.region("b", NBYTES, same_as=1)), "a region that there is not"),
    (_regions(forge.region("b", 3, same_as=0)), "a region that there is not"),
    (_regions(forge.region("b", 0, same_as=0)), "a region that there is not"),
    (_regions(forge.region("b", NBYTES, same_as=-1)), "something else"),
    (_regions(forge.region("b", NBYTES, same_as="a")), "something else"),
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
BAD_ENTRIES = [
    (_entry(region=2), "region 2 of 2"),
    (_entry(encoding=3), "encoding 3, which is not known"),
    (_entry(first=10), "does not have"),
    (_entry(first=2**64 - 1), "does not have"),
    (_entry(count=0), "does not have"),
    (_entry(count=2**64 - 1), "does not have"),
    (_entry(count=1), "impossible length"),
    (_entry(length=BLOCK), "impossible length"),
    (_entry(encoding=ZSTD), "impossible length"),
    (_entry(encoding=ZSTD, length=0), "impossible length"),
    (_entry(offset=127), "outside of the payload"),
    (_entry(offset=128 + 100_000), "outside of the payload"),
    (_entry(offset=2**64 - 1), "outside of the payload"),
    (_entry(encoding=ZEROS), "stores zeros"),
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


def test_runs_that_lie_on_each_other_are_refused(tmp_path):
    """So that reading takes no longer than the file is; all checksums fit."""
    data = b"".join(at.to_bytes(8, "big") for at in range(256 * BLOCK // 8))
    forged = File(1, [Run(0, 0, data + data)], [forge.region("a", 256 * BLOCK)])

    def twist(_):
        for at in range(100):
            stored = (data + data)[at : at + len(data)]
            yield 0, RAW, 0, 256, 128 + at, len(stored), forge.xxh3(stored)

    forged.runs = [Run(0, 0, data, offset=128), Run(0, 0, data, offset=128 + len(data))]
    read = []
    path = forged.write(tmp_path, twist=twist)
    with opened(path) as file, pytest.raises(FormatError, match="lie on each other"):
        read.extend(file.verify())
    assert len(read) <= 2


@pytest.mark.parametrize("encoding", [RAW, ZSTD])
def test_a_run_to_which_many_entries_point_is_verified_once(tmp_path, encoding):
    """They are right: the same content in many places."""
    data = b"".join(at.to_bytes(8, "big") for at in range(256 * BLOCK // 8))
    forged = File(1, [Run(0, 0, data, encoding)], [forge.region("a", len(data))])
    with opened(forged.write(tmp_path, twist=lambda entries: entries * 1000)) as file:
        assert len(list(file.verify())) == 1


@pytest.mark.parametrize(("changes", "reason"), BAD_ENTRIES)
def test_an_entry_that_points_elsewhere_is_refused(tmp_path, changes, reason):
    """An index may be intact and yet say what can't be."""
    with opened(_file().write(tmp_path, **changes)) as file:
        with pytest.raises(FormatError, match=reason):
            list(file.entries())
        with pytest.raises(FormatError, match=reason):
            list(file.verify())


def test_a_stored_run_has_at_most_256_blocks(tmp_path):
    """One that is longer is refused; zeros may be of any length."""
    forged = File(1, [Run(0, 0, 300), Run(0, 0, bytes(257 * BLOCK))], [forge.region("a", 300 * BLOCK)])
    with (
        opened(forged.write(tmp_path)) as file,
        pytest.raises(FormatError, match="impossible length"),
    ):
        list(file.entries())


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
    tail = struct.pack("<QQQQQ", 128, nbytes // 48, len(text), forge.xxh3(bytes(nbytes)), forge.xxh3(text))
    path = tmp_path / forged.name
    with open(path, "wb") as out:
        out.write(whole[:128])
        out.seek(128 + nbytes)
        out.write(text + forge.sealed(tail + whole[120:128]) + b"DTCKEND\n")

    def read():
        with opened(path) as file, pytest.raises(FormatError, match="does not have"):
            list(file.entries())

    assert _peak(read) < 16 << 20


def test_a_description_has_a_bound(tmp_path):
    """One of more than 64 MiB is refused before it is read."""
    forged = File(1, [], [forge.region("a", 1)])
    path = forged.write(tmp_path, text=bytes((64 << 20) + 1))

    def read():
        with pytest.raises(FormatError, match="its description has 67108865 bytes"):
            open_file(path)

    assert _peak(read) < 1 << 20


ZSTD_FRAME = zstandard.ZstdCompressor().compress(SIXTEEN)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(zstandard.ZstdCompressor().compress(bytes(1 << 26)), id="of 64 MiB"),
        pytest.param(zstandard.ZstdCompressor().compress(SIXTEEN[1:]), id="too short"),
        pytest.param(ZSTD_FRAME + ZSTD_FRAME, id="two"),
        pytest.param(ZSTD_FRAME + b"x", id="with something behind it"),
        pytest.param(ZSTD_FRAME[:-1], id="cut off"),
        pytest.param(b"no frame", id="none"),
    ],
)
def test_a_frame_gives_exactly_the_run(tmp_path, frame):
    """Any other is damage, although its checksum fits, and takes no memory for what it claims."""
    forged = File(1, [Run(0, 0, frame)], [forge.region("a", BLOCK)])

    def twist(entries):
        return [(0, ZSTD, 0, 1, *entries[0][4:])]

    path = forged.write(tmp_path, twist=twist)
    with opened(path) as file:
        (entry,) = file.entries()

        def read():
            with pytest.raises(FormatError, match="can't be decompressed"):
                file.read(entry)

        assert _peak(read) < 1 << 20


def test_damaged_runs_are_found(tmp_path):
    """Each kind of run, by its checksum."""
    forged = _file()
    data = bytearray(forged.build())
    entries = [entry for entry in forged.payload()[1] if entry[1] != ZEROS]
    for entry in entries:
        data[entry[4] + entry[5] - 1] ^= 1
    path = tmp_path / forged.name
    path.write_bytes(data)
    with opened(path) as file:
        for entry in file.entries():
            if entry.encoding != Encoding.ZEROS:
                with pytest.raises(FormatError, match=f"the run at {entry.offset} is damaged"):
                    file.read(entry)
        with pytest.raises(FormatError, match="the run at 128 is damaged"):
            list(file.verify())


def test_what_changes_under_an_open_file_is_found(tmp_path):
    """An index that is another one by now, and a file that was cut off."""
    path = _file().write(tmp_path)
    with opened(path) as file:
        with open(path, "r+b") as other:
            other.seek(-64 - len(_text()) - 8, os.SEEK_END)
            other.write(b"\xff")
        with pytest.raises(FormatError, match="index is damaged"):
            list(file.entries())
        os.truncate(path, 200)
        with pytest.raises(FormatError, match="length has changed"):
            list(file.entries())


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


def test_short_reads_are_continued(tmp_path, monkeypatch):
    """A read may give less than was asked for."""
    path = _file().write(tmp_path)
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: preadv(fd, [buffers[0][:1000]], offset))
    with opened(path) as file:
        assert [bytes(file.read(entry)) for entry in file.entries() if entry.length] == [
            run.data for run in _file().runs if not isinstance(run.data, int)
        ]


@pytest.mark.parametrize(("code", "kind"), [(errno.EIO, FormatError), (errno.ENOMEM, OSError)])
def test_a_bad_disk_is_damage(tmp_path, monkeypatch, code, kind):
    """EIO is the file's fault; other errors are not, and stay what they are."""
    path = _file().write(tmp_path)

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(kind, match=os.strerror(code)) as caught:
        open_file(path)
    assert isinstance(caught.value, FormatError) == (kind is FormatError)


def test_a_file_that_may_not_be_opened_is_an_error(tmp_path):
    """The system's own; it says nothing about the file."""
    with pytest.raises(FileNotFoundError) as caught:
        open_file(tmp_path / _file().name)
    assert caught.value.filename == str(tmp_path / _file().name)


def test_filling_takes_memory_for_a_run_and_no_more(tmp_path):
    """Which is used again for the next one."""
    runs = [Run(0, first, 256 * SIXTEEN, RAW) for first in range(0, 1024, 256)]
    with opened(File(1, runs, [forge.region("a", 1024 * BLOCK)]).write(tmp_path)) as file:
        target = memoryview(bytearray(1024 * BLOCK))
        state = State([file])
        before = resident_bytes()
        assert _peak(lambda: state.fill(0, Memory("the target", target, ""))) < 64 << 10
        assert resident_bytes() - before < 4 << 20
        assert target == 1024 * SIXTEEN
