"""Which older states of a group stay: what a policy chooses among those that all processes have in common."""

from __future__ import annotations

import pytest

from _lib.checkpoint.buckets import ModelBucket
from _lib.group.ranks import check_states, in_ranks, no_errors, shards, step_on
from _lib.interrupts import interrupting
from dirtytrack import ChainError, GroupError
from dirtytrack.checkpoint import Keep
from dirtytrack.checkpoint.records import Root
from dirtytrack.group import GroupChain, GroupCheckpointer, compact_group, compaction
from dirtytrack.group.ballots import Ballots, Vote, digest
from dirtytrack.group.garbage import collect
from dirtytrack.group.record import Record
from dirtytrack.group.records import Records

NAMES = [f"shard-{at}" for at in range(4)]
POLICY = Keep(2, every=5, best="loss")


def _loss(step):
    return (step * 7) % 11  # the least is at 11


def _train(where, world, steps, keep=POLICY, **options):
    """Returns the number of each state, by its step."""

    def rank(coordinator):
        path, keywords = where(coordinator.rank)
        arrays = shards(NAMES, coordinator.rank, world)
        keywords |= {"coordinator": coordinator, "fsync": False, "keep": keep, "grace_period": 0, **options}
        with GroupCheckpointer.open(path, arrays, **keywords) as checkpoints:
            first = checkpoints.meta["step"] if checkpoints.resumed else 0
            saves = {}
            for step in range(first + 1, first + 1 + steps):
                step_on(arrays, step)
                saves[step] = checkpoints.save({"step": step, "loss": _loss(step)}, wait=True).number
        return saves

    return no_errors(in_ranks(world, rank))[0]


def _expected(committed, newest=2):
    # Of all states that ever were.
    best = min(committed, key=lambda step: (_loss(step), -step))
    fifth = [step for step, number in committed.items() if number % 5 == 0]
    return sorted({*sorted(committed)[-newest:], *fifth, best})


def _check(url, steps):
    chain = GroupChain(url)
    assert [state.meta["step"] for state in chain] == steps
    check_states(chain, NAMES)
    return chain


def _runs(url):
    return {one.key.split("/")[1] for one in Root.of(url).bucket().find("parts/")}


def test_states_stay_by_a_policy_also_after_restarts(place):
    """On as many processes or another number; a run of which nothing is kept goes."""
    url, where = place
    committed = _train(where, 2, 9)
    _check(url, _expected(committed))
    for world, steps in [(2, 1), (3, 4), (1, 7)]:
        committed |= _train(where, world, steps)
        chain = _check(url, _expected(committed))
    assert len(committed) == 21
    assert _runs(url) == {part.folder.split("/")[1] for state in chain for part in state.parts}


def test_no_more_stays_than_what_is_kept_stands_on(tmp_path):
    """In the chain of a process."""
    place = tmp_path / "group"
    arrays = shards(NAMES, 0, 1)
    options = {"keep": Keep(1, best="loss"), "fsync": False}
    with GroupCheckpointer.open(place, arrays, **options) as checkpoints:
        for step in range(1, 30):
            arrays["shard-0"][step] = step
            checkpoints.save({"loss": float(step > 1)}, wait=True)
        folder = place / GroupChain(place).newest.parts[0].folder
    assert [state.meta["loss"] for state in GroupChain(place)] == [0, 1]
    assert len([*folder.glob("*.*")]) <= 6


def test_another_policy_counts_from_then_on(place):
    """A number of states does without what was kept; none keeps everything."""
    url, where = place
    committed = _train(where, 1, 6)
    assert _expected(committed) == [4, 5, 6]  # the fourth is state 5, the best is the fifth
    _train(where, 1, 2, keep=None)
    _check(url, [4, 5, 6, 7, 8])
    _train(where, 1, 1, keep=2)
    _check(url, [8, 9])


@pytest.mark.parametrize("world", [1, 2])
def test_a_kept_state_is_gone_on_with(place, world):
    """As a branch: what was kept after it is no state of the group any more."""
    url, where = place
    _train(where, 2, 16)
    chain = _check(url, [4, 9, 11, 14, 15, 16])
    at = chain.checkpoints[1]
    assert at.meta["step"] == 9
    _train(where, world, 1, at=at.number)
    _check(url, [4, 9, 10])
    with pytest.raises(ChainError, match="has no state 3; it has 5, 10, "):
        _train(where, world, 1, at=3)


