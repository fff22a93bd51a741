"""What a collector pays for its cards, from Python and through the interface in C."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from cffi import FFI

import dirtytrack
from dirtytrack.barrier import CardTable
from dirtytrack.kernel import pagemap
from dirtytrack.native import lib

from .fixtures import (
    PAGE,
    VEC,
    BareScan,
    Tracked,
    address,
    busy_thread,
    c_library,
    compiled,
    size,
    some_pages,
    store,
    touched,
)
from .harness import Budget, Outcome, Scale, Side, Unavailable, compare, measure, require_memory, row

_CDEF = """
struct dt_tracker;
int dt_tracker_open(size_t card_size, unsigned flags, struct dt_tracker **tracker);
struct dt_api;
int dt_tracker_open_on(const struct dt_api *, size_t card_size, unsigned flags, struct dt_tracker **tracker);
void dt_tracker_close(struct dt_tracker *tracker);
int dt_tracker_add(struct dt_tracker *, void *start, size_t bytes, unsigned flags, uint64_t *first_card);
size_t dt_tracker_map_bytes(struct dt_tracker *tracker);
int dt_tracker_take(struct dt_tracker *tracker, void *map, size_t bytes, uint64_t *dirty);
int dt_tracker_take_range(struct dt_tracker *, const void *start, size_t bytes, void *map, size_t map_bytes,
                          uint64_t *dirty);
