"""Whatever the order of requests: one history, and nobody is told anything else.

The actors are real ones, on a bucket in memory; a test chooses whose request is next. All orders with few
interruptions are tried, and many at random.
"""

from __future__ import annotations

import os
import random

import pytest

from _lib.checkpoint.buckets import ModelBucket
from _lib.group.interleavings import all_orders, play
from dirtytrack import BusyError
from dirtytrack.group.ballots import Ballots, Vote, digest
from dirtytrack.group.records import Records

pytestmark = pytest.mark.anywhere

META = "1"
_INTERRUPTIONS = 2 if os.environ.get("DIRTYTRACK_TORTURE_KILLS") else 1  # two take a minute and a half


class Group:
    """One that was opened for two processes, and has one state; its second save is on its way."""

    def __init__(self, *, is_failed: bool = False) -> None:
        self.bucket = ModelBucket()
        self.is_failed = is_failed
        self.run = Records(self.bucket).open([["a"], ["b"]])
        old = [Ballots(Records(self.bucket), self.run, rank) for rank in (0, 1)]
        for ballots in old:
            ballots.cast(Vote(1, ballots.rank, "saved", digest(META), ("0" * 32, 1)))
        assert [one.decide(1, META).state for one in old] == [2, 2]

    def straggler(self, rank: int):
        """A process of the run, which goes on."""

        def act(bucket):
            ballots = Ballots(Records(bucket), self.run, rank)
            told = [ballots.decide(1, META)]
            is_bad = self.is_failed and rank == 1
            ballots.cast(Vote(2, rank, "failed" if is_bad else "saved", digest(META), ("2" * 32, 2)))
            told.append(ballots.decide(2, META))
            return told

        return act

    def restart(self, at: int | None = None):
        """A new run of one process, which saves once."""

        def act(bucket):
            records = Records(bucket)
            run = records.open([["a", "b"]], at)
            ballots = Ballots(records, run, 0)
            ballots.cast(Vote(1, 0, "saved", digest(META), ("3" * 32, 1)))
            return [run, ballots.decide(1, META)]

        return act

    def check(self, results):
        """The records are one history, and what anybody was told is in it."""
        records = Records(self.bucket)
        log = []
        while (one := records.find(len(log) + 1)) is not None:
            log.append(one)
        state, run = 0, None
        for number, record in enumerate(log, 1):
            assert record.number == number
            if record.kind == "opened":
                run = record.incarnation
                assert record.state == state
            assert record.incarnation == run
            state = number if record.kind == "committed" else state
            assert record.state == state
        for told in results:
            assert isinstance(told, list | BusyError), told
            for one in told if isinstance(told, list) else ():
                if one is not None:
                    assert log[one.number - 1]._replace(created=0.0) == one._replace(created=0.0)
        return log


CASES = {
    "a straggler and a restart": lambda group: [group.straggler(0), group.straggler(1), group.restart()],
    "two restarts": lambda group: [group.restart(), group.restart()],
    "two ranks": lambda group: [group.straggler(0), group.straggler(1)],
}


@pytest.mark.parametrize("is_failed", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_every_order_with_few_interruptions(case, is_failed):
    """And all of what can happen does."""
    seen = set()

    def run(choose):
        group = Group(is_failed=is_failed)
        results, points = play(group.bucket, CASES[case](group), choose)
        seen.add(tuple(one.kind for one in group.check(results)))
        return points

    assert all_orders(run, preemptions=_INTERRUPTIONS) > 5
    decided = "aborted" if is_failed else "committed"
    before = ("opened", "committed")
    assert (
        seen
        == {
            "a straggler and a restart": {
                (*before, decided, "opened", "committed"),
                (*before, "opened", "committed"),
            },
            "two restarts": {
                (*before, "opened", "committed", "opened", "committed"),
                (*before, "opened", "opened", "committed"),
            },
            "two ranks": {(*before, decided)},
        }[case]
    )


@pytest.mark.parametrize("case", CASES)
def test_orders_at_random(case):
    """However often they are interrupted."""
    draw = random.Random(case)
    for _ in range(40):
        group = Group(is_failed=draw.random() < 0.3)
        results, _ = play(group.bucket, CASES[case](group), lambda ready, _: draw.choice(ready))
        group.check(results)


def test_a_history_that_is_not_one_is_found():
    """A straggler that were not fenced would be seen."""
    group = Group()
    records = Records(group.bucket)
    run = records.open([["a", "b"]])
    records.offer(run._replace(number=4, kind="committed", state=4, incarnation=group.run.incarnation))
    with pytest.raises(AssertionError):
        group.check([])
