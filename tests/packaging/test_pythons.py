"""Two runs of `make pythons` don't take each other's packages away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.anywhere

_PLACE = Path(__file__).parents[1] / "_lib/packaging"
_RUN = """
import sys
import pythons
with pythons.alone(sys.argv[1]):
    print("in", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a process that has what it is told to alone, until its input ends."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(_PLACE))
    started = []

    def run(what):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, "-c", _RUN, what], **pipes))
        return started[-1]

    yield run
    for process in started:
        with process:
            process.kill()


def test_the_second_waits_says_so_and_has_its_turn(start):
    """It comes in once the first is done, and not before."""
    first = start("Python 3.14")
    assert first.stdout.readline() == "in\n"
    second = start("Python 3.14")
    second.stdin.close()
    assert second.stderr.readline() == "make pythons: another run has Python 3.14; waiting for its end\n"
    assert second.poll() is None
    first.stdin.close()
    assert second.stdout.readline() == "in\n"
    assert second.wait() == 0


def test_another_version_need_not_wait(start):
    """Each version has packages of its own."""
    for version in ("3.13", "3.14"):
        assert start(f"Python {version}").stdout.readline() == "in\n"


def test_who_was_killed_is_not_waited_for(start):
    """The lock goes with its process."""
    first = start("Python 3.14")
    assert first.stdout.readline() == "in\n"
    first.kill()
    first.wait()
    second = start("Python 3.14")
    assert second.stdout.readline() == "in\n"
    second.stdin.close()
    assert second.wait() == 0
    assert not second.stderr.read()
