"""A chain that begins with a state of another one has its files, and neither does anything to the other."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from _lib.checkpoint.buckets import FaultyBucket, ModelBucket
from _lib.checkpoint.faulty_store import Trouble
from _lib.checkpoint.world import World
from dirtytrack import ChainError
from dirtytrack.checkpoint import Chain, Checkpointer, compact, load, records
from dirtytrack.checkpoint.records import Root
from dirtytrack.checkpoint.store.directory import Directory
from dirtytrack.checkpoint.store.directory_bucket import DirectoryBucket
from dirtytrack.checkpoint.store.memory import MemoryStore
from dirtytrack.checkpoint.store.objects import ObjectStore
from dirtytrack.checkpoint.store.urls import open_bucket


@pytest.fixture(params=["directory", "memory"])
def root(request, tmp_path):
    """Where both are."""
    return Root.of(tmp_path if request.param == "directory" else f"memory://{tmp_path.name}/below")


def _chain(root, name, saves):
    array = np.arange(20_000)
    ids = []
    with Checkpointer(root.below(name), {"a": array}, fsync=False) as checkpoints:
        for step in range(saves):
            array[step * 600] = -1
            ids.append(checkpoints.save(step, wait=True).id)
    return array, ids


def test_it_goes_on_with_a_delta(root):
    """From the state that was named, whatever came later there."""
    _, ids = _chain(root, "old", 4)
    root.branch("old", ids[2], "new")
    array = np.zeros(20_000, int)
    with Checkpointer.resume(root.below("new"), {"a": array}, fsync=False) as checkpoints:
        assert checkpoints.meta == 2
        array[7] = 8
        checkpoints.save("branch", wait=True)
    with Chain(root.below("new")) as chain:
        assert [one.kind for one in chain] == ["base", "delta", "delta", "delta"]
        assert [one.meta for one in chain] == [0, 1, 2, "branch"]
        assert chain.verify() == ()
    assert (load(root.below("new"))["a"] == array).all()
    with Chain(root.below("old")) as chain:
        assert [one.meta for one in chain] == [0, 1, 2, 3]


def test_neither_does_anything_to_the_other(root):
    """One is made short and goes on, the other is removed."""
    array, ids = _chain(root, "old", 4)
    root.branch("old", ids[-1], "new")
    compact(root.below("old"), fsync=False, grace_period=0 if root.is_remote else None)
    assert (load(root.below("new"))["a"] == array).all()
    bucket = root.bucket()
    bucket.delete([one.key for one in bucket.find("old/")])
    with Chain(root.below("new")) as chain:
        assert chain.verify() == ()
    assert (load(root.below("new"))["a"] == array).all()


def test_a_file_of_a_directory_is_there_once(tmp_path):
    """Under two names."""
    _, ids = _chain(Root.of(tmp_path), "old", 3)
    Root.of(tmp_path).branch("old", ids[-1], "new")
    names = sorted(one.name for one in (tmp_path / "new").iterdir() if one.name != "lock")
    assert len(names) == 3
    assert all(os.path.samefile(tmp_path / "old" / name, tmp_path / "new" / name) for name in names)


def test_no_byte_of_an_object_comes_here():
    """A request for each file, and one that commits."""
    service = {name: ModelBucket() for name in ("old", "new")}
    world = World(5, 1)
    with Checkpointer(ObjectStore(service["old"]), world.regions) as checkpoints:
        for _ in range(3):
            world.touch()
            checkpoints.save(wait=True)
    theirs, ours = (ObjectStore(bucket) for bucket in service.values())
    names = theirs.newest_names()
    claim = ours.claim()
    service["new"].requests.clear()
    service["old"].requests.clear()
    ours.adopt(theirs, names)
    assert service["new"].requests == {"copy": 3, "put_new": 1, "list": 1}
    assert not service["old"].requests
    claim.close()
    assert ObjectStore(service["new"]).newest_names() == names


def test_copies_that_fail_are_no_state():
    """Whichever of the requests does; the next attempt is one."""
    for at in range(1, 6):
        old, new = ModelBucket(), ModelBucket()
        with Checkpointer(ObjectStore(old), World(5, 1).regions) as checkpoints:
            checkpoints.save()
            checkpoints.save(wait=True)
        trouble = Trouble(at=10**9)
        theirs = ObjectStore(FaultyBucket(old, trouble))
        names = theirs.newest_names()
        ours = ObjectStore(FaultyBucket(new, trouble))
        ours.claim()
        trouble.at = trouble.count + at
        try:
            ours.adopt(theirs, names)
        except OSError:
            assert ObjectStore(new).newest_names() == []
            ours.adopt(theirs, names)
        assert ObjectStore(new).newest_names() == names


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_file_system_without_such_names_leaves_nothing(tmp_path, monkeypatch, at):
    """For whichever of the files it is that it has none."""
    _, ids = _chain(Root.of(tmp_path), "old", 3)
    link, count = os.link, []

    def refusing(*args, **keywords):
        count.append(args)
        if len(count) == at:
            raise PermissionError(1, "Operation not permitted")
        link(*args, **keywords)

    monkeypatch.setattr(os, "link", refusing)
    with pytest.raises(PermissionError, match="not permitted"):
        Root.of(tmp_path).branch("old", ids[-1], "new")
    assert [one.name for one in (tmp_path / "new").iterdir()] == ["lock"]


def test_a_symlink_is_not_taken_over(tmp_path):
    """It need not lead there from the other directory."""
    _, ids = _chain(Root.of(tmp_path), "old", 1)
    (base,) = (tmp_path / "old").glob("*.base")
    shutil.move(base, tmp_path / "elsewhere")
    base.symlink_to("../elsewhere")
    with pytest.raises(OSError, match="no regular file"):
        Root.of(tmp_path).branch("old", ids[0], "new")


def test_a_state_that_is_not_there_is_refused(root):
    """Before anything is made."""
    _chain(root, "old", 1)
    with pytest.raises(ChainError, match="no complete checkpoint"):
        root.branch("old", "0" * 32, "new")
    assert not [*root.bucket().find("new/")]


def test_a_state_of_too_many_files_is_refused(root, monkeypatch):
    """A base is quicker then."""
    monkeypatch.setattr(records, "_MOST_SHARED", 2)
    _, ids = _chain(root, "old", 3)
    with pytest.raises(OSError, match="3 files, more than 2"):
        root.branch("old", ids[-1], "new")
    root.branch("old", ids[1], "new")


def test_stores_of_two_kinds_have_no_file_in_common(tmp_path):
    """That is an error of the system's, whichever they are."""
    stores = [Directory(tmp_path), MemoryStore(), ObjectStore(ModelBucket())]
    for ours in stores:
        for theirs in stores:
            if ours is not theirs:
                with pytest.raises(OSError, match="cross-device"):
                    ours.adopt(theirs, ["0000000001-0000000000000000.base"])


