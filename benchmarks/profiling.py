"""What it costs to see who writes: phases, and a recording from outside, beside the program alone."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dirtytrack.profile import Profile

from .fixtures import PAGE, Tracked, size, some_pages, store, touched
from .harness import Outcome, Scale, Seconds, Side, compare, row

_STEPS = 20
_PROGRAM = """
import sys, time
import numpy as np
table, moments = np.zeros((50_000, 256), np.float32), np.zeros((50_000, 256), np.float32)
table[:] = moments[:] = 1
rng = np.random.default_rng(1)
began = time.process_time()
for _ in range(int(sys.argv[1])):
    table[rng.integers(0, 50_000, 200)] += 1
    moments[:5000] *= 0.9
    table @ np.ones(256, np.float32)
print(time.process_time() - began)
"""

_FORKS = """
import os, sys, time
import numpy as np
table = np.ones(8 << 20)
began = time.perf_counter()
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        table[0] = 2
        os._exit(0)
    os.wait()
print(time.perf_counter() - began)
"""


class _Borders:
    """A phase in which nothing happens, and the two scans that it takes."""

    def __init__(self, memory: Tracked, profile: Profile) -> None:
        self.scan = memory.scan
        self.block = profile.phase("a")

    def phase(self) -> None:
        with self.block:
            pass

    def scans(self) -> None:
        self.scan()
        self.scan()


@row("profile-border")
def profile_border(scale: Scale) -> Iterator[Outcome]:
    """A phase in which nothing is written: two collects, two entries in the books."""
    for nbytes, loops in ((scale.gib(1), 1), (PAGE, 100)):
        with Tracked(nbytes) as memory, Profile(memory.session) as profile:
            borders = _Borders(memory, profile)
            memory.session.reset()
            yield compare(
                f"a phase, nothing written, {size(nbytes)}",
                Side(borders.phase),
                Side(borders.scans, name="two bare ioctls"),
                pairs=scale.repeat(30),
                loops=loops,
            )


class _Steps:
    """A program that writes some pages and computes, in two phases a step."""

    def __init__(self, nbytes: int, fraction: float) -> None:
        self.pages = some_pages(nbytes // PAGE, fraction, 1)
        self.matrix = np.ones((400, 400), np.float32)

    def step(self, array: np.ndarray) -> None:
        store(array, self.pages)
        np.dot(self.matrix, self.matrix)

    def phased(self, array: np.ndarray, profile: Profile) -> None:
        for _ in range(_STEPS):
            for name in ("a", "b"):
                with profile.phase(name):
                    self.step(array)

    def alone(self, array: np.ndarray) -> None:
        for _ in range(2 * _STEPS):
            self.step(array)


@row("profile-phases")
def profile_phases(scale: Scale) -> Iterator[Outcome]:
    """A program of two phases a step, each of which writes pages of 256 MiB and computes."""
    nbytes = scale.gib(1) // 4
    plain = touched(nbytes)
    for fraction in (0.001, 0.01, 0.1):
        steps = _Steps(nbytes, fraction)
        with Tracked(nbytes) as memory, Profile(memory.session) as profile:
            yield compare(
                f"a phase that writes {fraction:.1%} of {size(nbytes)} and computes",
                Side(functools.partial(steps.phased, memory.array, profile), parts=2 * _STEPS),
                Side(
                    functools.partial(steps.alone, plain),
                    parts=2 * _STEPS,
                    name="the same without a profile",
                ),
                pairs=scale.repeat(10),
            )


@row("record")
def record(scale: Scale) -> Iterator[Outcome]:
    """A program in numpy under ``dirtytrack record``, beside itself alone: processor time of the program."""
    with tempfile.TemporaryDirectory() as folder:
        run = _program(Path(folder), _PROGRAM, 20 if scale.quick else 200)
        yield compare(
            "a training in numpy, 100 MiB, recorded every 0.1 s",
            Side(lambda: run("-m", "dirtytrack", "record", "--force")),
            Side(run, name="the same alone"),
            pairs=scale.repeat(10),
        )


@row("record-forks")
def record_forks(scale: Scale) -> Iterator[Outcome]:
    """A fork, and a child that writes a page and ends, under ``record --follow-forks``, beside it alone."""
    count = 5 if scale.quick else 50
    with tempfile.TemporaryDirectory() as folder:
        run = _program(Path(folder), _FORKS, count)
        yield compare(
            "a fork with 64 MiB and its child, followed",
            Side(lambda: run("-m", "dirtytrack", "record", "--follow-forks", "--force"), parts=count),
            Side(run, parts=count, name="the same alone"),
            pairs=scale.repeat(10),
        )


def _program(folder: Path, text: str, count: int) -> Callable[..., Seconds]:
    # A program that is given a number and prints how many seconds it took, to be run by a command.
    program = folder / "program.py"
    program.write_text(text)

    def run(*command: str) -> Seconds:
        done = subprocess.run(
            [sys.executable, *command, str(program), str(count)],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        return Seconds(done.stdout)

    return run
