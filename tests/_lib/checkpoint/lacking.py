"""What a chain can do on file systems that lack something, as ``lacking.c`` plays them: a program.

Prints JSON: for each of the arguments, which go into LACKS, what became of it.
"""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dirtytrack.checkpoint import Chain, Checkpointer, compact, directory_support, restore
from dirtytrack.cli import main


def _live(path: Path, **keywords: Any) -> str:
    # All that is done with a chain; the error, or nothing.
    memory = bytearray(os.urandom(100_000))
    try:
        with Checkpointer.open(path, {"w": memory}, compression="none", **keywords) as checkpoints:
            checkpoints.save()
            memory[5] ^= 7
            checkpoints.save()
            checkpoints.compact(wait=True)
            memory[50_000] ^= 7
            checkpoints.save(wait=True)
        expected = bytes(memory)
        memory[:] = bytes(len(memory))
        with Checkpointer.resume(path, {"w": memory}, **keywords) as checkpoints:
            assert memory == expected
            memory[7] ^= 7
            checkpoints.save()
        compact(path, **keywords)
        into = bytearray(len(memory))
        restore(path, into={"w": into})
        assert into == memory
        with Chain(path) as chain:
            assert chain.verify() == ()
            assert len(chain) == 1
        assert not [name for name in os.listdir(path) if name.endswith(".tmp")]
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _extract(path: Path) -> int:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return main(["checkpoint", "restore", str(path), "--into", str(path / "files"), "--format", "raw"])


def _try(lacks: str, path: Path) -> dict[str, Any]:
    os.environ["LACKS"] = ""
    assert _live(path / "whole") == ""
    os.environ["LACKS"] = lacks
    found = directory_support(path)
    return {
        "default": _live(path / "default"),
        "without": _live(path / "without", fsync=False, lock="none"),
        "extract": _extract(path / "whole"),
        "works": found.works,
        "lacks": [check.name for check in found.checks if check.ok is not True and check.name != "space"],
    }


if __name__ == "__main__":
    results = []
    for argument in sys.argv[1:]:
        with TemporaryDirectory() as folder:
            results.append(_try(argument, Path(folder)))
    print(json.dumps(results))
