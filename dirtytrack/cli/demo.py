"""Follow a real program's writes, page by page, and prove that none was missed.

Trains word embeddings over the Python standard library's source and tracks the two parameter arrays. Each
epoch (a number of mini-batches) it collects the written pages, draws them as a heat bar and brings a copy of
the arrays up to date by copying those pages only; then it compares all of the copy with the arrays, byte for
byte.

Exit codes: 0 if the copy was right after every epoch, 1 if it ever was not or the demo could not run.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import dirtytrack
from dirtytrack.cli._arguments import at_least
from dirtytrack.cli._heat import Screen

if TYPE_CHECKING:
    from dirtytrack.cli._embedding import Corpus, Embedding

_BATCH = 512  # words
_VOCABULARY = 16384  # words, at most
_DIMENSION = 512  # float32: a row is 2 KiB, half a page of 4 KiB
_REDRAWS = 8  # per epoch, on a terminal
_SHOWN = ("import", "socket", "ValueError")
_AMONG = 4000  # look for neighbours among the words that are frequent enough to have been learned
_MIB = 1 << 20

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memcmp.restype = ctypes.c_int


class _Tracked(NamedTuple):
    """A parameter array, its region, and the copy that is kept up to date from the reported pages alone."""

    region: dirtytrack.Region
    array: Any
    copy: Any
    scratch: Any  # where a full copy goes, for comparison


class _Cost(NamedTuple):
    """One epoch: bytes reported, and milliseconds spent."""

    nbytes: int
    collect: float
    copy: float
    compare_all: float
    copy_all: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dirtytrack demo``."""
    parser.add_argument(
        "--epochs", type=at_least(1), default=40, help="how often to collect (default %(default)s)"
    )
    parser.add_argument(
        "--steps",
        type=at_least(1),
        default=40,
        help="mini-batches between two collects (default %(default)s)",
    )
    parser.add_argument(
        "--words",
        type=at_least(1),
        default=1_000_000,
        help="words of source to read, at most (default %(default)s)",
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=1, help="seed of everything random (default %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo and return its exit code.

    Raises:
        ImportError: without numpy; the message names the extra to install.
        FileNotFoundError: this Python comes without the source of its standard library.
        dirtytrack.UnsupportedError: if this kernel or container cannot track; ``dirtytrack doctor`` says why.
    """
    if "numpy" not in sys.modules:
        # The matrices are small: a second BLAS thread saves a third of the time on an idle machine
        # and triples it on a busy one, where the threads wait for each other by spinning.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        import numpy as np
    except ModuleNotFoundError as error:
        raise ImportError('the demo needs numpy: pip install "dirtytrack[demo]"') from error
    from dirtytrack.cli import _embedding

    screen = Screen(sys.stdout)
    rng = np.random.default_rng(args.seed)
    with dirtytrack.Session() as session:  # first: if tracking can't work here, there is nothing to prepare
        began = time.perf_counter()
        corpus = _embedding.read_corpus(args.words, _VOCABULARY, rng)
        screen.line(
            f"Read {len(corpus.text):,} words of {corpus.files} files of the standard library "
            f"in {time.perf_counter() - began:.1f} s; {len(corpus.words):,} different ones."
        )
        model = _embedding.Embedding(len(corpus.words), _DIMENSION, rng)
        batches = _embedding.batches(corpus, _BATCH, rng)
        total = args.epochs * args.steps

        def train(step: int) -> float:
            return model.step(next(batches), _embedding.learning_rate(step / total))

        tracked = [
            _Tracked(session.track(array, name=name), array, array.copy(), array.copy())
            for name, array in (("inputs", model.inputs), ("outputs", model.outputs))
        ]
        costs = _follow(session, tracked, train, args.epochs, args.steps, screen)
    _show_neighbours(model, corpus, screen)
    return _verdict(tracked, costs, screen)


def _follow(
    session: dirtytrack.Session,
    tracked: list[_Tracked],
    train: Callable[[int], float],
    epochs: int,
    steps: int,
    screen: Screen,
) -> list[_Cost]:
    """Train, collect and copy epoch by epoch; stop at the first one after which the copy is wrong."""
    nbytes = sum(t.array.nbytes for t in tracked)
    rows, dimension = tracked[0].array.shape
    cells = max(8, (screen.columns - 43) // 2)
    screen.line(
        f"Tracking two arrays of {rows:,} x {dimension} float32, {nbytes / _MIB:.0f} MiB, "
        f"the most frequent word first; {steps} mini-batches an epoch."
    )
    screen.line()
    screen.line(f"epoch   loss   {'inputs':<{cells}}   {'outputs':<{cells}}     written     collect")
    costs: list[_Cost] = []
    redraw = max(1, steps // _REDRAWS)
    for epoch in range(epochs):
        loss = 0.0
        for step in range(steps):
            loss += train(epoch * steps + step)
            if screen.is_live and step % redraw == redraw - 1:
                soon = session.peek()
                screen.update(
                    f"{epoch + 1:5}  {loss / (step + 1):5.2f}  {_bars(soon, tracked, cells, screen)}"
                )
        cost, written, intact = _collect_and_copy(session, tracked, cells, screen)
        costs.append(cost)
        size = f"{cost.nbytes / _MIB:5.1f} MiB"
        screen.line(f"{epoch + 1:5}  {loss / steps:5.2f}  {written}  {size}  {cost.collect:7.2f} ms")
        if not intact:
            break
    return costs


def _collect_and_copy(
    session: dirtytrack.Session, tracked: list[_Tracked], cells: int, screen: Screen
) -> tuple[_Cost, str, bool]:
    """End one epoch: its cost, its heat bars, and whether the copy is right now."""
    clock = _Clock()
    with session.collect() as epoch:
        collect = clock.lap()
        for t in tracked:
            _copy_pages(t, epoch[t.region])
        copy = clock.lap()
        bars = _bars(epoch, tracked, cells, screen)
        clock.lap()
        intact = all(_memcmp(t.array.ctypes.data, t.copy.ctypes.data, t.array.nbytes) == 0 for t in tracked)
        compare_all = clock.lap()
        for t in tracked:
            t.scratch[:] = t.array
        return _Cost(epoch.nbytes, collect, copy, compare_all, clock.lap()), bars, intact


def _copy_pages(tracked: _Tracked, pages: dirtytrack.PageSet) -> None:
    """Bring the copy up to date from *pages*, and from nothing else."""
    source = tracked.region.view
    target = memoryview(tracked.copy).cast("B")
    for piece in pages.slices():
        target[piece] = source[piece]


def _bars(epoch: dirtytrack.Epoch, tracked: list[_Tracked], cells: int, screen: Screen) -> str:
    return " ".join(f"|{screen.bar(epoch[t.region].mask(), cells)}|" for t in tracked)


def _show_neighbours(model: Embedding, corpus: Corpus, screen: Screen) -> None:
    screen.line()
    screen.line("What it learned, as nearest neighbours:")
    for word in _SHOWN:
        if word in corpus.words:
            near = model.neighbours(corpus.words.index(word), 6, _AMONG)
            screen.line(f"  {word:<10} {', '.join(corpus.words[n] for n in near)}")


def _verdict(tracked: list[_Tracked], costs: list[_Cost], screen: Screen) -> int:
    """Report what the epochs cost, and whether the copy equals the arrays, bit for bit."""
    everything = len(costs) * sum(t.array.nbytes for t in tracked)
    copied = sum(cost.nbytes for cost in costs)
    collect, copy, compare_all, copy_all = (
        statistics.median(column) for column in list(zip(*costs, strict=True))[1:]
    )
    screen.line()
    screen.line(
        f"Copied {copied / _MIB:,.0f} MiB in {len(costs)} epochs; full copies: {everything / _MIB:,.0f} MiB."
    )
    screen.line("Medians of this run (a write to a clean page also costs the writer a fault):")
    screen.line(f"  find what changed: collect {collect:.2f} ms; memcmp with a copy {compare_all:.2f} ms")
    screen.line(
        f"  update the copy: those pages {copy:.2f} ms (a run of pages at a time, in Python); "
        f"everything {copy_all:.2f} ms"
    )
    screen.line()
    wrong = [t for t in tracked if t.array.tobytes() != t.copy.tobytes()]
    if wrong:
        names = " and ".join(str(t.region.name) for t in wrong)
        screen.line(f"FAILED: after epoch {len(costs)} the copy of {names} differs from the array.")
        screen.line("A write was missed. Please report it with the output of: dirtytrack doctor --json")
        return 1
    screen.line(
        "PASSED: after every epoch the copy, made from the reported pages alone, equalled the arrays."
    )
    screen.line(
        "Next: python -m dirtytrack doctor (is my kernel fit?), examples/ (a page of code each), README."
    )
    return 0


class _Clock:
    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Milliseconds since the last lap."""
        now = time.perf_counter()
        last, self._last = self._last, now
        return (now - last) * 1e3
