"""The verb checkpoint: what it says of a chain, whole or damaged, and what it writes."""

from __future__ import annotations

import io
import json
import math
import os
import re
import secrets
import struct
import sys
from contextlib import redirect_stdout
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, get_args
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dirtytrack
from _lib.checkpoint import forge
from _lib.cli.chains import Made, call, chain, original, room, settle, shell, terminal
from _lib.works import tracking_works
from dirtytrack.checkpoint import Chain, Checkpointer
from dirtytrack.checkpoint.write.compression import CompressionName
from dirtytrack.cli import main
from dirtytrack.cli._extract import file_name

__all__ = ["call", "chain", "original", "tracking_works"]


def test_list_has_a_line_for_each_checkpoint(chain: Made, call: Any) -> None:
    """Number, kind, local time, size on the disk, blocks, pause, consistency and meta are the save's own."""
    code, out, err = call("list", chain.path)
    title, *lines = out.splitlines()
    assert (code, err) == (0, "")
    titles = ["checkpoint", "kind", "created", "on disk", "written", "stored", "pause", "consistency", "meta"]
    assert re.split("  +", title) == titles
    largest = max(room(chain.path / file) for file in chain.files())
    for save, file, line in zip(chain.saves, chain.files(), lines[:4], strict=True):
        assert re.split("  +", line.strip()) == [
            str(save.number),
            save.kind,
            datetime.fromtimestamp(save.created).strftime("%Y-%m-%d %H:%M:%S"),
            f"{room(chain.path / file) / 1024:.1f} KiB",
            "#" * math.ceil(12 * room(chain.path / file) / largest),
            str(save.blocks_written),
            str(save.blocks_stored),
            f"{save.pause * 1e3:.2f} ms",
            save.consistency,
            json.dumps(save.meta),
        ]
    total = sum(room(chain.path / file) for file in chain.files())
    assert lines[4:] == [
        f"4 checkpoints; {total / 1024:.1f} KiB on disk in 4 files",
        '2 regions, 260.9 KiB: "w" 256.0 KiB, "b" 4.9 KiB',
    ]


