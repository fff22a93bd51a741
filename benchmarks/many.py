"""Many small regions: what one written page costs among thousands of them, and how every verb grows."""

from __future__ import annotations

import functools
import math
import mmap
import random
import resource
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import dirtytrack
from dirtytrack.barrier import CardTable
from dirtytrack.checkpoint import Checkpointer
from dirtytrack.native import ffi
from dirtytrack.snapshot import History, Snapshot

from .fixtures import PAGE, BareScan, address, c_library, fill, touched
from .harness import Budget, Figure, NoCollector, Outcome, Scale, Side, Unavailable, compare, row

_NBYTES = 512  # of an array among many: eight of them share a page


@row("collect-adjoining", Budget(0.2))
def collect_adjoining(scale: Scale) -> Iterator[Outcome]:
    """10,000 regions of one page, one after the other, in one collect, against one call each from C."""
    count = 500 if scale.quick else 10_000
    memory = touched(count * PAGE)
    base = address(memory)
    with dirtytrack.Session() as session:
        for page in range(count):
            session.track((base + page * PAGE, PAGE))
        bare = BareScan(base, PAGE, vec_len=256)
        args = ffi.new("struct dt_pm_scan_arg[]", count)
        for page, arg in enumerate(args):
            fill(arg, base + page * PAGE, PAGE, bare.vec, 256)
        where = bare.fd, int(ffi.cast("uintptr_t", args)), count
        yield compare(
            f"collect, {count:,} adjoining regions of one page, clean",
            Side(session.collect),
            Side(functools.partial(c_library().bench_scan_each, *where), name="one bare ioctl each, in C"),
            pairs=scale.repeat(100),
        )
        bare.close()


class _Arrays:
    """Small arrays, of which one is written before each act."""

    def __init__(self, scale: Scale) -> None:
        self.count = 500 if scale.quick else 4_000
        self.arrays = [np.ones(_NBYTES, np.uint8) for _ in range(self.count)]

    def write(self, pair: int) -> None:
        """Stores something new to one of them."""
        self.arrays[pair * 97 % self.count][7] += 1

    def beside_collect(self, verb: str, act: Callable[[], object], session: Any, scale: Scale) -> Outcome:
        """An act beside a collect of all of them, which finds the same page."""
        return compare(
            f"{verb}, one written page among {self.count:,} regions",
            Side(act, self.write),
            Side(session.collect, self.write, "collect of them"),
            pairs=scale.repeat(100),
        )


@row("snapshot-many", Budget(2))
def snapshot_many(scale: Scale) -> Iterator[Outcome]:
    """What a snapshot does for one written page, beside a collect."""
    many = _Arrays(scale)
    with dirtytrack.Session() as session, Snapshot(session, *many.arrays) as snapshot:
        advance = functools.partial(snapshot.diff, advance=True)
        yield many.beside_collect("Snapshot.diff", advance, session, scale)
        yield many.beside_collect("Snapshot.advance", snapshot.advance, session, scale)
        yield many.beside_collect("Snapshot.rollback", snapshot.rollback, session, scale)


@row("history-many")
def history_many(scale: Scale) -> Iterator[Outcome]:
    """The same of a history; a restore plans by region what it writes."""
    many = _Arrays(scale)
    with dirtytrack.Session() as session, History(session, *many.arrays) as history:
        state = history.save()
        restore = functools.partial(history.restore, state)
        yield many.beside_collect("History.save", history.save, session, scale)
        yield many.beside_collect("History.restore", restore, session, scale)


@row("save-many", Budget(3))
def save_many(scale: Scale) -> Iterator[Outcome]:
    """All of save(), which scans twice: what it captured is proven to be the state of one instant."""
    many = _Arrays(scale)
    with tempfile.TemporaryDirectory() as folder, dirtytrack.Session() as session:
        regions = {str(number): array for number, array in enumerate(many.arrays)}
        with Checkpointer(Path(folder) / "chain", regions, session=session, fsync=False) as checkpoints:
            checkpoints.save(wait=True)

            def write(pair: int) -> None:
                checkpoints.flush()
                many.write(pair)

            yield compare(
                f"save(), one written page among {many.count:,} regions",
                Side(checkpoints.save, write),
                Side(session.collect, write, "collect of them"),
                pairs=scale.repeat(100),
                note=f"a file of {checkpoints.save(wait=True).nbytes:,} bytes without a change",
            )


