"""File systems that lack something: a chain works with what there is, or the error names path and remedy."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from _lib import limits
from _lib.checkpoint import lacking
from _lib.support import require

pytestmark = pytest.mark.slow

_SOURCE = Path(lacking.__file__).with_suffix(".c")

_NOT_OFFERED = [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY, errno.EPERM]
_READ_ONLY = [errno.EBADF, errno.EACCES, errno.EISDIR]  # of the descriptor of a directory

# What is lacking, how calls say so; what the doctor calls it; what the error says with default options.
_KINDS = [
    ("fsync-directory", [*_NOT_OFFERED, *_READ_ONLY], "fsync of names", ""),
    ("rename", _NOT_OFFERED, "rename", ""),
    ("holes", [errno.EINVAL, errno.EOPNOTSUPP], "holes", ""),
    ("writeback", [*_NOT_OFFERED, errno.ESPIPE], None, ""),
    ("lock", [*_NOT_OFFERED, errno.ENOLCK], "record locks", 'lock="none"'),
    ("fsync-file", _NOT_OFFERED, "fsync", "fsync=False"),
]
_CASES = [(f"{kind}={code}", name, remedy) for kind, codes, name, remedy in _KINDS for code in codes]
_BROKEN = f"fsync-file={errno.EIO} fsync-directory={errno.EIO} writeback={errno.EIO} lock={errno.EIO}"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What became of each, all played in one process."""
    library = tmp_path_factory.mktemp("lacking") / "lacking.so"
    try:
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", _SOURCE, "-o", library], check=True)
    except FileNotFoundError:
        require(False, "gcc, to build what plays the file systems")
    lacks = ["", _BROKEN, *(case for case, *_ in _CASES)]
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(_SOURCE.parents[2])}
    done = limits.run([sys.executable, "-W", "error", lacking.__file__, *lacks], env=environment)
    assert done.returncode == 0, done.stderr
    return dict(zip(lacks, json.loads(done.stdout), strict=True))


def test_one_that_has_everything(found: dict[str, dict[str, Any]]) -> None:
    """Nothing is lacking."""
    assert found[""] == {"default": "", "without": "", "extract": 0, "works": True, "lacks": []}


@pytest.mark.parametrize(("case", "name", "remedy"), _CASES, ids=[case for case, *_ in _CASES])
def test_one_that_lacks_something(
    found: dict[str, dict[str, Any]], case: str, name: str | None, remedy: str
) -> None:
    """It works, or the error names path and remedy, and with that it works; the doctor says which it is."""
    result = found[case]
    assert (result["without"], result["extract"]) == ("", 0)
    assert result["lacks"] == ([name] if name else [])
    assert result["works"] is (remedy == "")
    assert remedy in result["default"]
    if remedy:
        assert "/default" in result["default"]
    else:
        assert result["default"] == ""


def test_what_is_not_asked_for_can_not_fail(found: dict[str, dict[str, Any]]) -> None:
    """Without syncs and locks nothing syncs or locks, however broken that is; with them it is an error."""
    assert found[_BROKEN]["without"] == ""
    assert os.strerror(errno.EIO) in found[_BROKEN]["default"]
