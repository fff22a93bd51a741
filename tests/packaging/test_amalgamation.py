"""The interface in C as one file: it builds by itself, and shows what the header declares and no more."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from _lib import limits
from _lib.support import optional, require

_ROOT = Path(__file__).parents[2]
_RUNTIME = _ROOT / "tests/barrier/runtime.c"
_STRICT = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-pthread")
_ALL = "DIRTYTRACK_TEST_COMPILERS" in os.environ  # whether every compiler and tool has to be there
_EXAMPLE = r"""
#include <dirtytrack.h>
#include <stdio.h>
#include <sys/mman.h>

int main(void)
{
	enum { heap_bytes = 1 << 20 };
	char map[heap_bytes / 4096 / 8 + 1];
	char *heap = mmap(NULL, heap_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	@
	return error ? 1 : 0;
}
"""


def _run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `make amalgamation` writes."""
    made = tmp_path_factory.mktemp("amalgamation")
    _run(sys.executable, _ROOT / "dirtytrack/native/amalgamation/amalgamate.py", made)
    return made


def _compiled(compiler: str, folder: Path, *options: object) -> None:
    try:
        _run(compiler, *_STRICT, f"-I{folder}", *options)
    except FileNotFoundError:
        require(compiler != "gcc" and not _ALL, f"{compiler}, to compile the amalgamation")
        optional(False, compiler)


def _answers(program: Path) -> None:
    done = limits.run([str(program), "answers"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "all so\n", "")


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_it_exports_what_the_header_declares(compiler, folder, tmp_path):
    """Without a warning, without an option of its user, and without any other file."""
    library = tmp_path / "libdirtytrack.so"
    _compiled(compiler, folder, "-shared", "-fPIC", folder / "dirtytrack.c", "-o", library)
    declared = set(
        re.findall(r"^DT_API [^(]*?\b(dt_\w+)\(", (folder / "dirtytrack.h").read_text(), re.MULTILINE)
    )
    assert len(declared) > 25
    found = _run("nm", "-D", "--defined-only", library).split()
    assert {name for name in found if name.startswith("dt_")} == declared
    assert {name for name in found[2::3] if not name.startswith(("dt_", "_"))} == set()


@pytest.mark.parametrize(
    ("compiler", "options"),
    [
        ("gcc", ()),
        ("musl-gcc", ("-static", "-Wno-error")),  # whose ioctl takes an int
        ("clang", ("-fsanitize=undefined", "-fno-sanitize-recover=all")),  # which says more than gcc's
    ],
)
def test_a_runtime_is_built_of_it_alone(compiler, options, folder, tmp_path):
    """Statically with musl, with clang's sanitizer; and all answers are right."""
    program = tmp_path / "runtime"
    _compiled(compiler, folder, "-Wno-conversion", *options, _RUNTIME, folder / "dirtytrack.c", "-o", program)
    _answers(program)


def test_the_example_of_the_header_works(folder, tmp_path):
    """As it stands there, with memory around it."""
    lines = re.findall(r"^//\t(.*)$", (folder / "dirtytrack.h").read_text(), re.MULTILINE)
    code = "\n\t".join(line for line in lines if line != "...")
    assert "dt_tracker_take" in code
    source, program = tmp_path / "example.c", tmp_path / "example"
    source.write_text(_EXAMPLE.replace("@", code))
    _compiled("gcc", folder, source, folder / "dirtytrack.c", "-o", program)
    assert limits.run([str(program)]).returncode == 0


def test_what_cmake_installs_is_found(folder, tmp_path):
    """By pkg-config, and by CMake as a package."""
    for tool in ("cmake", "pkg-config", "gcc"):
        (require if _ALL else optional)(shutil.which(tool) is not None, tool)
    build, prefix = tmp_path / "build", tmp_path / "prefix"
    _run("cmake", "-S", folder, "-B", build, f"-DCMAKE_INSTALL_PREFIX={prefix}", "-DBUILD_SHARED_LIBS=ON")
    _run("cmake", "--build", build)
    _run("cmake", "--install", build)
    (described,) = prefix.rglob("dirtytrack.pc")
    flags = _run(
        "env", f"PKG_CONFIG_PATH={described.parent}", "pkg-config", "--cflags", "--libs", "dirtytrack"
    ).split()
    program = tmp_path / "by-pkg-config"
    _run("gcc", "-pthread", _RUNTIME, *flags, f"-Wl,-rpath,{described.parents[1]}", "-o", program)
    _answers(program)
    user = tmp_path / "user"
    user.mkdir()
    (user / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(user C)\nfind_package(dirtytrack 0.1 REQUIRED)\n"
        f"add_executable(user {_RUNTIME})\ntarget_link_libraries(user dirtytrack::dirtytrack)\n"
    )
    _run("cmake", "-S", user, "-B", user / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    _run("cmake", "--build", user / "build")
    _answers(user / "build/user")


def test_its_version_is_that_of_the_package(folder):
    """As the header writes it."""
    (number,) = re.findall(
        r"^#define DT_VERSION (0x\w+)$", (folder / "dirtytrack.h").read_text(), re.MULTILINE
    )
    (version,) = re.findall(
        r'^__version__ = "(.*)"$', (_ROOT / "dirtytrack/__init__.py").read_text(), re.MULTILINE
    )
    major, minor, patch = map(int, version.split("."))
    assert int(number, 16) == major << 16 | minor << 8 | patch
