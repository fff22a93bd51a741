"""A driver opens the group for its workers, and commits what they have prepared."""

from __future__ import annotations

import json
from contextlib import suppress

import numpy as np
import pytest

from _lib.group.ranks import after, shards, step_on
from dirtytrack import BusyError, ChainError, GroupError
from dirtytrack.checkpoint.store.obstore_bucket import ObstoreBucket
from dirtytrack.group import GroupChain, GroupCheckpointer, file_coordinator

NAMES = [f"shard-{at}" for at in range(4)]


@pytest.fixture(params=["directory", "memory"])
def place(request, tmp_path):
    """Where a group is: a directory, or an object store."""
    return str(tmp_path / "group") if request.param == "directory" else f"memory://driver-{tmp_path.name}"


class Worker:
    """One of a driver's, in this process."""

    def __init__(self, place, rank, world, run, **options):
        self.arrays = shards(NAMES, rank, world)
        run = json.loads(json.dumps(run))  # it comes from elsewhere
        self.checkpoints = GroupCheckpointer.open(place, self.arrays, at=run, fsync=False, **options)

    def step(self, step):
        step_on(self.arrays, step)
        return json.loads(json.dumps(self.checkpoints.prepare({"step": step})))


def _workers(place, world, **options):
    run = GroupCheckpointer.begin(place)
    return [Worker(place, rank, world, run, **options) for rank in range(world)]


def _close(workers):
    for worker in workers:
        worker.checkpoints.close()


def _check(place, step):
    chain = GroupChain(place)
    assert chain.meta == {"step": step}
    for name in NAMES:
        np.testing.assert_array_equal(chain.load(name), after(name, step))
    assert chain.verify() == []
    return chain


def test_what_all_have_prepared_is_committed(place):
    """By another number of workers the next time; what was prepared and not committed is not there."""
    step = 0
    for world in (2, 3, 1):
        workers = _workers(place, world)
        for worker in workers:
            assert worker.checkpoints.meta == ({"step": step} if step else None)
            assert worker.checkpoints.resumed == bool(step)
        for _ in range(2):
            step += 1
            votes = [worker.step(step) for worker in workers]
            number = GroupCheckpointer.commit(place, votes)
            assert GroupChain(place).newest.number == number
        for worker in workers:
            worker.step(step + 1)
            assert worker.checkpoints.number == number
        _close(workers)
        _check(place, step)


def test_what_is_kept_stays(place):
    """A worker's chain may be compacted, but not what the driver may yet commit."""
    options = {"keep": 1, "grace_period": 0}
    for first in (1, 8):
        workers = _workers(place, 2, **options)
        for step in range(first, first + 7):
            votes = [worker.step(step) for worker in workers]
            if step % 3 == 1:
                kept = step
                GroupCheckpointer.commit(place, votes, **options)
            assert len(_check(place, kept)) == 1
        _close(workers)
        if first == 1:
            workers = _workers(place, 2, **options)
            GroupCheckpointer.commit(place, [worker.step(8) for worker in workers], **options)
            _close(workers)
            assert kept == 7
            break


def test_votes_of_another_run_are_refused(place):
    """Workers of a run that was overtaken learn of it, too."""
    workers = _workers(place, 2)
    votes = [worker.step(1) for worker in workers]
    others = _workers(place, 2)
    with pytest.raises(BusyError, match="two groups in one place"):
        GroupCheckpointer.commit(place, votes)
    with pytest.raises(GroupError, match="all are of one run"):
        GroupCheckpointer.commit(place, [votes[0], others[1].step(1)])
    with pytest.raises(BusyError):
        workers[0].step(2)
    with pytest.raises(BusyError):
        Worker(place, 0, 2, {**GroupCheckpointer.begin(place), "record": _record(votes, place)})
    _close(workers + others)


def _record(votes, place):
    opened, _, incarnation = votes[0]["run"].partition("-")
    record = GroupCheckpointer.begin(place)["record"]
    return {**record, "number": int(opened), "opened": int(opened), "incarnation": incarnation}


def test_votes_that_do_not_fit_together_are_refused(place):
    """And nothing is committed."""
    workers = _workers(place, 2)
    first = [worker.step(1) for worker in workers]
    GroupCheckpointer.commit(place, first)
    votes = [worker.step(2) for worker in workers]
    for bad, kind, told in [
        (votes[:1], GroupError, "no process has memory for 'shard-1', 'shard-3'"),
        ([votes[0], votes[0]], GroupError, "vote 0 and vote 1 both have 'shard-0'"),
        ([votes[0], first[1]], GroupError, "vote 1 has another meta than vote 0"),
        ([], ValueError, "there is no vote"),
        ([{"part": 3}], ValueError, "a vote is what prepare"),
    ]:
        with pytest.raises(kind, match=told):
            GroupCheckpointer.commit(place, bad)
    _check(place, 1)
    GroupCheckpointer.commit(place, votes[:1], strict=False)
    assert GroupChain(place).newest.names == ("shard-0", "shard-2")
    _close(workers)


