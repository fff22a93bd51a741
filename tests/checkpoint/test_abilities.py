"""What a directory can do, found by trying; what lacks is played in ``test_filesystems``."""

from __future__ import annotations

import json
import os

import pytest

from _lib.support import in_child, require_root
from dirtytrack import BusyError
from dirtytrack.checkpoint import directory_support
from dirtytrack.checkpoint.store.directory import Directory

pytestmark = pytest.mark.anywhere


def test_a_directory_that_can_do_everything(tmp_path):
    """Every check says what follows, none has a remedy, and nothing is left."""
    found = directory_support(tmp_path)
    assert (found.path, found.works) == (str(tmp_path), True)
    assert [one.remedy for one in found.checks] == [""] * len(found.checks)
    assert all(one.detail for one in found.checks)
    assert {one.name: one.ok for one in found.checks}["write"] is True
    assert os.listdir(tmp_path) == []


def test_json_says_the_same(tmp_path):
    """Path, verdict and checks."""
    found = directory_support(str(tmp_path))
    told = json.loads(found.to_json())
    assert told.keys() == {"path", "works", "checks"}
    assert [one["name"] for one in told["checks"]] == [one.name for one in found.checks]
    assert told["checks"][0].keys() == {"name", "ok", "detail", "remedy"}


def test_a_chain_that_is_there_is_left_alone(tmp_path):
    """Neither its files nor the lock of its writer, whichever process asks."""
    directory = Directory(tmp_path)
    lock = directory.claim()
    file = directory.create()
    before = sorted(os.listdir(tmp_path))
    for ask in (directory_support, lambda path: in_child(lambda: directory_support(path)).check()):
        assert ask(tmp_path).works
        assert sorted(os.listdir(tmp_path)) == before

    def claim():
        with pytest.raises(BusyError):
            Directory(tmp_path).claim()

    in_child(claim).check()
    lock.renew()
    file.discard()
    lock.close()
    directory.close()


def test_what_is_no_directory(tmp_path):
    """The error says what it is."""
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        directory_support(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="make it, or name the one above it") as caught:
        directory_support(tmp_path / "no")
    assert caught.value.filename == str(tmp_path / "no")


def test_a_directory_that_can_not_be_written(tmp_path):
    """Nothing else is tried, and the remedy is another one."""
    require_root("to become a plain user")
    for parent in [*tmp_path.parents][:3]:
        parent.chmod(0o755)
    tmp_path.chmod(0o555)

    def ask():
        os.seteuid(65534)
        return directory_support(tmp_path)

    found = in_child(ask).check()
    assert not found.works
    assert [(one.name, one.ok) for one in found.checks] == [("space", None), ("write", False)]
    assert found.checks[-1].remedy == "choose another directory"


def test_space_that_has_run_out(tmp_path, monkeypatch):
    """Is a failure; how much there is, is said."""
    real = os.statvfs(tmp_path)
    fields = [*real]
    fields[4] = 0  # blocks that a plain user may have
    monkeypatch.setattr(os, "fstatvfs", lambda fd: os.statvfs_result(fields))
    found = directory_support(tmp_path)
    assert not found.works
    assert found.checks[0][:3] == ("space", False, "0 MiB are free")
