"""Every operation of a writer on files. A file is complete under its name, or it is not there."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dirtytrack.checkpoint.format.structures import FileName
from dirtytrack.native import lib

if TYPE_CHECKING:
    from typing_extensions import Buffer

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
_PRIVATE = 0o600
_MOST_BUFFERS = 512  # in one system call; the kernel takes at most 1024


class Directory:
    """The directory of a chain, held by its descriptor: renaming it does not confuse a writer.

    Attributes:
        path: as it was given, for messages.
        fd: its descriptor.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        """Opens a directory, and makes it and those above it if asked.

        Raises:
            FileNotFoundError, NotADirectoryError, PermissionError: as the system says.
        """
        self.path = path
        self.fd = -1
        if create:
            _make(path)
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Closes the descriptor; idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def check_place(self) -> None:
        """Refuses a path that leads elsewhere by now.

        Raises:
            OSError: it was moved; what is read by its path would be another chain.
        """
        if not os.path.samestat(self.path.stat(), os.fstat(self.fd)):
            raise OSError(errno.ESTALE, "the directory was moved, and another one is there", str(self.path))

    def names(self) -> list[FileName]:
        """What is committed, or claims to be, by number."""
        return sorted(name for name in map(FileName.parse, self._list()) if name)

    def clean(self) -> None:
        """Removes what writers that died have left. Only for who holds the lock, alone."""
        for name in filter(_TEMPORARY.fullmatch, self._list()):
            self.remove(name)

    def open(self, name: str, flags: int = 0) -> int:
        """A descriptor of a file for its owner alone, which is made if it is not there."""
        flags |= os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with self.blame(name):
            return os.open(name, flags, _PRIVATE, dir_fd=self.fd)

    def create(self) -> NewFile:
        """A new file that has no name of the chain's yet."""
        name = f".{secrets.token_hex(8)}.tmp"
        return NewFile(self, name, self.open(name, os.O_EXCL))

    def remove(self, name: str) -> None:
        """Removes a file; one that is gone already is no error."""
        try:
            with self.blame(name):
                os.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            pass

    def sync(self) -> None:
        """Makes renames and removals last."""
        with self.blame(""):
            os.fsync(self.fd)

    def _list(self) -> list[str]:
        with os.scandir(self.fd) as entries:
            return [entry.name for entry in entries]

    @contextmanager
    def blame(self, name: str) -> Iterator[None]:
        """An OSError in the block names the whole path of a file, whatever the call knew."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path / name)) from error


def _make(path: Path) -> None:
    # The directory's name has to be on the disk, and those of new ones above it, or a crash could take the
    # whole chain with it. Who made the directory need not have seen to that.
    if not path.is_dir():
        _make(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    try:
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # nor can it be synced by its path
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class NewFile:
    """A file on its way into the chain."""

    def __init__(self, directory: Directory, name: str, fd: int) -> None:
        self._directory = directory
        self._name = name
        self._fd = fd
        self._is_published = False

    def write(self, offset: int, buffers: Sequence[Buffer]) -> int:
        """Writes all of the buffers, one after the other, from an offset on; returns where they end.

        Raises:
            OSError: with the file's path.
        """
        pending = [memoryview(buffer).cast("B") for buffer in buffers]
        with self._directory.blame(self._name):
            while pending:
                written = os.pwritev(self._fd, pending[:_MOST_BUFFERS], offset)
                if written <= 0:
                    raise OSError(errno.EIO, "a write that makes no progress")
                offset += written
                while pending and written >= len(pending[0]):
                    written -= len(pending.pop(0))
                if written:
                    pending[0] = pending[0][written:]
        return offset

    def start_writeback(self) -> None:
        """Lets the disk begin, so that the sync at the end has less to wait for."""
        error = lib.dt_start_writeback(self._fd)
        with self._directory.blame(self._name):
            if error:
                raise OSError(-error, os.strerror(-error))

    def publish(self, name: FileName, *, sync: bool) -> None:
        """Gives the file its name, once and for all; it is durable when this returns, if *sync*.

        Raises:
            OSError: it has no name, and is removed.
        """
        with self._directory.blame(str(name)):
            if sync:
                os.fsync(self._fd)
            self._close()  # where some file systems say at last what they could not write
            error = lib.dt_rename_new(self._directory.fd, self._name.encode(), str(name).encode())
            if error:
                raise OSError(-error, os.strerror(-error))
            self._name = str(name)
            if sync:
                os.fsync(self._directory.fd)
        self._is_published = True

    def discard(self) -> None:
        """Removes what could not be completed, whatever its name; if that fails, a later writer will."""
        if not self._is_published:
            with suppress(OSError):
                self._close()
            with suppress(OSError):
                self._directory.remove(self._name)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
