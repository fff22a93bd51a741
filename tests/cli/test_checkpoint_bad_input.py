"""The verb checkpoint, given wrong paths, wrong arguments, and files that somebody made up."""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from _lib.cli.chains import VERBS, Made, call, chain, original, room, shell
from _lib.support import in_child
from _lib.works import tracking_works
from dirtytrack import _text
from dirtytrack.checkpoint.format.description import Description
from dirtytrack.checkpoint.format.layout import Layout
from dirtytrack.checkpoint.format.structures import NO_PARENT, Header, Kind
from dirtytrack.checkpoint.store.directory import Directory
from dirtytrack.checkpoint.write.checkpoint_writer import CheckpointWriter
from dirtytrack.checkpoint.write.compression import Compression
from dirtytrack.cli import main

__all__ = ["call", "chain", "original", "tracking_works"]


def without_chain(arguments: list[str], before: Callable[[], object] = lambda: None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command line in a child process."""

    def child() -> tuple[int, str, str]:
        before()
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = main(arguments)
        return code, out.getvalue(), err.getvalue()

    result: tuple[int, str, str] = in_child(child).check()
    return result


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("missing", "No such file or directory"),
        ("file", "Not a directory"),
        ("empty", "holds no checkpoint"),
        ("unreadable", "Permission denied"),
    ],
)
@pytest.mark.anywhere
def test_a_path_that_is_no_chain_is_one_line(tmp_path: Path, verb: str, what: str, reason: str) -> None:
    """Each verb ends with 1, says why in one line without control characters, and makes nothing."""
    path = tmp_path / "x\x1b[31m"
    if what == "file":
        path.write_text("text")
    elif what != "missing":
        path.mkdir(mode=0 if what == "unreadable" else 0o700)
    arguments = Made(path, [], []).arguments(verb, tmp_path / "out")
    code, out, err = without_chain(arguments, become_nobody if what == "unreadable" else lambda: None)
    assert (code, out) == (1, "")
    assert reason in err
    assert err.count("\n") == 1
    assert err.rstrip("\n").isprintable()
    assert os.listdir(tmp_path) == ([] if what == "missing" else [path.name])
    path.chmod(0o700) if what == "unreadable" else None
    assert not path.is_dir() or os.listdir(path) == []


def become_nobody() -> None:
    """Root may read everything."""
    if os.geteuid() == 0:
        os.setresuid(65534, 65534, 65534)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense", "x"],
        ["list"],
        ["restore", "x"],
        ["restore", "x", "--into", "y", "--at", "-1"],
        ["restore", "x", "--into", "y", "--at", "newest"],
        ["restore", "x", "--into", "y", "--format", "pickle"],
        ["compact", "x", "--keep", "0"],
        ["compact", "x", "--keep", "1e9"],
        ["compact", "x", "--compression", "lzma"],
        ["compact", "x", "--lock", "flock"],
        ["copy", "x"],
        ["copy", "x", "y", "--at", "-1"],
        ["export", "x"],
        ["export", "x", "y", "--format", "chain"],
        ["export", "x", "y", "--only", "model", "--region", "a"],
        ["diff", "x"],
        ["diff", "x", "newest"],
    ],
)
@pytest.mark.anywhere
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What the verbs do not take, they explain."""
    with pytest.raises(SystemExit) as exit_:
        main(["checkpoint", *arguments])
    assert exit_.value.code == 2
    assert "usage: dirtytrack checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [[], *([verb] for verb in VERBS)])
@pytest.mark.anywhere
def test_help_needs_no_extra(verb: list[str]) -> None:
    """Help is shown without xxhash and numpy, and the exit codes are documented; the rest names the extra."""
    code = "sys.modules['xxhash'] = sys.modules['numpy'] = None"
    result = shell("checkpoint", *verb, "--help", code=code)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Exit codes: 0 success" in result.stdout if not verb else "PATH" in result.stdout
    assert shell("--help", code=code).returncode == 0
    result = shell("checkpoint", "list", "/nowhere", code=code)
    told = 'dirtytrack: checkpoints need xxhash: pip install "dirtytrack[checkpoint]"\n'
    assert (result.returncode, result.stderr) == (1, told)


def test_without_numpy_bytes_are_restored(chain: Made, tmp_path: Path) -> None:
    """Only .npy files need numpy; without it the extra and the other format are named."""
    code = "sys.modules['numpy'] = None"
    arguments = ["checkpoint", "restore", chain.path, "--into", tmp_path / "out"]
    result = shell(*arguments, code=code)
    told = 'dirtytrack: .npy files need numpy: pip install "dirtytrack[numpy]", or --format raw\n'
    assert (result.returncode, result.stderr) == (1, told)
    assert not (tmp_path / "out").exists()
    result = shell(*arguments, "--format", "raw", code=code)
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "out" / "w.bin").read_bytes() == chain.states[3]["w"].tobytes()


def make_up(path: Path, *layouts: Layout, **described: Any) -> None:
    """A base of zeros that is correct to the last checksum, with a description of the caller's choice."""
    store = Directory(path, create=True)
    checkpoint, file = secrets.token_bytes(16), secrets.token_bytes(8)
    header = Header(Kind.BASE, bytes(16), checkpoint, NO_PARENT, file, 1)
    writer = CheckpointWriter(store, header, layouts, Compression("none").encoder(), 0)
    usual: dict[str, Any] = {
        "table": "0" * 32,
        "meta": None,
        "created": 0.0,
        "consistency": "proven",
        "statistics": {},
    } | described
    description = Description(**usual | {"meta": json.dumps(usual["meta"])})
    writer.commit(Kind.BASE, description, counts=False)
    store.close()