def test_list_as_json_has_everything(chain: Made, call: Any) -> None:
    """Identifiers, parents, files, statistics and regions, sizes as numbers of bytes."""
    code, out, _ = call("list", chain.path, "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["path"], found["newest"], found["problems"]) == (str(chain.path), 4, [])
    assert found["disk_bytes"] == sum(room(chain.path / file) for file in chain.files())
    parent = None
    for save, file, checkpoint in zip(chain.saves, chain.files(), found["checkpoints"], strict=True):
        header = (chain.path / file).read_bytes()[:128]
        assert found["chain"] == header[16:32].hex()
        assert checkpoint["id"] == header[32:48].hex()
        assert (checkpoint["parent"], checkpoint["file"], checkpoint["meta"]) == (
            parent,
            file,
            {"step": save.number},
        )
        assert checkpoint["nbytes"] == os.stat(chain.path / file).st_size
        assert checkpoint["disk_bytes"] == room(chain.path / file)
        assert checkpoint["statistics"]["blocks_stored"] == save.blocks_stored
        assert [
            [one["name"], one["nbytes"], one["dtype"], one["shape"]] for one in checkpoint["regions"]
        ] == [
            ["w", 64 * 1024 * 4, "<f4", [64, 1024]],
            ["b", 5000, None, None],
        ]
        parent = checkpoint["id"]


def test_list_names_what_cannot_be_used(chain: Made, call: Any) -> None:
    """A file that was cut off and the one that stands on it are listed apart, with the reason."""
    os.truncate(chain.path / chain.files()[2], 200)
    code, out, _ = call("list", chain.path)
    lines = out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
    assert lines[3].startswith("2 checkpoints; ")
    assert lines[5] == "2 files can't be used:"
    assert [line.split(":")[0].strip() for line in lines[6:]] == chain.files()[2:]


def test_meta_is_cut_to_the_width_of_the_terminal(tmp_path: Path) -> None:
    """On a terminal every line fits; in a pipe the meta is whole."""
    meta = {"note": "x" * 300}
    with Checkpointer(tmp_path / "chain", {"b": bytearray(5000)}) as checkpoints:
        checkpoints.save(meta=meta)
    code, text = terminal("list", tmp_path / "chain", stream="stdout", columns=120)
    assert code == 0
    lines = text.splitlines()
    assert len(lines[1]) == max(map(len, lines)) == 120
    assert lines[1].endswith("x...")
    assert json.dumps(meta) in shell("checkpoint", "list", tmp_path / "chain").stdout


def test_verify_of_an_intact_chain_is_0(chain: Made, call: Any) -> None:
    """It says so, names the newest checkpoint, and writes nothing on a stderr that is no terminal."""
    code, out, err = call("verify", chain.path)
    assert (code, err) == (0, "")
    created = datetime.fromtimestamp(chain.saves[3].created).strftime("%Y-%m-%d %H:%M:%S")
    assert out == (
        f"4 checkpoints, all files intact.\nThe newest that can be restored is 4 of {created} (proven).\n"
    )


def test_verify_finds_a_flipped_bit(chain: Made, call: Any) -> None:
    """The exit code is 1; the file, what stands on it and the newest checkpoint without it are named."""
    name = chain.damage(3)
    code, out, err = call("verify", chain.path)
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert lines[:2] == [
        "2 files can't be used:",
        f"  {name}: the segment at 128 is damaged: the checksum does not fit",
    ]
    assert lines[2].startswith(f"  {chain.files()[3]}: its parent")
    assert lines[3] == "2 checkpoints, DAMAGED."
    assert lines[4].startswith("The newest that can be restored is 2 of ")


def test_verify_as_json(chain: Made, call: Any) -> None:
    """The same for programs."""
    assert json.loads(call("verify", chain.path, "--json")[1])["intact"] is True
    name = chain.damage(3)
    code, out, _ = call("verify", chain.path, "--json")
    found = json.loads(out)
    assert (code, found["intact"], found["newest"], found["checkpoints"]) == (1, False, 2, [1, 2])
    assert [problem["file"] for problem in found["problems"]] == [name, chain.files()[3]]


def test_verify_where_nothing_is_left(chain: Made, call: Any) -> None:
    """Without the base no checkpoint can be restored, and all files are named."""
    chain.damage(1, 3)
    code, out, _ = call("verify", chain.path)
    assert code == 1
    assert out.endswith("0 checkpoints, DAMAGED.\nNone can be restored.\n")
    assert all(f"  {name}: " in out for name in chain.files())


@pytest.mark.parametrize("verb", ["verify", "restore", "copy", "compact"])
def test_progress_is_drawn_on_a_terminal_only(chain: Made, tmp_path: Path, verb: str) -> None:
    """On a terminal stderr is one line, redrawn, and gone in the end; elsewhere it stays empty."""
    arguments = chain.arguments(verb, tmp_path / "out")
    code, text = terminal(*arguments[1:], stream="stderr")
    assert code == 0
    assert re.search(rf"{verb} .*KiB", text)  # a bar of rich
    assert text.endswith("\x1b[2K")
    again = chain.arguments(verb, tmp_path / "again")
    result = shell(*again)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("at", [None, 1, 2, 3, 4])
def test_restore_writes_arrays(chain: Made, tmp_path: Path, call: Any, at: int | None) -> None:
    """Each region is an array in a file for its owner only; the meta is JSON."""
    out = tmp_path / "new" / "out"
    code, text, err = call("restore", chain.path, "--into", out, *([] if at is None else ["--at", at]))
    state = chain.states[(at or 4) - 1]
    assert (code, err) == (0, "")
    assert set(os.listdir(out)) == {"w.npy", "b.npy"}
    for name, expected in state.items():
        array = np.load(out / f"{name}.npy")
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
        assert array.tobytes() == expected.tobytes()
        assert os.stat(out / f"{name}.npy").st_mode & 0o777 == 0o600
    assert f'meta {{"step": {at or 4}}}\n' in text


def test_tied_and_empty_arrays_become_files(tmp_path: Path, call: Any) -> None:
    """Each of its own; the list counts memory with two names once."""
    weights = np.arange(5000.0).reshape(100, 50)
    memories = {"a": weights, "b": weights.T, "none": np.zeros((0, 3), "i2"), "bytes": bytearray()}
    with Checkpointer(tmp_path / "chain", memories, fsync=False) as checkpoints:
        checkpoints.save()
    assert "4 regions, 39.1 KiB: " in call("list", tmp_path / "chain")[1]
    assert call("restore", tmp_path / "chain", "--into", tmp_path / "out")[0] == 0
    found = {name: np.load(tmp_path / "out" / f"{name}.npy") for name in memories}
    assert (found["a"] == weights).all()
    assert (found["b"] == weights.T).all()
    assert (found["none"].shape, found["none"].dtype, found["bytes"].shape) == ((0, 3), np.int16, (0,))


def test_overlapping_fields_become_bytes(tmp_path: Path, call: Any) -> None:
    """A file of numpy's has no word for them."""
    word = np.dtype({"names": ["word", "low"], "formats": ["<u4", "<u2"], "offsets": [0, 0]})
    with Checkpointer(tmp_path / "chain", {"a": np.array([7], "<u4").view(word)}, fsync=False) as checkpoints:
        checkpoints.save()
    code, _, err = call("restore", tmp_path / "chain", "--into", tmp_path / "out")
    assert (code, "Use --format raw" in err, os.listdir(tmp_path / "out")) == (1, True, [])
    assert call("restore", tmp_path / "chain", "--into", tmp_path / "out", "--format", "raw")[0] == 0
    assert (tmp_path / "out" / "a.bin").read_bytes() == struct.pack("<I", 7)


def test_restore_by_identifier_and_region_as_bytes(chain: Made, tmp_path: Path, call: Any) -> None:
    """It may be called by its identifier; --region names what is written; raw is the bytes alone."""
    identifier = chain.saves[1].id
    arguments = ["--at", identifier, "--region", "w", "--region", "w", "--format", "raw", "--json"]
    code, text, _ = call("restore", chain.path, "--into", tmp_path / "out", *arguments)
    found = json.loads(text)
    assert (code, found["checkpoint"], found["id"], found["meta"]) == (0, 2, identifier, {"step": 2})
    assert found["files"] == [{"region": "w", "file": "w.bin", "nbytes": 64 * 1024 * 4}]
    assert os.listdir(tmp_path / "out") == ["w.bin"]
    assert (tmp_path / "out" / "w.bin").read_bytes() == chain.states[1]["w"].tobytes()


ARRAYS = {
    "C": np.arange(6000, dtype="<i2").reshape(20, 300),
    "Fortran": np.asfortranarray(np.arange(6000, dtype="<f8").reshape(20, 300)),
    "other order": np.arange(6000, dtype=">u4").reshape(10, 20, 30).transpose(1, 0, 2),
    "structure": np.array([(1, 2.5, b"x"), (3, 4.5, b"yz")], dtype=[("a", "<i4"), ("b", "<f8"), ("c", "S3")]),
    "scalar": np.array(7.5),
    "bool": np.array([True, False, True]),
    "time": np.array(["2024-02-29", "1970-01-01"], dtype="M8[s]"),
}


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_arrays_of_all_kinds_come_back(tmp_path: Path, call: Any, compression: str) -> None:
    """Elements, shape and values are those of the array that was saved, whatever its order of axes."""
    arrays = {name: array.copy("K") for name, array in ARRAYS.items()}
    with Checkpointer(tmp_path / "chain", arrays, compression=compression) as checkpoints:
        checkpoints.save()
    assert call("restore", tmp_path / "chain", "--into", tmp_path / "out")[0] == 0
    assert sorted(map(unquote, os.listdir(tmp_path / "out"))) == sorted(f"{name}.npy" for name in ARRAYS)
    for name, expected in ARRAYS.items():
        array = np.load(tmp_path / "out" / file_name(name, ".npy"), allow_pickle=False)
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(array, expected)


NAMES = [
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "..",
    ".",
    "-rf",
    "~",
    "nul\0",
    "\x1b[31mred\x07",
    "\n",
    "λ" * 127,
]
NAMES += ["%2E", "%", "C:\\x", "a" * 255, "a" * 254 + "b", "\u202etxt.exe", " "]


def test_names_of_regions_do_not_leave_the_directory(tmp_path: Path, call: Any) -> None:
    """Whatever regions are called, each has a file of its own in the directory, and nothing else appears."""
    regions = {name: bytearray(name.encode()) for name in NAMES}
    with Checkpointer(tmp_path / "chain", regions) as checkpoints:
        checkpoints.save(meta="\x1b[31m")
    out = tmp_path / "deep" / "out"
    code, text, _ = call("restore", tmp_path / "chain", "--into", out, "--format", "raw", "--json")
    assert code == 0
    found = {one["region"]: one["file"] for one in json.loads(text)["files"]}
    assert found.keys() == regions.keys()
    assert sorted(found.values()) == sorted(os.listdir(out))
    assert os.listdir(tmp_path / "deep") == ["out"]
    for name, file in found.items():
        assert re.fullmatch(r"[\w%][\w%.~-]*\.bin", file, re.ASCII)
        assert (out / file).read_bytes() == name.encode()
        if len(file) < 200:
            assert unquote(file) == f"{name}.bin"
    for verb in ("list", "verify"):
        assert call(verb, tmp_path / "chain")[0] == 0
    code, _, err = call("restore", tmp_path / "chain", "--into", out, "--region", "\x1b[31mno")
    assert (code, "has no region '\\x1b[31mno'" in err) == (1, True)


@pytest.mark.slow
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=90), unique=True))
@pytest.mark.anywhere
def test_names_of_files_differ_where_regions_do(regions: list[str]) -> None:
    """Two regions never share a file, and no name is too long for a file system."""
    files = {file_name(region, ".npy") for region in regions}
    assert len(files) == len(regions)
    assert all(len(file) < 256 and file.isascii() and "/" not in file for file in files)


