"""Votes, and what they decide: the same for whoever looks, whenever that is."""

from __future__ import annotations

import itertools
from contextlib import suppress

import pytest

from _lib.checkpoint.buckets import FaultyBucket, ModelBucket
from _lib.checkpoint.faulty_store import Trouble
from dirtytrack import BusyError, ChainError
from dirtytrack.checkpoint import Keep
from dirtytrack.checkpoint.store import commits
from dirtytrack.group import ballots as ballots_module
from dirtytrack.group.ballots import Ballots, Vote, digest
from dirtytrack.group.garbage import collect
from dirtytrack.group.records import Records

pytestmark = pytest.mark.anywhere

META = '{"step": 1}'
PART = "ab" * 16, 7


def _group(world=3, bucket=None, patience=0.0):
    bucket = bucket or ModelBucket()
    run = Records(bucket).open([[f"name-{rank}"] for rank in range(world)])
    return bucket, [Ballots(Records(bucket), run, rank, None, patience) for rank in range(world)]


def _vote(ballots, save=1, state="saved", meta=META, error=""):
    ballots.cast(Vote(save, ballots.rank, state, digest(meta), PART, error))


def test_the_last_vote_commits():
    """Nobody has to come back: whoever sees all of them makes the record, and the others find it."""
    _, ranks = _group()
    for ballots in ranks[:2]:
        _vote(ballots)
        assert ballots.decide(1, META) is None
    _vote(ranks[2])
    record = ranks[2].decide(1, META)
    assert (record.kind, record.number, record.state, record.meta) == ("committed", 2, 2, {"step": 1})
    assert [part.names for part in record.parts] == [("name-0",), ("name-1",), ("name-2",)]
    assert [part.folder for part in record.parts] == [ranks[0].folder(rank) for rank in range(3)]
    for ballots in ranks[:2]:
        assert ballots.decide(1, META).parts == record.parts
        assert ballots.known.state == 2


def test_the_last_to_vote_is_the_one_to_decide():
    """By the store's clock: else all who look while the votes are read would read all of them, too."""
    bucket, ranks = _group(patience=60.0)
    for ballots in (ranks[2], ranks[1], ranks[0]):
        bucket.now += 1
        _vote(ballots)
    bucket.requests.clear()
    assert ranks[2].decide(1, META) is ranks[1].decide(1, META) is None
    assert bucket.requests["get"] == 2  # each looked for the record
    assert ranks[0].decide(1, META).kind == "committed"
    assert ranks[1].decide(1, META).kind == "committed"


def test_who_is_the_last_to_vote_need_not_live(monkeypatch):
    """Others decide after a while; and at once what went wrong."""
    clock = [0.0]
    monkeypatch.setattr(ballots_module.time, "monotonic", lambda: clock[0])
    _, ranks = _group(patience=5.0)
    for save in (1, 2):
        for ballots in ranks:
            _vote(ballots, save)
        for waited in (0, 4.9):
            clock[0] = save * 100 + waited
            assert ranks[0].decide(save, META) is None
        clock[0] += 0.1
        assert ranks[0].decide(save, META).kind == "committed"
    for ballots in ranks[1:]:
        _vote(ballots, 3, "failed" if ballots.rank == 2 else "saved")
    assert ranks[0].decide(3).kind == "aborted"


def test_votes_are_removed_when_they_have_done_their_work():
    """Not those of later saves."""
    bucket, ranks = _group(2)
    _vote(ranks[0])
    _vote(ranks[0], 2)
    _vote(ranks[1])
    ranks[1].decide(1, META)
    left = [key.split("/", 2)[2] for key in bucket.objects if key.startswith("votes/")]
    assert left == ["0000000002/000000-saved.json"]


@pytest.mark.parametrize(
    ("vote", "reason"),
    [
        ({"state": "failed", "error": "no room"}, "rank 1 could not save: no room"),
        (
            {"state": "ended"},
            "rank 1 closed after 0 saves, and others save once more. Nothing is committed until all of them "
            "are started again",
        ),
    ],
)
def test_one_that_something_went_wrong_decides_at_once(vote, reason):
    """Without those that are missing, and no later vote changes it."""
    _, ranks = _group()
    _vote(ranks[0])
    _vote(ranks[1], **vote)
    record = ranks[0].decide(1, META)
    assert (record.kind, record.number, record.state, record.reason) == ("aborted", 2, 0, reason)
    _vote(ranks[2])
    assert ranks[2].decide(1, META).reason == reason
    for ballots in ranks:
        _vote(ballots, 2)
    assert [ballots.decide(2, META).kind for ballots in ranks] == ["committed"] * 3


def test_who_has_ended_is_not_waited_for_again():
    """Not by later saves either, nor by those that end then; whoever has put the record."""
    _, ranks = _group()
    _vote(ranks[1], state="ended")
    for save in range(1, 4):
        _vote(ranks[0], save)
        record = ranks[0].decide(save, META)
        assert (record.kind, record.number) == ("aborted", save + 1)
        assert record.reason.startswith("rank 1 closed after 0 saves, and others save once more")
        _vote(ranks[2], save)
        assert ranks[2].decide(save, META).reason == record.reason
    for ballots in ranks[::2]:
        _vote(ballots, 4, state="ended")
    assert ranks[0].tally(4) == {0: "ended", 1: "ended", 2: "ended"}
    assert ranks[0].decide(4) is None


