"""A state of many processes is there for all of them or for none, and none of them waits for it."""

from __future__ import annotations

import errno
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from _lib.group.ranks import after, in_ranks, no_errors, shards, step_on
from dirtytrack import (
    BusyError,
    ChainError,
    CheckpointError,
    ClosedError,
    ForkedError,
    GroupError,
    StoreError,
)
from dirtytrack.checkpoint import Chain, Checkpointer, load
from dirtytrack.checkpoint.store.directory_bucket import DirectoryBucket
from dirtytrack.checkpoint.write import compactor
from dirtytrack.group import GroupChain, GroupCheckpointer, file_coordinator
from dirtytrack.group.records import Records
from dirtytrack.group.voter import Voter

NAMES = [f"shard-{at}" for at in range(5)]
PLACES = ["directory", "memory"]


@pytest.fixture(params=PLACES)
def place(request, tmp_path):
    """Where a group is: a directory, or an object store."""
    return (
        str(tmp_path / "group") if request.param == "directory" else f"memory://{tmp_path.name}-{id(request)}"
    )


def train(place, world, steps, *, names=NAMES, wait=False, **options):
    """So many steps with a save after each, by so many processes; what each found."""

    def rank(coordinator):
        arrays = shards(names, coordinator.rank, world)
        with GroupCheckpointer.open(
            place, arrays, coordinator=coordinator, fsync=False, **options
        ) as checkpoints:
            found = checkpoints.meta["step"] if checkpoints.resumed else 0
            for name, array in arrays.items():
                np.testing.assert_array_equal(array, after(name, found))
            for step in range(found + 1, found + 1 + steps):
                step_on(arrays, step)
                checkpoints.save({"step": step}, wait=wait)
        assert coordinator.is_closed
        assert checkpoints.meta == {"step": found + steps}
        return found

    return no_errors(in_ranks(world, rank))


def check(place, steps, names=NAMES):
    """All states that there are, each in full, and the newest is this one."""
    chain = GroupChain(place)
    assert chain.meta == {"step": steps}
    for state in chain:
        for name in names:
            np.testing.assert_array_equal(chain.load(name, at=state.number), after(name, state.meta["step"]))
    assert chain.verify() == []
    return chain


def test_any_number_of_processes_goes_on(place):
    """A part belongs to a name: whoever has it next is given it, by fewer and by more."""
    steps = 0
    for world in (2, 5, 1, 3):
        assert train(place, world, 2) == [steps] * world
        steps += 2
        check(place, steps)


def test_what_is_committed_is_known(place):
    """To each process, with number and meta; a save says what became of it."""
    told = []

    def rank(coordinator):
        arrays = shards(NAMES, coordinator.rank, 2)
        with GroupCheckpointer.open(place, arrays, coordinator=coordinator) as checkpoints:
            assert (checkpoints.meta, checkpoints.number, checkpoints.resumed) == (None, 0, False)
            assert (checkpoints.rank, checkpoints.closed) == (coordinator.rank, False)
            save = checkpoints.save({"step": 1})
            save.add_done_callback(told.append)
            save.wait()
            assert (save.number, save.state, save.done, save.meta) == (2, "committed", True, {"step": 1})
            assert save.part.state == "committed"
            assert (checkpoints.meta, checkpoints.number) == ({"step": 1}, 2)
            checkpoints.flush()
        assert checkpoints.closed
        checkpoints.close()
        with pytest.raises(ClosedError):
            checkpoints.save()

    no_errors(in_ranks(2, rank))
    assert [save.number for save in told] == [2, 2]


def test_alone(place):
    """Without a coordinator there is one process."""
    array = np.arange(10)
    with GroupCheckpointer.open(place, {"a": array}) as checkpoints:
        checkpoints.save(1, wait=True)
    assert (GroupChain(place).load("a") == array).all()


def test_old_states_are_removed_with_all_that_belongs_to_them(place):
    """Of earlier runs, too, and what the newest needs stays."""
    options = {"keep": 2, "grace_period": 0}
    for at, world in enumerate((2, 3, 2, 3), 1):
        train(place, world, 4, wait=True, **options)
        chain = check(place, 4 * at)
        assert len(chain) == 2
    runs = {part.folder.split("/")[1] for state in chain for part in state.parts}
    there = {key.split("/")[1] for key in _keys(place) if key.startswith(("parts/", "votes/"))}
    assert there == runs
    assert len(runs) == 1


