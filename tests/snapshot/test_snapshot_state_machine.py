"""A snapshot over any sequence of writes, diffs, rollbacks and advances, against whole copies."""

from __future__ import annotations

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from _lib.snapshot.oracle import SIZES, Pieces, changes
from _lib.support import PAGE_SIZE
from dirtytrack import Session
from dirtytrack.snapshot import Snapshot

WHICH = st.integers(0, 1)


class Snapshots(RuleBasedStateMachine):
    """Two snapshots and a cursor of somebody else; the model knows copies, and the pages of each."""

    def __init__(self):
        super().__init__()
        self.session = None

    @initialize(offset=st.sampled_from([0, 1, PAGE_SIZE - 1, 1234]))
    def start(self, offset):
        self.pieces = Pieces(offset)
        self.pieces.write(0, 100, 3 * PAGE_SIZE, None)
        self.session = Session()
        self.regions = [self.session.track(array) for array in self.pieces.arrays]
        self.snapshots = [Snapshot(self.session, *self.regions) for _ in range(2)]
        self.copies = [self.pieces.copy() for _ in range(2)]
        self.other = self.session.cursor("somebody else's")
        self.pending = [set(), set()]
        self.pending_of_other = set()

    def written(self, pages):
        self.pending[0] |= pages
        self.pending[1] |= pages
        self.pending_of_other |= pages

    @rule(
        place=st.integers(0, 2),
        start=st.integers(0, max(SIZES)),
        length=st.integers(1, 2 * PAGE_SIZE),
        value=st.sampled_from([0, 1, None]),
    )
    def write(self, place, start, length, value):
        """Also what is there already."""
        self.written(self.pieces.write(place, start, length, value))

    @rule(which=WHICH, gap=st.sampled_from([0, 1, 7, PAGE_SIZE]))
    def diff(self, which, gap):
        """To the byte; and it takes nothing away from the next one."""
        before, after = self.copies[which], self.pieces.copy()
        found = self.snapshots[which].diff(gap=gap)
        expected = changes(before, after, gap)
        assert [(int(one.region), one.start, one.stop) for one in found] == expected
        for one, (place, start, stop) in zip(found, expected, strict=True):
            assert one.before == before[place][start:stop]
            assert one.after == after[place][start:stop]

    @rule(which=WHICH)
    def roll_back(self, which):
        """The pages that were written, and no others, are written back; everybody else finds them."""
        pages = self.pending[which]
        assert self.snapshots[which].rollback() == len(pages)
        assert self.pieces.copy() == self.copies[which]
        self.written(self.pieces.sharing(pages))
        self.pending[which] = set()

    @rule(which=WHICH)
    def advance(self, which):
        """The pages that were written are copied."""
        assert self.snapshots[which].advance() == len(self.pending[which])
        self.copies[which] = self.pieces.copy()
        self.pending[which] = set()

    @rule(which=WHICH)
    def verify(self, which):
        """The tracker has seen everything."""
        assert len(self.snapshots[which].verify()) == 0

    @rule()
    def collect(self):
        """Somebody else finds every page that was written, by whomever, and no other."""
        with self.other.collect() as epoch:
            found = {(place, page) for place, region in enumerate(self.regions) for page in epoch[region]}
        assert found == self.pending_of_other
        self.pending_of_other = set()

    def teardown(self):
        if self.session is not None:
            for one in self.snapshots:
                one.close()
            self.session.close()


TestSnapshots = Snapshots.TestCase
TestSnapshots.settings = settings(
    max_examples=60, stateful_step_count=30, phases=[Phase.generate], deadline=None
)
