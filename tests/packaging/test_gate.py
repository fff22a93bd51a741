"""The gate's own gates: the packaging check and .ci/run fail when they should."""

from __future__ import annotations

import configparser
import os
import re
import runpy
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from _lib import limits

ROOT = Path(__file__).parent.parent.parent
SMOKE = runpy.run_path(str(ROOT / "tests/_lib/packaging/smoke.py"))
BUILD = runpy.run_path(str(ROOT / "tests/_lib/packaging/build_wheel.py"))
WHEEL = "dirtytrack-1.0-cp311-abi3-manylinux_2_28_x86_64.whl"
CONTENTS = [
    "dirtytrack/__init__.py",
    "dirtytrack/py.typed",
    "dirtytrack/native/_core.abi3.so",
    "dirtytrack/native/_core.pyi",
    "dirtytrack/native/include/dirtytrack.h",
    "pytest_dirtytrack.py",
    "dirtytrack-1.0.dist-info/METADATA",
]


@pytest.mark.parametrize(
    ("name", "contents", "word"),
    [
        (WHEEL, CONTENTS, None),
        ("dirtytrack-1.0-py3-none-any.whl", CONTENTS, "cp311-abi3"),
        ("dirtytrack-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", CONTENTS, "cp311-abi3"),
        ("dirtytrack-1.0-cp311-abi3-linux_x86_64.whl", CONTENTS, "manylinux"),
        *[(WHEEL, [entry for entry in CONTENTS if entry != gone], gone[11:]) for gone in CONTENTS[1:6]],
        (WHEEL, [*CONTENTS, "dirtytrack/native/_core.c"], "_core.c"),
        (WHEEL, [*CONTENTS, "tests/conftest.py"], "tests"),
    ],
)
def test_wheel_is_judged(tmp_path: Path, name: str, contents: list[str], word: str | None) -> None:
    """A good wheel passes; each fault is named, and nothing else."""
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for entry in contents:
            archive.writestr(entry, "")
    problems = SMOKE["wheel_problems"](tmp_path / name)
    assert len(problems) == (word is not None)
    assert all(word in problem for problem in problems)


def test_a_wheel_with_a_path_of_its_machine_is_bad(tmp_path: Path) -> None:
    """A library must not be looked for where the machine that built it has its Python."""
    with zipfile.ZipFile(tmp_path / WHEEL, "w") as archive:
        for entry in CONTENTS:
            archive.writestr(entry, f"..{sys.base_prefix}/lib" if entry.endswith(".so") else "")
    (problem,) = SMOKE["wheel_problems"](tmp_path / WHEEL)
    assert problem.endswith(f"_core.abi3.so names {sys.base_prefix}")


def test_sdist_is_judged(tmp_path: Path) -> None:
    """An sdist needs every native source, and not the generated one."""
    native = tmp_path / "native"
    for name in ("core/a.c", "core/a.h", "include/b.h", "binding/cdef.txt", "_core.c"):
        (native / name).parent.mkdir(parents=True, exist_ok=True)
        (native / name).touch()
    sdist = tmp_path / "dirtytrack-1.0.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        for name in ("core/a.c", "binding/cdef.txt", "_core.c"):
            archive.add(native / name, f"dirtytrack-1.0/dirtytrack/native/{name}")
    problems = SMOKE["sdist_problems"](sdist, native)
    words = [problem.rpartition("/")[2] for problem in problems]
    assert words == ["a.h is missing", "b.h is missing", "_core.c"]


@pytest.mark.parametrize(
    ("says", "code", "found"), [("3.12", 0, True), ("3.12t", 0, False), ("3.12", 127, False)]
)
def test_interpreters_are_asked_who_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, code: int, found: bool
) -> None:
    """One among pyenv's is found; a script that fails, or one of another kind, is not taken for it."""
    python = tmp_path / "versions/3.12.9/bin/python3.12"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho {says}\nexit {code}\n")
    python.chmod(0o755)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "base_prefix", "/nowhere")
    assert SMOKE["find_interpreter"]("3.12") == (str(python) if found else None)


def test_a_build_that_differs_is_noticed(tmp_path: Path) -> None:
    """Two builds are the same if they have the same files with the same bytes."""
    one, other = tmp_path / "one", tmp_path / "other"
    for directory in (one, other):
        directory.mkdir()
        (directory / "same").write_bytes(b"1")
    assert BUILD["differences"](one, other) == []
    (one / "changed").write_bytes(b"1")
    (other / "changed").write_bytes(b"2")
    (other / "added").touch()
    assert BUILD["differences"](one, other) == ["added", "changed"]


def test_empty_directory_is_no_distribution(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A build that left nothing behind is not good."""
    assert SMOKE["main"](tmp_path) == 1
    assert "one wheel and one sdist" in capsys.readouterr().err


def test_help_lists_every_target() -> None:
    """No command is known to its author alone."""
    result = limits.run(["make", "--no-print-directory", "help"], cwd=ROOT)
    (targets,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [line.split()[1] for line in result.stdout.splitlines()] == targets.split()


def test_editors_are_told_what_the_formatters_check() -> None:
    """Lines are as long in .editorconfig as ruff and clang-format have them."""
    editors = configparser.ConfigParser()
    editors.read_string("[top]\n" + (ROOT / ".editorconfig").read_text())
    for section, file, key in (
        ("*.{py,pyi,toml}", "pyproject.toml", r"line-length = (\d+)"),
        ("*.{c,h}", ".clang-format", r"ColumnLimit: (\d+)"),
    ):
        assert re.findall(key, (ROOT / file).read_text()) == [editors[section]["max_line_length"]]


_STEPS = ["test", "test-mpi", "lint", "types", "docs", "wheel", "kernels-ci"]


@pytest.mark.parametrize("broken", [None, *_STEPS])
def test_ci_stops_at_the_step_that_fails(tmp_path: Path, broken: str | None) -> None:
    """.ci/run takes the steps in order, in strict mode, and fails with the first that does."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / "Makefile").write_text(
        "%:\n\t@echo $@ $(DIRTYTRACK_TEST_STRICT) >> log\n\t@test $@ != $(BROKEN)\nMakefile: ;\n"
    )
    environment = {"PATH": os.environ["PATH"], "BROKEN": broken or "none"}
    result = limits.run([tmp_path / ".ci/run"], env=environment)
    taken = _STEPS if broken is None else _STEPS[: _STEPS.index(broken) + 1]
    assert (tmp_path / "log").read_text().split("\n")[:-1] == [f"{step} 1" for step in taken]
    assert (result.returncode == 0) == (broken is None)