def _keys(place):
    from dirtytrack.checkpoint.records import Root

    return [one.key for one in Root.of(place).bucket().find("")]


def test_states_are_kept_for_the_grace_period():
    """Of an object store, where nobody knows who is reading."""
    place = "memory://grace"
    for _ in range(2):
        train(place, 2, 3, keep=1)
    assert len(check(place, 6)) == 1
    runs = {key.split("/")[1] for key in _keys(place) if key.startswith("parts/")}
    assert len(runs) == 2
    train(place, 2, 1, keep=1, grace_period=0)
    assert not runs & {key.split("/")[1] for key in _keys(place)}


def test_a_state_that_is_undecided_is_not_compacted_away(tmp_path, monkeypatch):
    """Though the process's own chain has gone far beyond it: `keep` counts states of all."""
    compacted = threading.Event()
    shorten = compactor.shorten

    def told(*args, **keywords):
        done = shorten(*args, **keywords)
        compacted.set()
        return done

    monkeypatch.setattr(compactor, "shorten", told)
    slow = threading.Event()

    def rank(coordinator):
        arrays = shards(NAMES, coordinator.rank, 2)
        options = {"coordinator": coordinator, "keep": 1, "fsync": False}
        with GroupCheckpointer.open(tmp_path / "group", arrays, **options) as checkpoints:
            for step in range(1, 6):
                step_on(arrays, step)
                save = checkpoints.save({"step": step})
                save.part.wait()
                if coordinator.rank == 0:
                    assert step == 1 or compacted.wait(60) or step < 4
                    slow.set()
                else:
                    assert slow.wait(60)
            if coordinator.rank == 0:
                checkpoints.flush()

    no_errors(in_ranks(2, rank))
    check(tmp_path / "group", 5)


def test_a_part_that_could_not_be_written_aborts_the_state(tmp_path, monkeypatch):
    """It is a vote: no save raises, all are told by whoever waits, and the next state has everything."""
    broken = threading.Event()
    from dirtytrack.checkpoint.store.directory import Directory

    create = Directory.create

    def failing(self, *args, **keywords):
        if broken.is_set() and self.place.endswith("/000001"):
            raise OSError(28, "No space left on device", self.place)
        return create(self, *args, **keywords)

    monkeypatch.setattr(Directory, "create", failing)
    meeting = threading.Barrier(2, timeout=60)

    def rank(coordinator):
        arrays = shards(NAMES, coordinator.rank, 2)
        options = {"coordinator": coordinator, "fsync": False}
        with GroupCheckpointer.open(tmp_path / "g", arrays, **options) as checkpoints:
            for step in range(1, 6):
                step_on(arrays, step)
                meeting.wait()
                (broken.set if step in (2, 3) else broken.clear)()
                meeting.wait()
                save = checkpoints.save({"step": step})
                if step in (2, 3):
                    with pytest.raises(CheckpointError, match=r"rank 1 could not save.*No space left"):
                        save.wait(60)
                    assert checkpoints.meta == {"step": 1}
                else:
                    save.wait(60)

    no_errors(in_ranks(2, rank))
    chain = check(tmp_path / "g", 5)
    assert [state.meta["step"] for state in chain] == [1, 4, 5]


def test_a_state_that_was_aborted_last_is_told_by_close(tmp_path):
    """In all processes, unless somebody was told."""

    def rank(coordinator):
        arrays = shards(NAMES, coordinator.rank, 2)
        options = {"coordinator": coordinator, "fsync": False}
        with GroupCheckpointer.open(tmp_path / "g", arrays, **options) as checkpoints:
            checkpoints.save({"step": coordinator.rank})

    results = in_ranks(2, rank)
    for error in results:
        assert isinstance(error, CheckpointError)
        assert "rank 1 gave another meta than rank 0" in str(error)
        assert str(tmp_path / "g") in str(error)
    with pytest.raises(ChainError, match="holds no state of a group"):
        GroupChain(tmp_path / "g")


