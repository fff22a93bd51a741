"""One writer for a directory: among threads, processes, and what they leave behind."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
from pathlib import Path

import pytest

from _lib.support import in_child, require_root
from dirtytrack import BusyError, UnsupportedError
from dirtytrack.checkpoint.store.directory import Directory

pytestmark = pytest.mark.anywhere


@pytest.fixture
def directory(tmp_path):
    opened = Directory(tmp_path)
    yield opened
    opened.close()


def _try(path, **keywords):
    """Take the lock in this process and give it back; the message if somebody has it."""
    directory = Directory(path, **keywords)
    try:
        directory.claim().close()
    except BusyError as error:
        return str(error)
    finally:
        directory.close()
    return None


def _known_of(lock, path):
    """What may tell why a lock is not held."""
    fd, there = lock._fd(), path.stat()
    ours = os.fstat(fd)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        taken = "taken"
    except OSError as error:
        taken = repr(error)
    lines = [line for line in Path("/proc/locks").read_text().splitlines() if f":{ours.st_ino} " in line]
    return taken, lines, (ours.st_dev, ours.st_ino), (there.st_dev, there.st_ino), os.pread(fd, 65, 0)


def test_a_second_one_in_this_process_is_refused(directory, tmp_path):
    """The message names this process; the attempt does not cost the first one its lock."""
    lock = directory.claim()
    assert str(os.getpid()) in _try(tmp_path)
    assert str(os.getpid()) in in_child(lambda: _try(tmp_path)).check()
    lock.close()
    assert _try(tmp_path) is None


def test_another_path_to_the_directory_is_no_way_round(directory, tmp_path):
    """A symbolic link to the directory is the same directory."""
    link = tmp_path.with_name(tmp_path.name + "-link")
    link.symlink_to(tmp_path)
    lock = directory.claim()
    assert _try(link) is not None
    lock.close()


def test_another_process_is_refused_and_named(directory, tmp_path):
    """The message has the pid of the owner."""
    lock = directory.claim()
    assert f"Process {os.getpid()} writes" in in_child(lambda: _try(tmp_path)).check()
    lock.close()


def test_it_ends_with_its_owner_though_a_worker_lives_on(tmp_path):
    """A child that the owner has forked keeps neither the lock nor the directory."""
    reader, writer = os.pipe()

    def own_and_die():
        Directory(tmp_path).claim()
        worker = os.fork()
        if worker == 0:
            signal.pause()
        os.write(writer, worker.to_bytes(4, "little"))
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(own_and_die).status == -signal.SIGKILL
    worker = int.from_bytes(os.read(reader, 4), "little")
    try:
        os.kill(worker, 0)  # it is alive
        assert _try(tmp_path) is None
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(reader)
        os.close(writer)


def test_a_child_that_closes_does_not_cost_the_owner_its_lock(directory, tmp_path):
    """What a forked child does with its copy is its own affair."""
    lock = directory.claim()
    in_child(lock.close).check()
    assert in_child(lambda: _try(tmp_path)).check() is not None
    lock.close()


def test_a_lock_that_a_copy_has_cost_is_taken_again(directory, tmp_path):
    """To copy the directory in the owner's process drops the lock, see fcntl(2); renew takes it again."""
    lock = directory.claim()
    shutil.copytree(tmp_path, tmp_path.with_name(tmp_path.name + "-copy"))
    assert lock.holds(["lock"]), _known_of(lock, tmp_path / "lock")  # it failed, rarely, and nobody knows why
    lock.renew()
    assert in_child(lambda: _try(tmp_path)).check() is not None
    assert not lock.holds(["lock", "nothing"])
    lock.close()


def test_a_lock_whose_file_is_gone_says_what_to_do(directory, tmp_path):
    """A cleaner of old files may take it: nobody is kept out any more, and saving again does not help."""
    lock = directory.claim()
    (tmp_path / "lock").unlink()
    for _ in range(2):
        with pytest.raises(BusyError, match=r"The file was removed.*Close this Checkpointer"):
            lock.renew()
    lock.close()


