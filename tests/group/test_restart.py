"""A run goes on with what the run before it has written: a part of the same names by a delta."""

from __future__ import annotations

import os

import numpy as np
import pytest

from _lib.group.ranks import in_ranks, no_errors, shards
from dirtytrack import BusyError, ChainError
from dirtytrack.checkpoint import Chain
from dirtytrack.group import GroupChain, GroupCheckpointer

NAMES = [f"shard-{at}" for at in range(4)]


def _step_on(arrays, step):
    # After the first one of few blocks: what has all of them is a base.
    for name, array in arrays.items():
        if step == 1:
            array[:] = 1
        array[step] = step + 100 * int(name.removeprefix("shard-"))


def _after(name, steps):
    arrays = shards([name], 0, 1)
    for step in range(1, steps + 1):
        _step_on(arrays, step)
    return arrays[name]


def _train(where, world, steps, names=NAMES, **options):
    def rank(coordinator):
        path, keywords = where(coordinator.rank)
        arrays = shards(names, coordinator.rank, world)
        keywords |= {"coordinator": coordinator, "fsync": False, **options}
        with GroupCheckpointer.open(path, arrays, **keywords) as checkpoints:
            found = checkpoints.meta["step"] if checkpoints.resumed else 0
            for step in range(found + 1, found + 1 + steps):
                _step_on(arrays, step)
                checkpoints.save({"step": step})
        return found

    return no_errors(in_ranks(world, rank))


def _check(place, step):
    chain = GroupChain(place)
    assert chain.meta == {"step": step}
    for state in chain:
        for name in NAMES:
            np.testing.assert_array_equal(chain.load(name, at=state.number), _after(name, state.meta["step"]))
    assert chain.verify() == []
    return chain


def _kinds(chain):
    # Of the newest state's files, part by part.
    found = []
    for part in chain.newest.parts:
        with chain.open_part(part) as opened:
            found.append([one.kind for one in opened])
    return found


def test_the_same_processes_go_on_with_deltas(place):
    """In a folder of their own, which needs no other: what the old run's becomes does not matter."""
    url, where = place
    _train(where, 2, 2)
    assert _train(where, 2, 2) == [2, 2]
    chain = _check(url, 4)
    assert _kinds(chain) == [["base", "delta", "delta", "delta"]] * 2
    assert len({part.folder for state in chain for part in state.parts}) == 4
    first = chain.checkpoints[0].parts
    bucket = _bucket(url)
    bucket.delete([one.key for part in first for one in bucket.find(f"{part.folder}/")])  # all of the old run
    newest = GroupChain(url)
    for name in NAMES:
        np.testing.assert_array_equal(newest.load(name), _after(name, 4))


def _bucket(place):
    from dirtytrack.checkpoint.records import Root

    return Root.of(place).bucket()


def _stored(chain):
    # Blocks that the newest checkpoint of each part of the newest state has stored.
    found = []
    for part in chain.newest.parts:
        with chain.open_part(part) as opened:
            found.append(opened[part.id].statistics["blocks_stored"])
    return found


@pytest.mark.parametrize(
    ("before", "after", "stored"),
    [
        (2, 1, [2 + 12]),  # the step's blocks, and all of the two names that the other one had
        (1, 2, [2, 2]),
        (2, 4, [1, 1, 1, 1]),
        (2, 3, [1 + 6, 1, 1]),  # the first has a name from each
    ],
)
def test_another_number_of_processes_writes_what_it_has_from_others(place, before, after, stored):
    """Each goes on with the part that it has most of, and writes what that part has not."""
    url, where = place
    _train(where, before, 1)
    assert _train(where, after, 1) == [1] * after
    chain = _check(url, 2)
    assert _kinds(chain) == [["base", "delta"]] * after
    assert _stored(chain) == stored
    assert _train(where, after, 1) == [2] * after
    assert _kinds(_check(url, 3)) == [["base", "delta", "delta"]] * after


def test_who_has_least_from_each_begins_with_a_base(place):
    """It would have to write most of it anyway; in a store, copy more than it has."""
    url, where = place
    _train(where, 4, 1)
    assert _train(where, 1, 1, compression="none") == [1]
    assert _kinds(_check(url, 2)) == [["base"]]
    assert _train(where, 4, 1, compression="none") == [2] * 4
    in_place = ["base", "delta"]  # links take no room
    assert _kinds(_check(url, 3)) == [["base"] if str(url).startswith("memory:") else in_place] * 4