def test_another_number_of_saves_is_told(tmp_path):
    """To those with more and to those with less; what they have in common is committed."""

    def rank(coordinator):
        arrays = shards(NAMES, coordinator.rank, 3)
        with GroupCheckpointer.open(tmp_path / "g", arrays, coordinator=coordinator) as checkpoints:
            for step in range(1, 3 + (coordinator.rank == 1)):
                step_on(arrays, step)
                checkpoints.save({"step": step})

    results = in_ranks(3, rank)
    for at, error in enumerate(results):
        assert isinstance(error, CheckpointError if at == 1 else GroupError)
        assert "closed after 2 saves, and others save once more" in str(error)
    check(tmp_path / "g", 2)


def test_a_process_that_ends_by_an_exception_tells_the_others(tmp_path):
    """They need not wait until a time is over, for none of their saves, nor when they close."""

    def rank(coordinator):
        arrays = shards(NAMES, coordinator.rank, 2)
        options = {"coordinator": coordinator, "fsync": False}
        with GroupCheckpointer.open(tmp_path / "g", arrays, **options) as checkpoints:
            checkpoints.save(1, wait=True)
            if coordinator.rank:
                raise ZeroDivisionError
            return [_not_committed(checkpoints.save(step)) for step in (2, 3, 4)]

    told, error = in_ranks(2, rank)
    assert isinstance(error, ZeroDivisionError)
    assert all("rank 1 closed after 1 saves" in one for one in told)


def _not_committed(save):
    with pytest.raises(CheckpointError) as caught:
        save.wait(60)
    return str(caught.value)


def test_a_save_before_an_exception_is_decided(tmp_path, monkeypatch):
    """Its vote is cast when the block ends, if the thread has not got there: the others count on it."""
    put_new = DirectoryBucket.put_new

    def put(self, key, data):
        if "/000001-saved" in key and threading.current_thread().name == "dirtytrack group":
            raise OSError(errno.EIO, "not yet", key)
        return put_new(self, key, data)

    monkeypatch.setattr(DirectoryBucket, "put_new", put)

    def rank(coordinator):
        arrays = shards(NAMES, coordinator.rank, 2)
        options = {"coordinator": coordinator, "fsync": False}
        with GroupCheckpointer.open(tmp_path / "g", arrays, **options) as checkpoints:
            step_on(arrays, 1)
            save = checkpoints.save({"step": 1})
            if coordinator.rank:
                raise ZeroDivisionError
            save.wait(20)

    _, error = in_ranks(2, rank)
    assert isinstance(error, ZeroDivisionError)
    check(tmp_path / "g", 1)


def test_a_process_that_does_not_come_is_not_waited_for_for_ever(tmp_path):
    """Neither by whoever waits for a state, nor by close; it may still be committed."""
    go = threading.Event()

    def rank(coordinator):
        arrays = shards(NAMES, coordinator.rank, 2)
        options = {"coordinator": coordinator, "timeout": 60 if coordinator.rank else 0.02}
        checkpoints = GroupCheckpointer.open(tmp_path / "g", arrays, **options)
        if coordinator.rank:
            assert go.wait(60)
            checkpoints.save(1)
            checkpoints.close()
            return
        save = checkpoints.save(1)
        with pytest.raises(TimeoutError, match=r"save 2 of the group is not decided after 0\.01 s"):
            save.wait(0.01)
        with pytest.raises(TimeoutError):
            checkpoints.close()
        assert checkpoints.closed
        assert save.state == "abandoned"
        with pytest.raises(TimeoutError, match="was not decided when this process closed"):
            save.wait()
        go.set()

    no_errors(in_ranks(2, rank))
    assert GroupChain(tmp_path / "g").meta == 1


def test_a_process_that_can_not_reach_the_group_votes_when_it_can(tmp_path, monkeypatch):
    """The others wait as long as they like; nothing is lost, and nothing is decided without it."""
    gone = threading.Event()
    put_new = DirectoryBucket.put_new

    def put(self, key, data):
        if gone.is_set() and "/000001-" in key:
            raise OSError(errno.EIO, "no route to it", key)
        return put_new(self, key, data)

    monkeypatch.setattr(DirectoryBucket, "put_new", put)
    meeting = threading.Barrier(2, timeout=60)

    def rank(coordinator):
        arrays = shards(NAMES, coordinator.rank, 2)
        options = {"coordinator": coordinator, "fsync": False}
        with GroupCheckpointer.open(tmp_path / "g", arrays, **options) as checkpoints:
            gone.set()
            meeting.wait()
            step_on(arrays, 1)
            save = checkpoints.save({"step": 1})
            save.part.wait()
            with pytest.raises(
                TimeoutError, match="no route to it" if coordinator.rank else "is not decided"
            ):
                save.wait(0.2)
            meeting.wait()
            gone.clear()
            save.wait(60)

    no_errors(in_ranks(2, rank))
    check(tmp_path / "g", 1)


