"""What an import costs, in an interpreter that has just started."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from .harness import Budget, Outcome, Scale, Seconds, Side, compare, row

_PROGRAM = """
import sys, time
sys.path[:] = {path!r}
begin = time.process_time_ns()
{statement}
print(time.process_time_ns() - begin)
"""


def _import(statement: str, cache: str) -> Seconds:
    # Processor time, which is what an import takes once its files are in memory. Modules are compiled by the
    # sample that does not count, also where PYTHONDONTWRITEBYTECODE would have them compiled each time.
    program = _PROGRAM.format(path=sys.path, statement=statement)
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-S", "-c", program]  # without `site`, which may have imported anything
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return Seconds(int(done.stdout) / 1e9)


def _beside_numpy(scale: Scale, title: str, statement: str) -> Iterator[Outcome]:
    with tempfile.TemporaryDirectory() as cache:
        yield compare(
            title,
            Side(functools.partial(_import, statement, cache)),
            Side(functools.partial(_import, "import numpy", cache), name="import numpy"),
            pairs=scale.repeat(30),
            note="processor time of the statement, in a new interpreter",
        )


@row("import", Budget(0.25))
def import_package(scale: Scale) -> Iterator[Outcome]:
    """The package itself, whose parts come when they are asked for."""
    yield from _beside_numpy(scale, "import dirtytrack", "import dirtytrack")


@row("import-session")
def import_session(scale: Scale) -> Iterator[Outcome]:
    """What a program pays that tracks: all that a session needs."""
    yield from _beside_numpy(scale, "import dirtytrack, Session", "from dirtytrack import Session")
