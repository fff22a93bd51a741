"""A store that is a directory. A file is complete under its name and on the disk, or it is not there."""

from __future__ import annotations

import errno
import mmap
import os
import re
import resource
import secrets
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dirtytrack.checkpoint.store.lock import LockName, WriterLock
from dirtytrack.checkpoint.store.protocol import UnreadableError, Usage
from dirtytrack.checkpoint.store.system import (
    MAP_NORESERVE,
    Folder,
    check,
    is_not_offered,
    make_directory,
    sync_file,
    transfer,
)
from dirtytrack.native import lib

if TYPE_CHECKING:
    from typing_extensions import Buffer

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
_WRITEBACK = 1 << 24  # bytes after which the disk is to begin
_SECTOR = 512

_T = TypeVar("_T")


class Directory:
    """See `Store`. It is held by its descriptor, so that renaming it confuses neither writers nor readers."""

    maps = True

    def __init__(
        self, path: Path, *, create: bool = False, fsync: bool = True, lock: LockName = "record"
    ) -> None:
        """Opens a directory, and makes it and those above it if asked.

        Args:
            path: its own.
            create: make it if it is not there.
            fsync: have files, names and removals on the disk when a call returns. Without, nothing is synced.
            lock: how a claim keeps other processes out.

        Raises:
            FileNotFoundError, NotADirectoryError, PermissionError: as the system says.
        """
        if create:
            make_directory(path, sync=fsync)
        self._folder = _with_room(lambda: Folder(path), path)
        self._fsync, self._lock = fsync, lock

    @property
    def place(self) -> str:
        """The path, as it was given."""
        return str(self._folder.path)

    def locate(self, name: str) -> str:
        """See `Store`."""
        return str(self._folder.path / name)

    def names(self) -> list[str]:
        """See `Store`."""
        return [name for name in self._names() if not _TEMPORARY.fullmatch(name)]

    def usage(self) -> list[Usage]:
        """See `Store`."""
        found = []
        for name in self._names():
            with suppress(FileNotFoundError), self._folder.naming(name):  # removed since
                status = os.stat(name, dir_fd=self._folder.fd, follow_symlinks=False)
                found.append(Usage(name, status.st_blocks * _SECTOR, bool(_TEMPORARY.fullmatch(name))))
        return found

    def open(self, name: str) -> DirectoryFile:
        """See `Store`."""
        return _with_room(lambda: DirectoryFile(self._folder, name), self._folder.path)

    def create(self) -> DirectoryNewFile:
        """See `Store`."""
        return DirectoryNewFile(self._folder, self._fsync)

    def remove(self, names: Sequence[str]) -> None:
        """See `Store`."""
        for name in names:
            with suppress(FileNotFoundError):
                self._folder.unlink(name)
        if names and self._fsync:
            self._folder.sync()

    def claim(self) -> WriterLock:
        """See `Store`."""
        lock = WriterLock(self._folder, self._lock)
        try:
            for name in filter(_TEMPORARY.fullmatch, self._names()):
                with suppress(FileNotFoundError):
                    self._folder.unlink(name)
        except BaseException:
            lock.close()
            raise
        return lock

    def close(self) -> None:
        """See `Store`."""
        self._folder.close()

    def _names(self) -> list[str]:
        return _with_room(self._folder.names, self._folder.path)


class DirectoryFile:
    """See `StoredFile`."""

    _fd = -1

    def __init__(self, folder: Folder, name: str) -> None:
        """Opens it, as `Store.open` says."""
        self._folder, self._name = folder, name
        try:
            self._fd = folder.open(name, os.O_RDONLY | os.O_NONBLOCK)  # a fifo has no other end to wait for
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise UnreadableError("it is not a regular file") from None
            raise
        try:
            status = os.fstat(self._fd)
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableError("it is not a regular file")
        except BaseException:
            self.close()
            raise
        self.nbytes = status.st_size

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See `StoredFile`."""
        try:
            with self._folder.naming(self._name):
                reached = transfer(os.preadv, self._fd, buffers, offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise UnreadableError(f"it can't be read at {offset}: {error.strerror}") from error
        if reached < offset + sum(map(len, buffers)):
            raise UnreadableError("its length has changed")

    def skip_hole(self, start: int, stop: int) -> int:
        """See `StoredFile`."""
        try:
            with self._folder.naming(self._name):
                return min(os.lseek(self._fd, start, os.SEEK_DATA), stop)
        except OSError as error:
            if is_not_offered(error):  # then anything may be anywhere
                return min(start, stop)
            if error.errno != errno.ENXIO:
                raise
            return stop

    def map(self, offset: int, nbytes: int) -> mmap.mmap:
        """See `StoredFile`."""
        if os.fstat(self._fd).st_size != self.nbytes:
            raise UnreadableError("its length has changed")
        flags, access = mmap.MAP_PRIVATE | MAP_NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
        with self._folder.naming(self._name):
            try:
                return mmap.mmap(self._fd, nbytes, flags=flags, prot=access, offset=offset)
            except OSError as error:
                if error.errno != errno.ENODEV and not is_not_offered(error):
                    raise
                remedy = "no file can be mapped here: load it with lazy=False"
                raise OSError(error.errno, f"{error.strerror}; {remedy}") from error

    def fd(self) -> int:
        """See `StoredFile`."""
        return self._fd

    def close(self) -> None:
        """See `StoredFile`."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self, is_exiting: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_exiting():  # then modules are empty
            self.close()


class DirectoryNewFile:
    """See `NewFile`. It has a temporary name until it is published."""

    def __init__(self, folder: Folder, fsync: bool) -> None:
        """Makes it."""
        self._folder, self._fsync = folder, fsync
        self._name = f".{secrets.token_hex(8)}.tmp"
        self._fd = folder.open(self._name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        self._waiting = 0  # bytes that the disk has not been asked for yet
        self._is_published = False

    def write(self, offset: int, buffers: Sequence[Buffer]) -> int:
        """See `NewFile`."""
        nbytes = sum(memoryview(buffer).nbytes for buffer in buffers)
        with self._folder.naming(self._name):
            end = transfer(os.pwritev, self._fd, buffers, offset)
            if end < offset + nbytes:
                raise OSError(errno.EIO, "a write that makes no progress")
            self._waiting += nbytes
            if self._fsync and self._waiting >= _WRITEBACK:  # so that the sync has less to wait for
                self._waiting = 0
                check(lib.dt_start_writeback(self._fd))
        return end

    def fd(self) -> int:
        """See `NewFile`."""
        return self._fd

    def publish(self, name: str) -> None:
        """See `NewFile`."""
        with self._folder.naming(name):
            if self._fsync:
                sync_file(self._fd)
            self._close()  # where some file systems say at last what they could not write
            check(lib.dt_rename_new(self._folder.fd, self._name.encode(), name.encode()))
            self._name = name
            if self._fsync:
                self._folder.sync()
        self._is_published = True

    def discard(self) -> None:
        """See `NewFile`."""
        if not self._is_published:
            with suppress(OSError):
                self._close()
            with suppress(OSError):
                self._folder.unlink(self._name)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _with_room(call: Callable[[], _T], directory: Path) -> _T:
    # A chain may have more files than a process may open by default.
    try:
        return call()
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        return call()
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise OSError(
            errno.EMFILE,
            f"the chain has more files than this process may open, {hard}: raise `ulimit -n`, or shorten the "
            "chain with compact()",
            str(directory),
        ) from error