def test_a_store_in_memory_has_it_too():
    """And says what is not there."""
    old, new = MemoryStore(), MemoryStore()
    with Checkpointer(old, World(5, 1).regions) as checkpoints:
        checkpoints.save(wait=True)
    new.adopt(old, old.names())
    assert new.files == old.files
    with pytest.raises(FileNotFoundError):
        new.adopt(old, ["0000000009-0000000000000000.base"])


def test_objects_are_copied_within_a_service(tmp_path):
    """From any place of a bucket to any other; not to another bucket, and from a directory by reading."""
    one, other = (open_bucket(f"memory://{tmp_path.name}/{place}", None) for place in ("a/b", "a/c/d"))
    one.put("x/y", b"1")
    other.copy_from(one, "x/y")
    assert other.get("x/y") == b"1"
    open_bucket(f"memory://{tmp_path.name}", None).copy_from(one, "x/y")
    assert open_bucket(f"memory://{tmp_path.name}", None).get("x/y") == b"1"
    with pytest.raises(FileNotFoundError):
        other.copy_from(one, "x/z")
    with pytest.raises(OSError, match="cross-device"):
        open_bucket(f"memory://{tmp_path.name}-2", None).copy_from(one, "x/y")
    folder = DirectoryBucket(tmp_path)
    folder.copy_from(one, "x/y")
    assert (tmp_path / "x" / "y").read_bytes() == b"1"
