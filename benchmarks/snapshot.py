"""What diffs, rollbacks and histories cost, beside copies of everything."""

from __future__ import annotations

import copy
import ctypes
import functools
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np

import dirtytrack
from dirtytrack.kernel import pagemap
from dirtytrack.snapshot import History, Snapshot, State

from .fixtures import PAGE, BareScan, address, c_library, size, some_pages, touched
from .harness import Budget, Outcome, Scale, Side, compare, measure, require_memory, row

_FRACTIONS = (0.0001, 0.001, 0.01, 0.10, 0.25, 0.50, 1.0)


class _Copied:
    """Tracked memory of ones under a snapshot, and a copy for the yardsticks."""

    def __init__(self, nbytes: int) -> None:
        require_memory(4 * nbytes)
        self.native = c_library()
        self.array, self.copy = touched(nbytes), touched(nbytes)
        self.array[:] = self.copy[:] = 1
        self.session = dirtytrack.Session()
        self.region = self.session.track(self.array)
        self.snapshot = Snapshot(self.session, self.region)
        self.scan = BareScan(self.region.address, nbytes)
        self.runs = np.zeros((0, 2), np.uint64)

    def change(self, fraction: float, pair: int, value: int = 2) -> None:
        """Stores to the first byte of a fraction of the pages, all else being as it is in the copies."""
        self.snapshot.rollback()
        pages = np.sort(some_pages(len(self.array) // PAGE, fraction, pair))
        self.array[pages * np.uint64(PAGE)] = value
        self.runs = np.stack([pages, pages + np.uint64(1)], axis=1)

    def run(self, act: Any, to: Any, source: Any) -> None:
        """Calls a C function on the pages that were changed."""
        act(address(to), address(source), address(self.runs), len(self.runs), PAGE)

    def __enter__(self) -> _Copied:
        return self

    def __exit__(self, *_: object) -> None:
        self.snapshot.close()
        self.scan.close()
        self.session.close()


@row("snapshot-rollback", Budget(1.3))
def snapshot_rollback(scale: Scale) -> Iterator[Outcome]:
    """Both write the pages back while they are open, and then re-arm them."""
    with _Copied(scale.gib(1)) as copied:

        def copy_and_scan() -> None:
            copied.run(copied.native.bench_copy, copied.array, copied.copy)
            copied.scan()

        yield compare(
            f"rollback, {size(len(copied.array))}, 1% written",
            Side(copied.snapshot.rollback, functools.partial(copied.change, 0.01)),
            Side(
                copy_and_scan,
                functools.partial(copied.change, 0.01),
                "memcpy of the pages in C, then bare ioctl",
            ),
            pairs=scale.repeat(60),
            note="the library first asks which pages they are; the yardstick is told",
        )


@row("snapshot-compare", Budget(0.8, faster=True))
def snapshot_compare(scale: Scale) -> Iterator[Outcome]:
    """Pages that were written and are what they were: all of each has to be compared."""
    with _Copied(scale.gib(1)) as copied:
        peek = BareScan(copied.region.address, len(copied.array))
        peek.arg.flags = int(pagemap.ScanFlags.CHECK_WPASYNC)

        def scan_and_compare() -> None:
            peek()
            copied.run(copied.native.bench_compare_runs, copied.copy, copied.array)

        for fraction in (0.01, 0.10):
            yield compare(
                f"diff, {size(len(copied.array))}, {fraction:.0%} written, none different",
                Side(copied.snapshot.diff, functools.partial(copied.change, fraction, value=1)),
                Side(
                    scan_and_compare,
                    functools.partial(copied.change, fraction, value=1),
                    "bare ioctl, then libc's memcmp of the pages",
                ),
                pairs=scale.repeat(40),
                faster=True,
            )
        peek.close()


@row("snapshot-diff")
def snapshot_diff(scale: Scale) -> Iterator[Outcome]:
    """A byte of each page is different, against finding that in all of the memory."""
    with _Copied(scale.gib(1)) as copied:
        found = np.zeros(len(copied.array) // PAGE, np.uint64)
        where = address(copied.copy), address(copied.array), len(copied.array), PAGE, address(found)
        yield compare(
            f"diff, {size(len(copied.array))}, 1% written, a byte of each page",
            Side(copied.snapshot.diff, functools.partial(copied.change, 0.01)),
            Side(
                lambda: copied.native.bench_compare(*where),
                functools.partial(copied.change, 0.01),
                "memcmp of each page, in C",
            ),
            pairs=scale.repeat(15),
        )


@row("snapshot-reset")
def snapshot_reset(scale: Scale) -> Iterator[Outcome]:
    """What a fuzzer does after each run: a few pages of a few MiB put back, against all of them."""
    nbytes = 4 << 20
    array, pristine = touched(nbytes), touched(nbytes)
    everything = address(array), address(pristine), nbytes
    with dirtytrack.Session() as session, Snapshot(session, array) as snapshot:
        for pages in (1, 16, 128):
            places = some_pages(nbytes // PAGE, pages * PAGE / nbytes, 1) * np.uint64(PAGE)

            def write(_pair: int = 0, places: Any = places) -> None:
                snapshot.rollback()
                array[places] = 1

            yield compare(
                f"rollback, 4 MiB, {pages} page{'s' * (pages > 1)} written",
                Side(snapshot.rollback, write),
                Side(lambda: ctypes.memmove(*everything), write, "memcpy of all"),
                pairs=scale.repeat(200),
            )


@row("snapshot-take")
def snapshot_take(scale: Scale) -> Iterator[Outcome]:
    """Tracking what is tracked already costs nothing, so it is the copy, into memory that is new to both."""
    nbytes = scale.gib(1)
    require_memory(3 * nbytes)
    array = touched(nbytes)
    array[:] = 1
    with dirtytrack.Session() as session:
        region = session.track(array)
        kept: list[Any] = []
        yield compare(
            f"snapshot, {size(nbytes)}",
            Side(lambda: kept.append(Snapshot(session, region)), lambda _: _close(kept)),
            Side(lambda: kept.append(array.copy()), lambda _: _close(kept), "numpy's copy"),
            pairs=scale.repeat(7),
        )
        _close(kept)


def _close(kept: list[Any]) -> None:
    while kept:
        one = kept.pop()
        if isinstance(one, Snapshot):
            one.close()


class _Branches:
    """Two states that differ in a fraction of the pages, and memory that goes from one to the other."""

    def __init__(self, nbytes: int, undo: ExitStack) -> None:
        require_memory(6 * nbytes)
        self.array, self.copy = touched(nbytes), touched(nbytes)
        self.array[:] = 1
        session = undo.enter_context(dirtytrack.Session())
        self.history = undo.enter_context(History(session, self.array))
        self.one = self.history.save()
        self.other: State | None = None

    def write(self, fraction: float, pair: int) -> None:
        """Memory becomes the first state, but for a fraction of the pages; the other state is gone."""
        self.history.restore(self.one)
        if self.other is not None:
            self.history.drop(self.other)
            self.other = None
        self.array[some_pages(len(self.array) // PAGE, fraction, pair) * np.uint64(PAGE)] += 1

    def save(self) -> None:
        """What is timed first."""
        self.other = self.history.save()

    def branch(self, fraction: float, pair: int) -> None:
        """And then the way back."""
        self.write(fraction, pair)
        self.save()


@row("snapshot-history-restore")
def snapshot_history_restore(scale: Scale) -> Iterator[Outcome]:
    """The whole curve; where it crosses the full copy is in the text."""
    with ExitStack() as undo:
        branches = _Branches(scale.gib(1), undo)
        for fraction in _FRACTIONS:
            yield compare(
                f"History.restore, {size(len(branches.array))}, {fraction:.2%} different",
                Side(
                    lambda: branches.history.restore(branches.one),
                    functools.partial(branches.branch, fraction),
                ),
                Side(lambda: np.copyto(branches.copy, branches.array), name="memcpy of everything"),
                pairs=scale.repeat(9),
            )


@row("snapshot-history-save")
def snapshot_history_save(scale: Scale) -> Iterator[Outcome]:
    """Saving everything by a deep copy needs new memory, and so does a save for what is new in it."""
    with ExitStack() as undo:
        branches = _Branches(scale.gib(1), undo)
        for fraction in _FRACTIONS:
            yield compare(
                f"History.save, {size(len(branches.array))}, {fraction:.2%} written",
                Side(branches.save, functools.partial(branches.write, fraction)),
                Side(lambda: copy.deepcopy(branches.array), name="copy.deepcopy"),
                pairs=scale.repeat(5),
            )


@row("snapshot-history-idle")
def snapshot_history_idle(scale: Scale) -> Iterator[Outcome]:
    """A restore of memory in which nothing is different: what is left is to ask."""
    with ExitStack() as undo:
        branches = _Branches(scale.gib(1), undo)
        yield measure(
            f"History.restore, {size(len(branches.array))}, nothing different",
            Side(lambda: branches.history.restore(branches.one)),
            samples=scale.repeat(30),
        )
