"""Threads of a C program are stopped, cancelled or interrupted inside of every function."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from _lib import limits
from _lib.c_program import build

_SECONDS = os.environ.get("DIRTYTRACK_STRESS_SECONDS", "0")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The program, built from the header and the sources."""
    return build(tmp_path_factory.mktemp("stopped"), Path(__file__).with_name("stopped.c"))


@pytest.mark.parametrize("what", ["pauses", "cancellations", "handlers"])
def test_every_function_beside_and_within_every_other(program, what):
    """Nobody waits for a stopped thread, or for a lock of a cancelled one, and the answers are right."""
    done = limits.run([program, what, _SECONDS if what == "pauses" else "0"])
    assert (done.returncode, done.stdout.splitlines()[-1:], done.stderr) == (0, ["all so"], "")
