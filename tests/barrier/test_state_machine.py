"""Segments, stores, drops, marks, takes and peeks in any order, against an oracle of sets of bytes' pages."""

from __future__ import annotations

import mmap
import os

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import dirtytrack
from _lib.support import PAGE_SIZE, address_of
from dirtytrack import Session
from dirtytrack.barrier import CardTable

_PAGES = 24
_UNIT = PAGE_SIZE // 4  # of the borders of segments
_UNITS = _PAGES * PAGE_SIZE // _UNIT


class Cards(RuleBasedStateMachine):
    """A heap of some segments in one mapping: they may share pages, and a page may be dropped."""

    def __init__(self):
        super().__init__()
        self.memory = dirtytrack.alloc((_PAGES + 16) * PAGE_SIZE)
        self.memory[:] = b"\1" * len(self.memory)
        # Begins at a multiple of all card sizes.
        self.base = -address_of(self.memory) % (16 * PAGE_SIZE)
        self.session = Session()
        self.segments = {}  # by the first byte: its end, its cards, and the pages written in it
        self.table = None

    @initialize(
        card_size=st.sampled_from([_UNIT // 8, _UNIT, PAGE_SIZE, 4 * PAGE_SIZE]),
        layout=st.sampled_from(["bits", "bytes"]),
        piece=st.tuples(st.integers(0, 3), st.integers(1, 4)),
    )
    def open(self, card_size, layout, piece):
        self.size = card_size
        self.unit = max(card_size, _UNIT)
        start, stop = (at * self.unit for at in (piece[0], sum(piece)))
        self.table = CardTable(self.session, self._view(start, stop), card_size=card_size, layout=layout)
        self._begin(start, stop, self.table.segments[0])

    def _view(self, start, stop):
        return np.frombuffer(self.memory, np.uint8)[self.base + start : self.base + stop]

    def _begin(self, start, stop, segment):
        assert segment.cards.start % 8 == 0
        assert len(segment.cards) == (stop - start) // self.size
        self.segments[start] = stop, segment, set()

    def _written(self, start, stop):
        pages = set(range(start // PAGE_SIZE, -(-stop // PAGE_SIZE)))
        for first, (last, _, dirty) in self.segments.items():
            dirty |= pages & set(range(first // PAGE_SIZE, -(-last // PAGE_SIZE)))

    @rule(first=st.integers(0, _UNITS), count=st.integers(1, 12))
    def grow(self, first, count):
        start, stop = first * self.unit, (first + count) * self.unit
        if stop > _PAGES * PAGE_SIZE:
            return
        if any(start < last and one < stop for one, (last, _, _) in self.segments.items()):
            with pytest.raises(ValueError, match="overlaps"):
                self.table.grow(self._view(start, stop))
            return
        self._begin(start, stop, self.table.grow(self._view(start, stop)))

    @precondition(lambda self: self.segments)
    @rule(data=st.data())
    def shrink(self, data):
        start = data.draw(st.sampled_from(sorted(self.segments)))
        _, segment, _ = self.segments.pop(start)
        self.table.shrink(segment)

    @rule(start=st.integers(0, _PAGES * PAGE_SIZE - 1), length=st.sampled_from([1, 1, 8, 5000, 20000]))
    def store(self, start, length):
        stop = min(start + length, _PAGES * PAGE_SIZE)
        self._view(start, stop)[:] += 1
        self._written(start, stop)

    @rule(page=st.integers(0, _PAGES - 1))
    def drop(self, page):
        start = page * PAGE_SIZE
        self.memory.madvise(mmap.MADV_DONTNEED, self.base + start, PAGE_SIZE)
        self._written(start, start + PAGE_SIZE)

    @precondition(lambda self: self.segments)
    @rule(data=st.data())
    def mark(self, data):
        start = data.draw(st.sampled_from(sorted(self.segments)))
        stop, segment, _ = self.segments[start]
        first = data.draw(st.integers(start, stop - 1))
        last = data.draw(st.integers(first + 1, stop))
        self.table.mark(segment.region.address + first - start, last - first)
        self._written(first, last)

    @rule()
    def peek(self):
        self._look(self.table.peek)

    @rule()
    def take(self):
        self._look(self.table.take)
        for _, _, dirty in self.segments.values():
            dirty.clear()

    def _look(self, look):
        out = bytearray(os.urandom(self.table.nbytes))
        count = look(out)
        if self.table.layout == "bits":
            out = np.unpackbits(np.frombuffer(out, np.uint8), bitorder="little")
        found = set(np.flatnonzero(np.frombuffer(out, np.uint8)).tolist())
        wanted = set()
        for first, (last, segment, dirty) in self.segments.items():
            for page in dirty:
                start = max(page * PAGE_SIZE, first) - first
                stop = min((page + 1) * PAGE_SIZE, last) - first
                wanted |= set(segment.cards[start // self.size : -(-stop // self.size)])
        assert found == wanted
        assert count == len(wanted)

    def teardown(self):
        if self.table is not None:
            self.table.close()
        assert self.session.regions == ()
        self.session.close()


Cards.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestCards = Cards.TestCase
