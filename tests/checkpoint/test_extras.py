"""What is missing is named, with how to get it; and what does not need it works."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SAVE = """
from dirtytrack.checkpoint import Checkpointer, load, restore
memory = bytearray(range(256)) * 100
with Checkpointer("chain", {"a": memory}, compression=%r) as checkpoints:
    checkpoints.save()
copy = bytearray(len(memory))
restore("chain", into={"a": copy})
assert copy == memory
"""


def _run(code, without, cwd):
    block = "".join(f"sys.modules[{name!r}] = None\n" for name in without)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys\n{block}{code}"],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.anywhere
def test_without_xxhash(tmp_path):
    """The import names the extra; the rest of the package does not need it."""
    done = _run("import dirtytrack.cli, dirtytrack.checkpoint", ["xxhash"], tmp_path)
    assert 'ImportError: checkpoints need xxhash: pip install "dirtytrack[checkpoint]"' in done.stderr
    assert _run("import dirtytrack, dirtytrack.cli", ["xxhash"], tmp_path).returncode == 0


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="zstd is in the standard library")
def test_without_zstandard(tmp_path):
    """Compression names the extra and the way around, before anything is written; that way works."""
    done = _run(_SAVE % "auto", ["zstandard"], tmp_path)
    assert 'ImportError: compression needs zstandard: pip install "dirtytrack[checkpoint]"' in done.stderr
    assert 'compression="none"' in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert _run(_SAVE % "none", ["zstandard"], tmp_path).returncode == 0


def test_without_numpy(tmp_path):
    """Saving and restoring buffers needs none; load() does, and says so."""
    assert _run(_SAVE % "auto", ["numpy"], tmp_path).returncode == 0
    done = _run(_SAVE % "auto" + "load('chain')", ["numpy"], tmp_path.joinpath("chain"))
    assert 'load() needs numpy: pip install "dirtytrack[numpy]"' in done.stderr
