"""Whatever happens to a file, it is named and not used; what is read instead is a checkpoint, bit for bit."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _lib.checkpoint import forge, fuzz_reader
from _lib.checkpoint.forge import BLOCK, RAW, ZSTD
from dirtytrack import ChainError
from dirtytrack.checkpoint.chain import Chain
from dirtytrack.checkpoint.format.layout import Layout, groups_of
from dirtytrack.checkpoint.restore import load, restore

pytestmark = pytest.mark.anywhere

NBYTES = 8 * BLOCK + 200


def _states():
    # Two blocks more are changed with each state, and never again: every run counts to the end.
    noise = (forge.xxh3_64(bytes([at])).to_bytes(8, "big") * (BLOCK // 8) for at in range(9))
    data = bytearray(b"".join(noise)[:NBYTES])
    states = []
    for number in (1, 2, 3):
        for at in (number, number + 4):
            data[at * BLOCK : at * BLOCK + 4] = bytes([number]) * 4
        states.append({"a": bytes(data)})
    return states


STATES = _states()
FILES = forge.history(STATES)


@pytest.fixture
def directory(tmp_path):
    return forge.write(tmp_path / "chain", FILES)


def _sections(file):
    # Where each structure of a file begins, and where the last one ends.
    payload, entries = file.payload()
    index = len(payload) + 56 * len(entries)
    end = len(file.build())
    return {
        "header": (0, 128),
        "payload": (128, len(payload)),
        "index": (len(payload), index),
        "description": (index, end - 64),
        "footer": (end - 64, end),
    }


def _expect_older(directory, damaged, *, verify=False):
    # The file of that checkpoint is known to be damaged, and the checkpoints before it are all there is.
    with Chain(directory) as chain:
        if verify:
            assert chain.problems == ()
            chain.verify()
        assert [problem.number for problem in chain.problems] == list(range(damaged, 4))
        assert [checkpoint.number for checkpoint in chain] == list(range(1, damaged))
    _expect_restored(directory, damaged - 1)


def _expect_restored(directory, number):
    memory = bytearray(b"\xaa" * NBYTES)
    if number == 0:
        with pytest.raises(ChainError, match="no complete checkpoint"):
            restore(directory, into={"a": memory})
    else:
        assert restore(directory, into={"a": memory}) == {"step": number}
        assert memory == STATES[number - 1]["a"]


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("section", ["header", "index", "description", "footer"])
def test_every_byte_of_the_structures_counts(directory, number, section):
    """Flip one bit, in any of them, and the file is not used; each bit has its turn."""
    path, whole = directory / FILES[number - 1].name, FILES[number - 1].build()
    for at in range(*_sections(FILES[number - 1])[section]):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        with Chain(directory) as chain:
            assert [checkpoint.number for checkpoint in chain] == list(range(1, number))
            assert [problem.file for problem in chain.problems] == [file.name for file in FILES[number - 1 :]]
    _expect_older(directory, number)


@pytest.mark.parametrize("encoding", [RAW, ZSTD])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_contents_count(tmp_path, number, encoding):
    """Flip a bit of a segment, here and there, and it is found when it is read."""
    files = forge.history(STATES, encoding=encoding)
    directory = forge.write(tmp_path, files)
    path, whole = directory / files[number - 1].name, files[number - 1].build()
    for offset, length in (entry[4:6] for entry in files[number - 1].payload()[1]):
        for at in {offset, offset + length // 2, offset + length - 1}:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
            _expect_older(directory, number, verify=True)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_files_are_cut_off_anywhere(directory, number):
    """At every boundary of a structure, a byte before and after it, and in between; and overlong ones."""
    path, whole = directory / FILES[number - 1].name, FILES[number - 1].build()
    ends = {stop for _, stop in _sections(FILES[number - 1]).values()} | set(range(0, len(whole), 997))
    for end in sorted({end + by for end in ends for by in (-1, 0, 1)}):
        if 0 <= end != len(whole):
            path.write_bytes(whole[:end].ljust(end, b"\0"))
            _expect_older(directory, number)
    path.write_bytes(whole + whole)
    _expect_older(directory, number)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_pages_that_never_reached_the_disk(directory, number):
    """Zeros in place of any block of the file, or of all of it: the length alone proves nothing."""
    path, whole = directory / FILES[number - 1].name, FILES[number - 1].build()
    for start in range(0, len(whole), BLOCK):
        stop = min(start + BLOCK, len(whole))
        path.write_bytes(whole[:start] + bytes(stop - start) + whole[stop:])
        _expect_restored(directory, number - 1)
    path.write_bytes(bytes(len(whole)))
    _expect_older(directory, number)


def test_exchanged_segments_are_found(directory):
    """Each intact in the other's place."""
    path, whole = directory / FILES[1].name, bytearray(FILES[1].build())
    (one, length), (other, _) = (entry[4:6] for entry in FILES[1].payload()[1])
    whole[one : one + length], whole[other : other + length] = (
        whole[other : other + length],
        whole[one : one + length],
    )
    path.write_bytes(whole)
    _expect_older(directory, 2, verify=True)


