"""Hot pages left open (``Session(adaptive=True)``) beside a plain session, also where it turns itself off."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

import dirtytrack

from .fixtures import PAGE, address, busy_thread, c_library, size, touched
from .harness import Budget, Outcome, Scale, Side, compare, require_memory, row

_EPOCHS = 66  # in a sample: twice as long as the longest rest of a hot page, so tests are in the figure
_FRACTIONS = (0.01, 0.03, 0.10, 0.30, 1.0)


class _Epochs:
    """Epochs of stores and a collect, the same for every session: hot pages in each, others at random."""

    def __init__(self, nbytes: int, hot: float, scattered: bool, random: float, count: int) -> None:
        require_memory(2 * nbytes)
        self.native = c_library()
        pages = nbytes // PAGE
        generator = np.random.default_rng(1)
        chosen = generator.permutation(pages) if scattered else np.arange(pages)
        warm = chosen[: round(pages * hot)]
        self.pages = [
            np.concatenate([warm, generator.integers(0, pages, round(pages * random))]).astype(np.uint64)
            for _ in range(count)
        ]
        self.sides: list[tuple[Any, dirtytrack.Session]] = []

    def open(self, nbytes: int, *, adaptive: bool) -> int:
        array = touched(nbytes)
        session = dirtytrack.Session(adaptive=adaptive)
        session.track(array)
        self.sides.append((array, session))
        return len(self.sides) - 1

    def run(self, side: int) -> None:
        array, session = self.sides[side]
        for pages in self.pages:
            self.native.bench_store(address(array), address(pages), len(pages), PAGE)
            with session.collect():
                pass

    def close(self) -> None:
        for _, session in self.sides:
            session.close()


def _outcome(
    scale: Scale, hot: float, random: float, *, scattered: bool = True, faster: bool = True, beside: str = ""
) -> Outcome:
    nbytes, count = scale.gib(1), max(4, _EPOCHS // (16 if scale.quick else 1))
    epochs = _Epochs(nbytes, hot, scattered, random, count)
    with contextlib.closing(epochs):
        adaptive, plain = epochs.open(nbytes, adaptive=True), epochs.open(nbytes, adaptive=False)
        epochs.run(adaptive)
        how = f"{hot:.0%} hot {'at random' if scattered else 'in a row'}, " if hot else ""
        return compare(
            f"write and collect, adaptive, {size(nbytes)}: {how}{random:.1%} others{beside}",
            Side(lambda: epochs.run(adaptive), parts=count),
            Side(lambda: epochs.run(plain), name="a plain session", parts=count),
            pairs=scale.repeat(5),
            faster=faster,
        )


@row("adaptive-hot", Budget(4, faster=True))
def adaptive_hot(scale: Scale) -> Iterator[Outcome]:
    """A tenth of the pages, scattered, in every epoch, and one in two hundred at random."""
    yield _outcome(scale, 0.10, 0.005)


@row("adaptive-curve")
def adaptive_curve(scale: Scale) -> Iterator[Outcome]:
    """The same over the hot fraction, scattered and in a row."""
    for scattered in (True, False):
        for hot in _FRACTIONS:
            yield _outcome(scale, hot, 0.005, scattered=scattered)


@row("adaptive-random", Budget(1.1))
def adaptive_random(scale: Scale) -> Iterator[Outcome]:
    """Nothing hot: pages at random in every epoch."""
    for random in (0.01, 0.10, 0.50):
        yield _outcome(scale, 0, random, faster=False)


@row("adaptive-threads", Budget(1.1))
def adaptive_threads(scale: Scale) -> Iterator[Outcome]:
    """Another thread runs: every run of pages that is armed by itself interrupts its processor."""
    with busy_thread():
        for hot, random in ((0.10, 0.005), (0.10, 0.05), (0, 0.01)):
            yield _outcome(scale, hot, random, faster=False, beside=", beside a thread")
