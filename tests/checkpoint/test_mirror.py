"""A directory with a mirror: behind it, in order, and whichever of the two continues the other goes on."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import shutil
import signal
import sys
import threading
import types
from contextlib import closing

import pytest

from _lib.checkpoint.buckets import FaultyBucket, ModelBucket
from _lib.checkpoint.faulty_store import Trouble
from _lib.checkpoint.world import World, restored
from _lib.support import in_child
from dirtytrack import BusyError, StoreError
from dirtytrack.checkpoint import Chain, Checkpointer, Keep, catch_up, compact, load
from dirtytrack.checkpoint import store as store_module
from dirtytrack.checkpoint.store.directory import Directory
from dirtytrack.checkpoint.store.objects import ObjectStore
from dirtytrack.checkpoint.write import mirror as mirror_module

URL = "s3://mirror/run"


class Far:
    """Buckets by URL, in the place of the services.

    Attributes:
        bucket: of the one URL that there is.
        before: what the next one to open it gets.
    """

    def __init__(self):
        self.bucket = ModelBucket()
        self.before = lambda bucket: bucket

    def open(self, url, options):
        assert (url, options) == (URL, None)
        self.bucket.place = url
        return self.before(self.bucket)

    def store(self):
        """For reading it beside the mirror."""
        return ObjectStore(self.bucket)


@pytest.fixture
def far(monkeypatch):
    made = Far()
    monkeypatch.setattr(store_module, "open_bucket", made.open)
    monkeypatch.setattr(mirror_module, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(mirror_module, "_LOOK", 0.005)
    return made


def _save(checkpoints, world, count=1):
    for _ in range(count):
        world.scribble()
        checkpoints.save(wait=True)


def _names(folder):
    return sorted(path.name for path in folder.glob("0*"))


def _states(place, sizes):
    with Chain(place) as chain:
        assert chain.verify() == ()
        return {one.number: {name: chain.read(name, at=one.id) for name in sizes} for one in chain}


def test_states_that_need_no_other_are_copied_one_by_one(far, tmp_path):
    """Also those that are committed while the copy gets others."""
    gates = {1: threading.Semaphore(0), 2: threading.Semaphore(0)}
    begun = {1: threading.Event(), 2: threading.Event()}
    put_new = far.bucket.put_new

    def waiting(key, data):
        number = 10**20 - 1 - int(key[8:28]) if key.startswith("commits/") else 0
        if number in gates:
            begun[number].set()
            assert gates[number].acquire(timeout=60)
        return put_new(key, data)

    far.bucket.put_new = waiting
    memory = bytearray(20_000)
    contents = {}

    def save(*numbers):
        for number in numbers:
            memory[:] = bytes([number]) * len(memory)
            assert checkpoints.save(wait=True).kind == "base"
            contents[number] = {"a": bytes(memory)}

    with Checkpointer.open(tmp_path, {"a": memory}, mirror=URL) as checkpoints:
        save(1)
        for number, more in ((1, (2, 3)), (2, (4, 5))):
            assert begun[number].wait(60)
            save(*more)
            gates[number].release()
        checkpoints.flush()
        assert _states(far.store(), ["a"]) == _states(tmp_path, ["a"]) == contents


def test_what_is_committed_is_copied_behind_it(far, tmp_path):
    """Every checkpoint, in order, the same files; flush waits for it."""
    world = World(5, 1)
    with Checkpointer.open(tmp_path, world.regions, mirror=URL) as checkpoints:
        _save(checkpoints, world, 5)
        checkpoints.flush()
        told = checkpoints.statistics()
        assert (told.checkpoint, told.mirror.place) == (5, URL)
        assert (told.mirror.state, told.mirror.checkpoint, told.mirror.behind, told.mirror.lag) == (
            "idle",
            5,
            0,
            0,
        )
        assert told.mirror.nbytes >= sum(path.stat().st_size for path in tmp_path.glob("0*"))
    assert checkpoints.statistics().mirror.state == "closed"
    names = _names(tmp_path)
    assert sorted(key for key in far.bucket.objects if key.startswith("data/")) == [
        f"data/{one}" for one in names
    ]
    assert _states(far.store(), world.sizes) == _states(tmp_path, world.sizes)
    assert len([key for key in far.bucket.objects if key.startswith("commits/")]) == 5
    assert restored(far.store(), world.sizes) == world.contents()


def test_a_new_machine_goes_on_from_the_mirror_alone(far, tmp_path):
    """Into an empty directory, which is then a chain of its own with the same states."""
    world = World(5, 1)
    with Checkpointer.open(tmp_path / "a", world.regions, mirror=URL) as checkpoints:
        _save(checkpoints, world, 3)
    other = World(5, 9)
    with Checkpointer.open(tmp_path / "b", other.regions, mirror=URL) as checkpoints:
        assert checkpoints.resumed
        assert other.contents() == world.contents()
        _save(checkpoints, other, 2)
    assert restored(far.store(), world.sizes) == restored(tmp_path / "b", world.sizes) == other.contents()
    assert [*_states(far.store(), world.sizes)] == [1, 2, 3, 4, 5]
    again = World(5, 7)
    with Checkpointer.resume(tmp_path / "c", again.regions, mirror=URL):
        assert again.contents() == other.contents()


def test_a_directory_catches_up(far, tmp_path):
    """With the mirror's newest state, once; a mirror with nothing leaves it empty."""
    world = World(5, 1)
    catch_up(tmp_path / "new", URL)
    assert not list((tmp_path / "new").glob("0*"))
    with Checkpointer.open(tmp_path / "old", world.regions, mirror=URL) as checkpoints:
        _save(checkpoints, world, 3)
    for _ in range(2):
        catch_up(tmp_path / "new", URL)
        assert _states(tmp_path / "new", world.sizes) == _states(tmp_path / "old", world.sizes)
    with Checkpointer.resume(tmp_path / "old", world.regions) as alone:
        _save(alone, world)
    with Checkpointer.resume(tmp_path / "new", world.regions, mirror=URL) as checkpoints:
        _save(checkpoints, world)
    with pytest.raises(BusyError, match="Both have gone on"):
        catch_up(tmp_path / "old", URL)


