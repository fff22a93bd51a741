"""A chain in a bucket: what lies there, how many requests it takes, who wins, and what is removed when."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from _lib.checkpoint.buckets import FaultyBucket, ModelBucket
from _lib.checkpoint.faulty_store import Trouble
from _lib.checkpoint.world import World, restored
from _lib.support import in_child
from dirtytrack import BusyError, CheckpointError, ForkedError, UnsupportedError
from dirtytrack.checkpoint import Chain, Checkpointer, Keep, compact, load
from dirtytrack.checkpoint.store.commits import CommitLog, sealed
from dirtytrack.checkpoint.store.objects import ObjectStore
from dirtytrack.checkpoint.store.obstore_bucket import ObstoreBucket

BLOCK = 4096


@pytest.fixture
def bucket():
    return ModelBucket()


def _chain(bucket, count, **keywords):
    """A world whose last of so many states is in the bucket."""
    world = World(5, 1)
    with Checkpointer(ObjectStore(bucket), world.regions, **keywords) as checkpoints:
        for _ in range(count):
            world.touch()
            checkpoints.save(wait=True)
    return world


def _said(bucket, number):
    return json.loads(bucket.objects[f"commits/{10**20 - 1 - number:020d}.json"][0].partition(b"\n")[0])


def test_the_layout_is_as_documented(bucket):
    """A commit names the files of its state, with their lengths and the commits that they came by."""
    _chain(bucket, 3)
    data = sorted(key for key in bucket.objects if key.startswith("data/"))
    assert [key.rpartition(".")[2] for key in data] == ["base", "delta", "delta"]
    assert len(bucket.objects) == 6
    said = _said(bucket, 3)
    assert (said["floor"], said["others"]) == (0, [])
    assert [name for name, *_ in said["files"]] == [key.removeprefix("data/") for key in data]
    assert [commit for *_, commit in said["files"]] == [1, 2, 3]
    for name, nbytes, tail, _ in said["files"]:
        stored = bucket.objects[f"data/{name}"][0]
        index = int.from_bytes(stored[-64:-56], "little")
        assert (nbytes, tail) == (len(stored), len(stored) - index)


def test_the_files_are_those_of_a_directory(bucket, tmp_path):
    """Fetched by any other means they are a chain."""
    world = _chain(bucket, 4)
    for key, (data, _) in bucket.objects.items():
        if key.startswith("data/"):
            (tmp_path / key.removeprefix("data/")).write_bytes(data)
    assert restored(tmp_path, world.sizes) == world.contents()


def test_a_chain_goes_from_a_directory_to_a_bucket_and_back(bucket, tmp_path):
    """By export, with all its states, from linear bases too."""
    world = World(5, 1)
    with Checkpointer(tmp_path / "a", world.regions, compression="none") as checkpoints:
        for _ in range(3):
            world.touch()
            checkpoints.save(wait=True)
    store = ObjectStore(bucket)
    with Chain(tmp_path / "a") as chain:
        names = chain.export(store)
    assert [f"data/{name}" for name in names] == sorted(
        key for key in bucket.objects if key.startswith("data")
    )
    with Chain(store) as chain:
        assert [one.number for one in chain] == [1, 2, 3]
        assert chain.verify() == ()
        chain.export(tmp_path / "b", at=2)
    assert [path.name for path in sorted((tmp_path / "b").glob("*.*"))] == [*names[:2]]
    with pytest.raises(FileExistsError), Chain(tmp_path / "a") as chain:
        chain.export(store)
    assert restored(store, world.sizes) == world.contents()


def test_an_export_that_fails_leaves_no_chain(bucket, tmp_path):
    """Nothing that a reader sees; another one can be begun there."""
    world = World(5, 1)
    with Checkpointer(tmp_path, world.regions) as checkpoints:
        for _ in range(3):
            world.touch()
            checkpoints.save()
    trouble = Trouble(10)
    with pytest.raises(OSError, match="Input/output"), Chain(tmp_path) as chain:
        chain.export(ObjectStore(FaultyBucket(bucket, trouble)))
    assert trouble.struck
    assert ObjectStore(bucket).names() == []
    with Chain(tmp_path) as chain:
        chain.export(ObjectStore(bucket))
    assert restored(ObjectStore(bucket), world.sizes) == world.contents()


def _many_commits(bucket, count):
    """As many commits of one state as there are in a bucket after a long time."""
    world = _chain(bucket, 1)
    log = CommitLog(bucket)
    said = log.newest().body
    data = dict(bucket.objects)

    class Log(CommitLog):
        def _listed(self):
            return []

    log = Log(bucket)
    log.number = 1
    for _ in range(count - 1):
        log.append(lambda _: {key: said[key] for key in ("files", "floor", "others")})
    bucket.objects |= data
    return world


def test_opening_takes_five_requests(bucket):
    """However many commits there are: a page of a listing, the next one, the newest, a probe, the file."""
    world = _many_commits(bucket, 5000)
    bucket.requests.clear()
    with Checkpointer.open(ObjectStore(bucket), world.regions) as checkpoints:
        assert checkpoints.resumed
        opening = dict(bucket.requests)
    assert sum(opening.values()) == 5, opening
    assert (opening["list"], opening["size"], opening["get"], opening["put_new"]) == (1, 1, 1, 1)
    bucket.requests.clear()
    assert restored(ObjectStore(bucket), world.sizes) == world.contents()
    assert sum(bucket.requests.values()) == 4


def test_a_save_takes_three_requests(bucket):
    """The file, the commit, and whether a greater one is there."""
    world = _chain(bucket, 1)
    with Checkpointer.open(ObjectStore(bucket), world.regions) as checkpoints:
        bucket.requests.clear()
        for _ in range(3):
            world.touch()
            checkpoints.save(wait=True)
        assert bucket.requests == {"put": 3, "put_new": 3, "list": 3}


def test_a_slice_takes_few_ranges():
    """Of each of a hundred files no more than three, and little more than what is needed."""
    bucket = ModelBucket()
    store = ObjectStore(bucket)
    draw = np.random.default_rng(1)
    array = draw.integers(0, 256, 64 << 20, dtype=np.uint8)
    with Checkpointer(store, {"a": array}, compression="none") as checkpoints:
        checkpoints.save(wait=True)
        for step in range(99):
            array[draw.integers(0, len(array), 200 if step % 10 else 2000)] += 1
            checkpoints.save(wait=True)
    bucket.requests.clear()
    start, stop = 10 << 20, 11 << 20
    with Chain(ObjectStore(bucket)) as chain:
        assert chain.read("a", start, stop) == array[start:stop].tobytes()
    asked = {key: count for key, count in bucket.requests.items() if key.startswith("get_range")}
    assert len(asked) == 100
    assert max(asked.values()) <= 3


def test_no_more_is_fetched_than_needed(bucket):
    """Of a base, its ends and the segments with the slice."""
    array = np.random.default_rng(1).integers(0, 256, 64 << 20, dtype=np.uint8)
    with Checkpointer(ObjectStore(bucket), {"a": array}, compression="none") as checkpoints:
        checkpoints.save(wait=True)
    fetched = []

    class Counting(ModelBucket):
        def get_range(self, key, start, stop):
            fetched.append(stop - start)
            return bucket.get_range(key, start, stop)

    counting = Counting()
    counting.objects = bucket.objects
    with Chain(ObjectStore(counting)) as chain:
        assert chain.read("a", 5 << 20, 6 << 20) == array[5 << 20 : 6 << 20].tobytes()
    assert len(fetched) <= 3
    assert sum(fetched) < 9 << 20


def test_a_file_longer_than_a_part_is_uploaded_in_parts(bucket):
    """While the rest is still to come; its header is its first bytes all the same."""
    array = np.random.default_rng(1).integers(0, 256, 40 << 20, dtype=np.uint8)
    with Checkpointer(ObjectStore(bucket), {"a": array}, compression="none") as checkpoints:
        assert checkpoints.save(wait=True).kind == "base"
        assert bucket.requests["upload"] == 1
        array += 1
        assert checkpoints.save(wait=True).kind == "delta"  # too late to make a base of it
        assert bucket.requests["upload"] == 2
    assert (load(ObjectStore(bucket))["a"] == array).all()


def test_an_upload_that_fails_is_told_by_its_save(bucket):
    """Nothing is there, and the next save has everything."""
    array = np.random.default_rng(1).integers(0, 256, 40 << 20, dtype=np.uint8)

    class Failing(ModelBucket):
        def upload(self, key, pieces, part_bytes):
            if not self.requests["upload"]:
                self.requests["upload"] += 1
                next(pieces)
                raise OSError(5, "the server went away", key)
            super().upload(key, pieces, part_bytes)

    failing = Failing()
    with Checkpointer(ObjectStore(failing), {"a": array}, compression="none") as checkpoints:
        with pytest.raises(CheckpointError, match="the server went away"):
            checkpoints.save(wait=True)
        assert failing.objects == {}
        array[7] += 1
        checkpoints.save(wait=True)
    assert (load(ObjectStore(failing))["a"] == array).all()


def test_a_reader_beside_a_compaction_misses_nothing(bucket):
    """The commits that it is about to read are replaced by one between its requests."""
    memory = bytearray(20_000)

    class Between(ModelBucket):
        def find(self, prefix):
            if prefix == "commits/" and self.act is not None:
                act, self.act = self.act, None
                act()
            return super().find(prefix)

    between = Between()
    with Checkpointer(ObjectStore(between, 0), {"a": memory}, keep=2) as checkpoints:
        between.act = None
        for number in range(3):
            memory[:] = bytes([number + 1]) * len(memory)
            checkpoints.save(wait=True)
        between.act = lambda: checkpoints.compact(wait=True)
        names = ObjectStore(between).names()
        assert between.act is None
    assert sorted(int(name[:10]) for name in names) == [2, 3]


def test_a_second_writer_is_told_when_it_commits(bucket):
    """Not when it opens. Its save raises BusyError, its close does not again, and what is there stays."""
    world = _chain(bucket, 2)
    second = World(5, 1)
    with (
        Checkpointer.open(ObjectStore(bucket), world.regions) as winner,
        Checkpointer.open(ObjectStore(bucket), second.regions) as loser,
    ):
        winner.save(meta="won", wait=True)
        second.touch()
        with pytest.raises(BusyError, match=r"Another writer has made commit 3.*at another URL"):
            loser.save(meta="lost", wait=True)
        with pytest.raises(BusyError):
            loser.save(meta="lost again", wait=True)
    with Chain(ObjectStore(bucket)) as chain:
        assert [one.meta for one in chain] == [None, None, "won"]
    assert restored(ObjectStore(bucket), world.sizes) == world.contents()


def test_sixteen_writers_at_one_number(bucket):
    """One commits, the others are told by their saves, and the chain goes on from the one."""
    world = _chain(bucket, 1)
    others = [World(5, 1) for _ in range(16)]
    writers = [Checkpointer.open(ObjectStore(bucket), one.regions) for one in others]
    start, told = threading.Barrier(16, timeout=60), {}

    def write(at):
        others[at].touch(at=at)
        start.wait()
        try:
            told[at] = writers[at].save(meta=at, wait=True).state
        except BusyError as error:
            told[at] = type(error).__name__

    threads = [threading.Thread(target=write, args=(at,)) for at in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for writer in writers:
        writer.close()
    (winner,) = [at for at, how in told.items() if how == "committed"]
    assert sorted(told.values()) == ["BusyError"] * 15 + ["committed"]
    with Chain(ObjectStore(bucket)) as chain:
        assert [one.meta for one in chain] == [None, winner]
    assert restored(ObjectStore(bucket), world.sizes) == others[winner].contents()


def test_one_store_has_one_claim(bucket):
    """Two writers in one program have a store each."""
    store = ObjectStore(bucket)
    with store.claim() and pytest.raises(BusyError, match="This process"):
        store.claim()


def test_a_bucket_that_replaces_is_refused(bucket):
    """Before anything is written; reading from it is no matter."""
    world = _chain(bucket, 1)
    bucket.keeps_its_word = False
    before = dict(bucket.objects)
    with pytest.raises(UnsupportedError, match="model://bucket"):
        Checkpointer.open(ObjectStore(bucket), world.regions)
    with pytest.raises(UnsupportedError, match="model://bucket"):
        compact(ObjectStore(bucket))
    assert bucket.objects == before
    assert restored(ObjectStore(bucket), world.sizes) == world.contents()


def test_what_was_removed_stays_for_a_while(bucket):
    """Who opened the chain before a compaction reads on; after the grace period the next one removes it."""
    store = ObjectStore(bucket, grace_period=3600)
    world = World(5, 1)
    with Checkpointer(store, world.regions) as checkpoints:
        for _ in range(3):
            world.touch()
            checkpoints.save(wait=True)
        old = world.contents()
        with Chain(ObjectStore(bucket)) as reader:
            checkpoints.compact(wait=True)
            with Chain(ObjectStore(bucket)) as another:
                assert [one.number for one in another] == [3]
            bucket.now += 3599
            world.touch()
            checkpoints.save(wait=True)
            checkpoints.compact(wait=True)
            assert {name: reader.read(name, at=3) for name in world.sizes} == old
            files = len([key for key in bucket.objects if key.startswith("data/")])
            bucket.now += 3601
            world.touch()
            checkpoints.save(wait=True)
            checkpoints.compact(wait=True)
            assert len([key for key in bucket.objects if key.startswith("data/")]) < files
        bucket.now += 3601
        checkpoints.compact(wait=True)
    kinds = sorted(key.partition("/")[0] for key in bucket.objects)
    assert kinds == ["commits", "commits", "data"]  # the older one is what readers go by till now
    assert restored(ObjectStore(bucket), world.sizes) == world.contents()


def test_what_the_dead_have_left_is_removed_in_its_time(bucket):
    """Files that no commit names, and objects of a probe; not those of somebody who is at it."""
    world = _chain(bucket, 2)
    bucket.put("data/0000000003-0000000000000000.delta", b"half")
    bucket.put("probe/00", b"")
    bucket.now += 3000
    bucket.put("data/0000000003-0000000000000001.delta", b"just now")
    bucket.now += 1000
    done = compact(ObjectStore(bucket, grace_period=3600))
    assert "0000000003-0000000000000000.delta" in done.removed
    assert "probe/00" not in bucket.objects
    assert "data/0000000003-0000000000000001.delta" in bucket.objects
    assert restored(ObjectStore(bucket), world.sizes) == world.contents()


def test_an_upload_under_way_is_no_garbage(bucket):
    """Even where the service dates an object by the beginning of its upload, which was long ago."""
    store = ObjectStore(bucket, grace_period=0)
    world = World(5, 1)
    with Checkpointer(store, world.regions) as checkpoints:
        checkpoints.save(wait=True)
        coming = store.create("0000000009-0000000000000000.delta", b"first")
        bucket.put("data/0000000009-0000000000000000.delta", b"first and last")
        checkpoints.compact(wait=True)
        assert "data/0000000009-0000000000000000.delta" in bucket.objects
        coming.discard()


def test_an_upload_that_begins_beside_the_collector_is_no_garbage(bucket):
    """Begun and complete while it lists what is there, and committed afterwards."""
    world = World(5, 1)
    beside = []

    class Listing(ModelBucket):
        def find(self, prefix):
            found = [*super().find(prefix)]
            if prefix == "data/" and not beside:
                beside.append(store.create("0000000009-0000000000000000.delta", b"first"))
                self.put("data/0000000009-0000000000000000.delta", b"first and last")
                found = [*super().find(prefix)]
            return iter(found)

    listing = Listing()
    store = ObjectStore(listing, grace_period=0)
    with Checkpointer(store, world.regions) as checkpoints:
        checkpoints.save(wait=True)
        checkpoints.compact(wait=True)
        assert "data/0000000009-0000000000000000.delta" in listing.objects
        beside[0].discard()


def test_the_clock_of_the_machine_does_not_count(bucket):
    """Ages are by the clock of the store, whatever the one here says."""
    store = ObjectStore(bucket, grace_period=3600)
    for now in (0.0, 1e12):
        bucket.now = now
        for key in [*bucket.objects]:
            bucket.delete([key])
        world = World(5, 1)
        with Checkpointer(store, world.regions) as checkpoints:
            for _ in range(2):
                world.touch()
                checkpoints.save(wait=True)
            checkpoints.compact(wait=True)
        assert len([key for key in bucket.objects if key.startswith("data/")]) == 3
        assert restored(ObjectStore(bucket), world.sizes) == world.contents()


def test_keep_bounds_a_chain(bucket):
    """By itself, and what a reader is given are the newest of it, branches included."""
    store = ObjectStore(bucket, grace_period=0)
    world = World(5, 1)
    with Checkpointer(store, world.regions, keep=3) as checkpoints:
        for step in range(30):
            world.scribble()
            checkpoints.save(meta=step, wait=True)
    with Chain(ObjectStore(bucket)) as chain:
        metas = [one.meta for one in chain]
        assert metas == [*range(30 - len(metas), 30)]
        assert 3 <= len(metas) <= 7
        assert chain.verify() == ()
    assert restored(ObjectStore(bucket), world.sizes) == world.contents()


def test_older_checkpoints_are_kept_by_rule(bucket):
    """Each has a base of its own then, which the floor names; one that is retained keeps its files."""
    world = World(5, 1)
    store, states = ObjectStore(bucket, grace_period=0), {}
    with Checkpointer(store, world.regions, keep=Keep(2, every=5)) as checkpoints:
        for step in range(1, 20):
            world.scribble()
            saved = checkpoints.save(wait=True)
            states[step] = world.contents()
            if step == 3:
                checkpoints.retain([saved.id])
        checkpoints.compact(wait=True)
        world.scribble()
        checkpoints.save(wait=True)
        states[20] = world.contents()
    with Chain(ObjectStore(bucket)) as chain:
        assert chain.verify() == ()
        assert [one.number for one in chain] == [1, 2, 3, 5, 10, 15, 18, 19, 20]
        for one in chain:
            assert {name: chain.read(name, at=one.id) for name in world.sizes} == states[one.number]
    assert restored(ObjectStore(bucket), world.sizes) == world.contents()


def test_regions_come_and_go(bucket):
    """The chain goes on with a delta, as in a directory."""
    arrays = {name: np.full(3 * BLOCK, 7, np.uint8) for name in ("a", "b")}
    with Checkpointer(ObjectStore(bucket), {"a": arrays["a"]}) as checkpoints:
        checkpoints.save(wait=True)
        checkpoints.add("b", arrays["b"])
        checkpoints.save(wait=True)
        arrays["b"][5] = 1
        checkpoints.save(wait=True)
    with Chain(ObjectStore(bucket)) as chain:
        assert [one.kind for one in chain] == ["base", "delta", "delta"]
        assert chain.read("b") == arrays["b"].tobytes()


def test_branches_are_found(bucket):
    """States that the newest one does not stand on are read from their own commits."""
    world = _chain(bucket, 3)
    states = {}
    for at in (2, 1, 3):
        with Checkpointer.resume(ObjectStore(bucket), world.regions, at=at) as checkpoints:
            world.touch("second", 3)
            number = checkpoints.save(wait=True).number
            states[number] = world.contents()
    assert [*states] == [4, 5, 6]
    with Chain(ObjectStore(bucket)) as chain:
        assert [one.number for one in chain] == [1, 2, 3, 4, 5, 6]
        for number, contents in states.items():
            assert {name: chain.read(name, at=number) for name in world.sizes} == contents


def test_a_damaged_commit_is_found_by_verify(bucket):
    """The state before it is restored, so the bucket would look intact without a word."""
    _chain(bucket, 3)
    key = CommitLog(bucket).key(3)
    bucket.put(key, bucket.objects[key][0][:-5])
    with Chain(ObjectStore(bucket)) as chain:
        assert chain.problems == ()
        (problem,) = chain.verify()
        assert (problem.file, problem.number) == (key, 0)
        assert problem.reason.endswith("; what it committed can't be restored")
        assert (chain.problems, chain.newest.number) == ((problem,), 2)


def test_a_damaged_file_costs_what_stands_on_it(bucket):
    """The newest state that needs no damaged file is restored, whatever the newest commit says."""
    world = World(5, 1)
    states = {}
    with Checkpointer(ObjectStore(bucket), world.regions) as checkpoints:
        for number in range(1, 5):
            world.touch(at=(number - 1) * BLOCK)
            states[number] = world.contents()
            checkpoints.save(wait=True)
    (key,) = [key for key in bucket.objects if key.startswith("data/0000000003")]
    data = bytearray(bucket.objects[key][0])
    data[128] ^= 1
    bucket.put(key, data)
    assert restored(ObjectStore(bucket), world.sizes) == states[2]
    bucket.delete([key])
    assert restored(ObjectStore(bucket), world.sizes) == states[2]
    with Chain(ObjectStore(bucket)) as chain:
        assert [one.number for one in chain] == [1, 2]


def test_a_child_is_refused(bucket):
    """What a parent has opened is of no use in its child: an error, and no hang."""
    from obstore.store import MemoryStore

    opened = ObstoreBucket("memory://x", MemoryStore())
    opened.put("key", b"data")

    def use():
        with pytest.raises(ForkedError, match="open it again"):
            opened.get("key")

    in_child(use).check()


def test_the_shell_knows_urls(tmp_path, capsys):
    """All verbs, in one process, where a memory can be seen."""
    from dirtytrack.cli import main

    array = np.arange(5000.0)
    with Checkpointer("memory://shell", {"a": array}) as checkpoints:
        for step in range(3):
            array[step] = -1
            checkpoints.save(meta=step)
    assert main(["checkpoint", "list", "memory://shell", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["path"], [one["number"] for one in said["checkpoints"]]) == ("memory://shell", [1, 2, 3])
    assert main(["checkpoint", "verify", "memory://shell"]) == 0
    assert main(["checkpoint", "restore", "memory://shell", "--into", str(tmp_path)]) == 0
    assert (np.load(tmp_path / "a.npy") == array).all()
    assert main(["checkpoint", "copy", "memory://shell", "memory://shell-2"]) == 0
    assert main(["checkpoint", "copy", "memory://shell", str(tmp_path / "copy")]) == 0
    assert main(["checkpoint", "copy", f"file://{tmp_path}/copy", "memory://shell-3"]) == 0
    assert main(["checkpoint", "compact", "memory://shell-2", "--grace-period", "0"]) == 0
    with Chain("memory://shell-2") as chain:
        assert [one.kind for one in chain] == ["base"]
        assert len(chain.disk_usage()) == 1
    for place in ("memory://shell-2", "memory://shell-3", Path(tmp_path, "copy")):
        assert (load(place)["a"] == array).all()
    shutil.rmtree(tmp_path / "copy")
    capsys.readouterr()
    for arguments, told in (
        (["list", "ftp://x/y"], "of no known kind"),
        (["list", "memory://nothing"], "memory://nothing holds no checkpoint"),
        (["list", str(tmp_path), "--store-option", "region=x"], "has no store_options"),
        (["list", "s3://b/x", "--store-option", "no_such=x"], "no_such"),
        (["compact", "memory://nothing"], "memory://nothing holds no checkpoint"),
    ):
        assert main(["checkpoint", *arguments]) == 1
        assert told in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["checkpoint", "list", "s3://b/x", "--store-option", "region"])
    assert "KEY=VALUE" in capsys.readouterr().err


def test_of_a_hundred_thousand_commits_one_is_read(bucket):
    """Who writes asks five times, whatever lies there, and who reads three times."""
    world = _chain(bucket, 1)
    said = _said(bucket, 1)
    log = CommitLog(bucket)
    for number in range(2, 100_001):
        body = {**said, "number": number}
        bucket.objects[log.key(number)] = sealed(body), bucket.now
    bucket.requests.clear()
    with Checkpointer.open(ObjectStore(bucket), world.regions) as checkpoints:
        asked = bucket.requests.copy()
        world.touch()
        checkpoints.save(wait=True)
    assert sum(asked.values()) == 5
    assert {key.partition(" ")[0]: count for key, count in asked.items()} == {
        "list": 1,
        "size": 1,
        "get": 1,  # the newest commit
        "put_new": 1,  # whether that can be put twice
        "get_range": 1,  # the base
    }
    bucket.requests.clear()
    assert restored(ObjectStore(bucket), world.sizes) == world.contents()
    assert sum(bucket.requests.values()) == 5  # a delta, too
    assert max(log.all()) == 100_001
