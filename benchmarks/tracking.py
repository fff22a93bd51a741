"""What the tracker adds to the kernel's own cost: the rows with budgets."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator

import numpy as np
import xxhash

import dirtytrack
from dirtytrack.native import ffi, lib

from .fixtures import PAGE, VEC, BareScan, Tracked, address, c_library, fill, size, some_pages, store, touched
from .harness import (
    Budget,
    Figure,
    Outcome,
    Scale,
    Side,
    compare,
    require_memory,
    row,
    status,
)


@row("collect-clean", Budget(1.10))
def collect_clean(scale: Scale) -> Iterator[Outcome]:
    """Nothing written."""
    with Tracked(scale.gib(1)) as memory:
        yield compare(
            f"collect, {size(memory.region.nbytes)}, clean",
            Side(memory.session.collect),
            Side(memory.scan, name=f"bare ioctl, vec_len {VEC}"),
            pairs=scale.repeat(500),
        )


def _written(scale: Scale, fraction: float, pairs: int) -> Outcome:
    with Tracked(scale.gib(1)) as memory:
        dirty = functools.partial(memory.dirty, fraction)
        return compare(
            f"collect, {size(memory.region.nbytes)}, {fraction:.0%} written, runs",
            Side(memory.collect, dirty),
            Side(memory.scan, dirty, f"bare ioctl, vec_len {VEC}"),
            pairs=scale.repeat(pairs),
        )


@row("collect-1pct", Budget(1.2))
def collect_1pct(scale: Scale) -> Iterator[Outcome]:
    """One page in a hundred written, at random; ``np.asarray(runs)`` included."""
    yield _written(scale, 0.01, 200)


@row("collect-10pct", Budget(1.25))
def collect_10pct(scale: Scale) -> Iterator[Outcome]:
    """One page in ten written, at random, the same."""
    yield _written(scale, 0.10, 100)


@row("collect-one-page", Budget(5))
def collect_one_page(scale: Scale) -> Iterator[Outcome]:
    """A region of one page. The kernel's cost depends on vec_len: its buffer is allocated for each call."""
    with Tracked(PAGE) as memory:
        for vec_len in (256, VEC):
            bare = BareScan(memory.region.address, PAGE, vec_len=vec_len)
            yield compare(
                "collect, one page, clean",
                Side(memory.session.collect),
                Side(
                    functools.partial(lib.dt_pagemap_scan, bare.fd, bare.arg),
                    name=f"bare ioctl, vec_len {vec_len}",
                ),
                pairs=scale.repeat(200),
                loops=200,
                note=""
                if vec_len == 256
                else "the library uses 256 here: more than that costs the kernel extra",
            )
            bare.close()


@row("collect-one-page-written")
def collect_one_page_written(scale: Scale) -> Iterator[Outcome]:
    """The same, with a write before each; one call at a time, so the clock's own cost is in both sides."""
    with Tracked(PAGE) as memory:
        bare = BareScan(memory.region.address, PAGE, vec_len=256)

        def write(_pair: int) -> None:
            memory.array[0] = 0

        yield compare(
            "collect, one page, written",
            Side(memory.session.collect, write),
            Side(functools.partial(lib.dt_pagemap_scan, bare.fd, bare.arg), write, "bare ioctl, vec_len 256"),
            pairs=scale.repeat(5000),
        )
        bare.close()


class _Many:
    """One-page regions on every second page of a mapping, and one scan argument for each."""

    def __init__(self, count: int) -> None:
        self.array = touched(2 * count * PAGE)
        self.session = dirtytrack.Session()
        base = address(self.array)
        pages = [base + 2 * page * PAGE for page in range(count)]
        for page in pages:
            self.session.track((page, PAGE))
        self.bare = BareScan(base, PAGE, vec_len=256)
        self.args = ffi.new("struct dt_pm_scan_arg[]", count)
        for page, arg in zip(pages, self.args, strict=True):
            fill(arg, page, PAGE, self.bare.vec, 256)

    def close(self) -> None:
        self.bare.close()
        self.session.close()


