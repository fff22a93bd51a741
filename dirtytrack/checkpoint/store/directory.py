"""A store that is a directory. A file is complete under its name and on the disk, or it is not there."""

from __future__ import annotations

import errno
import mmap
import os
import random
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dirtytrack.checkpoint.store import descriptors
from dirtytrack.checkpoint.store.descriptors import Descriptor
from dirtytrack.checkpoint.store.lock import LockName, WriterLock
from dirtytrack.checkpoint.store.new_file import DirectoryNewFile
from dirtytrack.checkpoint.store.protocol import (
    Exchange,
    FileRemovedError,
    Store,
    StoreRemovedError,
    UnreadableError,
    Usage,
)
from dirtytrack.checkpoint.store.system import (
    MAP_NORESERVE,
    Folder,
    check,
    is_not_offered,
    make_directory,
)
from dirtytrack.native import ffi, lib

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
_READING = os.O_RDONLY | os.O_NONBLOCK  # a fifo has no other end to wait for
_NO_FILE = "it is not a regular file"
_REMOVED = (
    "it was removed, by a compaction perhaps, and this process may not keep so many files open "
    "(RLIMIT_NOFILE): open the chain again, or raise `ulimit -n` before"
)
_SECTOR = 512


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
        self._folder = Folder(path)
        self._fsync, self._lock = fsync, lock
        self._names = random.Random(secrets.randbits(128))  # for names that no dead writer has left

    @property
    def place(self) -> str:
        """The path, as it was given."""
        return str(self._folder.path)

    def locate(self, name: str) -> str:
        """See `Store`."""
        return str(self._folder.path / name)

    def names(self) -> list[str]:
        """See `Store`."""
        return [name for name in self._folder.names() if not _TEMPORARY.fullmatch(name)]

    def newest_names(self) -> None:
        """See `Store`."""

    def has_folders(self, names: Sequence[str]) -> bool:
        """See `Store`."""
        return {*names}.issubset(self._folder.names())

    def unreadable(self) -> list[tuple[str, str]]:
        """See `Store`. A file is all that says that it is there."""
        return []

    def usage(self) -> list[Usage]:
        """See `Store`."""
        found = []
        for name in self._folder.names():
            with suppress(FileNotFoundError), self._folder.naming(name):  # removed since
                status = os.stat(name, dir_fd=self._folder.fd, follow_symlinks=False)
                found.append(Usage(name, status.st_blocks * _SECTOR, bool(_TEMPORARY.fullmatch(name))))
        return found

    def expect(self, names: Sequence[str]) -> None:
        """See `Store`. They are near."""

    def open(self, name: str) -> DirectoryFile:
        """See `Store`."""
        return DirectoryFile(self._folder, name)

    def create(self, name: str = "", first: bytes = b"", most: int = 0) -> DirectoryNewFile:
        """See `Store`."""
        return DirectoryNewFile(self._folder, f".{self._names.getrandbits(64):016x}.tmp", self._fsync)

    def remove(self, names: Sequence[str], instead: Sequence[Exchange] = ()) -> None:
        """See `Store`."""
        for name in names:
            with suppress(FileNotFoundError):
                self._folder.unlink(name)
        if names and self._fsync:
            self._folder.sync()

    def adopt(self, other: Store, names: Sequence[str]) -> None:
        """See `Store`. A file has a name in both directories then."""
        if not isinstance(other, Directory):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), other.place)
        try:
            for name in names:
                self._folder.link(other._folder, name)
            if self._fsync:
                self._folder.sync()
        except BaseException:
            self.remove(names[::-1])
            raise

    def claim(self) -> WriterLock:
        """See `Store`."""
        lock = WriterLock(self._folder, self._lock)
        try:
            for name in filter(_TEMPORARY.fullmatch, self._folder.names()):
                with suppress(FileNotFoundError):
                    self._folder.unlink(name)
        except BaseException:
            lock.close()
            raise
        return lock

    def close(self) -> None:
        """See `Store`."""
        self._folder.close()