def layout(name: str = "r", nbytes: int = 8, dtype: Any = None, shape: Any = None) -> Layout:
    """A region of a made-up chain."""
    return Layout(name, nbytes, dtype, shape, None, 4096)


def nested(depth: int) -> list[Any]:
    """A list in a list in a list."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "described",
    [
        {"created": 1e300},
        {"created": -1e18},
        {"statistics": {"pause": 1e308, "blocks_written": 10**4000, "blocks_stored": -1}},
        {"statistics": {"pause": "\x1b[31m", "blocks_written": ["\x1b"], "blocks_stored": None, "\x1b": 1}},
        {"statistics": {"pause": -1e-320, "blocks_written": True, "blocks_stored": 1.5}},
        {"meta": "\x1b]0;title\x07\r\n\x7f\x9b\u202e"},
        {"meta": nested(900)},
        {"meta": {"\ud800": [1e308, 10**4000]}},
    ],
    ids=range(8),
)
@pytest.mark.anywhere
def test_descriptions_may_say_anything(tmp_path: Path, call: Any, described: dict[str, Any]) -> None:
    """Every verb shows or ignores it; nothing that a terminal would act on is printed."""
    make_up(tmp_path / "chain", layout(), **described)
    for arguments in (["list"], ["verify"], ["restore", "--into", tmp_path / "out"], ["compact"]):
        for more in ([], ["--json", *(["--force"] if "--into" in arguments else [])]):
            assert call(*arguments, tmp_path / "chain", *more)[0] == 0
    assert np.load(tmp_path / "out" / "r.npy").tobytes() == bytes(8)


@pytest.mark.parametrize(
    "made_up",
    [
        layout(dtype="|O", shape=(1,)),
        layout(dtype="<f4", shape=(3,)),
        layout(dtype="\x1b[31m", shape=(1,)),
        layout(
            dtype={"fields": [{"name": "\x1b", "offset": 0, "dtype": nested(500)}], "itemsize": 8}, shape=()
        ),
        layout(dtype={}, shape=()),
    ],
    ids=lambda made_up: str(made_up.dtype)[:6],
)
@pytest.mark.anywhere
def test_impossible_arrays_are_refused(tmp_path: Path, call: Any, made_up: Layout) -> None:
    """The message says what to do instead, and no file is there; the bytes are to be had."""
    make_up(tmp_path / "chain", made_up)
    out = tmp_path / "out"
    code, _, err = call("restore", tmp_path / "chain", "--into", out)
    assert (code, "Use --format raw" in err, os.listdir(out)) == (1, True, [])
    assert call("restore", tmp_path / "chain", "--into", out, "--format", "raw")[0] == 0
    assert (out / "r.bin").read_bytes() == bytes(8)


@pytest.mark.parametrize("kind", ["npy", "raw"])
@pytest.mark.anywhere
def test_a_huge_region_of_zeros_takes_no_room(tmp_path: Path, call: Any, kind: str) -> None:
    """A file of a few hundred bytes that claims 4 GiB becomes a hole; one that claims 2 EiB is refused."""
    make_up(tmp_path / "large", layout(nbytes=1 << 32))
    code, _, _ = call("restore", tmp_path / "large", "--into", tmp_path / "out", "--format", kind)
    (name,) = os.listdir(tmp_path / "out")
    assert code == 0
    assert os.stat(tmp_path / "out" / name).st_size >= 1 << 32
    assert room(tmp_path / "out" / name) < 1 << 20
    make_up(tmp_path / "huge", layout(nbytes=1 << 61))
    code, _, err = call("restore", tmp_path / "huge", "--into", tmp_path / "none", "--format", kind)
    assert (code, os.listdir(tmp_path / "none")) == (1, [])
    assert "too large" in err
    assert call("list", tmp_path / "huge")[1].splitlines()[-1] == '1 region, 2.0 EiB: "r" 2.0 EiB'


@pytest.mark.slow
@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_mutation_makes_a_traceback(
    original: Made, tmp_path: Path, call: Any, data: st.DataObject
) -> None:
    """Whatever is done to the bytes of a file, each verb ends with 0 or 1, and no wrong byte is restored."""
    path = Path(tempfile.mkdtemp(dir=tmp_path))
    chain = original._replace(path=path / "chain")
    shutil.copytree(original.path, chain.path)
    file = chain.path / data.draw(st.sampled_from(chain.files()))
    content = bytearray(file.read_bytes())
    start = data.draw(st.integers(0, len(content)) | st.integers(len(content) - 64, len(content)))
    stop = data.draw(st.integers(start, min(len(content), start + 64)) | st.just(len(content)))
    content[start:stop] = data.draw(st.binary(max_size=100))
    file.write_bytes(content)
    for verb in VERBS:
        code, text, _ = call(*chain.arguments(verb, path / verb)[1:], "--json")
        assert code in (0, 1)
        if verb == "restore" and code == 0:
            expected = chain.states[json.loads(text)["checkpoint"] - 1]
            for name in expected:
                assert np.load(path / verb / f"{name}.npy").tobytes() == expected[name].tobytes()
    shutil.rmtree(path)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (1 << 20, "1.0 MiB"),
        (5 << 30, "5.0 GiB"),
        (1 << 62, "4.0 EiB"),
        (1 << 71, "2048.0 EiB"),
    ],
)
@pytest.mark.anywhere
def test_sizes_are_for_people(nbytes: int, text: str) -> None:
    """The unit is the largest that leaves at least one; a power of 1024."""
    assert _text.size(nbytes) == text