def test_votes_are_for_one_state(place):
    """The same ones again are the same state, in whatever order; older ones are refused."""
    workers = _workers(place, 2)
    votes = [worker.step(1) for worker in workers]
    number = GroupCheckpointer.commit(place, votes)
    assert GroupCheckpointer.commit(place, votes[::-1]) == number
    newer = [worker.step(2) for worker in workers]
    with pytest.raises(GroupError, match="vote 1 is of checkpoint 1 of its worker, and state 2 has its 1"):
        GroupCheckpointer.commit(place, [newer[0], votes[1] | {"meta": {"step": 2}}])
    assert GroupCheckpointer.commit(place, newer) == number + 1
    with pytest.raises(GroupError, match="a vote is for one state"):
        GroupCheckpointer.commit(place, votes)
    assert [state.number for state in _check(place, 2)] == [number, number + 1]
    _close(workers)


def test_a_worker_does_not_wait_for_a_mirror_for_ever(tmp_path, monkeypatch):
    """Without progress it ends, and says so; what is prepared later is not lost."""
    mirror = f"memory://{tmp_path.name}"
    run = GroupCheckpointer.begin(mirror)
    array = {"a": np.zeros(3)}
    options = {"at": run, "mirror": mirror, "mirror_timeout": 0.05}
    is_away = True
    put_new = ObstoreBucket.put_new

    def failing(self, key, data):
        if is_away and "/parts/" in self.place:
            raise OSError(5, "away")
        return put_new(self, key, data)

    with GroupCheckpointer.open(tmp_path / "node", array, **options) as worker:
        monkeypatch.setattr(ObstoreBucket, "put_new", failing)
        with pytest.raises(TimeoutError, match="progress"):
            worker.prepare(1)
        is_away = False
        array["a"][1] = 2
        vote = _until_it_is_there(lambda: worker.prepare(2))
        GroupCheckpointer.commit(mirror, [vote])
    chain = GroupChain(mirror)
    assert (chain.meta, chain.load("a").tolist()) == (2, [0, 2, 0])


def _until_it_is_there(act):
    while True:
        with suppress(TimeoutError):
            return act()


def test_a_run_is_what_begin_returns(tmp_path):
    """Anything else is refused before anything is made."""
    run = GroupCheckpointer.begin(tmp_path / "g")
    array = {"a": np.zeros(3)}
    for at, kind in [("x", TypeError), ({}, ValueError), ({**run, "record": {"a": 1}}, ValueError)]:
        with pytest.raises(kind, match=r"begin\(\)"):
            GroupCheckpointer.open(tmp_path / "g", array, at=at)
    with pytest.raises(GroupError, match="the run is of the group in"):
        GroupCheckpointer.open(tmp_path / "other", array, at=run)
    coordinator = file_coordinator(tmp_path / "m", 0, 1)
    name = f"0000000001-{'0' * 16}"
    vote = {"run": name, "part": [f"parts/{name}/{'0' * 16}", "i", 1, ["n"]], "meta": 1}
    with pytest.raises(TypeError, match="needs no coordinator"):
        GroupCheckpointer.open(tmp_path / "g", array, at=run, coordinator=coordinator)
    with pytest.raises(ChainError, match="holds no group"):
        GroupCheckpointer.commit(tmp_path / "x", [vote])
    for run_of_vote, folder in [
        ("0000000002-" + "0" * 16, vote["part"][0]),
        (name, f"parts/{name}/../000000"),
    ]:
        bad = {**vote, "run": run_of_vote, "part": [folder, *vote["part"][1:]]}
        with pytest.raises(ValueError, match="a vote is what prepare"):
            GroupCheckpointer.commit(tmp_path / "x", [bad])


def test_each_way_has_its_calls(tmp_path):
    """A driver's worker prepares, another process saves."""
    run = GroupCheckpointer.begin(tmp_path / "g")
    with GroupCheckpointer.open(tmp_path / "g", {"a": np.zeros(3)}, at=run) as checkpoints:
        assert "a driver's" in repr(checkpoints)
        with pytest.raises(RuntimeError, match="prepare"):
            checkpoints.save()
    with (
        GroupCheckpointer.open(tmp_path / "g", {"a": np.zeros(3)}) as checkpoints,
        pytest.raises(RuntimeError, match="save"),
    ):
        checkpoints.prepare()