def test_what_was_not_uploaded_is_when_it_goes_on(far, tmp_path):
    """After an exception the end of the block does not wait; the next writer begins with what is missing."""
    world = World(5, 1)
    trouble = Trouble(1, lasting=True)
    with Checkpointer.open(tmp_path, world.regions, mirror=URL) as checkpoints:
        _save(checkpoints, world)
    far.before = lambda bucket: FaultyBucket(bucket, trouble)
    trouble.mend()
    with (
        pytest.raises(ZeroDivisionError),
        Checkpointer.open(tmp_path, world.regions, mirror=URL) as checkpoints,
    ):
        trouble.__init__(1, lasting=True)
        _save(checkpoints, world, 3)
        assert checkpoints.statistics().mirror.behind == 3
        assert checkpoints.statistics().mirror.lag > 0
        raise ZeroDivisionError
    assert [*_states(far.store(), world.sizes)] == [1]
    far.before = lambda bucket: bucket
    with Checkpointer.open(tmp_path, world.regions, mirror=URL) as checkpoints:
        checkpoints.flush()
        assert [*_states(far.store(), world.sizes)] == [1, 2, 3, 4]
    assert restored(far.store(), world.sizes) == world.contents()


def test_a_directory_that_was_continued_alone(far, tmp_path):
    """It is newer, and continues the mirror: it wins, and the mirror gets what it lacks."""
    world = World(5, 1)
    with Checkpointer.open(tmp_path, world.regions, mirror=URL) as checkpoints:
        _save(checkpoints, world, 2)
    with Checkpointer.open(tmp_path, world.regions) as checkpoints:
        _save(checkpoints, world, 2)
    with Checkpointer.open(tmp_path, world.regions, mirror=URL) as checkpoints:
        assert checkpoints.statistics().checkpoint is None
    assert _states(far.store(), world.sizes) == _states(tmp_path, world.sizes)


