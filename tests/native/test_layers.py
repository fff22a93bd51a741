"""The folders of the C core: who includes whom, and that nobody does in a circle."""

from __future__ import annotations

import graphlib
import re
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import pytest

from _lib.support import require

_NATIVE = Path(__file__).parents[2] / "dirtytrack/native"
_INCLUDE = re.compile(r'^#include "([^"]+)"$', re.MULTILINE)
# A file includes from its own folder, and from those of lower levels.
_LEVELS = {"include": 0, "base": 1, "kernel": 2, "core": 3, "backends": 4}
_LEVELS |= {"snapshot": 5, "checkpoint": 5, "barrier": 5, "profile": 5, "binding": 6}


def _files() -> dict[str, str]:
    return {str(path.relative_to(_NATIVE)): path.read_text() for path in sorted(_NATIVE.glob("*/*.[ch]"))}


def _includes(files: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Pairs of a file and one that it includes."""
    for name, text in files.items():
        for given in _INCLUDE.findall(text):
            folder, _, target = given.rpartition("/")
            where = PurePosixPath(name).parent.name if not folder else PurePosixPath(folder).name
            yield name, f"{where}/{target}"


def _upward(files: Mapping[str, str]) -> list[str]:
    """The includes that are not allowed."""
    return [
        f"{name} includes {target}"
        for name, target in _includes(files)
        if name.split("/")[0] != target.split("/")[0]
        and _LEVELS[name.split("/")[0]] <= _LEVELS[target.split("/")[0]]
    ]


def _circle(files: Mapping[str, str]) -> list[str]:
    """A circle among the files, a source and its header being one; empty if there is none."""
    sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for name, target in _includes(files):
        one, other = name.rpartition(".")[0], target.rpartition(".")[0]
        if one != other:
            sorter.add(one, other)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_files_include_only_from_below():
    """Each folder knows those under it; snapshot, checkpoint and barrier do not know each other."""
    files = _files()
    assert {name.split("/")[0] for name in files} == set(_LEVELS)
    assert {target for _, target in _includes(files)} <= set(files)
    assert _upward(files) == []


def test_no_files_include_in_a_circle():
    """Not even when a source and its header count as one."""
    assert _circle(_files()) == []


@pytest.mark.parametrize(
    ("name", "given"),
    [("base/a.h", "../kernel/b.h"), ("snapshot/a.c", "../barrier/b.h"), ("core/a.c", "../backends/b.h")],
)
def test_an_include_upward_is_noticed(name, given):
    """From a layer to one above it, and between those that do not know each other."""
    assert _upward({name: f'#include "{given}"\n'}) == [f"{name} includes {given.removeprefix('../')}"]


def test_a_circle_is_noticed():
    """Two sources of which each includes the other's header."""
    files = {"core/a.c": '#include "b.h"\n', "core/b.c": '#include "a.h"\n', "core/a.h": "", "core/b.h": ""}
    assert set(_circle(files)) == {"core/a", "core/b"}


def test_each_source_includes_its_header_first():
    """Then a header can't rest on what its source happened to include before it."""
    files = _files()
    sources = {
        name: text for name, text in files.items() if name.endswith(".c") and f"{name[:-2]}.h" in files
    }
    for name, text in sources.items():
        first = re.search(r"^#include (.*)$", text, re.MULTILINE)
        assert first, name
        assert first[1] == f'"{PurePosixPath(name).stem}.h"', name


def test_each_header_stands_alone(tmp_path):
    """It compiles as all that is included, without a warning."""
    source, python = tmp_path / "alone.c", sysconfig.get_path("include")
    for header in sorted(_NATIVE.glob("*/*.h")):
        source.write_text(f'#include "{header}"\n')
        command = [
            "gcc",
            "-std=gnu11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-isystem",
            python,
            "-fsyntax-only",
            source,
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            require(False, "gcc, to compile the headers")
        assert (done.returncode, done.stderr) == (0, ""), header