def test_a_run_that_was_overtaken_commits_nothing_any_more(place):
    """Two groups in one place: the first one learns of it by an error that says so, in all processes."""
    train(place, 2, 1)
    inner: list[object] = []
    meeting = threading.Barrier(2, timeout=60)

    def rank(coordinator):
        arrays = shards(NAMES, coordinator.rank, 2)
        with GroupCheckpointer.open(place, arrays, coordinator=coordinator) as checkpoints:
            step_on(arrays, 2)
            checkpoints.save({"step": 2}, wait=True)
            meeting.wait()
            if coordinator.rank == 0:
                inner.extend(train(place, 1, 1))
            meeting.wait()
            save = checkpoints.save({"step": 99})
            with pytest.raises(BusyError, match="two groups in one place"):
                save.wait(60)
            assert save.state == "overtaken"
            with pytest.raises(BusyError, match="two groups in one place"):
                checkpoints.save({"step": 100})

    no_errors(in_ranks(2, rank))
    assert inner == [2]
    check(place, 3)


def test_one_that_was_overtaken_and_not_told_is_told_by_close(tmp_path):
    """Once."""
    array = np.arange(10)
    checkpoints = GroupCheckpointer.open(tmp_path / "g", {"a": array})
    with GroupCheckpointer.open(tmp_path / "g", {"a": array}) as other:
        other.save(2)
    checkpoints.save(1)
    with pytest.raises(BusyError):
        checkpoints.close()
    checkpoints.close()
    assert GroupChain(tmp_path / "g").meta == 2


def test_states_without_a_record_begin_anew(tmp_path):
    """A first run that was killed before all had voted leaves files that nobody needs."""
    place = tmp_path / "g"

    def rank(coordinator):
        checkpoints = GroupCheckpointer.open(
            place, shards(NAMES, coordinator.rank, 2), coordinator=coordinator, timeout=0
        )
        if coordinator.rank == 0:
            checkpoints.save({"step": 1}).part.wait()
        with pytest.raises(TimeoutError):
            checkpoints.close()

    in_ranks(2, rank)
    assert train(place, 3, 1, keep=1) == [0, 0, 0]
    check(place, 1)
    assert len([*(place / "parts").iterdir()]) == 1


def test_an_older_state_is_gone_on_from(place):
    """By its number, on all processes; those after it no longer count."""
    train(place, 2, 3, wait=True)
    number = GroupChain(place).checkpoints[0].number
    array = shards(NAMES, 0, 1)
    with GroupCheckpointer.open(place, array, at=number) as checkpoints:
        assert checkpoints.meta == {"step": 1}
    assert [state.meta["step"] for state in GroupChain(place)] == [1]
    with pytest.raises(ChainError, match="has no state 77"):
        GroupCheckpointer.open(place, array, at=77)


def _open_in_ranks(world, place, regions, **options):
    def rank(coordinator):
        at = coordinator.rank
        mine = place[at] if isinstance(place, list) else place
        with GroupCheckpointer.open(mine, regions[at], coordinator=coordinator, **options) as checkpoints:
            checkpoints.save(1)

    return in_ranks(world, rank)


def _all_say(results, *words):
    for error in results:
        assert isinstance(error, Exception)
        assert all(word in str(error) for word in words), error


def test_a_name_of_two_processes_is_refused(tmp_path):
    """On all of them, and nothing is there."""
    results = _open_in_ranks(
        3, tmp_path / "g", [shards(NAMES, 0, 1), {"x": np.zeros(3)}, shards(NAMES, 0, 1)]
    )
    assert all(isinstance(error, GroupError) for error in results)
    _all_say(results, "rank 0 and rank 2 both have 'shard-0'")
    assert not (tmp_path / "g").exists()


