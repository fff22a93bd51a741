"""Interleaved pairs in one run: what is measured, its yardstick, and the ratio of each pair."""

from __future__ import annotations

import fnmatch
import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


class Unavailable(Exception):
    """A row can't be measured on this machine; the message says why and what would help."""


@dataclass(frozen=True)
class Figure:
    """A spread of samples.

    Attributes:
        unit: ``s``, ``bytes``, ``calls`` or ``x`` (a ratio).
    """

    median: float
    low: float
    high: float
    samples: int
    unit: str

    @classmethod
    def of(cls, samples: list[float], unit: str = "s") -> Figure:
        """The figure of some samples, at least one."""
        return cls(statistics.median(samples), min(samples), max(samples), len(samples), unit)


@dataclass(frozen=True)
class Budget:
    """The ratio that a row owes.

    Attributes:
        limit: the ratio.
        faster: the yardstick is to take at least *limit* times as long; else the subject at most so.
    """

    limit: float
    faster: bool = False

    def holds(self, ratio: float) -> bool:
        """Whether a ratio, as the row gives it, is within the budget."""
        return ratio >= self.limit if self.faster else ratio <= self.limit


@dataclass(frozen=True)
class Outcome:
    """One line of the table.

    Attributes:
        title: what was measured, and on how much.
        subject: its figure.
        beside: the name of the yardstick; empty if there is none.
        yardstick: its figure.
        ratio: over the pairs: subject by yardstick, or the other way round where the budget asks for speed.
        note: what a reader has to know to read it rightly.
    """

    title: str
    subject: Figure
    beside: str = ""
    yardstick: Figure | None = None
    ratio: Figure | None = None
    note: str = ""


@dataclass(frozen=True)
class Scale:
    """How much is measured: ``quick`` shows that every row works, its figures mean little."""

    quick: bool

    def gib(self, count: int) -> int:
        """Bytes of *count* GiB; a 32nd of it when quick."""
        return (count << 30) // (32 if self.quick else 1)

    def repeat(self, count: int) -> int:
        """How many samples to take where a full run takes *count*."""
        return min(count, 3) if self.quick else count


@dataclass(frozen=True)
class Row:
    """A measurement: one function, one or more outcomes."""

    name: str
    budget: Budget | None
    measure: Callable[[Scale], Iterator[Outcome]]


_rows: list[Row] = []


def row(
    name: str, budget: Budget | None = None
) -> Callable[[Callable[[Scale], Iterator[Outcome]]], Callable[[Scale], Iterator[Outcome]]]:
    """Declares a function to be the row *name*; its outcomes all have the same budget."""

    def declare(measure: Callable[[Scale], Iterator[Outcome]]) -> Callable[[Scale], Iterator[Outcome]]:
        _rows.append(Row(name, budget, measure))
        return measure

    return declare


def rows(pattern: str = "*") -> list[Row]:
    """The rows declared whose name matches a shell pattern, in order of declaration."""
    return [each for each in _rows if fnmatch.fnmatchcase(each.name, pattern)]


def _nothing(_pair: int) -> None:
    pass


class Seconds(float):
    """Returned by an act of which only a part counts: how long that took."""


@dataclass(frozen=True)
class Side:
    """One side of a pair.

    Attributes:
        act: what is timed, all of it: its result is dropped within the time. Or it returns `Seconds`.
        prepare: called before, untimed, with the number of the pair: both sides of a pair are given the same.
        name: of a yardstick, for the table.
        parts: the time is divided by so much.
    """

    act: Callable[[], object]
    prepare: Callable[[int], object] = _nothing
    name: str = ""
    parts: float = 1


def compare(
    title: str,
    subject: Side,
    yardstick: Side,
    *,
    pairs: int,
    loops: int = 1,
    faster: bool = False,
    settle: bool = False,
    note: str = "",
) -> Outcome:
    """Times both sides in turn, the first of a pair alternating, after one pair that does not count.

    Args:
        title: of the outcome.
        subject: what is measured.
        yardstick: what it is measured by.
        pairs: how many.
        loops: how often each side acts in one sample, for what is too short for a clock.
        faster: give the ratio of yardstick to subject.
        settle: each side acts once, untimed, before every sample: for a yardstick that empties the caches.
        note: of the outcome.
    """
    times: dict[Side, list[float]] = {subject: [], yardstick: []}
    with NoCollector():
        for pair in range(-1, pairs):
            for side in (subject, yardstick) if pair % 2 else (yardstick, subject):
                if settle:
                    side.prepare(pair + 1)
                    side.act()
                side.prepare(pair + 1)
                taken = _time(side.act, loops) / side.parts
                if pair >= 0:
                    times[side].append(taken)
    above, below = (yardstick, subject) if faster else (subject, yardstick)
    ratios = [a / b for a, b in zip(times[above], times[below], strict=True)]
    return Outcome(
        title,
        Figure.of(times[subject]),
        yardstick.name,
        Figure.of(times[yardstick]),
        Figure.of(ratios, "x"),
        note,
    )


def measure(title: str, side: Side, *, samples: int, loops: int = 1, note: str = "") -> Outcome:
    """Times what has no yardstick, after one sample that does not count."""
    times: list[float] = []
    with NoCollector():
        for sample in range(samples + 1):
            side.prepare(sample)
            times.append(_time(side.act, loops) / side.parts)
    return Outcome(title, Figure.of(times[1:]), note=note)


def _time(act: Callable[[], object], loops: int) -> float:
    clock = time.perf_counter_ns
    if loops == 1:
        begin = clock()
        result = act()
        taken = (clock() - begin) / 1e9
        return result if isinstance(result, Seconds) else taken
    turns = itertools.repeat(None, loops)
    begin = clock()
    for _ in turns:
        act()
    return (clock() - begin) / loops / 1e9


class NoCollector:
    """Keeps Python's cyclic collector out of the samples."""

    def __enter__(self) -> None:
        gc.collect()
        self._was = gc.isenabled()
        gc.disable()

    def __exit__(self, *exc: object) -> None:
        if self._was:
            gc.enable()


def status(key: str) -> int:
    """A line of /proc/self/status that counts kB, in bytes."""
    return _kilobytes("/proc/self/status", key)


def require_memory(nbytes: int) -> None:
    """Raises Unavailable unless *nbytes* more, and a quarter in reserve, fit into the machine's memory."""
    available = _kilobytes("/proc/meminfo", "MemAvailable")
    if available < nbytes + nbytes // 4:
        raise Unavailable(
            f"needs {nbytes >> 20} MiB and a quarter to spare; {available >> 20} MiB are available"
        )


def _kilobytes(path: str, key: str) -> int:
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise Unavailable(f"{path} has no line {key}")