@row("collect-many", Budget(2))
def collect_many(scale: Scale) -> Iterator[Outcome]:
    """10,000 regions of one page in one collect, against one call each from a Python loop."""
    count = 500 if scale.quick else 10_000
    many = _Many(count)
    scan, fd, each = lib.dt_pagemap_scan, many.bare.fd, [many.args + i for i in range(count)]

    def loop() -> None:
        for arg in each:
            scan(fd, arg)

    yield compare(
        f"collect, {count:,} regions of one page, clean",
        Side(many.session.collect),
        Side(loop, name="one bare ioctl each, in Python"),
        pairs=scale.repeat(100),
    )
    many.close()


@row("collect-many-c")
def collect_many_c(scale: Scale) -> Iterator[Outcome]:
    """The same against a loop in C."""
    count = 500 if scale.quick else 10_000
    native, many = c_library(), _Many(count)
    args = int(ffi.cast("uintptr_t", many.args))
    yield compare(
        f"collect, {count:,} regions of one page, clean",
        Side(many.session.collect),
        Side(
            functools.partial(native.bench_scan_each, many.bare.fd, args, count),
            name="one bare ioctl each, in C",
        ),
        pairs=scale.repeat(100),
    )
    many.close()


def _find(memory: Tracked, name: str, look: Callable[[], object], pairs: int, *, settle: bool) -> Outcome:
    dirty = functools.partial(memory.dirty, 0.01)  # the contents stay equal: nobody stops reading early
    warm = "each side ran once untimed before each sample, so both find the caches as they left them"
    return compare(
        f"find 1% of {size(memory.region.nbytes)}",
        Side(memory.collect, dirty),
        Side(look, dirty, name),
        pairs=pairs,
        faster=True,
        settle=settle,
        note=warm if settle else "the yardstick emptied the caches before every second collect",
    )


def _find_memcmp(scale: Scale, *, settle: bool) -> Outcome:
    native, nbytes = c_library(), scale.gib(1)
    require_memory(2 * nbytes)
    with Tracked(nbytes) as memory:
        copy = memory.array.copy()
        found = np.zeros(memory.pages, np.uint64)
        where = address(memory.array), address(copy), nbytes, PAGE, address(found)
        look = functools.partial(native.bench_compare, *where)
        return _find(memory, "memcmp of each page, in C", look, scale.repeat(30), settle=settle)


@row("mirror-update")
def mirror_update(scale: Scale) -> Iterator[Outcome]:
    """The library has the kernel read the pages for it, which may have become unreadable; memcpy may not."""
    nbytes = scale.gib(1)
    require_memory(3 * nbytes)
    with Tracked(nbytes) as memory:
        memory.array[:] = 1  # copies of pages of zeros would have no memory yet
        native, copy = c_library(), memory.array.copy()
        runs = np.zeros((0, 2), np.uint64)

        def write(fraction: float, pair: int) -> None:
            nonlocal runs
            pages = np.sort(some_pages(memory.pages, fraction, pair))
            store(memory.array, pages)
            runs = np.stack([pages, pages + np.uint64(1)], axis=1)

        def scan_and_copy() -> None:
            memory.scan()
            native.bench_copy(address(copy), address(memory.array), address(runs), len(runs), PAGE)

        with dirtytrack.Mirror(memory.session, memory.region) as mirror:
            for fraction in (0.01, 0.10):
                prepare = functools.partial(write, fraction)
                yield compare(
                    f"Mirror.update, {size(nbytes)}, {fraction:.0%} written",
                    Side(mirror.update, prepare),
                    Side(scan_and_copy, prepare, "bare ioctl, then memcpy of the pages in C"),
                    pairs=scale.repeat(60),
                    note="the library learns from the scan which pages they are; the yardstick is told",
                )


