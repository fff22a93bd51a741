"""The verbs beside Python threads that compute all the time, beside the same alone.

A thread that gives up the GIL gets it back after 5 ms, the switch interval. Whether another one takes it in
between is chance, so a median hides it: what counts is the mean of the calls below 1 ms, and the number
of the others. Python forces some of those itself, one for each 5 ms that the caller has computed.
"""

from __future__ import annotations

import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np

import dirtytrack
from dirtytrack.barrier import CardTable
from dirtytrack.checkpoint import Checkpointer
from dirtytrack.checkpoint.records import CompressionName
from dirtytrack.snapshot import History, Snapshot

from .fixtures import (
    PAGE,
    computing_threads,
    memory_folder,
    size,
    some_pages,
    touched,
    warm,
)
from .harness import Budget, Figure, Outcome, Scale, Side, compare, require_memory, row

_LONG = 1e-3  # seconds
_THREADS = (1, 4)


class _Page:
    """A page of memory under everything, and the calls by name."""

    def __init__(self, closing: ExitStack) -> None:
        self.array = touched(PAGE)
        self._bytes = self.array.data
        self.session = closing.enter_context(dirtytrack.Session())
        region = self.session.track(self.array)
        self.snapshot = closing.enter_context(Snapshot(self.session, region))
        self.history = closing.enter_context(History(self.session, region))
        self.cards = closing.enter_context(CardTable(self.session, region, card_size=PAGE))
        self.map = bytearray(self.cards.nbytes)
        self.states = [self.history.save() for _ in range(2)]

    def store(self) -> None:
        """Writes to it and keeps the GIL; numpy's ``fill`` gives it up, which wakes who waits for it."""
        self._bytes[0] = 0

    def calls(self) -> dict[str, Callable[[], object]]:
        """The verbs that are about one page, each of which was written."""
        return {
            "collect": self.session.collect,
            "peek": self.session.peek,
            "take": functools.partial(self.cards.take, self.map),
            "diff": self.snapshot.diff,
            "advance": self.snapshot.advance,
            "rollback": self.snapshot.rollback,
            "History.restore": functools.partial(self.history.restore, self.states[0]),
        }


class _Times:
    """What calls took, and how many of the long ones Python forces."""

    def __init__(self) -> None:
        self.means: list[float] = []  # seconds, of the calls that were not long, a round each
        self.long = 0
        self.own = 0.0  # seconds that the caller has computed

    def take(self, call: Callable[[], object], store: Callable[[], object], count: int) -> None:
        """Times *count* calls, each after a store."""
        clock, taken = time.perf_counter, []
        begun = time.thread_time()
        for _ in range(count):
            store()
            before = clock()
            call()
            taken.append(clock() - before)
        self.own += time.thread_time() - begun
        short = [each for each in taken if each < _LONG]
        self.long += count - len(short)
        if short:
            self.means.append(statistics.mean(short))

    @property
    def forced(self) -> float:
        """The switches that Python has forced upon the caller, at least one."""
        return max(self.own / sys.getswitchinterval(), 1)


def _times(
    scale: Scale, call: Callable[[], object], store: Callable[[], object], threads: int
) -> tuple[_Times, _Times]:
    alone, beside = _Times(), _Times()
    for _ in range(scale.repeat(5)):
        alone.take(call, store, 100 if scale.quick else 5000)
        with computing_threads(threads):
            beside.take(call, store, 100 if scale.quick else 5000)
    return alone, beside


def _beside(threads: int) -> str:
    return f"beside {threads} computing thread{'s' * (threads > 1)}"


@row("company-short", Budget(2))
def company_short(scale: Scale) -> Iterator[Outcome]:
    """A verb on one page that was written: the mean of the calls below 1 ms."""
    with ExitStack() as closing:
        page = _Page(closing)
        for name, call in page.calls().items():
            for threads in _THREADS:
                alone, beside = _times(scale, call, page.store, threads)
                yield Outcome(
                    f"{name}, one page, {_beside(threads)}",
                    Figure.of(beside.means),
                    "alone",
                    Figure.of(alone.means),
                    Figure.of(
                        [one / other for one, other in zip(beside.means, alone.means, strict=False)], "x"
                    ),
                )


@row("company-long", Budget(1.5))
def company_long(scale: Scale) -> Iterator[Outcome]:
    """The same: the calls above 1 ms, beside those that Python forces every 5 ms of the caller's own time."""
    with ExitStack() as closing:
        page = _Page(closing)
        for name, call in page.calls().items():
            for threads in _THREADS:
                _, beside = _times(scale, call, page.store, threads)
                yield Outcome(
                    f"{name}, one page, {_beside(threads)}, above 1 ms",
                    Figure.of([float(beside.long)], "calls"),
                    "forced by Python",
                    Figure.of([beside.forced], "calls"),
                    Figure.of([beside.long / beside.forced], "x"),
                )