def test_other_names_than_the_group_has_are_refused(tmp_path):
    """Unless they are meant."""
    place = tmp_path / "g"
    train(place, 2, 1)
    before = Records(_bucket(place)).newest()
    fewer = [shards(NAMES[:-1], rank, 2) for rank in (0, 1)]
    fewer[0]["new"] = np.ones(4)
    results = _open_in_ranks(2, place, fewer)
    assert all(isinstance(error, GroupError) for error in results)
    _all_say(results, str(place), "no process has memory for 'shard-4'", "it has no 'new'", "strict=False")
    assert Records(_bucket(place)).newest() == before
    no_errors(_open_in_ranks(2, place, fewer, strict=False))
    chain = GroupChain(place)
    assert set(chain.newest.names) == {*NAMES[:-1], "new"}
    assert (chain.load("new") == 1).all()
    np.testing.assert_array_equal(chain.load("shard-0"), after("shard-0", 1))


def _bucket(place):
    from dirtytrack.checkpoint.records import Root

    return Root.of(place).bucket()


def test_processes_with_other_paths_are_refused(tmp_path):
    """It says whose."""
    results = _open_in_ranks(2, [tmp_path / "a", tmp_path / "b"], [{"a": np.zeros(1)}, {"b": np.zeros(1)}])
    _all_say(results, str(tmp_path / "a"), str(tmp_path / "b"), "rank 1")


def test_processes_that_count_differently_are_refused(tmp_path):
    """Else some would be waited for that nobody has started, or left out."""

    def rank(coordinator):
        meet = file_coordinator(tmp_path / "meet", coordinator.rank, 2 + coordinator.rank, timeout=60)
        arrays = shards(NAMES, coordinator.rank, 2)
        GroupCheckpointer.open(tmp_path / "g", arrays, coordinator=meet)

    _all_say(in_ranks(2, rank), "rank 1 was told of 3 processes, and rank 0 of 2")


@pytest.mark.parametrize(
    ("bad", "kind", "words"),
    [
        ({"regions": {"b": b"read-only"}}, (TypeError, ValueError), "region 'b'"),
        ({"regions": {}}, ValueError, "no region"),
        ({"options": {"compression": "bad"}}, ValueError, "compression"),
        ({"options": {"keep": 0}}, ValueError, "keep=0"),
        ({"place": "ftp://x/y"}, ValueError, "ftp"),
        ({"options": {"keep": "all"}}, TypeError, "keep is a whole number or a Keep, not 'all'"),
        ({"options": {"timeout": "x"}}, TypeError, "timeout is a number of seconds"),
        ({"options": {"timeout": -1}}, ValueError, "timeout=-1"),
        ({"options": {"timeout": float("nan")}}, ValueError, "timeout=nan"),
        (
            {"options": {"kepp": 3}},
            TypeError,
            "GroupCheckpointer.open() got an unexpected keyword argument 'kepp': there are session, keep",
        ),
    ],
)
def test_what_is_wrong_in_one_process_is_told_to_all(tmp_path, bad, kind, words):
    """With its rank; it gets the error itself."""

    def rank(coordinator):
        mine = bad if coordinator.rank else {}
        regions = mine.get("regions", {"ab"[coordinator.rank]: np.zeros(3)})
        place = mine.get("place", tmp_path / "g")
        return GroupCheckpointer.open(place, regions, coordinator=coordinator, **mine.get("options", {}))

    other, own = in_ranks(2, rank)
    assert isinstance(own, kind)
    assert not isinstance(own, GroupError)
    assert isinstance(other, GroupError)
    _all_say([other, own], words)
    assert "rank 1: " in str(other)
    assert not (tmp_path / "g").exists()


def test_what_is_wrong_in_all_processes_is_said_once(tmp_path):
    """With the first few of them."""
    errors = in_ranks(9, lambda coordinator: _open_wrong(tmp_path / "g", coordinator))
    assert [type(error) for error in errors] == [ValueError] * 8 + [GroupError]
    told = str(errors[-1])
    assert told.startswith("the group was not opened. ranks 0, 1, 2, 3, 4 and 3 more: ValueError: keep=0")
    assert told.count("keep=0") == 1


def _open_wrong(place, coordinator):
    keep = 0 if coordinator.rank < 8 else 1
    name = f"a{coordinator.rank}"
    return GroupCheckpointer.open(place, {name: np.zeros(3)}, coordinator=coordinator, keep=keep)


