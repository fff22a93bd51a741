"""The programs of docs/kernel-reports.md build as they say, and say what they should."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from _lib import limits
from _lib.support import PAGE_SIZE, optional, require

pytestmark = pytest.mark.slow

_FOLDER = Path(__file__).parents[2] / "docs/kernel-reports"
_TABLES_OF_32_MIB = (32 << 20) // PAGE_SIZE // 512


def _built(name: str, folder: Path) -> str:
    command = [
        "gcc",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pthread",
        "-o",
        folder / name,
        _FOLDER / f"{name}.c",
    ]
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        require(False, "gcc, to build the program")
    return str(folder / name)


def test_flushes(tmp_path: Path) -> None:
    """A line for each share of pages, with times and counts."""
    optional(len(os.sched_getaffinity(0)) > 1, "two CPUs")
    done = limits.run([_built("flushes", tmp_path), "32", "2"])
    assert (done.returncode, done.stderr) == (0, "")
    title, _, *lines = done.stdout.splitlines()
    assert title.startswith(f"32 MiB, {_TABLES_OF_32_MIB} page tables, medians of 2 rounds")
    assert [line[:16].strip() for line in lines] == ["nothing", *(f"{n} of 512 pages" for n in (1, 8, 64))]
    assert all(len(re.findall(r"\d+ \( *\d+\)", line)) == 3 for line in lines)


def test_migration(tmp_path: Path) -> None:
    """Both counts, and an exit code that says whether there was such a page; where there is none it ends."""
    done = limits.run([_built("migration", tmp_path), "16", "1", "1"])
    found = re.fullmatch(
        r"(\d+) pages were protected while they were migrated; (\d+) of them count as written .*\n",
        done.stdout,
    )
    assert found is not None
    assert done.stderr == ""
    migrating, again = map(int, found.groups())
    assert again <= migrating
    assert done.returncode == (0 if again else 1)


def test_what_is_said_to_build_builds(tmp_path: Path) -> None:
    """The commands of the page, and of the programs' own comments, are about files that are there."""
    page = (_FOLDER.parent / "kernel-reports.md").read_text()
    for name in ("flushes", "migration"):
        command = f"gcc -O2 -pthread -o {name} {name}.c"
        assert command in page
        assert command in (_FOLDER / f"{name}.c").read_text()
        subprocess.run(
            [*command.replace(f" {name} ", f" {tmp_path / name} ").split()], cwd=_FOLDER, check=True
        )
