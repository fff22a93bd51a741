"""What else a user pays, most of it the kernel's: published without budgets."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import dirtytrack

from .fixtures import (
    PAGE,
    PMD,
    VEC,
    Tracked,
    address,
    blind_to_holes,
    busy_thread,
    c_library,
    huge_bytes,
    size,
    some_pages,
    touched,
)
from .harness import Outcome, Scale, Side, Unavailable, compare, measure, require_memory, row, status


class _Guarded:
    """Memory behind the classic write barrier: write-protected, with a signal handler that opens pages."""

    def __init__(self, count: int) -> None:
        self.native = c_library()
        self.array = touched(count * PAGE)
        self.guarding = False

    def guard(self, _pair: int) -> None:
        self.open()
        if self.native.bench_guard(address(self.array), self.array.nbytes, PAGE):
            raise Unavailable("mprotect or sigaction failed")
        self.guarding = True

    def open(self) -> None:
        if self.guarding and self.native.bench_unguard():
            raise Unavailable("mprotect or sigaction failed")
        self.guarding = False


@row("first-write")
def first_write(scale: Scale) -> Iterator[Outcome]:
    """A store to an armed page, against mprotect and a SIGSEGV handler that opens the page."""
    count = 1024 if scale.quick else 16384
    orders = {"in order": np.arange(count, dtype=np.uint64), "at random": some_pages(count, 1, 0)}
    guarded = _Guarded(count)
    with Tracked(count * PAGE) as memory:
        try:
            for order, pages in orders.items():
                write = functools.partial(_write, guarded.native, pages=pages)
                yield compare(
                    f"first write to an armed page, {order}",
                    Side(
                        functools.partial(write, memory.array), lambda _: memory.session.reset(), parts=count
                    ),
                    Side(functools.partial(write, guarded.array), guarded.guard, "mprotect + SIGSEGV", count),
                    pairs=scale.repeat(30),
                    note=f"per page, {count:,} pages",
                )
        finally:
            guarded.open()


def _write(native: Any, array: Any, pages: Any) -> None:
    native.bench_store(address(array), address(pages), len(pages), PAGE)


def _collected(
    scale: Scale, title: str, dirty: Callable[[Tracked, int], None], *, busy: bool, pairs: int
) -> Outcome:
    beside_it: contextlib.AbstractContextManager[None] = busy_thread() if busy else contextlib.nullcontext()
    with Tracked(scale.gib(1)) as memory, beside_it:
        return compare(
            f"collect, {size(memory.region.nbytes)}, {title}",
            Side(memory.collect, lambda pair: dirty(memory, pair)),
            Side(memory.scan, lambda pair: dirty(memory, pair), f"bare ioctl, vec_len {VEC}"),
            pairs=scale.repeat(pairs),
            note="another thread ran on another CPU: a TLB shootdown per page table with a written page"
            if busy
            else "",
        )


def _one_per_table(memory: Tracked, _pair: int) -> None:
    memory.array[:: max(PMD, PAGE)] = 0


def _tenth(memory: Tracked, pair: int) -> None:
    memory.dirty(0.10, pair)


@row("collect-spread")
def collect_spread(scale: Scale) -> Iterator[Outcome]:
    """The worst case for its size: one written page in each page table."""
    yield _collected(scale, f"1 page per {size(PMD)}", _one_per_table, busy=False, pairs=100)


@row("collect-spread-threads")
def collect_spread_threads(scale: Scale) -> Iterator[Outcome]:
    """The worst case: the same while another thread runs."""
    yield _collected(scale, f"1 page per {size(PMD)}", _one_per_table, busy=True, pairs=50)


@row("collect-10pct-threads")
def collect_10pct_threads(scale: Scale) -> Iterator[Outcome]:
    """A tenth at random while another thread runs."""
    yield _collected(scale, "10% written", _tenth, busy=True, pairs=30)


@row("track")
def track(scale: Scale) -> Iterator[Outcome]:
    """Beginning and ending to track memory that is there, and a reservation that is not."""
    nbytes = scale.gib(1)
    require_memory(nbytes)
    for populated in (True, False):
        for sparse in (False,) if populated else (False, True):
            yield from _track_and_untrack(scale, nbytes, populated, sparse)


def _track_and_untrack(scale: Scale, nbytes: int, populated: bool, sparse: bool) -> Iterator[Outcome]:
    kind = "populated" if populated else "unpopulated, sparse" if sparse else "unpopulated"
    state: dict[str, Any] = {}
    tables: list[int] = []

    def fresh(_sample: int) -> None:
        if "session" in state:
            state["session"].close()
        state.clear()
        gc.collect()
        state["array"] = touched(nbytes) if populated else dirtytrack.empty(nbytes, np.uint8, huge=False)
        state["session"] = dirtytrack.Session()
        tables.append(status("VmPTE"))

    def begin() -> None:
        state["region"] = state["session"].track(state["array"], sparse=sparse)

    def tracked(sample: int) -> None:
        fresh(sample)
        begin()
        tables[-1] = status("VmPTE") - tables[-1]

    tracked(0)
    note = f"page tables grew by {tables[-1] >> 10} KiB"
    samples = scale.repeat(7)
    yield measure(f"track, {size(nbytes)} {kind}", Side(begin, fresh), samples=samples, note=note)
    yield measure(
        f"untrack, {size(nbytes)} {kind}",
        Side(lambda: state["session"].untrack(state["region"]), tracked),
        samples=samples,
    )
    state["session"].close()


@row("abort")
def abort(scale: Scale) -> Iterator[Outcome]:
    """Giving an epoch of a tenth back, and collecting it again."""
    with Tracked(scale.gib(1)) as memory:
        epochs: list[dirtytrack.Epoch] = []

        def take(pair: int) -> None:
            memory.session.reset()
            memory.dirty(0.10, pair)
            epochs[:] = [memory.session.collect()]

        def give_back(pair: int) -> None:
            take(pair)
            epochs.pop().abort()

        title = f"{size(memory.region.nbytes)}, 10% at random"
        yield measure(
            f"abort of an epoch, {title}", Side(lambda: epochs[0].abort(), take), samples=scale.repeat(30)
        )
        yield measure(
            f"collect after an abort, {title}", Side(memory.collect, give_back), samples=scale.repeat(30)
        )


@row("cursors")
def cursors(scale: Scale) -> Iterator[Outcome]:
    """What more consumers cost: one scan feeds them all."""
    nbytes = scale.gib(1)
    require_memory(2 * nbytes)
    with Tracked(nbytes) as one, Tracked(nbytes) as four:
        others = [four.session.cursor(f"cursor {i}") for i in range(3)]

        def collect_all() -> None:
            four.collect()
            for cursor in others:
                with cursor.collect() as epoch:
                    np.asarray(epoch[four.region].runs)

        yield compare(
            f"4 cursors collect, {size(nbytes)}, 1% written",
            Side(collect_all, functools.partial(four.dirty, 0.01)),
            Side(one.collect, functools.partial(one.dirty, 0.01), "1 cursor"),
            pairs=scale.repeat(60),
        )


@row("blind-to-holes")
def second_scan(scale: Scale) -> Iterator[Outcome]:
    """The second scan, for kernels that do not report dropped page tables, against one scan."""
    nbytes = scale.gib(1)
    require_memory(2 * nbytes)
    with blind_to_holes():
        blind = Tracked(nbytes)
    note = "forced: both scans off the kernel's fast path; on such a kernel the first one is on it"
    with blind, Tracked(nbytes) as seeing:
        yield compare(
            f"collect as on a blind kernel, {size(nbytes)}, clean",
            Side(blind.collect),
            Side(seeing.collect, name="as on this kernel"),
            pairs=scale.repeat(100),
            note=note,
        )
        yield compare(
            f"collect as on a blind kernel, {size(nbytes)}, 1% written",
            Side(blind.collect, functools.partial(blind.dirty, 0.01)),
            Side(seeing.collect, functools.partial(seeing.dirty, 0.01), "as on this kernel"),
            pairs=scale.repeat(60),
        )


@row("sparse")
def sparse(scale: Scale) -> Iterator[Outcome]:
    """A sparse region of populated memory, whose scan can't take the kernel's fast path."""
    nbytes = scale.gib(1)
    require_memory(2 * nbytes)
    with Tracked(nbytes, sparse=True) as thin, Tracked(nbytes) as dense:
        yield compare(
            f"collect, sparse, {size(nbytes)} populated, clean",
            Side(thin.collect),
            Side(dense.collect, name="dense"),
            pairs=scale.repeat(100),
        )


@row("split-huge-pages")
def split_huge_pages(scale: Scale) -> Iterator[Outcome]:
    """Reading memory whose huge pages tracking has split: one byte of each was written."""
    native, nbytes = c_library(), scale.gib(1)
    require_memory(2 * nbytes)
    whole = touched(nbytes, huge=True)
    with Tracked(nbytes, huge=True) as split:
        for array, name in ((whole, "the yardstick"), (split.array, "the subject")):
            if huge_bytes(address(array)) < nbytes:
                raise Unavailable(f"the system had no huge pages for all of {name}")
        split.array[::PMD] = 0
        split.collect()
        if left := huge_bytes(address(split.array)):
            raise Unavailable(f"{left >> 20} MiB of the subject are on huge pages still")
        loads = 200_000 if scale.quick else 4_000_000
        yield compare(
            f"random read, {size(nbytes)} of split huge pages",
            Side(functools.partial(native.bench_load, address(split.array), nbytes, loads), parts=loads),
            Side(
                functools.partial(native.bench_load, address(whole), nbytes, loads), name="whole", parts=loads
            ),
            pairs=scale.repeat(15),
            note="each load waits for the one before it",
        )
