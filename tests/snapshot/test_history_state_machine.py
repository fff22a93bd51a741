"""A history over any sequence of writes, saves, restores and drops, against whole copies."""

from __future__ import annotations

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from _lib.snapshot.oracle import SIZES, Pieces, changes
from _lib.support import PAGE_SIZE
from dirtytrack import Session
from dirtytrack.snapshot import History

PICK = st.integers(0, 1 << 30)


class Histories(RuleBasedStateMachine):
    """The model keeps a whole copy of each state, and what memory was when it was last saved or restored."""

    def __init__(self):
        super().__init__()
        self.session = None

    @initialize(
        offset=st.sampled_from([0, 1, PAGE_SIZE - 1, 1234]),
        most=st.sampled_from([None, 0, 12 * PAGE_SIZE, 20 * PAGE_SIZE]),
    )
    def start(self, offset, most):
        self.pieces = Pieces(offset)
        self.pieces.write(0, 100, 3 * PAGE_SIZE, None)
        self.session = Session()
        self.regions = [self.session.track(array) for array in self.pieces.arrays]
        self.most = most
        self.history = History(self.session, *self.regions, max_nbytes=most)
        self.other = self.session.cursor("somebody else's")
        self.copies, self.parents = {}, {}  # by state
        self.numbers = 0
        self.current = None  # a state; None: none
        self.base = None  # what memory was
        self.pending, self.pending_of_other = set(), set()

    @rule(
        place=st.integers(0, 2),
        start=st.integers(0, max(SIZES)),
        length=st.integers(1, 2 * PAGE_SIZE),
        value=st.sampled_from([0, 1, None]),
    )
    def write(self, place, start, length, value):
        """Also what is there already."""
        pages = self.pieces.write(place, start, length, value)
        self.pending |= pages
        self.pending_of_other |= pages

    @rule()
    def save(self):
        """A new state, whose parent is where memory was; of the old ones the oldest may have given way."""
        state = self.history.save()
        self.numbers += 1
        self.copies[state] = self.base = self.pieces.copy()
        self.give_way(state)
        assert (state.number, state.parent) == (
            self.numbers,
            self.current if self.current in self.copies else None,
        )
        self.parents[state] = self.current
        self.current, self.pending = state, set()

    def give_way(self, newest):
        """Those that are gone are the oldest, and there were as many as had to be."""
        left = set(self.history.states)
        gone = [state for state in self.by_age() if state not in left]
        assert gone == self.by_age()[: len(gone)]
        assert newest in left
        for state in gone:
            assert state.dropped
            del self.copies[state]
        if self.most is None:
            assert not gone
        else:
            assert self.history.nbytes <= self.most or left == {newest}

    @precondition(lambda self: self.copies)
    @rule(one=PICK, other=PICK, gap=st.sampled_from([0, 1, 50, 5000]))
    def diff(self, one, other, gap):
        """Of any two states, against a loop over their bytes; memory does not count."""
        before, after = self.pick(one), self.pick(other)
        found = self.history.diff(before, after, gap=gap)
        old, new = self.copies[before], self.copies[after]
        assert [(int(each.region), each.start, each.stop) for each in found] == changes(old, new, gap)
        for each in found:
            place, where = int(each.region), slice(each.start, each.stop)
            assert (each.before, each.after) == (old[place][where], new[place][where])

    @precondition(lambda self: self.copies)
    @rule(pick=PICK)
    def restore(self, pick):
        """Any state, from any other; writes the pages that were written or that the two states differ in."""
        state = self.pick(pick)
        pages = self.pending | self.differing(self.base, self.copies[state])
        assert self.history.restore(state) == len(pages)
        assert self.pieces.copy() == self.copies[state]
        self.pending_of_other |= self.pieces.sharing(pages)
        self.current, self.base = state, self.copies[state]
        self.pending = self.pieces.sharing(pages) - pages  # a neighbour's page was written under it

    @precondition(lambda self: self.copies)
    @rule(pick=PICK)
    def drop(self, pick):
        """Also the one that memory is in."""
        state = self.pick(pick)
        before = self.history.nbytes
        self.history.drop(state)
        del self.copies[state]
        assert state.dropped
        assert self.history.nbytes <= before

    @rule()
    def look(self):
        """What it says of itself, and what it keeps: each content of a page once for a chain of states."""
        assert list(self.history.states) == sorted(self.copies, key=lambda state: state.number)
        assert self.history.current is (self.current if self.current in self.copies else None)
        for state in self.copies:
            assert state.parent is (self.parents[state] if self.parents[state] in self.copies else None)
        states = [*self.copies.values(), *([self.base] if self.base else [])]
        kept = sum(sum(map(any, map(bytes, self.cut(copy)))) for copy in states)
        assert self.history.nbytes <= kept * PAGE_SIZE + 3000 * (len(states) + 1)
        distinct = {(at, page) for copy in states for at, page in enumerate(self.cut(copy)) if any(page)}
        assert self.history.nbytes >= len(distinct) * PAGE_SIZE

    @rule()
    def collect(self):
        """Somebody else finds every page that was written, by whomever, and no other."""
        with self.other.collect() as epoch:
            found = {(place, page) for place, region in enumerate(self.regions) for page in epoch[region]}
        assert found == self.pending_of_other
        self.pending_of_other = set()

    def pick(self, number):
        return self.by_age()[number % len(self.copies)]

    def by_age(self):
        return sorted(self.copies, key=lambda state: state.number)

    def cut(self, copy):
        """The contents of each page of each region."""
        for region, content in zip(self.regions, copy, strict=True):
            for page in range(region.geometry.page_count):
                yield content[region.geometry.bytes_of(page, page + 1)]

    def differing(self, one, other):
        places = [
            (place, page)
            for place, region in enumerate(self.regions)
            for page in range(region.geometry.page_count)
        ]
        return {
            place
            for place, old, new in zip(places, self.cut(one), self.cut(other), strict=True)
            if old != new
        }

    def teardown(self):
        if self.session is not None:
            self.history.close()
            self.session.close()


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=60, stateful_step_count=40, phases=[Phase.generate], deadline=None
)
