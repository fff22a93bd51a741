"""Dirty fraction to time, and when tracking does not pay."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from .fixtures import PAGE, VEC, Tracked, address, c_library, size, some_pages, touched
from .harness import Outcome, Scale, Side, compare, require_memory, row

_FRACTIONS = (0.001, 0.01, 0.03, 0.10, 0.25, 0.50, 0.75, 1.0)


class _Epochs:
    """A whole epoch of work, with tracking and without: storing to some pages, then knowing which."""

    def __init__(self, nbytes: int) -> None:
        require_memory(3 * nbytes)
        self.native = c_library()
        self.nbytes = nbytes
        self.tracked = Tracked(nbytes)
        self.plain = touched(nbytes)
        self.copy = touched(nbytes)
        self.pages = some_pages(1, 1, 0)
        self.found = np.zeros(nbytes // PAGE, np.uint64)

    def choose(self, fraction: float, pair: int) -> None:
        self.pages = some_pages(self.nbytes // PAGE, fraction, pair)
        self.tracked.session.reset()

    def write(self, array: Any) -> None:
        self.native.bench_store(address(array), address(self.pages), len(self.pages), PAGE)

    def find_tracked(self) -> None:
        self.write(self.tracked.array)
        self.tracked.collect()

    def find_by_memcmp(self) -> None:
        self.write(self.plain)
        where = address(self.plain), address(self.copy), self.nbytes, PAGE
        self.native.bench_compare(*where, address(self.found))

    def copy_tracked(self) -> None:
        self.write(self.tracked.array)
        with self.tracked.session.collect() as epoch:
            runs = np.asarray(epoch[self.tracked.region].runs)
            self.native.bench_copy(
                address(self.copy), address(self.tracked.array), address(runs), len(runs), PAGE
            )

    def copy_all(self) -> None:
        self.write(self.plain)
        self.copy[:] = self.plain


def _curve(scale: Scale, act: str, name: str, title: str) -> Iterator[Outcome]:
    epochs = _Epochs(scale.gib(1))
    tracked, plain = {
        "find": (epochs.find_tracked, epochs.find_by_memcmp),
        "copy": (epochs.copy_tracked, epochs.copy_all),
    }[act]
    with epochs.tracked:
        for fraction in _FRACTIONS:
            choose = functools.partial(epochs.choose, fraction)
            yield compare(
                f"write {fraction:.1%} of {size(epochs.nbytes)}, {title}",
                Side(tracked, choose),
                Side(plain, choose, name),
                pairs=scale.repeat(10),
            )


@row("pays-find")
def pays_find(scale: Scale) -> Iterator[Outcome]:
    """An epoch with its write faults, against comparing everything: above 1 tracking does not pay."""
    yield from _curve(scale, "find", "untracked, memcmp of all", "find them")


@row("pays-copy")
def pays_copy(scale: Scale) -> Iterator[Outcome]:
    """The same with a copy of what was written, against copying everything."""
    yield from _curve(scale, "copy", "untracked, copy of all", "copy them")


@row("curve")
def curve(scale: Scale) -> Iterator[Outcome]:
    """Dirty fraction to time, of the collect alone."""
    with Tracked(scale.gib(1)) as memory:
        for fraction in _FRACTIONS:
            dirty = functools.partial(memory.dirty, fraction)
            yield compare(
                f"collect, {size(memory.region.nbytes)}, {fraction:.1%} at random",
                Side(memory.collect, dirty),
                Side(memory.scan, dirty, f"bare ioctl, vec_len {VEC}"),
                pairs=scale.repeat(20),
            )
