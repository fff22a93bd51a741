"""A chain to look at, and ways to look at it, for the tests of the verb checkpoint."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import dirtytrack
from _lib import limits
from _lib.support import require
from dirtytrack.checkpoint import Checkpointer, Save
from dirtytrack.cli import main

VERBS = ["list", "verify", "restore", "export", "diff", "copy", "compact"]


class Made(NamedTuple):
    """A chain of four checkpoints: block 3 * n of "w" is n from checkpoint n on, all of "b" is n."""

    path: Path
    saves: list[Save]
    states: list[dict[str, np.ndarray[Any, Any]]]

    def files(self) -> list[str]:
        """The names of the checkpoints' files, by number."""
        return sorted(name for name in os.listdir(self.path) if name.endswith((".base", ".delta")))

    def damage(self, number: int, offset: int = 128) -> str:
        """Flip a bit of a checkpoint's file, by default the first one stored of a delta; its name."""
        (name,) = [name for name in self.files() if name.startswith(f"{number:010}-")]
        with open(self.path / name, "r+b") as file:
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ 4]))
        return name

    def arguments(self, verb: str, into: Path) -> list[str]:
        """A plain call of a verb."""
        to = [str(into)]
        more = {"restore": ["--into", *to], "copy": to, "export": to, "diff": ["1"]}
        return ["checkpoint", verb, str(self.path), *more.get(verb, [])]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Made once; copy it."""
    found = dirtytrack.support()  # before tracking_works gets to say it
    require(found.works, f"this system cannot track: {found.cause}")
    path = tmp_path_factory.mktemp("chains") / "chain"
    w, b = dirtytrack.empty((64, 1024), np.float32), bytearray(5000)
    made = Made(path, [], [])
    with Checkpointer(path, {"w": w, "b": b}, compression="none") as checkpoints:
        for number in range(1, 5):
            w[3 * number] = number
            b[:] = bytes([number]) * 5000
            made.saves.append(checkpoints.save(meta={"step": number}, wait=True))
            made.states.append({"w": w.copy(), "b": np.frombuffer(bytes(b), np.uint8)})
    return made


@pytest.fixture
def chain(original: Made, tmp_path: Path) -> Made:
    """A copy of the chain."""
    shutil.copytree(original.path, tmp_path / "chain")
    settle(tmp_path / "chain")
    return original._replace(path=tmp_path / "chain")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command line here: exit code, stdout, stderr; none of it may hold control characters."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = main(["checkpoint", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert (out + err).replace("\n", "").isprintable()
        assert out.isascii()
        assert err.count("\n") == (err != "")
        return code, out, err

    return run


def settle(path: Path) -> None:
    """Have all files of a directory on the disk: what they take changes no more."""
    for name in os.listdir(path):
        with open(path / name, "rb") as file:
            os.fsync(file.fileno())


def room(path: Path) -> int:
    """What a file takes on the disk."""
    return os.stat(path).st_blocks * 512


def shell(*arguments: str | Path, code: str = "") -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, after some code."""
    program = f"import sys\n{code}\nfrom dirtytrack.cli import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    return limits.run(command)


def terminal(*arguments: str | Path, stream: str, columns: int = 80) -> tuple[int, str]:
    """Exit code, and what a terminal gets as one of the command's streams; the other one is a pipe."""
    ours, theirs = pty.openpty()
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: theirs}
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
    command = [sys.executable, "-m", "dirtytrack", "checkpoint", *map(str, arguments)]
    with subprocess.Popen(command, env=environment, **pipes) as process:
        os.close(theirs)
        text = b""
        with suppress(OSError):  # EIO: the other end is closed
            while piece := os.read(ours, 4096):
                text += piece
        os.close(ours)
    return process.returncode, text.decode()