def _mappings(count: int) -> list[mmap.mmap]:
    return [mmap.mmap(-1, 2 * PAGE) for _ in range(count)]


def _seconds(act: Callable[[], object]) -> float:
    begin = perf_counter()
    act()
    return perf_counter() - begin


def _for_each(act: Callable[[Any], object], items: Sequence[Any]) -> float:
    return _seconds(lambda: [act(item) for item in items])


def _of_regions(count: int) -> dict[str, float]:
    # The seconds that each verb takes for so many regions.
    memories, taken = _mappings(count), {}
    session = dirtytrack.Session()
    taken["Session.track"] = _for_each(session.track, memories)
    regions = random.Random(count).sample(session.regions, count)
    taken["Session.untrack, at random"] = _for_each(session.untrack, regions[: count // 2])
    for memory in memories[: count // 2]:
        session.track(memory)
    taken["Session.close"] = _seconds(session.close)
    with dirtytrack.Session() as session:
        snapshot = Snapshot(session, *memories)
        taken["Snapshot.close"] = _seconds(snapshot.close)
        table = CardTable(session, memories[0])
        taken["CardTable.grow"] = _for_each(table.grow, memories[1:])
        taken["CardTable.shrink, at random"] = _for_each(table.shrink, regions[: count // 2])
        taken["CardTable.close"] = _seconds(table.close)
    return taken


def _of_sessions(count: int) -> dict[str, float]:
    # The same for so many sessions of one region.
    taken, sessions = {}, list[dirtytrack.Session]()
    with ExitStack() as open_:
        taken["opening a session"] = _seconds(
            lambda: sessions.extend(open_.enter_context(dirtytrack.Session()) for _ in range(count))
        )
        pairs = list(zip(sessions, _mappings(count), strict=True))
        taken["Session.track, in each"] = _for_each(lambda pair: pair[0].track(pair[1]), pairs)
    return taken


def _of_closing(count: int) -> dict[str, float]:
    sessions = [dirtytrack.Session() for _ in range(count)]
    memories = _mappings(count)
    for session, memory in zip(sessions, memories, strict=True):
        session.track(memory)
    return {"Session.close, of each": _for_each(dirtytrack.Session.close, sessions)}


def _growth(
    take: Callable[[int], dict[str, float]], few: int, many: int, what: str, rounds: int
) -> Iterator[Outcome]:
    def by_steps(count: int, seconds: float) -> float:
        return seconds / (count * math.log2(count))

    def once(count: int) -> dict[str, float]:
        with NoCollector():
            return take(count)

    once(few)  # does not count
    samples = [(once(many), once(few)) for _ in range(rounds)]
    for verb in samples[0][0]:
        above = [by_steps(many, large[verb]) for large, _ in samples]
        below = [by_steps(few, small[verb]) for _, small in samples]
        ratios = [a / b for a, b in zip(above, below, strict=True)]
        yield Outcome(
            f"{verb}: {many:,} {what}, by n log2 n",
            Figure.of(above),
            f"the same of {few:,}",
            Figure.of(below),
            Figure.of(ratios, "x"),
        )


@contextmanager
def _descriptors(wanted: int) -> Iterator[None]:
    # So many of them may be open.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted and hard != resource.RLIM_INFINITY and hard < wanted:
        raise Unavailable(f"needs {wanted} descriptors; the hard limit (ulimit -Hn) is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@row("growth", Budget(1.0))
def growth(scale: Scale) -> Iterator[Outcome]:
    """Whether what makes and ends many regions grows no faster than n log n."""
    few, many, rounds = (50, 500, 1) if scale.quick else (1_000, 10_000, 5)
    yield from _growth(_of_regions, few, many, "regions", rounds)


@row("growth-sessions", Budget(1.0))
def growth_sessions(scale: Scale) -> Iterator[Outcome]:
    """The same for many sessions, each with two descriptors."""
    few, many, rounds = (10, 50, 1) if scale.quick else (150, 1_500, 5)
    with _descriptors(2 * many + 100):
        yield from _growth(_of_sessions, few, many, "sessions", rounds)


@row("growth-closing")
def growth_closing(scale: Scale) -> Iterator[Outcome]:
    """The kernel looks at every mapping of the process whenever a userfaultfd is closed: no budget."""
    few, many, rounds = (10, 50, 1) if scale.quick else (150, 1_500, 5)
    with _descriptors(2 * many + 100):
        yield from _growth(_of_closing, few, many, "sessions", rounds)