def test_a_lock_that_somebody_else_has_had_is_not(directory, tmp_path):
    """Whoever wrote meanwhile may have used our numbers: renewing says so, again and again."""
    lock = directory.claim()
    (tmp_path / "lock").read_bytes()  # open and close: gone
    assert in_child(lambda: _try(tmp_path)).check() is None
    for _ in range(2):
        assert not lock.holds([])
        with pytest.raises(BusyError, match="Another writer has been here"):
            lock.renew()
    lock.close()
    assert _try(tmp_path) is None


def test_a_lock_that_somebody_else_has_by_now_is_not(directory, tmp_path):
    """Renewing then says who has it."""
    lock = directory.claim()
    (tmp_path / "lock").read_bytes()  # open and close: gone
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            other = Directory(tmp_path).claim()
            os.write(ready[1], b"1")
            os.read(done[0], 1)
            other.close()
        finally:
            os._exit(0)
    assert os.read(ready[0], 1) == b"1"
    with pytest.raises(BusyError, match=f"Process {pid} writes"):
        lock.renew()
    os.write(done[1], b"1")
    os.waitpid(pid, 0)
    lock.close()
    for end in (*ready, *done):
        os.close(end)


def test_a_file_that_was_replaced_protects_nothing(directory, tmp_path):
    """Who finds another one in its place may not be alone."""
    lock = directory.claim()
    os.unlink(tmp_path / "lock")
    assert in_child(lambda: _try(tmp_path)).check() is None  # it makes another one
    with pytest.raises(BusyError, match="replaced"):
        lock.renew()
    lock.close()


def test_by_choice_no_other_process_is_kept_out(tmp_path):
    """But this one is; and who was first learns of another writer before its next commit."""
    directory = Directory(tmp_path, lock="none")
    lock = directory.claim()
    assert str(os.getpid()) in _try(tmp_path, lock="none")
    shutil.copytree(tmp_path, tmp_path.with_name(tmp_path.name + "-copy"))
    lock.renew()
    assert in_child(lambda: _try(tmp_path, lock="none")).check() is None
    for _ in range(2):
        with pytest.raises(BusyError, match='Another writer has been here: lock="none" keeps nobody out'):
            lock.renew()
    lock.close()
    directory.close()
    assert _try(tmp_path) is None


NO_LOCKS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EPERM]


@pytest.mark.parametrize("code", NO_LOCKS, ids=errno.errorcode.get)
def test_a_file_system_without_locks(directory, tmp_path, monkeypatch, code):
    """The error names the file and the remedy, at a claim and later; who does without asks for nothing."""
    before = directory.claim()

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "lockf", fail)
    attempts = [before.renew, lambda: before.close() or directory.claim()]
    for attempt in attempts:
        with pytest.raises(UnsupportedError) as caught:
            attempt()
        assert caught.value.errno == code
        assert f"lock {tmp_path / 'lock'}: " in str(caught.value)
        assert 'lock="none"' in str(caught.value)
    other = Directory(tmp_path, lock="none")
    lock = other.claim()
    lock.renew()
    lock.close()
    other.close()


def test_a_lock_that_fails_otherwise(directory, tmp_path, monkeypatch):
    """Is the system's error, and names the file."""

    def fail(*_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "lockf", fail)
    with pytest.raises(OSError, match="broken") as caught:
        directory.claim()
    assert type(caught.value) is OSError
    assert caught.value.filename == str(tmp_path / "lock")


def test_an_owner_that_nobody_can_name(directory, tmp_path, monkeypatch):
    """Somebody has it, and the system does not say who."""
    lock = directory.claim()

    def fail(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def attempt():
        monkeypatch.setattr(fcntl, "fcntl", fail)
        return _try(tmp_path)

    assert "A process that can't be seen from here writes to it" in in_child(attempt).check()
    lock.close()


def test_the_file_is_private(directory, tmp_path):
    """Nobody else can open it."""
    directory.claim().close()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_a_directory_that_cannot_be_written_is_the_systems_error(tmp_path):
    """PermissionError, as a plain user."""
    require_root("to become a plain user")
    tmp_path.chmod(0o555)

    def attempt():
        os.seteuid(65534)
        with pytest.raises(PermissionError):
            Directory(tmp_path).claim()

    for parent in [*tmp_path.parents][:3]:
        parent.chmod(0o755)
    in_child(attempt).check()


def test_a_file_that_can_not_be_one_is_named(directory, tmp_path):
    """A pipe in its place."""
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(OSError, match="lock"):
        directory.claim()