def test_names_of_one_memory_part(place):
    """Each goes on with what it had in common; and they come together again."""
    url, where = place
    tied = np.arange(3000.0)

    def save(*ranks):
        def rank(coordinator):
            path, keywords = where(coordinator.rank)
            arrays, value = ranks[coordinator.rank], len(ranks)
            keywords |= {"coordinator": coordinator, "fsync": False}
            with GroupCheckpointer.open(path, arrays, **keywords) as checkpoints:
                for name, array in arrays.items():
                    array[ord(name)] = value
                checkpoints.save(value)

        no_errors(in_ranks(len(ranks), rank))

    save({"a": tied, "b": tied})
    save({"a": np.zeros(3000)}, {"b": np.zeros(3000)})
    chain = GroupChain(url)
    assert _kinds(chain) == [["base", "delta"]] * 2
    expected = {name: tied.copy() for name in "ab"}
    for name, array in expected.items():
        array[ord(name)] = 2
        np.testing.assert_array_equal(chain.load(name), array)
    assert chain.verify() == []
    save({"a": np.zeros(3000), "b": np.zeros(3000)})
    chain = GroupChain(url)
    for name, array in expected.items():
        array[ord(name)] = 1
        np.testing.assert_array_equal(chain.load(name), array)
    assert chain.verify() == []


def test_memory_that_does_not_fit_is_told(place):
    """Whether it is of the part that is gone on with, or of another one."""
    url, where = place
    _train(where, 2, 1)
    for name in NAMES:
        path, keywords = where(0)
        arrays = shards(NAMES, 0, 1) | {name: np.zeros(2999, np.int64)}
        with pytest.raises(ChainError, match=name):
            GroupCheckpointer.open(path, arrays, **keywords)
    _check(url, 1)


def test_an_older_state_is_gone_on_with(place):
    """As a branch, by which the later ones are no longer states of the group."""
    url, where = place
    _train(where, 2, 3)
    second = GroupChain(url).checkpoints[1]
    assert second.meta == {"step": 2}
    assert _train(where, 2, 1, at=second.number) == [2, 2]
    chain = GroupChain(url)
    assert [state.meta["step"] for state in chain] == [1, 2, 3]
    assert _kinds(_check(url, 3)) == [["base", "delta", "delta"]] * 2


def test_what_is_not_needed_any_more_goes(place):
    """With many restarts and `keep` a chain stays as short as without them."""
    url, where = place
    for at in range(6):
        assert _train(where, 2, 2, keep=2, grace_period=0) == [2 * at] * 2
    chain = _check(url, 12)
    assert len(chain) == 2
    assert max(map(len, _kinds(chain))) <= 8
    assert len({one.key.split("/")[1] for one in _bucket(url).find("parts/")}) == 1


def test_a_straggler_can_not_take_files_away(tmp_path):
    """Though it goes on with its own chain, and makes it short, when the next run has its files."""
    place = f"memory://{tmp_path.name}"
    array, newer = np.zeros(50_000), np.zeros(50_000)
    options = {"keep": 1, "grace_period": 0}
    with GroupCheckpointer.open(place, {"a": array}, **options) as old:
        for step in range(3):
            array[step] = step + 1
            old.save(step, wait=True)
        with GroupCheckpointer.open(place, {"a": newer}, **options) as new:
            assert newer[:4].tolist() == [1, 2, 3, 0]
            for step in range(5):
                array[step] = -1
                with pytest.raises(BusyError):
                    old.save(step, wait=True)
            newer[3] = 4
            new.save(3, wait=True)
    chain = GroupChain(place)
    assert chain.load("a")[:5].tolist() == [1, 2, 3, 4, 0]
    assert chain.verify() == []


def test_a_file_system_without_links_begins_with_bases(tmp_path, monkeypatch):
    """Nothing is lost by it."""

    def refuse(*_args, **_keywords):
        raise PermissionError(1, "Operation not permitted")

    def where(_):
        return tmp_path / "group", {}

    _train(where, 2, 2)
    monkeypatch.setattr(os, "link", refuse)
    assert _train(where, 2, 2) == [2, 2]
    assert _kinds(_check(tmp_path / "group", 4)) == [["base", "delta"]] * 2


def test_a_worker_of_a_driver_goes_on_with_a_delta(tmp_path):
    """With what the run before has committed, or its own run."""
    array = np.zeros(50_000)
    place = tmp_path / "group"
    for start in range(3):
        run = GroupCheckpointer.begin(place)
        for again in range(2):
            with GroupCheckpointer.open(place, {"a": array}, at=run, fsync=False) as worker:
                array[2 * start + again] = 1
                GroupCheckpointer.commit(place, [worker.prepare(2 * start + again)])
            array[:] = 0
    chain = GroupChain(place)
    assert chain.load("a").sum() == 6
    with chain.open_part(chain.newest.parts[0]) as opened:
        assert isinstance(opened, Chain)
        assert [one.kind for one in opened] == ["base"] + ["delta"] * 5
