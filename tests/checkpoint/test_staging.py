"""The ring of staging memory: nothing is lent twice, and everything comes back."""

from __future__ import annotations

import threading

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dirtytrack.checkpoint.format.structures import BLOCK
from dirtytrack.checkpoint.write.staging import Staging
from dirtytrack.native import ffi

pytestmark = pytest.mark.anywhere

BLOCKS = 13


def _places(loan, base):
    """The blocks of the ring that a loan has."""
    return [
        (int(ffi.cast("uintptr_t", piece.data)) - base) // BLOCK + block
        for piece in loan.pieces
        for block in range(piece.blocks)
    ]


class Ring(RuleBasedStateMachine):
    """One lends, uses a part of it, and the other gives back in order, against a list of free blocks."""

    def __init__(self):
        super().__init__()
        self.staging = Staging(BLOCKS * BLOCK)
        self.base = int(ffi.cast("uintptr_t", self.staging.lend("probe", 1, 1).pieces[0].data))
        self.staging.give_back_all("probe")
        self.lent = []

    def in_use(self):
        return [place for loan in self.lent for place in _places(loan, self.base)]

    @rule(wanted=st.integers(0, BLOCKS), most=st.integers(0, BLOCKS), used=st.integers(0, BLOCKS))
    def lend(self, wanted, most, used):
        """Never waits where there is room; gives what was asked, in at most two pieces."""
        free = BLOCKS - len(self.in_use())
        if min(wanted, BLOCKS) > free:
            return
        loan = self.staging.lend("job", wanted, most)
        assert loan.count <= 2
        assert len(_places(loan, self.base)) == min(most, free)
        for piece in loan.pieces:  # what a copy leaves in the native pieces
            piece.blocks = min(piece.blocks, used)
            used -= piece.blocks
        self.lent.append(loan)

    @precondition(lambda self: self.lent)
    @rule()
    def give_back(self):
        """The oldest loan is done."""
        self.staging.give_back(self.lent.pop(0))

    @precondition(lambda self: self.lent)
    @rule()
    def cancel(self):
        """The owner of all of them is gone."""
        self.staging.give_back_all("job")
        self.lent.clear()

    @invariant()
    def nothing_is_lent_twice(self):
        """No two loans share a block, and all lie in the ring."""
        places = self.in_use()
        assert len(set(places)) == len(places)
        assert set(places) <= set(range(BLOCKS))


TestRing = Ring.TestCase


def test_a_loan_waits_for_room():
    """What does not fit waits until the oldest loan is given back."""
    staging = Staging(2 * BLOCK)
    first = staging.lend("job", 2, 2)
    lent = []
    thread = threading.Thread(target=lambda: lent.append(staging.lend("job", 1, 2)))
    thread.start()
    assert lent == []
    staging.give_back(first)
    thread.join()
    assert sum(piece.blocks for piece in lent[0].pieces) == 2


def test_more_than_there_is_waits_for_all_of_it():
    """Who wants more than the whole ring is lent the whole ring."""
    staging = Staging(2 * BLOCK)
    loan = staging.lend("job", 100, 100)
    assert sum(piece.blocks for piece in loan.pieces) == 2


def test_memory_below_a_block_is_a_block():
    """There is always room for one block."""
    assert Staging(1).blocks == 1