struct dt_snapshot;
int dt_snapshot_open(struct dt_snapshot **snapshot);
void dt_snapshot_close(struct dt_snapshot *snapshot);
int dt_snapshot_add(struct dt_snapshot *snapshot, void *start, size_t bytes, unsigned flags);
int dt_snapshot_rollback(struct dt_snapshot *snapshot, size_t *pages);
"""


@row("take-one-page", Budget(3))
def take_one_page(scale: Scale) -> Iterator[Outcome]:
    """A heap of one page, clean: the call itself."""
    with Tracked(PAGE) as memory, CardTable(memory.session, memory.region, card_size=PAGE) as cards:
        out = bytearray(cards.nbytes)
        bare = BareScan(memory.region.address, PAGE, vec_len=256)
        yield compare(
            "take, one page, clean",
            Side(functools.partial(cards.take, out)),
            Side(functools.partial(lib.dt_pagemap_scan, bare.fd, bare.arg), name="bare ioctl, vec_len 256"),
            pairs=scale.repeat(200),
            loops=200,
        )
        bare.close()


def _taken(memory: Tracked, pairs: int, note: str = "") -> Outcome:
    with CardTable(memory.session, memory.region, card_size=PAGE) as cards:
        dirty = functools.partial(memory.dirty, 0.01)
        return compare(
            f"take, {size(memory.region.nbytes)}, 1% written",
            Side(functools.partial(cards.take, bytearray(cards.nbytes)), dirty),
            Side(memory.scan, dirty, f"bare ioctl, vec_len {VEC}"),
            pairs=pairs,
            note=note,
        )


@row("take-1pct", Budget(1.15))
def take_1pct(scale: Scale) -> Iterator[Outcome]:
    """One page in a hundred written, at random: the scan and the bitmap."""
    with Tracked(scale.gib(1)) as memory:
        yield _taken(memory, scale.repeat(200))


def _native() -> tuple[FFI, Any]:
    # The interface in C, built from the sources that are shipped.
    ffi = FFI()
    ffi.cdef(_CDEF)
    flags = (f"-I{dirtytrack.get_include()}", "-pthread")
    return ffi, compiled(ffi, *dirtytrack.get_sources(), flags=flags)


class _Runtime:
    """A heap under a tracker of the interface in C."""

    def __init__(self, nbytes: int) -> None:
        require_memory(nbytes)
        self.ffi, self.native = _native()
        self.array = touched(nbytes)
        tracker = self.ffi.new("struct dt_tracker **")
        if self.native.dt_tracker_open(PAGE, 0, tracker):
            raise Unavailable("dt_tracker_open failed")
        self.tracker = tracker[0]
        heap = self.ffi.cast("void *", address(self.array))
        if self.native.dt_tracker_add(self.tracker, heap, nbytes, 0, self.ffi.NULL):
            raise Unavailable("dt_tracker_add failed")
        self.nbytes = self.native.dt_tracker_map_bytes(self.tracker)
        self.map = self.ffi.new("uint8_t[]", self.nbytes)
        self.scan = BareScan(address(self.array), nbytes)

    def take(self) -> None:
        """One call, as a collector makes it in its pause."""
        self.native.dt_tracker_take(self.tracker, self.map, self.nbytes, self.ffi.NULL)

    def dirty(self, fraction: float, seed: int) -> None:
        """Stores to a fraction of the pages, at random."""
        store(self.array, some_pages(self.array.nbytes // PAGE, fraction, seed))

    def close(self) -> None:
        """Ends it."""
        self.scan.close()
        self.native.dt_tracker_close(self.tracker)


@row("take-c", Budget(1.10))
def take_c(scale: Scale) -> Iterator[Outcome]:
    """The same through dirtytrack.h; both sides are called from Python, which costs both a call."""
    with closing(_Runtime(scale.gib(1))) as runtime:
        dirty = functools.partial(runtime.dirty, 0.01)
        yield compare(
            f"dt_tracker_take, {size(runtime.array.nbytes)}, 1% written",
            Side(runtime.take, dirty),
            Side(runtime.scan, dirty, f"bare ioctl, vec_len {VEC}"),
            pairs=scale.repeat(200),
        )


@row("take-range", Budget(1.2))
def take_range(scale: Scale) -> Iterator[Outcome]:
    """One range of a tracker that has many, beside the same range of one that has no other."""
    count = 1000 if scale.quick else 10_000
    ffi, native = _native()
    array, alone = touched(2 * count * PAGE), touched(PAGE)
    sides = []
    for start, ranges in ((address(array), count), (address(alone), 1)):
        opened = ffi.new("struct dt_tracker **")
        if native.dt_tracker_open(PAGE, 0, opened):
            raise Unavailable("dt_tracker_open failed")
        for place in range(ranges):  # a page between each two
            at = ffi.cast("void *", start + 2 * place * PAGE)
            if native.dt_tracker_add(opened[0], at, PAGE, 0, ffi.NULL):
                raise Unavailable("dt_tracker_add failed")
        middle = ffi.cast("void *", start + ranges // 2 * 2 * PAGE)
        sides.append(
            (
                opened[0],
                functools.partial(
                    native.dt_tracker_take_range, opened[0], middle, PAGE, ffi.new("uint8_t[1]"), 1, ffi.NULL
                ),
            )
        )
    yield compare(
        f"dt_tracker_take_range, one page of {count:,} ranges",
        Side(sides[0][1]),
        Side(sides[1][1], name="the same of one range"),
        pairs=scale.repeat(200),
        loops=100,
    )
    for tracker, _ in sides:
        native.dt_tracker_close(tracker)


@row("take-session", Budget(1.2))
def take_session(scale: Scale) -> Iterator[Outcome]:
    """A tracker on a Session, which calls another copy of the library by a table, beside one of its own."""
    ffi, native = _native()
    arrays = touched(PAGE), touched(PAGE)
    with dirtytrack.Session() as session:
        opened = ffi.new("struct dt_tracker *[2]")
        table = ffi.cast("struct dt_api *", session.c_api())
        errors = [
            native.dt_tracker_open_on(table, PAGE, 0, opened),
            native.dt_tracker_open(PAGE, 0, opened + 1),
        ]
        for tracker, array in zip(opened, arrays, strict=True):
            errors.append(
                native.dt_tracker_add(tracker, ffi.cast("void *", address(array)), PAGE, 0, ffi.NULL)
            )
        if any(errors):
            raise Unavailable(f"a tracker failed: {errors}")
        takes = [
            functools.partial(native.dt_tracker_take, tracker, ffi.new("uint8_t[1]"), 1, ffi.NULL)
            for tracker in opened
        ]
        yield compare(
            "dt_tracker_take, one page, on a Session",
            Side(takes[0]),
            Side(takes[1], name="the same on its own"),
            pairs=scale.repeat(200),
            loops=100,
        )
        for tracker in opened:
            native.dt_tracker_close(tracker)


@row("rollback-c", Budget(1.2))
def rollback_c(scale: Scale) -> Iterator[Outcome]:
    """A reset loop in C: one page of 64 MiB, beside a scan, a copy of that page, and a scan that arms it."""
    nbytes = 64 << 20
    ffi, native = _native()
    with Tracked(nbytes) as memory:
        array = touched(nbytes)
        opened = ffi.new("struct dt_snapshot **")
        start = ffi.cast("void *", address(array))
        if native.dt_snapshot_open(opened) or native.dt_snapshot_add(opened[0], start, nbytes, 0):
            raise Unavailable("dt_snapshot_open failed")
        place = nbytes // 2
        whole = BareScan(memory.region.address, nbytes)
        whole.arg.flags = int(pagemap.ScanFlags.CHECK_WPASYNC)  # which looks, and arms nothing
        page, kept = BareScan(memory.region.address + place, PAGE), ffi.new("char[]", PAGE)
        there = ffi.cast("char *", memory.region.address + place)

        def by_hand() -> None:
            whole()
            ffi.memmove(there, kept, PAGE)
            page()

        def store_here(_: int) -> None:
            array[place] ^= 1

        def store_there(_: int) -> None:
            memory.array[place] ^= 1

        yield compare(
            f"dt_snapshot_rollback, one page of {size(nbytes)}",
            Side(functools.partial(native.dt_snapshot_rollback, opened[0], ffi.NULL), store_here),
            Side(by_hand, store_there, "scan, copy of the page, scan of it"),
            pairs=scale.repeat(200),
        )
        native.dt_snapshot_close(opened[0])
        whole.close()
        page.close()


@row("take-threads")
def take_threads(scale: Scale) -> Iterator[Outcome]:
    """The same while another thread runs, which has to be told of every page table with a written page."""
    with Tracked(scale.gib(1)) as memory, busy_thread():
        yield _taken(memory, scale.repeat(50), "another thread ran on another CPU")


@row("card-store")
def card_store(scale: Scale) -> Iterator[Outcome]:
    """Stores of a mutator: the first to a card is a fault. `first-write` has signals beside it."""
    count = 1024 if scale.quick else 16384
    native, pages = c_library(), some_pages(count, 1, 0)
    with Tracked(count * PAGE) as memory, CardTable(memory.session, memory.region, card_size=PAGE) as cards:
        out = bytearray(cards.nbytes)
        write = functools.partial(native.bench_store, address(memory.array), address(pages), count, PAGE)
        for title, prepare in (
            ("first store to a card since a take", lambda _: cards.take(out)),
            ("later store to a card", lambda _: write()),
        ):
            yield measure(
                title,
                Side(write, prepare, parts=count),
                samples=scale.repeat(30),
                note=f"per store, {count:,} cards of a page, at random",
            )