def test_files_that_are_there_are_not_replaced(chain: Made, tmp_path: Path, call: Any) -> None:
    """A file, or a link to nowhere, of such a name ends it before a byte is written; --force replaces it."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "b.npy").symlink_to("nowhere")
    code, _, err = call("restore", chain.path, "--into", out)
    assert code == 1
    assert f"'{out / 'b.npy'}'" in err
    assert "--force" in err
    assert os.listdir(out) == ["b.npy"]
    assert call("restore", chain.path, "--into", out, "--force")[0] == 0
    assert not (out / "b.npy").is_symlink()
    np.testing.assert_array_equal(np.load(out / "b.npy"), chain.states[3]["b"])


def test_a_file_that_appears_meanwhile_is_not_replaced(
    chain: Made, tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rename itself refuses."""
    out = tmp_path / "out"

    def appear(*_: int) -> None:
        (out / "w.npy").write_text("mine")

    monkeypatch.setattr("dirtytrack._progress.ShowProgress.__call__", appear)
    code, _, err = call("restore", chain.path, "--into", out)
    assert (code, "File exists" in err) == (1, True)
    assert os.listdir(out) == ["w.npy"]
    assert (out / "w.npy").read_text() == "mine"


def test_a_damaged_checkpoint_leaves_no_file(chain: Made, tmp_path: Path, call: Any) -> None:
    """Asked for by number, a damaged checkpoint is an error; it names the file and the way out."""
    name = chain.damage(3)
    code, out, err = call("restore", chain.path, "--into", tmp_path / "out", "--at", 3)
    assert (code, out) == (1, "")
    assert f"{chain.path / name}: the segment at 128 is damaged" in err
    assert "Without --at" in err
    assert os.listdir(tmp_path / "out") == []