@row("collect-compared")
def collect_compared(scale: Scale) -> Iterator[Outcome]:
    """One page in a hundred written, found by a session that compares, beside memcmp of the same bytes."""
    nbytes = scale.gib(1)
    require_memory(2 * nbytes)
    memory, copy = touched(nbytes), touched(nbytes)
    native, found = c_library(), np.zeros(nbytes // PAGE, np.uint64)
    with dirtytrack.Session(backend="compare") as session:
        session.track(memory)

        def dirty(seed: int) -> None:
            memory[some_pages(nbytes // PAGE, 0.01, seed) * np.uint64(PAGE)] += 1

        where = address(memory), address(copy), nbytes, PAGE, address(found)
        yield compare(
            f"collect by comparing, {size(nbytes)}, 1% written",
            Side(session.collect, dirty),
            Side(functools.partial(native.bench_compare, *where), name="memcmp with a copy, in C"),
            pairs=scale.repeat(20),
        )


@row("find-memcmp", Budget(100, faster=True))
def find_memcmp(scale: Scale) -> Iterator[Outcome]:
    """Which pages were written, against which pages differ from a copy: both list them."""
    yield _find_memcmp(scale, settle=True)


@row("find-memcmp-cold")
def find_memcmp_cold(scale: Scale) -> Iterator[Outcome]:
    """The same in a program that reads much between two collects, so that the caches hold no page tables."""
    yield _find_memcmp(scale, settle=False)


@row("find-xxh3", Budget(50, faster=True))
def find_xxh3(scale: Scale) -> Iterator[Outcome]:
    """Which pages were written, against one digest of everything in one call, the fastest way for xxhash."""
    with Tracked(scale.gib(1)) as memory:
        look = functools.partial(xxhash.xxh3_64_intdigest, memory.array.data)
        yield _find(memory, "one xxh3 of everything", look, scale.repeat(30), settle=True)


def _tracker_memory(nbytes: int, rounds: int) -> Outcome:
    require_memory(nbytes)
    array = touched(nbytes)
    pages = [some_pages(nbytes // PAGE, 0.10, seed) for seed in range(rounds)]
    store(array, pages[0])
    gc.collect()
    before, tables = status("RssAnon"), status("VmPTE")
    with dirtytrack.Session() as session:
        region = session.track(array)
        for chosen in pages:
            store(array, chosen)
            with session.collect() as epoch:
                np.asarray(epoch[region].runs)
            held = status("RssAnon") - before
            del epoch
        after, tables = status("RssAnon") - before, status("VmPTE") - tables
    kib = f"{held >> 10} KiB while the last epoch was held; page tables grew by {tables >> 10} KiB"
    return Outcome(
        f"memory of the tracker, {size(nbytes)}",
        Figure.of([float(after)], "bytes"),
        "tracked",
        Figure.of([float(nbytes)], "bytes"),
        Figure.of([after / nbytes], "x"),
        f"after {rounds} collects of 10% at random; {kib}",
    )


@row("tracker-memory", Budget(0.001))
def tracker_memory(scale: Scale) -> Iterator[Outcome]:
    """Growth of the resident set by a session, a region and its collects; page tables are not in it."""
    for count in (1, 4):
        yield _tracker_memory(scale.gib(count), scale.repeat(10))


def _per_gib(
    scale: Scale, title: str, fraction: float, pairs: int, act: Callable[[Tracked], Callable[[], object]]
) -> Outcome:
    def dirty(memory: Tracked, pair: int) -> None:
        if fraction:
            memory.dirty(fraction, pair)

    require_memory(scale.gib(9))
    with Tracked(scale.gib(8)) as large, Tracked(scale.gib(1)) as small:
        return compare(
            f"{title}, an eighth of {size(large.region.nbytes)}",
            Side(act(large), functools.partial(dirty, large), parts=8),
            Side(act(small), functools.partial(dirty, small), size(small.region.nbytes)),
            pairs=scale.repeat(pairs),
        )


@row("per-gib", Budget(1.2))
def per_gib(scale: Scale) -> Iterator[Outcome]:
    """Whether the cost grows with the memory alone."""
    yield _per_gib(scale, "collect, clean", 0, 100, lambda memory: memory.collect)
    yield _per_gib(scale, "collect, 1% written", 0.01, 40, lambda memory: memory.collect)


@row("per-gib-bare")
def per_gib_bare(scale: Scale) -> Iterator[Outcome]:
    """How much of that growth is the kernel's: its page tables outgrow the caches."""
    yield _per_gib(scale, "bare ioctl, clean", 0, 100, lambda memory: memory.scan)
    yield _per_gib(scale, "bare ioctl, 1% written", 0.01, 40, lambda memory: memory.scan)