def test_a_mirror_that_was_continued_alone(far, tmp_path):
    """It is newer, and continues the directory, which gets what it lacks."""
    world = World(5, 1)
    with Checkpointer.open(tmp_path, world.regions, mirror=URL) as checkpoints:
        _save(checkpoints, world, 2)
    with Checkpointer.open(far.store(), world.regions) as checkpoints:
        _save(checkpoints, world, 2)
    old = World(5, 9)
    with Checkpointer.open(tmp_path, old.regions, mirror=URL):
        assert old.contents() == world.contents()
    assert _states(far.store(), world.sizes) == _states(tmp_path, world.sizes)


def test_both_were_continued(far, tmp_path):
    """BusyError, which names both; neither is changed."""
    world = World(5, 1)
    with Checkpointer.open(tmp_path, world.regions, mirror=URL) as checkpoints:
        _save(checkpoints, world, 2)
    shutil.copytree(tmp_path, tmp_path.with_name("other"))
    with Checkpointer.open(tmp_path, world.regions) as checkpoints:
        _save(checkpoints, world)
    with Checkpointer.open(tmp_path.with_name("other"), world.regions, mirror=URL) as checkpoints:
        _save(checkpoints, world, 2)
    before = dict(far.bucket.objects), sorted(os.listdir(tmp_path))
    with pytest.raises(BusyError, match=r"to checkpoint 3, the mirror to 4.*Go on with one"):
        Checkpointer.open(tmp_path, world.regions, mirror=URL)
    assert (dict(far.bucket.objects), sorted(os.listdir(tmp_path))) == before


def test_another_chain(far, tmp_path):
    """BusyError; and a new chain is not begun beside a mirror that has one."""
    world = World(5, 1)
    with Checkpointer.open(tmp_path / "a", world.regions, mirror=URL) as checkpoints:
        _save(checkpoints, world)
    with Checkpointer(tmp_path / "b", world.regions) as checkpoints:
        _save(checkpoints, world)
    with pytest.raises(BusyError, match="Both have gone on"):
        Checkpointer.open(tmp_path / "b", world.regions, mirror=URL)
    with pytest.raises(FileExistsError, match="the mirror has a chain already"):
        Checkpointer(tmp_path / "c", world.regions, mirror=URL)


def test_a_compaction_is_mirrored(far, tmp_path):
    """The copy becomes as short as the chain, with the base that the chain has."""
    world = World(5, 1)
    with Checkpointer.open(tmp_path, world.regions, mirror=URL, grace_period=0) as checkpoints:
        _save(checkpoints, world, 4)
        checkpoints.flush()
        checkpoints.compact(wait=True)
        assert [*_states(far.store(), world.sizes)] == [4]
        _save(checkpoints, world, 2)
    assert _states(far.store(), world.sizes) == _states(tmp_path, world.sizes)
    assert [*_states(far.store(), world.sizes)] == [4, 5, 6]
    names = _names(tmp_path)
    assert sorted(key for key in far.bucket.objects if key.startswith("data/")) == [
        f"data/{one}" for one in names
    ]


def test_keep_bounds_both(far, tmp_path):
    """Whatever the mirror had when the chain became shorter, it ends as the chain does."""
    world = World(5, 1)
    with Checkpointer.open(tmp_path, world.regions, mirror=URL, keep=2, grace_period=0) as checkpoints:
        for _ in range(25):
            world.scribble()
            checkpoints.save()
    assert restored(far.store(), world.sizes) == world.contents()
    here, there = _states(tmp_path, world.sizes), _states(far.store(), world.sizes)
    assert max(here) == 25
    assert len(here) < 15
    assert there == here


def test_what_is_kept_by_rule_is_in_both(far, tmp_path):
    """Older checkpoints that stay are bases of their own, in the mirror too."""
    world = World(5, 1)
    keep = Keep(2, every=4)
    with Checkpointer.open(tmp_path, world.regions, mirror=URL, keep=keep, grace_period=0) as checkpoints:
        for _ in range(23):
            world.scribble()
            checkpoints.save()
        checkpoints.flush()
        checkpoints.compact(wait=True)
    here, there = _states(tmp_path, world.sizes), _states(far.store(), world.sizes)
    assert [*here] == [4, 8, 12, 16, 20, 22, 23]
    assert there == here