def test_without_a_number_the_newest_intact_checkpoint_is_restored(chain: Made, tmp_path: Path) -> None:
    """The output says which checkpoint it was, and which files are damaged; stderr says nothing."""
    name = chain.damage(3)
    result = shell("checkpoint", "restore", chain.path, "--into", tmp_path / "out")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Restored checkpoint 2 of ")
    assert f"{name}: the segment at 128 is damaged" in result.stdout
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "w.npy"), chain.states[1]["w"])


def test_a_chain_without_an_intact_checkpoint_cannot_be_restored(
    chain: Made, tmp_path: Path, call: Any
) -> None:
    """Nothing is made, and the reason is that of the base."""
    name = chain.damage(1, 3)
    for verb in ("restore", "compact"):
        code, _, err = call(*chain.arguments(verb, tmp_path / "out")[1:])
        assert code == 1
        assert f"holds no complete checkpoint. {name}: it is no checkpoint file" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["npy", "raw"])
def test_a_disk_that_is_full_leaves_no_file(chain: Made, tmp_path: Path, kind: str) -> None:
    """A failed write names the file that could not be written, and none appears."""
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    out = tmp_path / "out"
    result = shell("checkpoint", "restore", chain.path, "--into", out, "--format", kind, code=code)
    assert result.returncode == 1
    name = {"npy": "w.npy", "raw": "w.bin"}[kind]
    assert result.stderr == f"dirtytrack: [Errno 27] File too large: '{out / name}'\n"
    assert os.listdir(out) == []


