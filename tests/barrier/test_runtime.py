"""A C program built from the header and the sources alone: right answers, nothing for a sanitizer to say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import dirtytrack
from _lib import limits
from _lib.c_program import build

_SOURCE = Path(__file__).with_name("runtime.c")
_STORES = 1_000_000_000 if os.environ.get("DIRTYTRACK_STRESS_SECONDS") else 2_000_000
_WRAPPED = ("malloc", "calloc", "realloc", "mmap", "munmap")


def _run(program, *arguments):
    command = [str(program), *map(str, arguments)]
    done = limits.run(command)
    if "unexpected memory mapping" in done.stderr:  # too random an address space for this runtime
        command = ["setarch", "-R", *command]
        done = limits.run(command)
    return done


@pytest.fixture(scope="module", params=["plain", "address,undefined", "thread"])
def program(request, tmp_path_factory):
    """The program, as it is and under the sanitizers."""
    folder = tmp_path_factory.mktemp("runtime")
    sanitizer = [f"-fsanitize={request.param}", "-fno-sanitize-recover=all"]
    return build(folder, _SOURCE, *(sanitizer if request.param != "plain" else [])), request.param


def test_the_answers_are_right(program):
    """Errors, ranges that come and go, lost ones, maps of both kinds, a forked child, nothing left open."""
    done = _run(program[0], "answers")
    assert (done.returncode, done.stdout, done.stderr) == (0, "all so\n", "")


def test_memory_comes_from_where_it_is_told_to(program):
    """All of what the library needs, from the first tracker on."""
    done = _run(program[0], "allocator")
    assert (done.returncode, done.stdout, done.stderr) == (0, "all so\n", "")


def test_a_fork_in_the_middle_of_a_change_can_be_closed(program):
    """A child closes what another thread of its parent was changing: half of it may have been freed."""
    done = _run(program[0], "forks")
    assert (done.returncode, done.stdout, done.stderr) == (0, "all so\n", "")


def test_no_store_is_missed_beside_mutators(program):
    """Every store's card is in the take after it, or in the one before that raced with it."""
    stores = _STORES if program[1] == "plain" else 200_000
    done = _run(program[0], "mutators", stores)
    assert (done.returncode, done.stderr) == (0, "")
    takes, cards, owed = map(int, re.findall(r"\d+", done.stdout))
    assert takes >= 20
    assert cards >= owed >= 20


def test_a_take_that_is_ignored_is_noticed(tmp_path):
    """The check above can fail."""
    done = _run(build(tmp_path, _SOURCE), "drop", 200_000)
    assert done.returncode == 1
    assert "not so" in done.stderr


def test_takes_ask_nobody_for_memory(tmp_path):
    """Neither the allocator nor the kernel, in thousands of peeks, marks and takes."""
    wrap = [f"-Wl,--wrap={name}" for name in _WRAPPED]
    done = _run(build(tmp_path, _SOURCE, "-DCOUNT_ALLOCATIONS", *wrap), "steady")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 allocations\n", "")


def test_the_header_is_alone_and_plain(tmp_path):
    """Nothing else is in its directory to shadow a system's header; C++ and strict C take it."""
    assert os.listdir(dirtytrack.get_include()) == ["dirtytrack.h"]
    source = tmp_path / "include.c"
    source.write_text("#include <dirtytrack.h>\nint main(void) { return dt_tracker_cards(0) > 0; }\n")
    options = ["-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{dirtytrack.get_include()}", "-c", source]
    standards = [("gcc", "c99"), ("gcc", "c11"), ("g++", "c++98"), ("g++", "c++11"), ("g++", "c++20")]
    compilers = [
        [name, f"-std={standard}", "-x", "c" if standard[1].isdigit() else "c++"]
        for name, standard in standards
    ]
    for compiler in compilers:
        if shutil.which(compiler[0]):
            built = subprocess.run(
                [*compiler, *options, "-o", tmp_path / "include.o"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert (built.returncode, built.stderr) == (0, "")
