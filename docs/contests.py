"""Saves and loads by several libraries in turn, in one run: what the programs beside this one print."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Protocol

_ROUNDS = 5
_FRACTIONS = 0.01, 0.1, 1.0


class Contest(Protocol):
    """Memory, and ways to save and to load it, by name."""

    def save(self) -> dict[str, Callable[[], Callable[[], int]]]:
        """Each begins a save, and returns what waits until it is durable and says what was written."""

    def load(self) -> dict[str, Callable[[], object]]:
        """Each loads what was saved last."""

    def write(self, fraction: float, seed: int) -> None:
        """Writes to so much of the memory."""

    def forget(self, name: str) -> None:
        """Removes what one has saved, if it is one that saves everything each time."""


def measure(
    contest: Contest,
    say: Callable[[str], object] = print,
    total: Callable[[int], float] = float,
    meet: Callable[[], object] = lambda: None,
) -> None:
    """Has everybody save and load, round by round, and says the medians.

    Args:
        contest: between whom.
        say: is given each line.
        total: adds up what the processes wrote, if there are several; all of them call it.
        meet: waits for all of them, before a load.
    """
    for name, save in contest.save().items():
        contest.forget(name)
        save()()
    for fraction in _FRACTIONS:
        found: dict[str, list[tuple[float, float, float]]] = {}
        for round_ in range(_ROUNDS):
            for name, save in contest.save().items():
                contest.write(fraction, round_)
                contest.forget(name)
                start = time.perf_counter()
                wait = save()
                pause = time.perf_counter() - start
                written = wait()
                durable = time.perf_counter() - start
                found.setdefault(name, []).append((pause, durable, total(written)))
        for name, samples in found.items():
            pause, durable, nbytes = (statistics.median(one) for one in zip(*samples, strict=True))
            figures = f"{pause * 1e3:7.0f} ms {durable * 1e3:7.0f} ms {nbytes / 1e6:7.1f} MB"
            say(f"{fraction:4.0%}  {name:24} {figures}")
    times: dict[str, list[float]] = {}
    for _ in range(_ROUNDS):
        for name, load in contest.load().items():
            meet()
            start = time.perf_counter()
            load()
            times.setdefault(name, []).append(time.perf_counter() - start)
    for name, lasted in times.items():
        say(f"load  {name:24} {statistics.median(lasted) * 1e3:7.0f} ms")