@pytest.mark.parametrize("url", ["memory://", "s3://"])
def test_a_url_without_a_name_is_refused(url):
    """By the URL as it was given."""
    with pytest.raises(StoreError, match=f"{url}(: |' is not {url}name)"):
        GroupCheckpointer.open(url, {"a": np.zeros(3)})


def test_what_is_no_coordinator_and_no_state_is_refused(tmp_path):
    """Before anything is made."""
    with pytest.raises(TypeError, match="rank, world, gather, broadcast and close"):
        GroupCheckpointer.open(tmp_path / "g", {"a": np.zeros(3)}, coordinator=object())
    with pytest.raises(TypeError, match="number of a state"):
        GroupCheckpointer.open(tmp_path / "g", {"a": np.zeros(3)}, at=True)
    assert not (tmp_path / "g").exists()


def test_memory_that_does_not_fit_is_told_to_all(tmp_path):
    """Nobody begins."""
    train(tmp_path / "g", 2, 1)
    wrong = [shards(NAMES, 0, 2), shards(NAMES, 1, 2, size=17)]
    other, own = _open_in_ranks(2, tmp_path / "g", wrong)
    assert isinstance(own, ChainError)
    assert isinstance(other, GroupError)
    _all_say([other, own], "shard-1")
    check(tmp_path / "g", 1)
    assert train(tmp_path / "g", 2, 1) == [1, 1]


def test_a_chain_of_one_process_is_no_group(place):
    """It stays as it is."""
    array = np.arange(10)
    with Checkpointer(place, {"a": array}) as checkpoints:
        checkpoints.save(1)
    with pytest.raises(FileExistsError, match="a chain of one process is there"):
        GroupCheckpointer.open(place, {"a": array})


def test_where_a_group_is_there_is_no_chain_of_one_process(place):
    """They would be taken for each other; who looks for one is told what to use."""
    train(place, 1, 1)
    for begin in (Checkpointer, Checkpointer.open):
        with pytest.raises(FileExistsError, match="a group of processes has saved there"):
            begin(place, {"a": np.zeros(3)})
    for read in (Chain, load):
        with pytest.raises(ChainError, match=r"no checkpoint of one process.*which GroupChain reads"):
            read(place)
    check(place, 1)


def test_a_file_is_no_group(tmp_path):
    """It is named as it was given."""
    path = tmp_path / "file"
    path.write_text("x")
    for act in (GroupChain, GroupCheckpointer.begin, lambda path: GroupCheckpointer.open(path, {"a": []})):
        with pytest.raises((NotADirectoryError, TypeError, ValueError)) as caught:
            act(path)
        assert "records" not in str(caught.value)
    with pytest.raises(NotADirectoryError) as caught:
        GroupChain(path)
    assert caught.value.filename == str(path)


def test_a_path_that_not_all_see_is_found_out(tmp_path, monkeypatch):
    """Where each node has a directory of that name."""

    def rank(coordinator):
        if coordinator.rank:
            monkeypatch.setattr(Records, "find", lambda *_: None)
        return GroupCheckpointer.open(
            tmp_path / "g", {"ab"[coordinator.rank]: np.zeros(3)}, coordinator=coordinator
        )

    results = in_ranks(2, rank)
    assert any(isinstance(error, GroupError) for error in results)
    _all_say(results, "one that all processes see", "mirror=")


def test_a_process_that_never_comes_ends_the_opening(tmp_path):
    """In a bounded time, with its rank."""
    coordinator = file_coordinator(tmp_path / "meet", 0, 3, timeout=0.05)
    with pytest.raises(TimeoutError, match=r"rank 1 of 3 did not come within 0\.05 s"):
        GroupCheckpointer.open(tmp_path / "g", {"a": np.zeros(3)}, coordinator=coordinator)
    other = file_coordinator(tmp_path / "meet", 1, 3, timeout=0.05)
    with pytest.raises(TimeoutError, match="rank 0 of 3 did not come"):
        GroupCheckpointer.open(tmp_path / "g", {"b": np.zeros(3)}, coordinator=other)
    assert not (tmp_path / "g").exists()


