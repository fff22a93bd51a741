"""A chain in real object stores: whatever they, the network and other writers do, what was told is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from _lib.checkpoint.world import World, restored
from _lib.engines.servers import Moto
from _lib.support import library, optional
from dirtytrack import BusyError, CheckpointError, UnsupportedError
from dirtytrack.checkpoint import Chain, Checkpointer, compact, directory_support, load, restore


def _restored(url, sizes, options):
    into = {name: bytearray(b"\x55" * nbytes) for name, nbytes in sizes.items()}
    restore(url, into=into, store_options=options)
    return {name: bytes(data) for name, data in into.items()}


def _names(server, url):
    prefix = url.removeprefix("s3://bucket/")
    return [
        one["path"].removeprefix(f"{prefix}/") for page in server.store().list(f"{prefix}/") for one in page
    ]


def test_a_chain_lives_there(server, url, tmp_path):
    """Begun, resumed from the bucket alone, compacted, read, copied, by Python and by the shell."""
    options = server.options()
    assert directory_support(url, store_options=options).works
    array = np.random.default_rng(1).integers(0, 256, 20 << 20, dtype=np.uint8)
    with Checkpointer.open(url, {"a": array}, store_options=options) as checkpoints:
        for step in range(3):
            array[step * 5000] ^= 1
            checkpoints.save(meta=step, wait=True)
    elsewhere = np.zeros_like(array)
    with Checkpointer.open(
        url, {"a": elsewhere}, store_options=options, keep=2, grace_period=0
    ) as checkpoints:
        assert checkpoints.meta == 2
        assert (elsewhere == array).all()
        for step in range(3, 9):
            elsewhere[step * 5000] ^= 1
            checkpoints.save(meta=step, wait=True)
        checkpoints.compact(wait=True)
    with Chain(url, store_options=options) as chain:
        assert [one.meta for one in chain] == [7, 8]
        assert chain.verify() == ()
        assert chain.read("a", 10, 20_000) == elsewhere[10:20_000].tobytes()
        chain.export(tmp_path / "chain")
    assert (load(tmp_path / "chain")["a"] == elsewhere).all()
    assert len([name for name in _names(server, url) if name.startswith("data/")]) == 2
    environment = _environment(server)
    shell = [sys.executable, "-m", "dirtytrack", "checkpoint"]
    for arguments in (["list", url], ["verify", url], ["copy", url, f"{url}-2"], ["compact", f"{url}-2"]):
        done = subprocess.run(
            [*shell, *arguments, "--json"], capture_output=True, text=True, check=False, env=environment
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["newest"] == 9
    assert (load(f"{url}-2", store_options=options)["a"] == elsewhere).all()


def test_sixteen_writers_at_one_number(server, url):
    """One commits, and the others are told by their saves."""
    worlds = [World(5, 1) for _ in range(16)]
    options = server.options()
    with Checkpointer(url, worlds[0].regions, store_options=options) as checkpoints:
        checkpoints.save()
    writers = [Checkpointer.open(url, one.regions, store_options=options) for one in worlds]
    start, told = threading.Barrier(16, timeout=60), {}

    def write(at):
        worlds[at].touch(at=at)
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
    with Chain(url, store_options=options) as chain:
        assert [one.meta for one in chain] == [None, winner]
    assert _restored(url, worlds[0].sizes, options) == worlds[winner].contents()


def _play(url, options, told):
    """Two saves and a compaction, each until it is told to be done; what is told is noted."""
    world = World(5, 1)

    def until(act, tries=2):
        for _ in range(tries):
            try:
                return act()
            except BusyError:
                raise
            except OSError:
                continue
        return act()

    with until(lambda: Checkpointer.open(url, world.regions, store_options=options)) as checkpoints:
        for _ in range(2):
            world.touch()
            number = until(lambda: checkpoints.save(wait=True)).number
            told[number] = world.contents()
        until(lambda: checkpoints.compact(wait=True))
        for number in [*told][:-1]:
            del told[number]
        world.touch()
        told[until(lambda: checkpoints.save(wait=True)).number] = world.contents()
    return world


def test_every_answer_is_lost_in_turn(server, proxy, url, quick):
    """The request was carried out all the same; nobody takes that for a failure, or another's win."""
    options = server.options(proxy.port, **quick)
    lost = -1
    while len(proxy.requests) > lost:
        lost += 1
        proxy.requests.clear()
        place, told = f"{url}-{lost}", {}
        proxy.loses = lambda at, _, lost=lost: at == lost
        world = _play(place, options, told)
        with Chain(place, store_options=server.options()) as chain:
            assert chain.verify() == ()
            for number, contents in told.items():
                assert {name: chain.read(name, at=number) for name in world.sizes} == contents
        assert _restored(place, world.sizes, server.options()) == world.contents()
    assert lost > 20


