"""Takes and write watches within other calls, as a signal handler makes them: no store is lost."""

from __future__ import annotations

import array
from collections.abc import Callable, Iterator

import pytest

import dirtytrack
from _lib.interrupts import interrupted_at, traced
from dirtytrack import Session
from dirtytrack.barrier import CardTable, get_write_watch

pytestmark = traced

_PAGE = 4096
_PAGES = 16
_LOOKS = ["take", "take into one map", "write watch"]
_OTHERS = ["peek", "collect of another cursor", "mark", "grow", "track", "lost"]


class Heap:
    """A heap with both ways to look at it, and what each has found."""

    def __init__(self) -> None:
        self.memory = dirtytrack.alloc(_PAGES * _PAGE)
        self.session = Session()
        self.region = self.session.track(self.memory)
        self.cards = CardTable(self.session, self.region, layout="bytes")
        self.cursor = self.session.cursor("other")
        self.found: dict[str, list[int]] = {"take": [], "write watch": []}
        self._map = bytearray(_PAGES)

    def store(self, page: int) -> None:
        """One byte."""
        self.memory[page * _PAGE] = (self.memory[page * _PAGE] + 1) % 256

    def take(self, out: bytearray) -> None:
        """Notes what a take finds."""
        if len(out) != self.cards.nbytes:  # while it grows
            out = bytearray(self.cards.nbytes)
        self.cards.take(out)
        self.found["take"] += [page for page in range(_PAGES) if out[page]]

    def watch(self) -> None:
        """Notes what a write watch finds."""
        out = array.array("Q", bytes(8 * _PAGES))
        count = get_write_watch(self.region.address, self.region.nbytes, out, reset=True).pages
        self.found["write watch"] += [(place - self.region.address) // _PAGE for place in out[:count]]

    def verb(self, name: str) -> Callable[[], object]:
        """What is called, and what is called in the middle of it."""
        heap = dirtytrack.alloc(_PAGE)
        return {
            "take": lambda: self.take(bytearray(_PAGES)),
            "take into one map": lambda: self.take(self._map),
            "write watch": self.watch,
            "peek": lambda: self.cards.peek(bytearray(_PAGES)),
            "collect of another cursor": lambda: self.cursor.collect().pages,
            "mark": lambda: self.cards.mark(self.region.address, 1),
            "grow": lambda: (self.cards.grow(heap), self.cards.shrink(heap)),
            "track": lambda: self.session.untrack(self.session.track(bytearray(9000))),
            "lost": lambda: self.cards.lost,
        }[name]

    def close(self) -> None:
        """Both."""
        self.cards.close()
        self.session.close()


@pytest.fixture
def heap() -> Iterator[Heap]:
    """Closed in the end."""
    made = Heap()
    yield made
    made.close()


@pytest.mark.parametrize("inner", _LOOKS)
@pytest.mark.parametrize("outer", _LOOKS + _OTHERS)
def test_no_store_is_lost_within(heap: Heap, outer: str, inner: str) -> None:
    """At every point: what is stored before the call, the inner one and after it is found, no more."""
    act, within = heap.verb(outer), heap.verb(inner)
    handled, count = [0], 0

    def handle() -> None:
        handled.append(1)
        heap.store(5)
        within()
        heap.store(9)

    while handled:
        handled.clear()
        count += 1
        for found in heap.found.values():
            found.clear()
        heap.store(2)
        with interrupted_at(count, by=handle):
            act()
        heap.take(bytearray(_PAGES))
        heap.watch()
        stored = {2, 5, 9} if handled else {2}
        marked = {0} if outer == "mark" else set()
        for name, found in heap.found.items():
            assert set(found) == stored | marked, (name, count)
        heap.cursor.reset()
    assert count > 3
