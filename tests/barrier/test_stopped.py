"""Threads of a C program are stopped, cancelled or interrupted inside of every function."""

from __future__ import annotations

from pathlib import Path

import pytest

from _lib import limits
from _lib.c_program import build


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The program, built from the header and the sources."""
    return build(tmp_path_factory.mktemp("stopped"), Path(__file__).with_name("stopped.c"))


@pytest.mark.parametrize("what", ["pauses", "cancellations", "handlers"])
def test_every_function_beside_and_within_every_other(program, what):
    """Nobody waits for a stopped thread, or for a lock of a cancelled one, and the answers are right."""
    done = limits.run([program, what])
    assert (done.returncode, done.stdout, done.stderr) == (0, "all so\n", "")