def test_an_interrupt_leaves_no_file(
    chain: Made, tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C is exit code 130."""

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dirtytrack._progress.ShowProgress.__call__", interrupt)
    for verb in ("verify", "restore", "compact"):
        assert call(*chain.arguments(verb, tmp_path / "out")[1:]) == (130, "", "")
    assert os.listdir(tmp_path / "out") == []
    assert len(chain.files()) == 4


@pytest.mark.slow
def test_memory_is_bounded(tmp_path: Path) -> None:
    """A region of 256 MiB is written with 64 MiB of address space more than the command takes itself."""
    nbytes = 256 << 20
    memory = dirtytrack.alloc(nbytes)
    for at in range(0, nbytes, 1 << 20):
        memory[at : at + 8] = struct.pack("<Q", at)
    with Checkpointer(tmp_path / "chain", {"big": memory}, compression="none") as checkpoints:
        checkpoints.save()
    code = (
        "import pathlib, resource, dirtytrack.checkpoint\n"
        "used = int(pathlib.Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "limit = used + (64 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))"
    )
    out = tmp_path / "out"
    result = shell("checkpoint", "restore", tmp_path / "chain", "--into", out, "--format", "raw", code=code)
    assert (result.returncode, result.stderr) == (0, "")
    with open(out / "big.bin", "rb") as file:
        for at in range(0, nbytes, 1 << 20):
            assert file.read(1 << 20) == struct.pack("<Q", at).ljust(1 << 20, b"\0")
        assert file.read() == b""


@pytest.mark.parametrize(("keep", "left"), [(1, [4]), (2, [3, 4]), (9, [1, 2, 3, 4])])
def test_compact_keeps_the_newest(chain: Made, tmp_path: Path, call: Any, keep: int, left: list[int]) -> None:
    """What is older than the N newest is removed, with what dead writers left; the rest restores."""
    before = chain.files()
    stale = f".{secrets.token_hex(8)}.tmp"
    (chain.path / stale).write_bytes(bytes(100_000))
    settle(chain.path)
    taken = sum(room(chain.path / name) for name in [*before, stale])
    code, out, err = call("compact", chain.path, "--keep", keep, "--json")
    found = json.loads(out)
    after = chain.files()
    assert (code, err, found["base"]) == (0, "", left[0])
    assert found["removed"] == sorted({*before, stale} - set(after))
    assert found["freed_bytes"] == taken - sum(room(chain.path / name) for name in after)
    assert [(int(name[:10]), name.endswith(".base")) for name in after] == [
        (number, number == left[0]) for number in left
    ]
    for number in left:
        target = tmp_path / str(number)
        assert call("restore", chain.path, "--into", target, "--at", number)[0] == 0
        for name, expected in chain.states[number - 1].items():
            assert np.load(target / f"{name}.npy").tobytes() == expected.tobytes()


def test_compact_says_what_it_removed(chain: Made, call: Any) -> None:
    """Each file by name, and the room; the second time there is nothing."""
    removed, before = chain.files(), sum(room(chain.path / name) for name in chain.files())
    code, out, err = call("compact", chain.path)
    (base,) = chain.files()
    now = room(chain.path / base)
    assert (code, err) == (0, "")
    change = f"{abs(before - now) / 1024:.1f} KiB {'less' if now <= before else 'more'}"
    told = f"The chain begins with checkpoint 4. It takes {now / 1024:.1f} KiB on disk, {change} than before."
    assert out.splitlines() == [*(f"removed {name}" for name in removed), told]
    assert call("compact", chain.path)[1].splitlines() == [re.sub(r", .* than", ", 0 B less than", told)]


@pytest.mark.parametrize(("compression", "stored"), [("none", 2 * 4096), ("zstd", 0)])
def test_compact_compresses_if_asked(tmp_path: Path, call: Any, compression: str, stored: int) -> None:
    """Memory of one value is stored as it is, or much shorter."""
    with Checkpointer(tmp_path, {"b": bytearray(b"x" * 8192)}) as checkpoints:
        checkpoints.save()
        checkpoints.save(wait=True)
    assert call("compact", tmp_path, "--compression", compression)[0] == 0
    (name,) = [name for name in os.listdir(tmp_path) if name.endswith(".base")]
    footer = struct.unpack("<Q", (tmp_path / name).read_bytes()[-64:][:8])
    end_of_header = 65536 if compression == "none" else 128
    assert stored <= footer[0] - end_of_header < stored + 200


@pytest.mark.anywhere
def test_compact_takes_what_compression_takes(capsys: pytest.CaptureFixture[str]) -> None:
    """Every choice of the package, and no other."""
    with pytest.raises(SystemExit):
        main(["checkpoint", "compact", "--help"])
    choices = re.search(r"--compression {(.*?)}", capsys.readouterr().out)
    assert choices
    assert set(choices[1].split(",")) == set(get_args(CompressionName))


def test_compact_of_a_chain_with_a_writer_names_its_process(tmp_path: Path) -> None:
    """The exit code is 1, the message has the pid, and no file is touched."""
    with Checkpointer(tmp_path, {"b": bytearray(5000)}) as checkpoints:
        checkpoints.save(wait=True)
        before = sorted(os.listdir(tmp_path))
        result = shell("checkpoint", "compact", tmp_path)
        assert sorted(os.listdir(tmp_path)) == before
    assert (result.returncode, result.stdout) == (1, "")
    assert f"Process {os.getpid()} writes to it" in result.stderr
    assert result.stderr.count("\n") == 1


def test_copy_makes_a_chain(chain: Made, tmp_path: Path, call: Any) -> None:
    """All that is intact, as the same files; what it says is what it made."""
    target = tmp_path / "copies" / "copy"
    code, out, err = call("copy", chain.path, target, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["target"], found["files"], found["problems"]) == (str(target), chain.files(), [])
    for name in chain.files():
        assert (target / name).read_bytes() == (chain.path / name).read_bytes()
    assert call("verify", target)[0] == 0
    code, out, err = call("copy", chain.path, target)
    assert (code, out) == (1, "")
    assert "there is a chain already: choose another directory" in err
    assert call("copy", chain.path, tmp_path / "other") == (0, f"Copied 4 files to {tmp_path}/other.\n", "")


def test_copy_of_one_checkpoint(chain: Made, tmp_path: Path, call: Any) -> None:
    """With what it stands on; damage beyond it is no matter."""
    chain.damage(4)
    assert call("copy", chain.path, tmp_path / "copy", "--at", "3")[0] == 0
    out = call("list", tmp_path / "copy", "--json")[1]
    assert [one["number"] for one in json.loads(out)["checkpoints"]] == [1, 2, 3]
    assert call("copy", chain.path, tmp_path / "no", "--at", "4")[0] == 1


def test_copy_leaves_out_what_is_damaged(chain: Made, tmp_path: Path, call: Any) -> None:
    """It is listed, with what stands on it, and the exit code is 1; the copy is intact."""
    name = chain.damage(3)
    code, out, _ = call("copy", chain.path, tmp_path / "copy")
    assert code == 1
    assert out.splitlines()[0] == f"Copied 2 files to {tmp_path}/copy."
    assert name in out
    assert call("verify", tmp_path / "copy")[0] == 0


def test_copy_begins_anew_when_a_file_is_removed(
    chain: Made, tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a chain too long to be kept open, beside a compaction; what never ends is an error."""
    real, left = Chain.export, 3

    def export(chain: Chain, *arguments: Any, **keywords: Any) -> Any:
        nonlocal left
        left -= 1
        if left:
            raise FileNotFoundError(2, "it was removed", "somewhere")
        return real(chain, *arguments, **keywords)

    monkeypatch.setattr(Chain, "export", export)
    assert call("copy", chain.path, tmp_path / "copy") == (0, f"Copied 4 files to {tmp_path}/copy.\n", "")
    code, _, err = call("copy", chain.path, tmp_path / "other")
    assert code == 1
    assert "it was removed" in err


def test_list_is_linear(tmp_path: Path) -> None:
    """Four times the checkpoints take no more than four times the calls, as text and as JSON."""
    regions = [forge.region("a", 5)]

    def calls(count: int, *options: str) -> int:
        path = tmp_path / str(count)
        if not path.exists():
            files = [forge.File(1, [forge.Run(0, 0, b"small")], regions)]
            files += [
                forge.File(at, [], regions, forge.DELTA, forge.checkpoint_id(at - 1))
                for at in range(2, count + 1)
            ]
            forge.write(path, files)
        counted = 0

        def profile(frame: FrameType, event: str, argument: Any) -> None:
            nonlocal counted
            counted += 1

        with redirect_stdout(io.StringIO()) as output:
            sys.setprofile(profile)
            try:
                assert main(["checkpoint", "list", str(path), *options]) == 0
            finally:
                sys.setprofile(None)
        assert output.getvalue().count("proven") == count
        return counted

    for options in ((), ("--json",)):
        calls(10, *options)  # imports
        assert calls(400, *options) < 4.4 * calls(100, *options)