def test_what_a_compaction_removes_late_is_removed(far, tmp_path):
    """Also where the mirror has seen its base when some of the files below that were still there."""
    world = World(5, 1)
    with Checkpointer(tmp_path, world.regions) as checkpoints:
        _save(checkpoints, world, 3)
    names = _names(tmp_path)
    late = {tmp_path / name: (tmp_path / name).read_bytes() for name in names[:2]}
    target, directory = far.store(), Directory(tmp_path)
    with closing(target.claim()), closing(directory):
        mirror = mirror_module.Mirror(directory, target, names)
        mirror.start_thread()
        mirror.wait(None)
        compact(tmp_path)
        for path, data in late.items():
            path.write_bytes(data)
        mirror.wait(None)
        assert [*_states(far.store(), world.sizes)] == [1, 2, 3]
        for path in late:
            path.unlink()
        mirror.wait(None)
        mirror.stop()
    assert _states(far.store(), world.sizes) == _states(tmp_path, world.sizes)
    assert [*_states(tmp_path, world.sizes)] == [3]


def test_a_compaction_in_between_is_no_failure(far, tmp_path, caplog):
    """What it has replaced is looked for again at once; what it has kept is copied."""
    world = World(5, 1)
    with Checkpointer(tmp_path, world.regions) as checkpoints:
        _save(checkpoints, world, 4)
    names, put_new = _names(tmp_path), far.bucket.put_new

    def compacting(key, data):
        if key.startswith("commits/") and len(_names(tmp_path)) == len(names):  # of the first file
            compact(tmp_path, keep=2)
        return put_new(key, data)

    far.bucket.put_new = compacting
    target, directory = far.store(), Directory(tmp_path)
    with closing(target.claim()), closing(directory):
        mirror = mirror_module.Mirror(directory, target, names)
        mirror.start_thread()
        mirror.wait(None)
        told = mirror.statistics()
        mirror.stop()
    assert (told.failures, told.last_failure, caplog.text) == (0, "", "")
    assert _states(far.store(), world.sizes) == _states(tmp_path, world.sizes)
    assert [*_states(tmp_path, world.sizes)] == [3, 4]


def test_a_bucket_that_is_not_there_is_a_failure(far, tmp_path, caplog):
    """It is no file of the directory that is missing then."""
    world = World(5, 1)
    trouble = Trouble(1, lasting=True, code=errno.ENOENT)
    trouble.mend()
    far.before = lambda bucket: FaultyBucket(bucket, trouble)
    with Checkpointer.open(tmp_path, world.regions, mirror=URL, mirror_timeout=0) as checkpoints:
        trouble.__init__(1, lasting=True, code=errno.ENOENT)
        _save(checkpoints, world)
        with pytest.raises(TimeoutError, match="No such file"):
            checkpoints.flush()
        trouble.mend()
    assert "the mirror is behind" in caplog.text
    assert _states(far.store(), world.sizes) == _states(tmp_path, world.sizes)


def test_a_branch_is_mirrored(far, tmp_path):
    """Resumed at an older state, whose files the mirror has, or has not yet."""
    world = World(5, 1)
    with Checkpointer.open(tmp_path, world.regions, mirror=URL) as checkpoints:
        _save(checkpoints, world, 3)
    with Checkpointer.resume(tmp_path, world.regions, at=2, mirror=URL) as checkpoints:
        _save(checkpoints, world, 2)
    assert _states(far.store(), world.sizes) == _states(tmp_path, world.sizes)
    assert restored(far.store(), world.sizes) == world.contents()