@pytest.mark.parametrize("at", [None, 1, 2, 3])
def test_a_compaction_keeps_what_a_policy_chooses(place, monkeypatch, at):
    """The others' files go; whatever ends it, there is no state without its parts."""
    url, where = place
    committed = _train(where, 2, 8, keep=None) | _train(where, 2, 12, keep=None)
    assert len(committed) == 20
    with monkeypatch.context() as patch:
        patch.setattr(compaction, "compact", interrupting(compaction.compact, at))
        if at is not None:
            with pytest.raises(KeyboardInterrupt):
                compact_group(url, POLICY, fsync=False, grace_period=0)
            _check(url, _expected(committed))
    compact_group(url, POLICY, fsync=False, grace_period=0)
    chain = _check(url, _expected(committed))
    needed = {part.id for state in chain for part in state.parts}
    for state in chain.checkpoints[:-1]:  # the newest may well be a delta
        for part in state.parts:
            with chain.open_part(part) as opened:
                assert opened[part.id].kind == "base"
                assert {one.id for one in opened if one.number <= part.number} <= needed
    committed |= _train(where, 2, 3)
    _check(url, _expected(committed))


def test_a_driver_keeps_by_a_policy(tmp_path):
    """Its workers follow what it has committed."""
    place = tmp_path / "group"
    arrays = shards(NAMES, 0, 1)
    committed = {}
    for start in range(3):
        run = GroupCheckpointer.begin(place)
        options = {"at": run, "keep": POLICY, "fsync": False}
        with GroupCheckpointer.open(place, arrays, **options) as worker:
            for step in range(start * 6 + 1, start * 6 + 7):
                step_on(arrays, step)
                vote = worker.prepare({"step": step, "loss": _loss(step)})
                committed[step] = GroupCheckpointer.commit(place, [vote], keep=POLICY)
                _check(place, _expected(committed))


def test_a_worker_with_less_to_keep_than_its_driver_keeps_as_much(tmp_path):
    """What stays is what the driver says: there is no state without its parts."""
    place = tmp_path / "group"
    arrays = shards(NAMES, 0, 1)
    run = GroupCheckpointer.begin(place)
    with GroupCheckpointer.open(place, arrays, at=run, keep=1, fsync=False) as worker:
        for step in range(1, 9):
            step_on(arrays, step)
            GroupCheckpointer.commit(place, [worker.prepare({"step": step})], keep=4)
    _check(place, [5, 6, 7, 8])


def test_processes_keep_by_the_same_policy(tmp_path):
    """Else it would be chance what stays; it says who was given what."""

    def rank(coordinator):
        keep = Keep(1, every=2 + coordinator.rank)
        arrays = shards(NAMES, coordinator.rank, 2)
        GroupCheckpointer.open(tmp_path / "g", arrays, coordinator=coordinator, keep=keep)

    for error in in_ranks(2, rank):
        assert isinstance(error, GroupError)
        assert "rank 1 was given keep=Keep(newest=1, every=3" in str(error)
    assert not (tmp_path / "g").exists()


def _cast(ranks, save, meta):
    for ballots in ranks:
        ballots.cast(Vote(save, ballots.rank, "saved", digest(meta), (f"{save:032x}", save)))


@pytest.mark.anywhere
def test_who_decides_late_knows_what_is_kept():
    """Though the records by which that was decided are gone."""
    bucket = ModelBucket()
    keep = Keep(1, best="loss")
    run = Records(bucket).open([["a"], ["b"]])
    ranks = [Ballots(Records(bucket), run, rank, keep) for rank in range(2)]
    losses = [5, 3, 1, 4, 2]
    for save, loss in enumerate(losses[:-1], 1):
        _cast(ranks, save, f'{{"loss": {loss}}}')
        ranks[0].decide(save, f'{{"loss": {loss}}}')
    bucket.delete([Records(bucket).log.key(number) for number in (2, 3)])
    last = len(losses)
    _cast(ranks, last, f'{{"loss": {losses[-1]}}}')
    for save, loss in enumerate(losses, 1):
        ranks[1].decide(save, f'{{"loss": {loss}}}')
    newest = Records(bucket).newest()
    assert (newest.number, newest.oldest, newest.kept) == (6, 6, (4,))


@pytest.mark.anywhere
def test_garbage_spares_the_runs_of_what_is_kept():
    """And the records of it; with the last kept state of a run the run goes."""
    bucket = ModelBucket()
    records = Records(bucket)
    files = {}
    for _ in range(3):  # states 2, 4, 6
        run = records.open([["a"]])
        files[run.number + 1] = f"parts/{run.run}/000000/file"
        bucket.put_new(files[run.number + 1], b"x")
        records.offer(
            Record(run.number + 1, "committed", run.incarnation, run.number, run.number + 1, 0.0, 1)
        )
    run = records.open([["a"]])
    for number, kept, gone in [(8, (2, 4), {6}), (9, (4,), {2, 6}), (10, (), {2, 4, 6})]:
        made = Record(number, "committed", run.incarnation, 7, number, 0.0, 1, oldest=number, kept=kept)
        records.offer(made)
        collect(records, 0)
        assert [state.number for state in Records(bucket).states()] == [*kept, number]
        assert {state for state, key in files.items() if key not in bucket.objects} == gone
