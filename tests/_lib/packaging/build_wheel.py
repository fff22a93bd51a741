"""Builds what is released: an sdist, and from it a manylinux wheel. ``build_wheel.py DIRECTORY``.

The wheel gets the oldest tag that its symbols allow, and must keep to the stable ABI. All of it is built
twice, the second time in another place, from files of another time and mode: the bytes have to be the same.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
# What a build or a test leaves behind, which may be there or not.
LEFT_BEHIND = (
    *(".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__", "build", "dist", "cache"),
    *("*.egg-info", "_core.c", "*.so"),
)


def environment() -> dict[str, str]:
    """The environment of a build: the time is that of the commit, and the linker gets no path of Python's."""
    given = {"LDSHARED": "gcc -shared"}
    asked = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if asked.returncode == 0:
        given["SOURCE_DATE_EPOCH"] = asked.stdout.strip()
    return given | os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}


def build(source: Path, target: Path) -> None:
    """Build the sdist and the wheel of *source* into *target*."""
    with tempfile.TemporaryDirectory() as work:
        _run(sys.executable, "-m", "build", "--outdir", work, source)
        (sdist,), (wheel,) = Path(work).glob("*.tar.gz"), Path(work).glob("*.whl")
        _run("auditwheel", "repair", "--strip", "--wheel-dir", target, wheel)
        shutil.copy(sdist, target)


def _run(*command: object) -> None:
    done = subprocess.run(
        list(map(str, command)), env=environment(), umask=0o022, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}{done.stderr}{command} failed")


def disguise(copy: Path) -> None:
    """Make a copy of the checkout, as somebody else might have it."""
    shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
    for path in copy.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
            os.utime(path, (1_000_000_000, 1_000_000_000))


def differences(one: Path, other: Path) -> list[str]:
    """The names of the files that are not the same in both directories."""
    names = {path.name for directory in (one, other) for path in directory.iterdir()}
    return sorted(name for name in names if _read(one / name) != _read(other / name))


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def main(target: Path) -> int:
    """Build, and build again; the exit code."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    build(ROOT, target)
    with tempfile.TemporaryDirectory() as work:
        again = Path(work) / "again"
        again.mkdir()
        disguise(Path(work) / "copy")
        build(Path(work) / "copy", again)
        changed = differences(target, again)
    for name in changed:
        print(f"{name}: built a second time, it is not the same", file=sys.stderr)
    (wheel,) = target.glob("*.whl")
    _run("abi3audit", "--strict", wheel)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
