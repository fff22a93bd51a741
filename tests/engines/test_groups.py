"""States of many processes in real object stores: whoever is killed when, and whatever the store refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from _lib import limits
from _lib.group.ranks import after, check_states, in_ranks, no_errors, shards, step_on
from dirtytrack import GroupError
from dirtytrack.group import GroupChain, GroupCheckpointer, compact_group

ROUNDS = int(os.environ.get("DIRTYTRACK_TORTURE_KILLS") or 12)  # in each store, and each way
NAMES = [f"shard-{at}" for at in range(4)]
_TESTS = Path(__file__).parents[1]


@pytest.fixture(params=["bucket", "mirror"])
def where(request, url, tmp_path):
    """The path that a rank is given, and keywords that say where the group is."""

    def of(rank, options):
        if request.param == "bucket":
            return url, {"store_options": options}
        return tmp_path / f"node-{rank}", {"store_options": options, "mirror": url}

    return of


def _train(where, options, world, steps, **keywords):
    def rank(coordinator):
        path, own = where(coordinator.rank, options)
        arrays = shards(NAMES, coordinator.rank, world)
        own |= {"coordinator": coordinator, "fsync": False, **keywords}
        with GroupCheckpointer.open(path, arrays, **own) as checkpoints:
            found = checkpoints.meta["step"] if checkpoints.resumed else 0
            for step in range(found + 1, found + 1 + steps):
                step_on(arrays, step)
                checkpoints.save({"step": step})
        return found

    return no_errors(in_ranks(world, rank))


def _check(url, options, step):
    chain = GroupChain(url, store_options=options)
    assert chain.meta == {"step": step}
    check_states(chain, NAMES)
    return chain


def test_any_number_of_processes_goes_on(server, url, where):
    """As many as before, or another number; and the group is made short."""
    options = server.options()
    steps = 0
    for world in (2, 2, 3):
        assert _train(where, options, world, 3, keep=2, grace_period=0) == [steps] * world
        steps += 3
        assert len(_check(url, options, steps)) == 2
    done = compact_group(url, store_options=options, grace_period=0)
    assert done.number == _check(url, options, steps).newest.number


def test_a_restart_uploads_what_was_written(server, proxy, url):
    """And not what was there: the service copies that, by a request for each file."""
    array = np.random.default_rng(1).integers(0, 256, 32 << 20, dtype=np.uint8)
    keywords = {"store_options": server.options(proxy.port), "compression": "none"}
    sent = []
    for step in range(3):
        with GroupCheckpointer.open(url, {"a": array}, **keywords) as checkpoints:
            array[step << 12] ^= 1
            checkpoints.save(step, wait=True)
        made = [one for one in proxy.requests if one.method in ("PUT", "POST")]
        sent.append((sum(one.nbytes for one in made), sum(one.is_copy for one in made)))
        proxy.requests.clear()
    assert sent[0][0] >= array.nbytes
    assert max(nbytes for nbytes, _ in sent[1:]) < 1 << 20
    assert [copies for _, copies in sent] == [0, 1, 2]
    assert (GroupChain(url, store_options=server.options()).load("a") == array).all()


@pytest.mark.slow
@pytest.mark.parametrize("has_nodes", [False, True], ids=["bucket", "mirror"])
def test_a_group_whose_processes_are_killed_loses_nothing(server, url, tmp_path, has_nodes):
    """In mid-upload, with `keep`, and with somebody who makes it short; on other numbers of machines."""
    told = {"folder": str(tmp_path), "url": url, "options": server.options(), "has_nodes": has_nodes}
    done = limits.run(
        [sys.executable, "-m", "_lib.group.killing", json.dumps(told | {"rounds": ROUNDS // 2, "seed": 1})],
        env=os.environ | {"PYTHONPATH": str(_TESTS)},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found["killed"]["saving"] > 0
    assert found["states"] >= ROUNDS // 2


def test_a_store_that_goes_away_and_comes_back(seaweedfs, url, quick, tmp_path):
    """Saves wait for it, in order, and nobody trains on without them for longer than it takes."""
    options = seaweedfs.options(**quick)
    away = threading.Barrier(3, timeout=60)

    def rank(coordinator):
        arrays = shards(NAMES, coordinator.rank, 2)
        keywords = {"coordinator": coordinator, "mirror": url, "store_options": options}
        with GroupCheckpointer.open(tmp_path / f"{coordinator.rank}", arrays, **keywords) as checkpoints:
            step_on(arrays, 1)
            checkpoints.save({"step": 1}, wait=True)
            away.wait()
            away.wait()
            saves = []
            for step in (2, 3):
                step_on(arrays, step)
                saves.append(checkpoints.save({"step": step}))
                saves[-1].part.wait()
            states = [save.state for save in saves]
            away.wait()
        return states, [save.state for save in saves]

    def store():
        away.wait()
        seaweedfs.kill()
        away.wait()
        away.wait()
        seaweedfs.start()

    keeper = threading.Thread(target=store)
    keeper.start()
    results = in_ranks(2, rank)
    keeper.join()
    assert no_errors(results) == [(["captured", "captured"], ["committed", "committed"])] * 2
    _check(url, seaweedfs.options(), 3)


@pytest.mark.parametrize("wrong_rank", [0, 1])
@pytest.mark.parametrize("who", ["nobody", "reader"])
def test_wrong_credentials_are_told_to_all(seaweedfs, url, where, wrong_rank, who):
    """Of whichever process, with its rank; and nothing is committed."""
    good = seaweedfs.options()
    wrong = {
        "nobody": good | {"secret_access_key": "wrong"},
        "reader": good | {"access_key_id": "reader", "secret_access_key": "readreader"},
    }[who]

    def rank(coordinator):
        options = wrong if coordinator.rank == wrong_rank else good
        path, keywords = where(coordinator.rank, options)
        arrays = shards(NAMES, coordinator.rank, 2)
        GroupCheckpointer.open(path, arrays, coordinator=coordinator, **keywords)

    results = in_ranks(2, rank)
    own, other = results[wrong_rank], results[1 - wrong_rank]
    assert isinstance(own, PermissionError)
    assert own.filename.startswith(url)
    assert isinstance(other, GroupError)
    for error in (own, other):
        assert "check that the credentials" in str(error)
    assert f"rank {wrong_rank}: PermissionError" in str(other)
    with pytest.raises(ValueError, match="holds no state of a group"):
        GroupChain(url, store_options=good)


def test_a_bucket_that_is_not_there_is_told_to_all(server, tmp_path):
    """By its name."""

    def rank(coordinator):
        arrays = shards(NAMES, coordinator.rank, 2)
        keywords = {"coordinator": coordinator, "store_options": server.options()}
        GroupCheckpointer.open("s3://nobody/run", arrays, **keywords)

    own, other = in_ranks(2, rank)
    assert isinstance(own, FileNotFoundError)
    assert isinstance(other, GroupError)
    for error in (own, other):
        assert "no such bucket" in str(error)
        assert "s3://nobody/run" in str(error)


def test_the_shell_reads_it(server, url, where, tmp_path):
    """With what the environment says of the service."""
    options = server.options()
    _train(where, options, 2, 3)
    environment = os.environ | {
        "AWS_ENDPOINT_URL": options["endpoint"],
        "AWS_ACCESS_KEY_ID": options["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": options["secret_access_key"],
        "AWS_REGION": options["region"],
        "AWS_ALLOW_HTTP": "true",
    }

    def shell(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "dirtytrack", "checkpoint", *arguments, "--json"],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    assert [state["meta"]["step"] for state in shell("list", url)["states"]] == [1, 2, 3]
    assert shell("verify", url)["intact"] is True
    shell("restore", url, "--into", str(tmp_path / "files"))
    for name in NAMES:
        np.testing.assert_array_equal(np.load(tmp_path / "files" / f"{name}.npy"), after(name, 3))
    shell("compact", url, "--grace-period", "0")
    assert len(_check(url, options, 3)) == 1