def test_a_store_that_replaces_is_refused(server, proxy, url):
    """A proxy makes it one: found out when it is opened, and nothing is committed."""
    optional(isinstance(server, Moto), "the header is signed, and this server checks that")
    world = World(5, 1)
    proxy.strips_conditions = True
    options = server.options(proxy.port)
    with pytest.raises(UnsupportedError, match=url):
        Checkpointer.open(url, world.regions, store_options=options)
    assert _names(server, url) == []
    found = directory_support(url, store_options=options)
    assert not found.works
    assert [one.name for one in found.checks if one.ok is False] == ["put if absent"]
    proxy.strips_conditions = False
    with Checkpointer.open(url, world.regions, store_options=options) as checkpoints:
        checkpoints.save(wait=True)
    proxy.strips_conditions = True
    before = _names(server, url)
    with pytest.raises(UnsupportedError, match=url):
        Checkpointer.open(url, world.regions, store_options=options)
    assert _names(server, url) == before


def test_a_throttled_store(server, proxy, url, quick):
    """Every third request is told to slow down: it is made again, and all is well."""
    proxy.refuses = lambda at, _: 503 if at % 3 == 1 else 0
    told = {}
    quick["retry_config"]["max_retries"] = 10
    world = _play(url, server.options(proxy.port, **quick), told)
    assert _restored(url, world.sizes, server.options()) == world.contents()


def test_a_failed_upload_is_taken_back(server, proxy, url, quick):
    """Of parts that are refused nothing is left, not even for the bill."""
    array = np.random.default_rng(1).integers(0, 256, 30 << 20, dtype=np.uint8)
    proxy.refuses = lambda _, request: 400 if "partNumber=2" in request.path else 0
    with Checkpointer(
        url, {"a": array}, store_options=server.options(proxy.port, **quick), compression="none"
    ) as checkpoints:
        with pytest.raises(CheckpointError) as caught:
            checkpoints.save(wait=True)
        assert caught.value.filename.startswith(f"{url}/data/")
        assert _names(server, url) == []
        proxy.refuses = lambda _at, _request: 0
        checkpoints.save(wait=True)
    assert (load(url, store_options=server.options())["a"] == array).all()
    client = library("boto3", "engines").client(
        "s3",
        endpoint_url=server.options()["endpoint"],
        aws_access_key_id="test",
        aws_secret_access_key="testtest",
        region_name="us-east-1",
    )
    assert client.list_multipart_uploads(Bucket="bucket").get("Uploads", []) == []


def test_a_server_that_is_killed_and_comes_back(seaweedfs, url, quick):
    """In the middle of an upload, and between two: the save is told, and the next one has everything."""
    array = np.random.default_rng(1).integers(0, 256, 64 << 20, dtype=np.uint8)
    options = seaweedfs.options(**quick)
    with Checkpointer(url, {"a": array}, store_options=options, compression="none") as checkpoints:
        for round_ in range(2):
            array[round_] ^= 1
            save = checkpoints.save(wait=True)
            array += 1
            checkpoints.save()
            seaweedfs.kill()
            with pytest.raises(OSError, match=url):
                checkpoints.flush()
            seaweedfs.start()
            assert _until_it_works(lambda: _newest(url, options)) == save.id
            _until_it_works(lambda: checkpoints.save(wait=True))
            assert (_until_it_works(lambda: load(url, store_options=options))["a"] == array).all()


def _newest(url, options):
    with Chain(url, store_options=options) as chain:
        return chain.newest.id


def _until_it_works(act):
    for left in reversed(range(20)):
        try:
            return act()
        except OSError:
            if not left:
                raise
            threading.Event().wait(0.5)  # the server is not ready yet
    return None


