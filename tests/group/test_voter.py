"""The thread that votes: whatever happens to it, a save is decided, and its vote is cast."""

from __future__ import annotations

import errno
from types import SimpleNamespace

import pytest

from dirtytrack import BusyError
from dirtytrack.group.record import Record
from dirtytrack.group.voter import Voter

pytestmark = pytest.mark.anywhere


class _Ballots:
    # Of a run whose saves are all aborted; before that each look raises one of some errors.

    def __init__(self, *errors, rank=0):
        self.rank, self.place = rank, "place"
        self.run = SimpleNamespace(world=2)
        self.votes = []
        self._errors = [*errors]

    def number(self, save):
        return save + 1

    def cast(self, vote):
        self.votes.append((vote.save, vote.state))

    def decide(self, save, _meta=None):
        if self._errors:
            raise self._errors.pop(0)
        return Record(save + 1, "aborted", "0" * 16, 1, 0, 0.0, 2, reason="why not")


@pytest.fixture
def voter_of():
    """A voter with a thread, on such ballots."""
    made = []

    def make(*errors, rank=0):
        voter = Voter(_Ballots(*errors, rank=rank), lambda _: True, lambda _: None)
        made.append(voter)
        voter.start_thread()
        return voter

    yield make
    for voter in made:
        voter.stop()


def _failed(voter, save):
    job = voter.begin("null")
    assert job.save == save
    voter.failed(job, OSError("no part"))
    return job


def test_a_save_that_begins_while_another_run_is_found_is_overtaken_too(voter_of):
    """Nobody waits for it for ever."""
    voter = voter_of(BusyError(errno.EBUSY, "commit", remedy=""))
    first = _failed(voter, 1)
    voter.wait_for(first, 60)
    late = _failed(voter, 2)  # it has looked before, and nothing was known
    voter.wait_for(late, 60)
    assert (first.state, late.state) == ("overtaken", "overtaken")
    assert voter.pending == []


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), OSError(5, "gone"), KeyError(1)])
def test_what_goes_wrong_is_tried_again(voter_of, error):
    """Whatever it is: it is not the end of the thread."""
    voter = voter_of(error)
    job = _failed(voter, 1)
    voter.wait_for(job, 60)
    assert (job.state, job.cause) == ("aborted", "why not")
    assert voter.last_failure is error


def test_what_goes_wrong_again_and_again_is_logged_once(voter_of, caplog):
    """Also where it names another temporary file each time: a full disk must not fill a log."""
    voter = voter_of(*(OSError(28, "No space left on device", f".{at}.tmp") for at in range(5)))
    voter.wait_for(_failed(voter, 1), 60)
    told = [one.getMessage() for one in caplog.records if "tried again" in one.getMessage()]
    assert told == [
        "saves [2] of a group wait, and are tried again: [Errno 28] No space left on device: '.0.tmp'"
    ]


def test_what_is_not_known_to_be_durable_at_the_end_is_voted_against():
    """The others count on a vote."""
    ballots = _Ballots()
    voter = Voter(ballots, lambda _: True, lambda _: None)
    jobs = [voter.begin("null") for _ in range(2)]
    jobs[0].is_cast = True
    voter.stop()
    assert ballots.votes == [(2, "failed")]
    assert [job.state for job in jobs] == ["abandoned", "abandoned"]


@pytest.mark.parametrize("rank", [0, 1])
def test_what_is_not_committed_is_logged_by_one_process(voter_of, caplog, rank):
    """All know it, and a thousand lines that say the same help nobody."""
    voter = voter_of(rank=rank)
    voter.wait_for(_failed(voter, 1), 60)
    told = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert told == ["save 2 of a group was not committed: why not"] * (rank == 0)


def test_saves_that_begin_within_each_other_are_decided_in_their_order(voter_of):
    """The inner one, which is there first, waits for the outer one; both are known by their own numbers."""
    voter = voter_of()
    number, within = voter._ballots.number, []

    def begin_within(save):
        if save == 1:
            within.append(voter.begin("null"))
            voter.failed(within[0], OSError("no part"))
            assert voter.is_behind_caller(within[0])
        return number(save)

    voter._ballots.number = begin_within
    outer = voter.begin("null")
    assert (outer.save, within[0].save, voter.begun) == (1, 2, 2)
    assert voter.is_behind_caller(within[0])
    voter.failed(outer, OSError("no part"))
    voter.wait_for(within[0], 60)
    assert (outer.state, within[0].state) == ("aborted", "aborted")