def test_an_older_state_does_not_become_the_mirrors_newest(far, tmp_path):
    """Who resumed it and saved nothing has changed nothing; what the mirror lacked it gets."""
    world = World(5, 1)
    with Checkpointer.open(tmp_path, world.regions, mirror=URL) as checkpoints:
        _save(checkpoints, world, 2)
    with Checkpointer.open(tmp_path, world.regions) as checkpoints:
        _save(checkpoints, world)
    newest = world.contents()
    with Checkpointer.resume(tmp_path, world.regions, at=1, mirror=URL) as checkpoints:
        checkpoints.flush()
        assert restored(far.store(), world.sizes) == newest
        _save(checkpoints, world)
    with Checkpointer.resume(tmp_path, world.regions, at=3, mirror=URL) as checkpoints:
        puts = far.bucket.requests["put"]
        _save(checkpoints, world)
        checkpoints.flush()
        assert far.bucket.requests["put"] == puts + 1
    assert _states(far.store(), world.sizes) == _states(tmp_path, world.sizes)


@pytest.mark.parametrize("way", [{}, {"late": True}], ids=["fails", "answer lost"])
def test_whichever_request_fails_it_goes_on(far, tmp_path, way):
    """It tries again, says so in its figures and in the log, and is complete in the end."""
    for at in itertools.count(1, 3):
        far.__init__()
        trouble = Trouble(at, **way)
        far.before = lambda bucket, trouble=trouble: FaultyBucket(bucket, trouble)
        world, path = World(5, 1), tmp_path / str(at)
        try:
            checkpoints = Checkpointer.open(path, world.regions, mirror=URL, grace_period=0)
        except OSError:
            assert trouble.struck
            checkpoints = Checkpointer.open(path, world.regions, mirror=URL, grace_period=0)
        with checkpoints:
            _save(checkpoints, world, 2)
            checkpoints.flush()
            checkpoints.compact(wait=True)
            _save(checkpoints, world, 1)
        assert restored(far.store(), world.sizes) == world.contents()
        assert _states(far.store(), world.sizes).items() >= _states(path, world.sizes).items()
        if trouble.struck is None:
            break
    assert at > 15


def test_nobody_answers(far, tmp_path, caplog):
    """A save does not care; flush and close give up when there was no progress for so long, and say why."""
    world = World(5, 1)
    trouble = Trouble(1, lasting=True)
    trouble.mend()
    far.before = lambda bucket: FaultyBucket(bucket, trouble)
    checkpoints = Checkpointer.open(tmp_path, world.regions, mirror=URL, mirror_timeout=0.05)
    trouble.__init__(1, lasting=True)
    with caplog.at_level(logging.WARNING, "dirtytrack.checkpoint"):
        _save(checkpoints, world)
        with pytest.raises(TimeoutError, match=r"1 checkpoints behind.*Input/output error.*s3://mirror/run"):
            checkpoints.flush()
    assert "s3://mirror/run: the mirror is behind" in caplog.text
    told = checkpoints.statistics().mirror
    assert told.failures > 0
    assert "Input/output error" in told.last_failure
    assert told.state in ("waiting", "uploading")
    with pytest.raises(TimeoutError):
        checkpoints.close()
    assert checkpoints.closed
    assert [*_states(tmp_path, world.sizes)] == [1]


def test_another_writer_of_the_mirror(far, tmp_path):
    """It is told once, by flush or close; saves to the directory go on."""
    world = World(5, 1)
    with Checkpointer.open(tmp_path, world.regions, mirror=URL) as checkpoints:
        _save(checkpoints, world)
        checkpoints.flush()
        with Checkpointer.open(far.store(), World(5, 1).regions) as other:
            other.save(wait=True)
        _save(checkpoints, world)
        with pytest.raises(BusyError, match="Another writer has made commit 2"):
            checkpoints.flush()
        _save(checkpoints, world)
        checkpoints.flush()
        assert checkpoints.statistics().mirror.behind == 2
    assert restored(tmp_path, world.sizes) == world.contents()


def test_a_writer_that_is_killed(far, tmp_path):
    """At any point of an upload: the next one goes on where it was."""
    world = World(5, 1)

    def save_and_die():
        with Checkpointer.open(tmp_path, world.regions, mirror=URL) as checkpoints:
            _save(checkpoints, world, 3)
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(save_and_die).status == -signal.SIGKILL
    with Checkpointer.open(tmp_path, world.regions, mirror=URL) as checkpoints:
        assert checkpoints.resumed
        checkpoints.flush()
    assert _states(far.store(), world.sizes) == _states(tmp_path, world.sizes)


