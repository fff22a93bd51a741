"""Cold memory put back on huge pages (``Session(keep_huge_pages=True)``), beside what is without."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .fixtures import PAGE, PMD, Tracked, address, c_library, huge_bytes, size, touched
from .harness import Budget, Figure, Outcome, Scale, Side, Unavailable, compare, require_memory, row

_PATIENCE = 120.0  # seconds until all of the memory has to be back
_LOADS = 1_000  # in an epoch


class _Cold(Tracked):
    """Memory on huge pages, each of which was split by a store, and has come back."""

    def __init__(self, nbytes: int) -> None:
        super().__init__(nbytes, huge=True, keep_huge_pages=True)
        if not self.session.keep_huge_pages:
            raise Unavailable(self.session.huge_pages_reason)
        if huge_bytes(address(self.array)) < nbytes:
            raise Unavailable("the system had no huge pages for all of it")
        self.split()
        self.cool()

    def split(self) -> None:
        self.array[::PMD] += 1
        self.collect()

    def cool(self) -> None:
        """Collects until all of it is back."""
        end = time.monotonic() + _PATIENCE
        while self.region.huge_pages.split:
            self.collect()
            time.sleep(0.01)
            if time.monotonic() > end:
                raise Unavailable(
                    f"{self.region.huge_pages.split} huge pages of {self.pages} do not come back"
                )


@row("huge-collect", Budget(0.2))
def huge_collect(scale: Scale) -> Iterator[Outcome]:
    """A clean collect of memory that came back, against the bare call where tracking has split it."""
    nbytes = scale.gib(1)
    require_memory(2 * nbytes)
    with _Cold(nbytes) as cold, Tracked(nbytes) as small:
        yield compare(
            f"collect, {size(nbytes)} clean and back on huge pages",
            Side(cold.collect),
            Side(small.scan, name="bare ioctl on small pages"),
            pairs=scale.repeat(101),
        )


@row("huge-reads", Budget(1.05))
def huge_reads(scale: Scale) -> Iterator[Outcome]:
    """Reading such memory at random, against memory that is not tracked."""
    native, nbytes = c_library(), scale.gib(1)
    require_memory(2 * nbytes)
    whole = touched(nbytes, huge=True)
    if huge_bytes(address(whole)) < nbytes:
        raise Unavailable("the system had no huge pages for all of the yardstick")
    loads = 200_000 if scale.quick else 4_000_000
    with _Cold(nbytes) as cold:
        yield compare(
            f"random read, {size(nbytes)} back on huge pages",
            Side(functools.partial(native.bench_load, address(cold.array), nbytes, loads), parts=loads),
            Side(
                functools.partial(native.bench_load, address(whole), nbytes, loads),
                name="untracked",
                parts=loads,
            ),
            pairs=scale.repeat(15),
            note="each load waits for the one before it",
        )


@row("huge-return")
def huge_return(scale: Scale) -> Iterator[Outcome]:
    """What putting one huge page back takes of a processor, of the session's thread."""
    nbytes = scale.gib(1)
    with _Cold(nbytes) as cold:
        samples = []
        for _ in range(scale.repeat(5)):
            cold.split()
            returned, taken = cold.region.huge_pages.returned, _thread_seconds()
            cold.cool()
            count = cold.region.huge_pages.returned - returned
            samples.append((_thread_seconds() - taken) / count)
        yield Outcome(
            f"put a huge page back, of {nbytes // PMD}: processor time",
            Figure.of(samples),
            note="in a thread that then rests three times as long",
        )


def _thread_seconds() -> float:
    for task in Path("/proc/self/task").iterdir():
        if (task / "comm").read_text().strip() == "dirtytrack":
            return int((task / "schedstat").read_text().split()[0]) / 1e9
    raise Unavailable("the session has no thread")


class _Workload:
    """Epochs of stores, reads at random and a collect; the stores keep to a part of it, which moves."""

    def __init__(self, nbytes: int, *, part: float, stores: int, keep_huge_pages: bool) -> None:
        self.memory = Tracked(nbytes, huge=True, keep_huge_pages=keep_huge_pages)
        self.memory.array[::PMD] += 1
        self.native = c_library()
        self.part, self.stores = round(self.memory.pages * part), stores
        self.generator = np.random.default_rng(1)

    def run(self, epochs: int) -> None:
        start = self.generator.integers(0, self.memory.pages - self.part + 1)
        at = address(self.memory.array)
        for _ in range(epochs):
            pages = (start + self.generator.integers(0, self.part, self.stores)).astype(np.uint64)
            self.native.bench_store(at, address(pages), len(pages), PAGE)
            self.native.bench_load(at, self.memory.pages * PAGE, _LOADS)
            self.memory.collect()

    def close(self) -> None:
        self.memory.session.close()


@row("huge-workload")
def huge_workload(scale: Scale) -> Iterator[Outcome]:
    """Write, read and collect, against a plain session: with locality it pays, without nothing comes back."""
    nbytes, epochs = scale.gib(1), 20 if scale.quick else 500
    require_memory(2 * nbytes)
    for part, stores in ((0.01, 50), (0.05, 500), (0.25, 500), (1.0, 500)):
        kept = _Workload(nbytes, part=part, stores=stores, keep_huge_pages=True)
        plain = _Workload(nbytes, part=part, stores=stores, keep_huge_pages=False)
        with contextlib.closing(kept), contextlib.closing(plain):
            where = f"in {part:.0%} of it, which moves" if part < 1 else "anywhere"
            outcome = compare(
                f"an epoch of {stores} stores {where}, {_LOADS:,} reads, {size(nbytes)}",
                Side(functools.partial(kept.run, epochs), parts=epochs),
                Side(functools.partial(plain.run, epochs), name="a plain session", parts=epochs),
                pairs=scale.repeat(9),
            )
            returned = kept.memory.region.huge_pages.returned
            yield dataclasses.replace(outcome, note=f"huge pages came back {returned:,} times")
