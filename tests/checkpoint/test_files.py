"""A file is complete under its name, or it is not there."""

from __future__ import annotations

import errno
import os

import pytest

from dirtytrack.checkpoint.format.structures import FileName, Kind
from dirtytrack.checkpoint.store import directory as directory_module
from dirtytrack.checkpoint.store.directory import Directory

pytestmark = pytest.mark.anywhere

NAME = FileName(3, bytes(8), Kind.DELTA)


@pytest.fixture
def directory(tmp_path):
    opened = Directory(tmp_path / "chain", create=True)
    yield opened
    opened.close()


def test_a_file_appears_whole(directory):
    """Until it is published it has no name of the chain's."""
    file = directory.create()
    assert file.write(2, [b"cd", memoryview(b"ef")]) == 6
    file.write(0, [b"ab"])
    assert directory.names() == []
    file.publish(NAME, sync=True)
    assert directory.names() == [NAME]
    assert (directory.path / str(NAME)).read_bytes() == b"abcdef"
    assert os.listdir(directory.path) == [str(NAME)]


def test_names_are_sorted_by_number(directory):
    """Whatever the directory's order, and others are left out."""
    for number in (12345678901, 2, 1):
        directory.create().publish(FileName(number, bytes(8), Kind.BASE), sync=False)
    (directory.path / "notes.txt").write_text("mine")
    assert [name.number for name in directory.names()] == [1, 2, 12345678901]


def test_nothing_is_replaced(directory):
    """A name that is taken is an error, and the file that has it stays."""
    first, second = directory.create(), directory.create()
    first.write(0, [b"first"])
    first.publish(NAME, sync=False)
    with pytest.raises(FileExistsError) as caught:
        second.publish(NAME, sync=False)
    second.discard()
    assert caught.value.filename == str(directory.path / str(NAME))
    assert (directory.path / str(NAME)).read_bytes() == b"first"


def test_files_are_private(directory):
    """Mode 0600, and 0700 for a directory that was made."""
    directory.create().publish(NAME, sync=False)
    assert (directory.path / str(NAME)).stat().st_mode & 0o777 == 0o600
    assert directory.path.stat().st_mode & 0o777 == 0o700


def test_short_writes_are_continued(directory, monkeypatch):
    """Every byte arrives in its place, however little the system takes at a time."""
    pwritev = os.pwritev

    def some(fd, buffers, offset):
        return pwritev(fd, [buffers[0][:3]], offset)

    monkeypatch.setattr(directory_module.os, "pwritev", some)
    file = directory.create()
    file.write(0, [b"abcd", b"", b"e", b"fghijklm"])
    file.publish(NAME, sync=False)
    assert (directory.path / str(NAME)).read_bytes() == b"abcdefghijklm"


def test_a_write_without_progress_is_an_error(directory, monkeypatch):
    """And not an endless loop."""
    monkeypatch.setattr(directory_module.os, "pwritev", lambda fd, buffers, offset: 0)
    file = directory.create()
    with pytest.raises(OSError, match="no progress"):
        file.write(0, [b"a"])
    file.discard()


def test_more_buffers_than_one_call_takes(directory):
    """Thousands of small runs are gathered into few calls."""
    file = directory.create()
    file.write(0, [bytes([i % 251]) for i in range(3000)])
    file.publish(NAME, sync=False)
    assert (directory.path / str(NAME)).read_bytes() == bytes(i % 251 for i in range(3000))


def test_what_the_dead_have_left_is_removed(directory):
    """Temporary files of the writer's, and nothing else."""
    directory.create()
    for name in (".mine.tmp", ".0123456789abcdeg.tmp", str(NAME)):
        (directory.path / name).touch()
    directory.clean()
    assert sorted(os.listdir(directory.path)) == sorted([".mine.tmp", ".0123456789abcdeg.tmp", str(NAME)])


def test_a_discarded_file_is_gone(directory):
    """Also when its last step had failed after the rename."""
    file = directory.create()
    file.discard()
    file.discard()
    assert os.listdir(directory.path) == []


def test_a_failed_sync_of_the_directory_takes_the_name_back(directory, monkeypatch):
    """Committed is only what is known to be on the disk."""
    file, fsync = directory.create(), os.fsync

    def fail(fd):
        if fd == directory.fd:
            raise OSError(errno.EIO, "broken")
        fsync(fd)

    monkeypatch.setattr(directory_module.os, "fsync", fail)
    with pytest.raises(OSError, match="broken") as caught:
        file.publish(NAME, sync=True)
    file.discard()
    assert caught.value.filename == str(directory.path / str(NAME))
    assert os.listdir(directory.path) == []


def _synced(monkeypatch):
    # Inodes of what is synced from now on.
    inodes, fsync = [], os.fsync
    monkeypatch.setattr(
        directory_module.os, "fsync", lambda fd: (inodes.append(os.fstat(fd).st_ino), fsync(fd))
    )
    return inodes


def test_the_directory_is_on_the_disk(tmp_path, monkeypatch):
    """Its name in its parent is, and so is that of every directory made for it, whoever made it."""
    inodes = _synced(monkeypatch)
    for path in (tmp_path / "a" / "b", tmp_path / "a" / "b"):
        inodes.clear()
        Directory(path, create=True).close()
        assert (tmp_path / "a").stat().st_ino in inodes


def test_a_parent_that_may_not_be_read_is_not_synced(tmp_path, monkeypatch):
    """Where the directory is there already."""
    real = os.open

    def refuse(path, *args, **kwargs):
        if path == tmp_path.parent:
            raise PermissionError(errno.EACCES, "refused")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(directory_module.os, "open", refuse)
    inodes = _synced(monkeypatch)
    Directory(tmp_path, create=True).close()
    assert inodes == []


def test_removing_what_is_gone_is_no_error(directory):
    """Somebody was quicker."""
    directory.remove("nothing")


def test_errors_have_the_whole_path(directory):
    """A directory that was removed is named."""
    directory.path.rmdir()
    with pytest.raises(FileNotFoundError) as caught:
        directory.create()
    assert caught.value.filename.startswith(str(directory.path))
