"""How long a test may take: in processor time, of which a busy machine takes nothing away.

What hangs without computing uses none, so the clock ends that; a machine that is seven times too busy is not
taken for a hang.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_STRESS_SECONDS = int(os.environ.get("DIRTYTRACK_STRESS_SECONDS", "0"))  # by the clock, on every processor

# Of processor time, of all of the test's threads together.
TEST_SECONDS = int(os.environ.get("DIRTYTRACK_TEST_SECONDS", "120")) + _STRESS_SECONDS * (os.cpu_count() or 1)
HANG_SECONDS = 900 + _STRESS_SECONDS  # by the clock
CHILD_HANG_SECONDS = HANG_SECONDS * 2 // 3  # the same for its child processes: the test still says which


def show_tracebacks() -> None:
    """From here on a test that is ended by its limit shows where it was, on the real stderr.

    pytest's faulthandler_timeout would hang every forked test: the watchdog's thread does not survive the
    fork, and the child waits for it.
    """
    stderr = os.dup(2)
    for number in (signal.SIGALRM, signal.SIGPROF):
        faulthandler.register(number, file=stderr, all_threads=True, chain=True)


def begin() -> None:
    """Give the test that runs, or a part of it, its time from now on."""
    signal.setitimer(signal.ITIMER_PROF, TEST_SECONDS)
    signal.alarm(HANG_SECONDS)


def end() -> None:
    """The test is over."""
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.alarm(0)


def limit_child(pid: int = 0) -> None:
    """End a process, by default this one, with SIGXCPU once it has used the processor time of a test."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_CPU)
    resource.prlimit(pid, resource.RLIMIT_CPU, (TEST_SECONDS, hard))


def run(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program within the limits, and return what it wrote and how it ended; SIGXCPU is status -24."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    with subprocess.Popen(command, **options) as process:
        limit_child(process.pid)
        try:
            out, err = process.communicate(timeout=CHILD_HANG_SECONDS)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)