@row("company-save", Budget(3))
def company_save(scale: Scale) -> Iterator[Outcome]:
    """All of ``save()`` until it returns; the writing behind it is over before the next one."""
    for threads in _THREADS:
        yield _save_beside(scale, threads)


def _save_beside(scale: Scale, threads: int) -> Outcome:
    nbytes = scale.gib(1) // 4
    require_memory(3 * nbytes)
    array = touched(nbytes)
    with ExitStack() as closing, ExitStack() as beside:
        folder = closing.enter_context(tempfile.TemporaryDirectory())
        chain = closing.enter_context(
            Checkpointer(Path(folder, "chain"), {"array": array}, compression="none")
        )
        chain.save(wait=True)

        def alone(pair: int) -> None:
            beside.close()
            chain.flush()
            array[some_pages(nbytes // PAGE, 0.01, pair) * PAGE] += 1

        def in_company(pair: int) -> None:
            alone(pair)
            beside.enter_context(computing_threads(threads))

        return compare(
            f"save, {size(nbytes)}, 1% written, {_beside(threads)}",
            Side(chain.save, in_company),
            Side(chain.save, alone, "alone"),
            pairs=scale.repeat(30),
        )


@row("company-durable", Budget(0.7, faster=True))
def company_durable(scale: Scale) -> Iterator[Outcome]:
    """From the return of ``save()`` until what it has captured is committed, on a tmpfs, not compressed."""
    yield _durable(scale, "", compression="none")


@row("company-durable-auto")
def company_durable_auto(scale: Scale) -> Iterator[Outcome]:
    """The same with ``compression="auto"``: of noise, which is stored as it is, and of what is compressed."""
    yield _durable(scale, ", noise", values=256)
    yield _durable(scale, ", compressed", values=4)


def _durable(
    scale: Scale, what: str, *, compression: CompressionName = "auto", values: int | None = None
) -> Outcome:
    with _Delta(scale, compression, values) as delta, ExitStack() as beside:

        def alone(pair: int) -> None:
            beside.close()
            delta.capture(pair)

        def in_company(pair: int) -> None:
            beside.close()
            beside.enter_context(computing_threads(1))
            delta.capture(pair)

        return compare(
            f"captured to durable, {size(delta.array.nbytes)}, 10% written{what}, {_beside(1)}",
            Side(delta.chain.flush, in_company),
            Side(delta.chain.flush, alone, "alone"),
            pairs=scale.repeat(20),
            faster=True,
        )


@row("company-thread", Budget(0.9, faster=True))
def company_thread(scale: Scale) -> Iterator[Outcome]:
    """What that thread does meanwhile, in the same time."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    with _Delta(scale) as delta:
        for pair in range(scale.repeat(20)):
            progress = [0]
            delta.capture(pair)
            with computing_threads(1, progress):
                begun, before = time.perf_counter(), progress[0]
                delta.chain.flush()
                rates[True].append((progress[0] - before) / (time.perf_counter() - begun))
                begun, before = time.perf_counter(), progress[0]
                time.sleep(0.1)
                rates[False].append((progress[0] - before) / (time.perf_counter() - begun))
    ratios = [one / other for one, other in zip(rates[True], rates[False], strict=True)]
    yield Outcome(
        "speed of a computing thread, while a checkpoint becomes durable",
        Figure.of(rates[True], "/s"),
        "alone",
        Figure.of(rates[False], "/s"),
        Figure.of(ratios, "x"),
    )


class _Delta:
    """Memory in a chain on a tmpfs, of which a tenth is captured time and again.

    Its pages are written with bytes of so many random values, or else changed in one byte.
    """

    def __init__(
        self, scale: Scale, compression: CompressionName = "none", values: int | None = None
    ) -> None:
        nbytes = scale.gib(1) // 2
        require_memory(6 * nbytes)
        self.array = touched(nbytes)
        self._values, self._random = values, np.random.default_rng(1)
        self._closing = ExitStack()
        folder = self._closing.enter_context(tempfile.TemporaryDirectory(dir=memory_folder()))
        self.chain = self._closing.enter_context(
            Checkpointer(Path(folder, "chain"), {"array": self.array}, compression=compression)
        )

    def capture(self, pair: int) -> None:
        """Saves a tenth that was written, and waits for nothing."""
        self.chain.flush()
        pages = some_pages(self.array.nbytes // PAGE, 0.1, pair)
        if self._values is None:
            self.array[pages * PAGE] += 1
        else:
            shape = len(pages), PAGE
            self.array.reshape(-1, PAGE)[pages] = self._random.integers(0, self._values, shape, np.uint8)
        warm(self.array.nbytes // 8)
        self.chain.save()

    def __enter__(self) -> Self:
        self.chain.save(wait=True)
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.close()
