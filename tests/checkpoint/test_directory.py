"""The store that is a directory: calls that do less than they were asked for, syncs, modes, odd files."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import socket
import threading
from contextlib import contextmanager

import pytest

from _lib.checkpoint.intercept import SYNCS, intercepted
from _lib.interrupts import interrupted_at, is_interrupted, of_the_package, traced
from _lib.support import require_root
from dirtytrack.checkpoint.store import system
from dirtytrack.checkpoint.store.directory import Directory
from dirtytrack.checkpoint.store.protocol import UnreadableError

pytestmark = pytest.mark.anywhere

NAME, OTHER = "0000000003-0000000000000000.delta", "0000000004-0000000000000000.delta"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "chain"


@pytest.fixture
def directory(path):
    opened = Directory(path, create=True)
    yield opened
    opened.close()


def test_other_files_are_left_alone(directory, path):
    """Foreign names are listed, as far as they are no temporary ones; a claim removes those and no others."""
    directory.create()
    for name in (".mine.tmp", ".0123456789abcdeg.tmp", "notes.txt"):
        (path / name).touch()
    assert sorted(directory.names()) == [".0123456789abcdeg.tmp", ".mine.tmp", "notes.txt"]
    directory.claim().close()
    assert sorted(os.listdir(path)) == [".0123456789abcdeg.tmp", ".mine.tmp", "lock", "notes.txt"]


def test_files_are_private(directory, path):
    """Mode 0600, and 0700 for a directory that was made."""
    directory.create().publish(NAME)
    assert (path / NAME).stat().st_mode & 0o777 == 0o600
    assert path.stat().st_mode & 0o777 == 0o700


def test_usage_leaves_holes_out(directory, path):
    """It is the room on the disk."""
    file = directory.create()
    file.write(1 << 30, [b"x"])
    file.publish(NAME)
    (usage,) = directory.usage()
    assert usage.nbytes == os.stat(path / NAME).st_blocks * 512 < 1 << 20


def test_many_buffers_are_filled_one_after_the_other(directory, path):
    """Every byte arrives in its place."""
    file = directory.create()
    file.write(0, [b"abcd", b"", b"e", b"fghijklm"])
    file.publish(NAME)
    assert (path / NAME).read_bytes() == b"abcdefghijklm"
    data, opened = bytearray(13), directory.open(NAME)
    opened.read_into(0, [memoryview(data)[:5], memoryview(data)[5:5], memoryview(data)[5:]])
    assert data == b"abcdefghijklm"
    opened.close()


def test_thousands_of_buffers(directory, path):
    """Each has its place behind the one before it."""
    file = directory.create()
    file.write(0, [bytes([i % 251]) for i in range(3000)])
    file.publish(NAME)
    assert (path / NAME).read_bytes() == bytes(i % 251 for i in range(3000))


def _failing(name, code):
    # A hook that makes calls of that name fail.
    return lambda call: call.fail(code) if call.name == name else call.run()


def test_a_failed_sync_of_the_directory_takes_the_name_back(directory, path):
    """Committed is only what is known to be on the disk."""
    file = directory.create()
    with (
        intercepted(_failing("dt_sync_directory", errno.EIO)),
        pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught,
    ):
        file.publish(NAME)
    file.discard()
    assert caught.value.filename == str(path / NAME)
    assert os.listdir(path) == []


@contextmanager
def _syncing():
    # Inodes of what is synced in the block.
    inodes = []

    def hook(call):
        if call.name in SYNCS:
            inodes.append(os.fstat(call.arguments[0]).st_ino)
        return call.run()

    with intercepted(hook):
        yield inodes


def test_the_directory_is_on_the_disk(tmp_path):
    """Its name in its parent is, and so is that of every directory made for it, whoever made it."""
    for path in (tmp_path / "a" / "b", tmp_path / "a" / "b"):
        with _syncing() as inodes:
            Directory(path, create=True).close()
        assert (tmp_path / "a").stat().st_ino in inodes


def test_removals_are_on_the_disk(directory, path):
    """When remove returns."""
    directory.create().publish(NAME)
    with _syncing() as inodes:
        directory.remove([NAME])
    assert inodes == [path.stat().st_ino]


def test_without_fsync_nothing_is_synced(tmp_path):
    """Neither files nor names nor what was made for them, and no file is written to disk early."""
    asked = []

    def hook(call):
        asked.append(call.name)
        return call.run()

    with intercepted(hook):
        directory = Directory(tmp_path / "a" / "b", create=True, fsync=False)
        lock, file = directory.claim(), directory.create()
        file.write(0, [bytes(1 << 25)])
        file.publish(NAME)
        directory.remove([NAME])
        lock.close()
        directory.close()
    assert "dt_write_all" in asked
    assert not {*SYNCS, "dt_start_writeback"} & {*asked}


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY, errno.EPERM])
def test_files_that_can_not_be_synced(directory, path, code):
    """The error names the file and the remedy, and there is no such file."""
    file = directory.create()
    with intercepted(_failing("fsync", code)), pytest.raises(OSError, match="pass fsync=False") as caught:
        file.publish(NAME)
    file.discard()
    assert (caught.value.errno, caught.value.filename) == (code, str(path / NAME))
    assert os.listdir(path) == []


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_holes_that_can_not_be_found(directory, code):
    """Anything may be anywhere, then; what is beyond the end is zeros all the same."""
    file = directory.create()
    file.write(1 << 20, [b"x"])
    file.publish(NAME)
    opened = directory.open(NAME)
    with intercepted(_failing("lseek", code)):
        assert [opened.skip_hole(at, 1 << 20) for at in (0, 5, 1 << 20)] == [0, 5, 1 << 20]
    opened.close()


@pytest.mark.parametrize("code", [errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP])
def test_files_that_can_not_be_mapped(directory, path, code):
    """The error names the file and the remedy."""
    directory.create().publish(NAME)
    opened = directory.open(NAME)
    with intercepted(_failing("dt_map_file", code)), pytest.raises(OSError, match="lazy=False") as caught:
        opened.map(0, mmap.PAGESIZE)
    assert (caught.value.errno, caught.value.filename) == (code, str(path / NAME))
    opened.close()


def test_a_parent_that_may_not_be_read_is_not_synced(tmp_path, monkeypatch):
    """Where the directory is there already."""
    real = os.open

    def refuse(path, *args, **kwargs):
        if path == tmp_path.parent:
            raise PermissionError(errno.EACCES, "refused")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(system.os, "open", refuse)
    with _syncing() as inodes:
        Directory(tmp_path, create=True).close()
    assert inodes == []


def test_a_directory_that_is_moved_is_the_same(directory, path, tmp_path):
    """Who has it goes on in it, and not in what lies at its path by now."""
    path.rename(tmp_path / "moved")
    path.mkdir()
    directory.create().publish(NAME)
    assert directory.names() == [NAME] == os.listdir(tmp_path / "moved")
    directory.open(NAME).close()
    directory.remove([NAME])
    assert os.listdir(path) == os.listdir(tmp_path / "moved") == []


def test_listings_at_once_are_whole(directory):
    """Two threads that list do not take names from each other."""
    names = [f"{number:04}" for number in range(2000)]
    for name in names:
        (directory._folder.path / name).touch()
    found = []
    threads = [
        threading.Thread(target=lambda: found.extend(sorted(directory.names()) == names for _ in range(20)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 80


def _link_to(target, path):
    # A file of the directory, which lies elsewhere.
    target.write_bytes(b"elsewhere")
    (path / NAME).symlink_to(target)


def test_symlinks_are_followed_in_a_directory_of_ones_own(directory, path, tmp_path):
    """For reading; to remove one leaves alone what it leads to."""
    _link_to(tmp_path / "elsewhere", path)
    data, opened = bytearray(9), directory.open(NAME)
    opened.read_into(0, [memoryview(data)])
    opened.close()
    assert data == b"elsewhere"
    directory.remove([NAME])
    assert directory.names() == []
    assert (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("whose", ["somebody else's", "everybody's"])
def test_symlinks_are_refused_elsewhere(directory, path, tmp_path, whose):
    """Where others may put them, with that word; plain files are read there."""
    _link_to(tmp_path / "elsewhere", path)
    directory.create().publish(OTHER)
    if whose == "everybody's":
        path.chmod(0o777)
    else:
        require_root("to give the directory away")
        os.chown(path, 65534, -1)
    with pytest.raises(UnreadableError, match="symlink"):
        directory.open(NAME)
    directory.open(OTHER).close()


def test_symlinks_that_lead_nowhere(directory, path):
    """To nothing, through a file, or in a circle: the word is said, and they are not taken for removed."""
    (path / "file").touch()
    for target in ("nowhere", "file/below", NAME):
        (path / NAME).symlink_to(target)
        with pytest.raises(UnreadableError, match="a symlink that leads to no file"):
            directory.open(NAME)
        (path / NAME).unlink()


@pytest.mark.parametrize(
    "kind", ["directory", "link to a directory", "fifo", "link to a fifo", "socket", "link to a socket"]
)
def test_what_is_no_file_is_refused(directory, path, kind):
    """And without waiting for the other end of a fifo."""
    with socket.socket(socket.AF_UNIX) as server:
        {
            "directory": lambda name: (path / name).mkdir(),
            "fifo": lambda name: os.mkfifo(path / name),
            "socket": lambda name: server.bind(str(path / name)),
        }[kind.rpartition(" ")[2]](OTHER if "link" in kind else NAME)
        if "link" in kind:
            (path / NAME).symlink_to(OTHER)
        before = os.listdir("/proc/self/fd")
        with pytest.raises(UnreadableError, match="not a regular file"):
            directory.open(NAME)
        assert os.listdir("/proc/self/fd") == before


def test_errors_have_the_whole_path(directory, path):
    """A directory that was removed is named."""
    path.rmdir()
    with pytest.raises(FileNotFoundError) as caught:
        directory.create().write(0, [b"x"])
    assert caught.value.filename.startswith(str(path))


@pytest.mark.parametrize(("code", "kind"), [(errno.EIO, UnreadableError), (errno.ENOMEM, OSError)])
def test_a_read_that_fails(directory, path, code, kind):
    """EIO is the file's fault, and says where; any other error is not, and names the file."""
    file = directory.create()
    file.write(0, [b"abc"])
    file.publish(NAME)
    opened = directory.open(NAME)

    def fail(call):
        return call.fail(code) if call.name == "dt_read_file" else call.run()

    with intercepted(fail), pytest.raises(kind, match=os.strerror(code)) as caught:
        opened.read_into(1, [memoryview(bytearray(2))])
    if kind is OSError:
        assert caught.value.filename == str(path / NAME)
    else:
        assert "at 1" in str(caught.value)
    opened.close()


def test_what_is_no_directory(tmp_path):
    """It is left as it is, and so is what would be below it."""
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "deep" / "down"):
        for create in (True, False):
            with pytest.raises(NotADirectoryError):
                Directory(path, create=create)
    assert (tmp_path / "file").read_text() == "mine"


@traced
def test_a_file_whose_beginning_is_interrupted_ends_in_silence(directory):
    """It is begun by the thread that saves, too, where Ctrl-C comes."""

    def begins(frame):
        return of_the_package(frame) and frame.f_code.co_name in ("create", "__init__")

    def begin(count):
        with interrupted_at(count, among=begins):
            directory.create()

    assert next(count for count in itertools.count(1) if not is_interrupted(begin, count)) > 2
