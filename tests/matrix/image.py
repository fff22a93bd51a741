"""The guests' root file system: a Python, the test tools, the built wheel and the tests.

No distribution is installed in it; a guest runs one program, Python. The image is made without mounting
anything and without root privileges.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from matrix.fetch import UnavailableError, cache, need
from matrix.system import SYSTEMS, System

REPOSITORY = Path(__file__).resolve().parents[2]
GUEST = Path(__file__).parent / "guest"
HOME = "/home/dirtytrack"  # where the tests lie in the guest
_FREE_BYTES = 512 << 20  # for the tests' files and swap

_PACKAGED = ("dirtytrack", "pytest_dirtytrack.py", "setup.py", "pyproject.toml", "README.md", "LICENSE")
_COPIED = (
    "tests",
    "examples",
    "docs",
    "benchmarks",
    "README.md",
    "pyproject.toml",
    "Makefile",
    "CHANGELOG.md",
)


def build(architecture: str) -> Path:
    """Make the image for a processor anew and return its path.

    Raises:
        UnavailableError: e2fsprogs or something else that it takes is missing.
    """
    need("mke2fs", "debugfs")
    system = SYSTEMS[architecture]
    target = cache() / f"root-{architecture}.ext4"
    with tempfile.TemporaryDirectory(dir=cache()) as work:
        tree = Path(work)
        _skeleton(tree)
        interpreter = system.put_python(tree)
        _tests(tree)
        packages = tree / HOME.strip("/") / "packages"
        shutil.copytree(_packages(system), packages, dirs_exist_ok=True)
        _install(system, packages, "--no-deps", _wheel(system, tree / "root"))
        system.put_libraries(tree)
        (tree / "init").write_text(f"#!{interpreter} -I\n{(GUEST / 'init.py').read_text()}")
        (tree / "init").chmod(0o755)
        _make_ext4(tree, target)
    return target


def _skeleton(tree: Path) -> None:
    """The directories and accounts that Python and the tests expect of a system."""
    tree.chmod(0o755)
    for name in ("dev", "proc", "sys", "run", "root", "etc", "tmp", "var/tmp", HOME.strip("/")):
        (tree / name).mkdir(parents=True)
    for name in ("tmp", "var/tmp"):
        (tree / name).chmod(0o1777)
    (tree / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
    )
    (tree / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n")


def _packages(system: System) -> Path:
    """The project's test tools, installed once for each system, version of Python and of pyproject.toml."""
    project = (REPOSITORY / "pyproject.toml").read_bytes()
    key = hashlib.sha256(project + sys.version.encode()).hexdigest()[:16]
    target = cache() / f"packages-{system.architecture}-{key}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=cache()) as work:
            group = ("--group", f"{REPOSITORY / 'pyproject.toml'}:test")
            _install(system, Path(work) / "packages", "cffi>=2.0", *group)
            (Path(work) / "packages").rename(target)
    return target


def _wheel(system: System, target: Path) -> str:
    """Build the project's wheel as users get it."""
    with tempfile.TemporaryDirectory() as source:
        # A copy: the build leaves files in its source directory.
        files = _tracked(*_PACKAGED)
        _copy_files(files, Path(source))
        _pip(system, "wheel", *system.build, "--no-deps", "--wheel-dir", str(target), source)
    (wheel,) = target.glob("*.whl")
    return str(wheel)


def _tests(tree: Path) -> None:
    """The tests and what they read; not the package itself, for the wheel is what is tested."""
    _copy_files(_tracked(*_COPIED), tree / HOME.strip("/"))
    packages = tree / HOME.strip("/") / "packages"
    packages.mkdir()
    shutil.copy(GUEST / "guest_report.py", packages)


def _tracked(*paths: str) -> list[str]:
    """Files that git knows or would add, relative to the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *paths]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.splitlines() if (REPOSITORY / name).is_file()]


def _copy_files(names: Iterable[str], target: Path) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, target / name)


def _install(system: System, target: Path, *what: str) -> None:
    _pip(system, "install", *system.install, "--compile", "--target", str(target), *what)


def _pip(system: System, verb: str, *words: str) -> None:
    command = [sys.executable, "-m", "pip", verb, "--quiet", "--disable-pip-version-check", *words]
    environment = os.environ | system.environment
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise UnavailableError(f"pip {verb} failed: {(done.stdout + done.stderr).strip()}")


def _make_ext4(tree: Path, target: Path) -> None:
    used = sum(path.lstat().st_size + 4096 for path in tree.rglob("*"))
    kibibytes = (used + used // 8 + _FREE_BYTES) >> 10
    partial = target.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    options = ["-q", "-q", "-t", "ext4", "-O", "^has_journal", "-E", "root_owner=0:0"]
    command = ["mke2fs", *options, "-d", str(tree), str(partial), f"{kibibytes}k"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    partial.rename(target)