def test_a_save_with_a_bad_meta_does_nothing(tmp_path):
    """It is not counted: the next one is the first."""
    with GroupCheckpointer.open(tmp_path / "g", {"a": np.zeros(3)}) as checkpoints:
        with pytest.raises(TypeError, match="meta must be JSON"):
            checkpoints.save({1, 2})
        assert checkpoints.save(wait=True).number == 2


def test_it_belongs_to_its_process(tmp_path, in_a_child):
    """A forked child can close it, and nothing else."""
    with GroupCheckpointer.open(tmp_path / "g", {"a": np.zeros(3)}) as checkpoints:

        def child():
            with pytest.raises(ForkedError):
                checkpoints.save()
            checkpoints.close()

        assert in_a_child(child).error == ""
        checkpoints.save("parent", wait=True)
    assert GroupChain(tmp_path / "g").meta == "parent"


def test_regions_may_change_hands(place):
    """Between two saves; each state has the names that it was saved with."""
    meeting = threading.Barrier(2, timeout=60)

    def rank(coordinator):
        mine, other = {"a": np.zeros(3000)}, {"b": np.ones(3000)}
        if coordinator.rank:
            mine, other = other, mine
        with GroupCheckpointer.open(place, mine, coordinator=coordinator, fsync=False) as checkpoints:
            checkpoints.save(1)
            mine = {name: array + 1 for name, array in mine.items()}  # elsewhere
            checkpoints.bind(mine)
            checkpoints.save(2, wait=True)
            meeting.wait()
            extra = {"c": np.full(7, 5.0)} if coordinator.rank else {}
            checkpoints.bind({**other, **extra})
            checkpoints.save(3)
            if coordinator.rank:
                checkpoints.bind({**other, **mine, **extra})
            save = checkpoints.save(4)
            with pytest.raises(CheckpointError, match="rank 0 and rank 1 both have 'b'"):
                save.wait(60)
            checkpoints.bind({**other, **extra})
            checkpoints.save(5)

    no_errors(in_ranks(2, rank))
    chain = GroupChain(place)
    assert [(state.meta, state.names) for state in chain] == [
        (1, ("a", "b")),
        (2, ("a", "b")),
        (3, ("a", "b", "c")),
        (5, ("a", "b", "c")),
    ]
    found = [[float(chain.load(name, at=state.number)[0]) for name in "ab"] for state in chain]
    assert found == [[0, 1], [1, 2], [0, 1], [0, 1]]
    assert chain.load("c").tolist() == [5.0] * 7
    assert chain.verify() == []


def test_a_child_does_not_wait_for_a_thread_that_it_does_not_have(tmp_path, monkeypatch, in_a_child):
    """Its parent's waits in flush, while it forks."""
    forked, waits = threading.Event(), threading.Event()
    wait_for = Voter.wait_for

    def wait_for_it(self, *args):
        waits.set()
        wait_for(self, *args)

    monkeypatch.setattr(Voter, "wait_for", wait_for_it)

    def rank(coordinator):
        arrays = shards(NAMES, coordinator.rank, 2)
        checkpoints = GroupCheckpointer.open(tmp_path / "g", arrays, coordinator=coordinator, fsync=False)
        if coordinator.rank:
            forked.wait(60)
            checkpoints.save()
            checkpoints.close()
            return None
        save = checkpoints.save()
        waiting = threading.Thread(target=checkpoints.flush)
        waiting.start()
        assert waits.wait(60)

        def child():
            for act in (checkpoints.save, checkpoints.flush, checkpoints.prepare):
                with pytest.raises(ForkedError):
                    act()
            checkpoints.close()

        try:
            return in_a_child(child).error
        finally:
            forked.set()
            waiting.join()
            assert save.state == "committed"
            checkpoints.close()

    assert no_errors(in_ranks(2, rank))[0] == ""


@pytest.fixture
def in_a_child():
    """Runs something in a forked child."""
    from _lib.support import in_child

    return in_child


def test_records_are_json(place):
    """Readable by whoever looks at the place."""
    train(place, 2, 1)
    bucket = _bucket(place)
    records = [one.key for one in bucket.find("records/")]
    assert [json.loads(bucket.get(key).split(b"\n")[0])["kind"] for key in records] == ["committed", "opened"]
    assert Path(records[0]).name == f"{10**20 - 1 - 2}.json"