def test_what_is_not_allowed_is_told(seaweedfs, url):
    """Wrong credentials, a place that is read-only, and a bucket that is not there: nothing is committed."""
    world = World(5, 1)
    good = seaweedfs.options()
    wrong = good | {"secret_access_key": "wrong"}
    reader = good | {"access_key_id": "reader", "secret_access_key": "readreader"}
    for options in (wrong, reader):
        with pytest.raises(PermissionError, match="check that the credentials") as caught:
            Checkpointer.open(url, world.regions, store_options=options)
        assert caught.value.filename.startswith(url)
    with pytest.raises(PermissionError):
        load(url, store_options=wrong)
    assert _names(seaweedfs, url) == []
    with Checkpointer.open(url, world.regions, store_options=good) as checkpoints:
        checkpoints.save(wait=True)
    assert _restored(url, world.sizes, reader) == world.contents()
    with pytest.raises(PermissionError):
        compact(url, store_options=reader)
    assert _restored(url, world.sizes, good) == world.contents()


def test_a_bucket_that_is_not_there(server):
    """It is named, and what to do."""
    options = server.options()
    for act in (
        lambda: Chain("s3://nobody/run", store_options=options),
        lambda: Checkpointer.open("s3://nobody/run", {"a": np.zeros(10)}, store_options=options),
    ):
        with pytest.raises(FileNotFoundError, match=r"no such bucket.*s3://nobody/run"):
            act()


def test_nobody_listens(quick):
    """An error that names the place, within the time that the options allow."""
    options = {
        "endpoint": "http://127.0.0.1:1",
        "region": "x",
        "access_key_id": "k",
        "secret_access_key": "s",
    }
    with pytest.raises(OSError, match="s3://bucket/run"):
        Chain("s3://bucket/run", store_options=options | quick | {"allow_http": True})
    with pytest.raises(OSError, match="allow_http=true"):
        Chain("s3://bucket/run", store_options=options | quick)
    assert quick["retry_config"]["retry_timeout"] <= timedelta(seconds=10)


def _environment(server):
    options = server.options()
    return os.environ | {
        "AWS_ENDPOINT_URL": options["endpoint"],
        "AWS_ACCESS_KEY_ID": options["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": options["secret_access_key"],
        "AWS_REGION": options["region"],
        "AWS_ALLOW_HTTP": "true",
    }


def test_the_example_holds(server, url):
    """As it stands, with what the environment says of the service."""
    example = Path(__file__).parents[2] / "examples/checkpoint_bucket.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", example, url],
        capture_output=True,
        text=True,
        check=False,
        env=_environment(server),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("holds: ") == 5


def test_a_mirror_outlives_its_server(seaweedfs, url, quick, tmp_path):
    """Saves go on while it is away; it gets what it lacks when it is back, and others go on from it."""
    world = World(6, 3)
    options = seaweedfs.options(**quick)
    keywords = {"mirror": url, "store_options": options}
    with Checkpointer.open(tmp_path / "a", world.regions, **keywords) as checkpoints:
        world.scribble()
        checkpoints.save(wait=True)
        checkpoints.flush()
        seaweedfs.kill()
        for _ in range(3):
            world.scribble()
            checkpoints.save(wait=True)
        assert checkpoints.statistics().mirror.behind == 3
        seaweedfs.start()
        checkpoints.flush()
        assert checkpoints.statistics().mirror.behind == 0
    other = World(6, 9)
    with Checkpointer.open(tmp_path / "b", other.regions, **keywords) as checkpoints:
        assert other.contents() == world.contents()
    assert _restored(url, world.sizes, options) == world.contents()


def test_worlds_are_the_same_everywhere(server, url, tmp_path):
    """What a directory gives and what a bucket gives are the same bytes."""
    world, same = World(6, 3), World(6, 3)
    with (
        Checkpointer(url, world.regions, store_options=server.options(), keep=3) as far,
        Checkpointer(tmp_path, same.regions, keep=3) as near,
    ):
        for _ in range(10):
            world.scribble()
            same.scribble()
            far.save(wait=True)
            near.save(wait=True)
    assert _restored(url, world.sizes, server.options()) == restored(tmp_path, same.sizes)
