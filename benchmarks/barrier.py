"""What a collector pays for its cards, from Python and through the interface in C."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from cffi import FFI

import dirtytrack
from dirtytrack.barrier import CardTable
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
void dt_tracker_close(struct dt_tracker *tracker);
int dt_tracker_add(struct dt_tracker *, void *start, size_t bytes, unsigned flags, uint64_t *first_card);
size_t dt_tracker_map_bytes(struct dt_tracker *tracker);
int dt_tracker_take(struct dt_tracker *tracker, void *map, size_t bytes, uint64_t *dirty);
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


class _Runtime:
    """A heap under a tracker of the interface in C, built from the sources that are shipped."""

    def __init__(self, nbytes: int) -> None:
        require_memory(nbytes)
        self.ffi = FFI()
        self.ffi.cdef(_CDEF)
        flags = (f"-I{dirtytrack.get_include()}", "-pthread")
        self.native: Any = compiled(self.ffi, *dirtytrack.get_sources(), flags=flags)
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