def test_bandwidth_is_kept_to(far, tmp_path, monkeypatch):
    """As many bytes as the clock allows, and no more."""
    world = World(64, 1)
    now = [0.0]
    monkeypatch.setattr(mirror_module, "time", types.SimpleNamespace(monotonic=lambda: now[0]))

    def wait(self, seconds):
        now[0] += seconds

    monkeypatch.setattr(mirror_module.Mirror, "_pause", wait)
    with Checkpointer.open(tmp_path, world.regions, mirror=URL, mirror_bandwidth=1e5) as checkpoints:
        world.regions["first"][:] = os.urandom(len(world.regions["first"]))
        checkpoints.save(wait=True)
        checkpoints.flush()
        told = checkpoints.statistics().mirror
    assert told.nbytes > 200_000
    assert now[0] == pytest.approx(told.nbytes / 1e5, rel=0.05)


def test_figures_are_metrics_of_opentelemetry(far, tmp_path, monkeypatch):
    """Where its API is installed."""
    made = {}

    class Meter:
        def create_observable_gauge(self, name, callbacks, **told):
            made[name] = callbacks[0], told["unit"]

        create_observable_counter = create_observable_gauge

    module = types.ModuleType("opentelemetry.metrics")
    module.get_meter = lambda name: Meter() if name == "dirtytrack" else None
    module.Observation = lambda value, attributes: (value, attributes)
    monkeypatch.setitem(sys.modules, "opentelemetry", types.ModuleType("opentelemetry"))
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", module)
    world = World(5, 1)
    with Checkpointer.open(tmp_path, world.regions, mirror=URL) as checkpoints:
        _save(checkpoints, world)
        checkpoints.flush()
        told = checkpoints.statistics().mirror
        found = {name: (observe(None), unit) for name, (observe, unit) in made.items()}
        place = {"url.full": URL}
        assert found == {
            "dirtytrack.mirror.lag": ([(0.0, place)], "s"),
            "dirtytrack.mirror.behind": ([(0, place)], "{checkpoint}"),
            "dirtytrack.mirror.io": ([(told.nbytes, place)], "By"),
            "dirtytrack.mirror.failures": ([(0, place)], "{failure}"),
        }
    assert [observe(None) for observe, _ in made.values()] == [[]] * 4


def test_what_is_no_mirror(tmp_path, monkeypatch):
    """Only a URL of an object store is, and only of a directory; nothing is made."""
    world = World(5, 1)
    for mirror, told in (
        (str(tmp_path), "URL of an object store"),
        ("ftp://x", "of no known kind"),
        ("memory://", "is not memory://name"),
        ("s3://", "Unable to recognise URL"),
    ):
        with pytest.raises(StoreError, match=told):
            Checkpointer.open(tmp_path / "a", world.regions, mirror=mirror)
    with pytest.raises(StoreError, match="only one of these has a mirror"):
        Checkpointer.open("memory://mirrored", world.regions, mirror="memory://mirror")
    for keyword, value, error in (
        ("mirror_timeout", -1, ValueError),
        ("mirror_timeout", "1", TypeError),
        ("mirror_bandwidth", 0, ValueError),
        ("mirror_bandwidth", "1", TypeError),
    ):
        with pytest.raises(error, match=keyword):
            Checkpointer.open(tmp_path / "a", world.regions, mirror="memory://mirror", **{keyword: value})
    with pytest.raises(StoreError, match="regoin"):
        Checkpointer.open(tmp_path / "a", world.regions, mirror=URL, store_options={"regoin": "x"})
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ImportError, match=r"dirtytrack\[cloud\]"):
        Checkpointer.open(tmp_path / "a", world.regions, mirror=URL)
    assert not (tmp_path / "a").exists()


def test_a_mirror_in_memory(tmp_path):
    """By its URL alone, with nothing in the place of anything."""
    world = World(5, 1)
    with Checkpointer.open(tmp_path, world.regions, mirror="memory://by-its-url") as checkpoints:
        _save(checkpoints, world, 2)
    assert len(load("memory://by-its-url")) == 3
    assert restored("memory://by-its-url", world.sizes) == world.contents()
