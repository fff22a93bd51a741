"""Where a guest's Python comes from: from this machine, or for another processor from Debian.

On x86-64 it is this machine's own, with its libraries, at the paths that they have here. For arm64 it is
Debian's; the wheels are those from the package index, and the project's own is cross-compiled.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from matrix.fetch import closure, download, need

COMPILER = "aarch64-linux-gnu-gcc"

_STDLIB_OMITTED = ("site-packages", "dist-packages", "test", "idlelib", "ensurepip", "turtledemo", "config-*")

# Debian's own version of Python there, and the packages that it and the wheels' libraries need.
_SUITE = "bookworm"
_VERSION = "3.11"
_DEBIAN = (f"python{_VERSION}", "libgcc-s1", "libstdc++6")
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64", "linux_aarch64")


@dataclass(frozen=True)
class System:
    """A way to put Python into a tree.

    Attributes:
        architecture: Debian's name of the processor.
        put_python: puts the interpreter with its standard library into a tree and returns its path there.
        put_libraries: adds the libraries that the tree's programs need, when all of these are in it.
        install: options that have pip install for this Python.
        build: options that have it build a wheel for this Python.
        environment: variables for the build.
    """

    architecture: str
    put_python: Callable[[Path], Path]
    put_libraries: Callable[[Path], None]
    install: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def _put_own_python(tree: Path) -> Path:
    for top in ("bin", "sbin", "lib", "lib64"):
        link = Path("/") / top
        if link.is_symlink():
            (tree / "usr" / top).mkdir(parents=True, exist_ok=True)
            (tree / top).symlink_to(f"usr/{top}")
    interpreter = Path(sys.executable).resolve()
    _copy(tree, interpreter)
    # Variables for sysconfig that lead out of a virtual environment.
    prefixes = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    omitted = shutil.ignore_patterns(*_STDLIB_OMITTED)
    for name in ("stdlib", "platstdlib"):
        source = Path(sysconfig.get_path(name, vars=prefixes))
        shutil.copytree(source, _in_tree(tree, source), symlinks=False, ignore=omitted, dirs_exist_ok=True)
    return interpreter


def _put_own_libraries(tree: Path) -> None:
    """Every shared library that something in the tree was linked with, at its own path."""
    need("ldd")
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


def _put_debian(tree: Path) -> Path:
    need(COMPILER, "dpkg-deb")
    with download("arm64", *closure("arm64", _SUITE, *_DEBIAN)) as archives:
        for archive in archives:
            subprocess.run(["dpkg-deb", "--extract", archive, tree], check=True)
    return Path(f"/usr/bin/python{_VERSION}")


_OWN = System("amd64", _put_own_python, _put_own_libraries)
_DEBIAN_ARM = System(
    "arm64",
    _put_debian,
    lambda tree: None,  # they came with Python
    install=(
        *("--only-binary", ":all:", "--python-version", _VERSION),
        *(word for name in _PLATFORMS for word in ("--platform", name)),
    ),
    build=("--config-settings=--build-option=--plat-name=linux_aarch64",),
    environment={"CC": COMPILER, "LDSHARED": f"{COMPILER} -shared"},
)
SYSTEMS = {system.architecture: system for system in (_OWN, _DEBIAN_ARM)}