def test_another_meta_is_a_disagreement():
    """It names who; the order of keys is none."""
    _, ranks = _group()
    _vote(ranks[0], meta='{"a": 1, "b": 2}')
    _vote(ranks[1], meta='{"b": 2, "a": 1}')
    _vote(ranks[2], meta='{"a": 1, "b": 3}')
    assert ranks[0].decide(1, META).reason == "rank 2 gave another meta than rank 0: it has to be the same"


def test_all_that_have_ended_decide_nothing():
    """There is no such save."""
    bucket, ranks = _group()
    for ballots in ranks:
        _vote(ballots, state="ended")
    assert ranks[0].decide(1) is None
    assert ranks[0].tally(1) == {0: "ended", 1: "ended", 2: "ended"}
    assert Records(bucket).newest().kind == "opened"


def test_nothing_is_committed_once_another_run_has_opened_the_group():
    """Though all have voted; what was committed before stays."""
    bucket, ranks = _group()
    for ballots in ranks:
        _vote(ballots)
    assert ranks[0].decide(1, META).kind == "committed"
    second = Records(bucket).open([["x"]])
    assert (second.number, second.state) == (3, 2)
    for ballots in ranks:
        _vote(ballots, 2)
    for ballots in ranks:
        assert ballots.decide(1, META).kind == "committed"
        with pytest.raises(BusyError, match=f"Record 3 there is of another run, {second.run}"):
            ballots.decide(2, META)


def test_a_process_that_is_behind_learns_what_was_decided():
    """Though later states were committed meanwhile, and what is older was removed."""
    bucket, ranks = _group(2)
    ranks = [Ballots(Records(bucket), ballots.run, ballots.rank, keep=Keep(1)) for ballots in ranks]
    for save in range(1, 5):
        for ballots in ranks:
            _vote(ballots, save, state="failed" if save == 2 else "saved")
        ranks[0].decide(save, META)
        collect(Records(bucket), 0)
    kinds = [ranks[1].decide(save, META).kind for save in range(1, 5)]
    assert kinds == ["committed", "aborted", "committed", "committed"]
    bucket.delete([Records(bucket).log.key(2)])
    late = Ballots(Records(bucket), ranks[0].run, 1)
    assert "was so far behind" in late.decide(1, META).reason


def test_a_damaged_vote_is_told(monkeypatch):
    """By its place; also one that would take too much memory."""
    bucket, ranks = _group(2)
    for ballots in ranks:
        _vote(ballots)
    key = next(key for key in bucket.objects if key.endswith("1/000001-saved.json"))
    whole = bucket.objects[key]
    bucket.objects[key] = b"x", 0.0
    with pytest.raises(ChainError, match=r"000001-saved\.json is damaged"):
        ranks[0].decide(1, META)
    bucket.objects[key] = whole
    monkeypatch.setattr(commits, "_MOST_MEMORY", 100)
    with pytest.raises(ChainError, match=r"000000-saved\.json is damaged.*as objects its JSON may take"):
        ranks[0].decide(1, META)


@pytest.mark.parametrize("source", ["000000-saved.json", "000002-saved.json"])
def test_the_vote_of_another_is_not_taken_for_it(source):
    """A file may have been copied: a part would be committed twice, and another one not at all."""
    bucket, ranks = _group(3)
    for ballots in ranks:
        _vote(ballots)
    keys = {key.rpartition("/")[2]: key for key in bucket.objects if key.startswith("votes/")}
    bucket.objects[keys["000001-saved.json"]] = bucket.objects[keys[source]]
    with pytest.raises(ChainError, match=r"000001-saved\.json is damaged"):
        ranks[0].decide(1, META)
    assert Records(bucket).newest().kind == "opened"


def test_who_is_no_rank_does_not_vote():
    """A file of such a name does not count for one that is missing."""
    bucket, ranks = _group(2)
    _vote(ranks[0])
    stray = Ballots(Records(bucket), ranks[0].run, 7)
    _vote(stray)
    _vote(stray, state="failed")
    assert ranks[0].decide(1, META) is None
    _vote(ranks[1])
    assert ranks[1].decide(1, META).kind == "committed"


@pytest.mark.parametrize("late", [True, False])
def test_every_request_fails_in_turn(late):
    """Before or after it was done: whoever tries again comes to the same decision."""
    for at in itertools.count(1):
        bucket, ranks = _group(2)
        _vote(ranks[0])
        trouble = Trouble(at, late=late)
        ballots = Ballots(Records(FaultyBucket(bucket, trouble)), ranks[1].run, 1)
        record = None
        while record is None:
            with suppress(OSError):
                _vote(ballots)
                record = ballots.decide(1, META)
        assert record.kind == "committed"
        assert ranks[0].decide(1, META).parts == record.parts
        if trouble.struck is None:
            break
    assert at > 5


def test_many_ranks():
    """More than are read one by one."""
    _, ranks = _group(60)
    for ballots in ranks:
        _vote(ballots)
    record = ranks[59].decide(1, META)
    assert [part.names for part in record.parts] == [(f"name-{rank}",) for rank in range(60)]


def test_a_reason_names_a_few():
    """Of many."""
    _, ranks = _group(30)
    for ballots in ranks:
        _vote(ballots, meta=META if ballots.rank < 10 else "null")
    reason = ranks[0].decide(1, META).reason
    assert reason.startswith("ranks 10, 11, 12, 13, 14 and 15 more gave another meta")