def test_exchanged_sections_are_found(directory):
    """The payload, the index or the description of another file of the same length."""
    sections = _sections(FILES[1])
    assert sections == _sections(FILES[2])
    path, mine, other = directory / FILES[2].name, FILES[2].build(), FILES[1].build()
    for name, (start, stop) in sections.items():
        path.write_bytes(mine[:start] + other[start:stop] + mine[stop:])
        _expect_older(directory, 3, verify=name == "payload")


def test_a_file_in_anothers_place_is_named(directory):
    """A copy under another name, and one file moved over another."""
    copy = directory / f"0000000009-{'ab' * 8}.delta"
    copy.write_bytes(FILES[2].build())
    with Chain(directory) as chain:
        assert [(one.file, one.reason) for one in chain.problems] == [
            (copy.name, f"it was written as {FILES[2].name}")
        ]
    _expect_restored(directory, 3)
    copy.unlink()
    os.replace(directory / FILES[1].name, directory / FILES[2].name)
    with Chain(directory) as chain:
        assert [problem.file for problem in chain.problems] == [FILES[2].name]
    _expect_restored(directory, 1)


@pytest.mark.parametrize(
    "name",
    [
        "0000000009-0123456789abcdef.tmp",
        "9-0123456789abcdef.delta",
        "00000000009-0123456789abcdef.delta",
        "0000000009-0123456789ABCDEF.delta",
        "0000000009-0123456789abcde.delta",
        "0000000009-0123456789abcdef.delta.bak",
        ".0000000009-0123456789abcdef.delta",
        "\u0660000000009-0123456789abcdef.delta",
        "-000000009-0123456789abcdef.delta",
        "999999999999999999999-0123456789abcdef.delta",
        f"{2**63}-0123456789abcdef.delta",
    ],
)
def test_other_names_are_nobodys_business(directory, name):
    """Whatever the files hold."""
    (directory / name).write_bytes(b"\x89DTCK")
    (directory / "sub").mkdir()
    with Chain(directory) as chain:
        assert (len(chain), chain.problems) == (3, ())


def test_names_that_are_no_text(directory):
    """A file's name may be any bytes."""
    with open(os.fsencode(directory) + b"/\xff\xfe", "wb"):
        pass
    with Chain(directory) as chain:
        assert (len(chain), chain.problems) == (3, ())


@pytest.mark.parametrize("kind", ["directory", "link", "fifo", "text", "empty"])
def test_something_else_under_a_files_name(directory, kind):
    """It is named, and nobody waits for it."""
    path = directory / FILES[2].name
    elsewhere = directory.parent / "elsewhere"
    path.rename(elsewhere)
    {
        "directory": path.mkdir,
        "link": lambda: path.symlink_to(elsewhere.name),
        "fifo": lambda: os.mkfifo(path),
        "text": lambda: path.write_text("To whom it may concern. " * 99),
        "empty": path.touch,
    }[kind]()
    _expect_older(directory, 3)


def test_a_sparse_file_of_a_tib_is_refused_at_once(directory):
    """What it says of its length, or the lack of a footer, is enough."""
    path = directory / FILES[2].name
    os.truncate(path, 1 << 40)
    _expect_older(directory, 3)
    whole = FILES[2].build(footer={0: struct.pack("<Q", 1 << 62), 8: struct.pack("<Q", 1 << 60)})
    path.write_bytes(whole[:128])
    with open(path, "r+b") as file:
        file.seek((1 << 40) - 64)
        file.write(whole[-64:])
    _expect_older(directory, 3)


def test_a_region_longer_than_any_memory_costs_no_memory(directory):
    """A file may say so, and is checked like the others; only to load it there is no memory."""
    longest = (1 << 62) - BLOCK
    zeros = forge.Run(0, 0, longest // BLOCK - 1)
    file = forge.File(4, [zeros], [forge.region("a", longest)], parent=forge.checkpoint_id(3))
    file.write(directory)
    with Chain(directory) as chain:
        assert chain.verify() == ()
        assert [checkpoint.number for checkpoint in chain] == [1, 2, 3, 4]
    with pytest.raises(MemoryError, match="region 'a' has"):
        load(directory)


def test_the_names_of_one_region_are_one_set():
    """Whatever a file says: a set for each, of all of them, would take as many times as many."""
    table = [Layout("0", BLOCK, None, None, None, BLOCK)]
    table += [Layout(str(at), BLOCK, None, None, None, BLOCK, same_as=0) for at in range(1, 1000)]
    groups = groups_of(table)
    assert len(groups) == 1000
    assert len({id(group) for group in groups.values()}) == 1


def test_the_seeds_of_the_fuzzer_are_intact(tmp_path):
    """Else it would find nothing."""
    for name, data in fuzz_reader.SEEDS:
        (tmp_path / name).write_bytes(data)
    fuzz_reader.compare(tmp_path)
    with Chain(tmp_path) as chain:
        assert (len(chain), chain.verify()) == (5, ())


@pytest.mark.slow
@settings(max_examples=400)
@given(data=st.data())
def test_mutated_files_give_no_wrong_byte(tmp_path_factory, data):
    """Whatever was changed, with and without checksums that fit: what both readers give is the same."""
    directory = tmp_path_factory.mktemp("mutated")
    fuzz_reader.play(lambda count: data.draw(st.integers(0, count - 1)), directory)