class DirectoryFile:
    """See `StoredFile`. Its descriptor may be given up for others; then the file is opened again."""

    _is_closed = True
    _key: object = None

    def __init__(self, folder: Folder, name: str) -> None:
        """Opens it, as `Store.open` says."""
        self._folder, self._name = folder, name
        self._key = object()
        descriptor = self._open()
        self.nbytes = os.fstat(descriptor.fd).st_size
        self._is_closed = False
        descriptors.keep(self._key, descriptor)

    def expect(self, spans: Iterable[tuple[int, int]]) -> None:
        """See `StoredFile`. The system reads ahead by itself."""

    def read_into(self, offset: int, buffers: Sequence[memoryview], checksum: Any = None) -> None:
        """See `StoredFile`."""
        descriptor = self._obtain()
        for buffer in buffers:
            with ffi.from_buffer("uint8_t[]", buffer, require_writable=True) as to:
                done = lib.dt_read_file(descriptor.fd, offset, to, len(to), checksum or ffi.NULL)
                nbytes = len(to)
            if done == -errno.EIO:
                raise UnreadableError(f"it can't be read at {offset}: {os.strerror(errno.EIO)}")
            with self._folder.naming(self._name):
                check(min(done, 0))
            if done < nbytes:
                raise UnreadableError("its length has changed")
            offset += nbytes

    def skip_hole(self, start: int, stop: int) -> int:
        """See `StoredFile`."""
        descriptor = self._obtain()
        try:
            with self._folder.naming(self._name):
                return min(os.lseek(descriptor.fd, start, os.SEEK_DATA), stop)
        except OSError as error:
            if is_not_offered(error):  # then anything may be anywhere
                return min(start, stop)
            if error.errno != errno.ENXIO:
                raise
            return stop

    def map(self, offset: int, nbytes: int) -> mmap.mmap:
        """See `StoredFile`."""
        descriptor = self._obtain()
        if os.fstat(descriptor.fd).st_size != self.nbytes:
            raise UnreadableError("its length has changed")
        # Python would keep a descriptor of its own for each mapping of a file.
        mapping = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
        start = int(ffi.cast("uintptr_t", ffi.from_buffer(mapping)))
        with self._folder.naming(self._name):
            try:
                check(lib.dt_map_file(start, nbytes, descriptor.fd, offset))
            except OSError as error:
                if error.errno != errno.ENODEV and not is_not_offered(error):
                    raise
                remedy = "no file can be mapped here: load it with lazy=False"
                raise OSError(error.errno, f"{error.strerror}; {remedy}") from error
        return mapping

    def close(self) -> None:
        """See `StoredFile`."""
        self._is_closed = True
        descriptors.forget(self._key)  # also again: an interrupt may have kept the first call from it

    def __del__(self, is_exiting: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_exiting():  # then modules are empty
            self.close()

    def _obtain(self) -> Descriptor:
        return descriptors.find(self._key) or self._open_again()

    def _open_again(self) -> Descriptor:
        if self._is_closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self._place)
        try:
            descriptor = self._open()
        except StoreRemovedError:
            raise
        except FileNotFoundError as error:
            raise FileRemovedError(errno.ENOENT, _REMOVED, self._place) from error
        if os.fstat(descriptor.fd).st_size != self.nbytes:
            raise UnreadableError("its length has changed")
        descriptors.keep(self._key, descriptor)
        return descriptor

    def _open(self) -> Descriptor:
        try:
            descriptor = self._open_or_follow()
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            raise UnreadableError(_NO_FILE) from None
        if not stat.S_ISREG(os.fstat(descriptor.fd).st_mode):
            descriptor.close()
            raise UnreadableError(_NO_FILE)
        return descriptor

    def _open_or_follow(self) -> Descriptor:
        try:
            return self._folder.open(self._name, _READING)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        if not self._folder.is_own():  # who else could put it there could have any file read
            raise UnreadableError(
                "it is a symlink, which is followed only in a directory of your own, closed to others"
            )
        try:
            return self._folder.open(self._name, _READING, follow=True)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            raise UnreadableError(f"it is a symlink that leads to no file: {error.strerror}") from None

    @property
    def _place(self) -> str:
        return str(self._folder.path / self._name)
