"""Real processes of MPI, started by mpirun: they find together, save as one, and end when one is missing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from _lib import limits
from _lib.support import library

pytestmark = pytest.mark.mpi

_EXAMPLE = Path(__file__).parents[2] / "examples" / "group_mpi.py"
_LOST = """
import time
from dirtytrack.group import mpi_coordinator
coordinator = mpi_coordinator(timeout=0.2)
assert coordinator.gather(coordinator.rank) == ([0, 1, 2] if coordinator.rank == 0 else None)
assert coordinator.broadcast(["x" * coordinator.rank, coordinator.rank][1]) == 0
if coordinator.rank == 1:
    time.sleep(600)
coordinator.gather(None)
coordinator.broadcast(None)
"""


def _mpirun(ranks, *program):
    library("mpi4py", "mpi")
    command = [Path(sys.executable).parent / "mpirun", "--oversubscribe", "-n", str(ranks), sys.executable]
    root = {f"OMPI_ALLOW_RUN_AS_ROOT{end}": "1" for end in ("", "_CONFIRM")}
    return limits.run([*command, *program], env={**os.environ, **root})


def test_any_number_of_processes_goes_on(tmp_path):
    """The example, started twice on one directory."""
    for start, ranks in enumerate((3, 2)):
        done = _mpirun(ranks, "-W", "error", _EXAMPLE, tmp_path / "state")
        assert done.returncode == 0, done.stdout + done.stderr
        for rank in range(ranks):
            assert f"holds: rank {rank} of {ranks} went on at step {1 + 4 * start}\n" in done.stdout
        assert f"holds: the state of step {4 + 4 * start} is whole\n" in done.stdout


def test_a_process_that_does_not_come_is_told():
    """In a bounded time, though MPI would wait for ever."""
    done = _mpirun(3, "-m", "mpi4py", "-c", _LOST)  # which ends all processes when one fails
    assert done.returncode
    assert "waited 0.2 s for another one" in done.stderr
