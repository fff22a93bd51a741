"""The guests' root file system: this machine's Python, the test tools, the built wheel and the tests.

No distribution is installed in it. A guest runs one program, Python, with this machine's libraries at the
paths that they have here. The image is made without mounting anything and without root privileges.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from kernels.fetch import cache, need

REPOSITORY = Path(__file__).resolve().parents[2]
GUEST = Path(__file__).parent / "guest"
HOME = "/home/dirtytrack"  # where the tests lie in the guest
_FREE_BYTES = 512 << 20  # for the tests' files and swap

_STDLIB_OMITTED = ("site-packages", "dist-packages", "test", "idlelib", "ensurepip", "turtledemo", "config-*")
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


def build() -> Path:
    """Make the image anew and return its path.

    Raises:
        UnavailableError: mke2fs or ldd is missing.
    """
    need("mke2fs", "ldd")
    target = cache() / "root.ext4"
    with tempfile.TemporaryDirectory(dir=cache()) as work:
        tree = Path(work)
        _skeleton(tree)
        _python(tree)
        _tests(tree)
        _libraries(tree)
        _make_ext4(tree, target)
    return target


def _skeleton(tree: Path) -> None:
    """The directories and accounts that Python and the tests expect of a system."""
    tree.chmod(0o755)
    for top in ("bin", "sbin", "lib", "lib64"):
        link = Path("/") / top
        if link.is_symlink():
            (tree / "usr" / top).mkdir(parents=True, exist_ok=True)
            (tree / top).symlink_to(f"usr/{top}")
    for name in ("dev", "proc", "sys", "run", "root", "etc", "tmp", "var/tmp", HOME.strip("/")):
        (tree / name).mkdir(parents=True)
    for name in ("tmp", "var/tmp"):
        (tree / name).chmod(0o1777)
    (tree / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
    )
    (tree / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n")


def _python(tree: Path) -> None:
    """The interpreter and its standard library, at their own paths; the packages beside the tests."""
    interpreter = Path(sys.executable).resolve()
    _copy(tree, interpreter)
    for name in ("stdlib", "platstdlib"):
        source = Path(sysconfig.get_path(name, vars=_base_prefixes()))
        shutil.copytree(
            source,
            _in_tree(tree, source),
            symlinks=False,
            ignore=shutil.ignore_patterns(*_STDLIB_OMITTED),
            dirs_exist_ok=True,
        )
    packages = _packages()
    shutil.copytree(packages, tree / HOME.strip("/") / "packages")
    _install(tree / HOME.strip("/") / "packages", "--no-deps", _wheel(tree))
    init = (GUEST / "init.py").read_text()
    (tree / "init").write_text(f"#!{interpreter} -I\n{init}")
    (tree / "init").chmod(0o755)


def _base_prefixes() -> dict[str, str]:
    """Variables for sysconfig that lead out of a virtual environment."""
    return {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}


def _packages() -> Path:
    """The project's test tools, installed once for each version of Python and of pyproject.toml."""
    project = (REPOSITORY / "pyproject.toml").read_bytes()
    key = hashlib.sha256(project + sys.version.encode()).hexdigest()[:16]
    target = cache() / f"packages-{key}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=cache()) as work:
            _install(Path(work) / "packages", "cffi>=2.0", "--group", f"{REPOSITORY / 'pyproject.toml'}:test")
            (Path(work) / "packages").rename(target)
    return target


def _wheel(tree: Path) -> str:
    """Build the project's wheel as users get it."""
    with tempfile.TemporaryDirectory() as source:
        # A copy: the build leaves files in its source directory.
        files = _tracked(*_PACKAGED)
        _copy_files(files, Path(source))
        _pip("wheel", "--no-deps", "--wheel-dir", str(tree / "root"), source)
    (wheel,) = (tree / "root").glob("*.whl")
    return str(wheel)


def _tests(tree: Path) -> None:
    """The tests and what they read; not the package itself, for the wheel is what is tested."""
    _copy_files(_tracked(*_COPIED), tree / HOME.strip("/"))
    shutil.copy(GUEST / "guest_report.py", tree / HOME.strip("/") / "packages")


def _tracked(*paths: str) -> list[str]:
    """Files that git knows or would add, relative to the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *paths]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.splitlines() if (REPOSITORY / name).is_file()]


def _copy_files(names: Iterable[str], target: Path) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, target / name)


def _install(target: Path, *what: str) -> None:
    _pip("install", "--compile", "--target", str(target), *what)


def _pip(verb: str, *words: str) -> None:
    command = [sys.executable, "-m", "pip", verb, "--quiet", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        done.check_returncode()


def _libraries(tree: Path) -> None:
    """Every shared library that something in the tree was linked with, at its own path."""
    binaries = [path for path in tree.rglob("*") if path.is_file() and _is_elf(path)]
    for path in {*_needed(binaries), *_loaded_at_run_time()}:
        _copy(tree, path)
    if Path("/etc/ld.so.cache").exists():
        _copy(tree, Path("/etc/ld.so.cache"))


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _needed(binaries: list[Path]) -> Iterator[Path]:
    listed = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout
    for path in set(re.findall(r"^\t(?:\S+ => )?(/\S+) \(0x", listed, re.MULTILINE)):
        if Path(path).is_file():
            yield Path(path)


def _loaded_at_run_time() -> Iterator[Path]:
    """What glibc opens by name: the unwinder, which ends threads."""
    ctypes.CDLL("libgcc_s.so.1")
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "libgcc_s" in line:
            yield Path(line.split(maxsplit=5)[5])
            return


def _in_tree(tree: Path, path: Path) -> Path:
    return tree / str(path).lstrip("/")


def _copy(tree: Path, path: Path) -> None:
    """Copy a file of this machine to the same path in the tree, unless the tree is where it comes from."""
    if path.is_relative_to(tree):
        return
    target = _in_tree(tree, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)


def _make_ext4(tree: Path, target: Path) -> None:
    used = sum(path.lstat().st_size + 4096 for path in tree.rglob("*"))
    kibibytes = (used + used // 8 + _FREE_BYTES) >> 10
    partial = target.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    options = ["-q", "-q", "-t", "ext4", "-O", "^has_journal", "-E", "root_owner=0:0"]
    command = ["mke2fs", *options, "-d", str(tree), str(partial), f"{kibibytes}k"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    partial.rename(target)
