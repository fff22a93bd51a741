"""System calls on files: all of what was asked for, and errors that name the file."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dirtytrack.checkpoint.store.descriptors import Descriptor, with_room
from dirtytrack.checkpoint.store.protocol import StoreRemovedError
from dirtytrack.errors import LIMITS
from dirtytrack.native import lib

MAP_NORESERVE = 0x4000  # which the mmap module of Python 3.11 lacks

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Folder:
    """A directory by its descriptor: renaming it confuses nobody who has this.

    Attributes:
        path: as it was given, for messages.
    """

    def __init__(self, path: Path) -> None:
        """Opens a directory.

        Raises:
            FileNotFoundError, NotADirectoryError, PermissionError: as the system says.
        """
        self.path = path
        try:
            self._descriptor = Descriptor(path, _DIRECTORY)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error

    @property
    def fd(self) -> int:
        """Its descriptor; -1 after `close`."""
        return self._descriptor.fd

    def names(self) -> list[str]:
        """What is in it, in no order."""
        # By a descriptor of its own: two that list by the same one would each get a part.
        with self.naming():
            listing = Descriptor(".", _DIRECTORY, folder=self.fd)
            try:
                # It makes another descriptor of its own.
                return with_room(lambda: os.listdir(listing.fd))  # noqa: PTH208 - by a descriptor
            finally:
                listing.close()

    def open(self, name: str, flags: int, *, follow: bool = False) -> Descriptor:
        """A descriptor of a file; where the flags make it, it is for its owner alone.

        Args:
            name: of the file.
            flags: as of ``os.open``.
            follow: whether it may be a symlink.
        """
        flags |= os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        with self.naming(name):
            return Descriptor(name, flags, folder=self.fd)

    def is_own(self) -> bool:
        """Whether it belongs to this process's user, and not everybody may write to it."""
        status = os.fstat(self.fd)
        return status.st_uid == os.geteuid() and not status.st_mode & stat.S_IWOTH

    def link(self, other: Folder, name: str) -> None:
        """Gives a file of another directory its name in this one, too, if the file system has such names."""
        with other.naming(name):
            if not stat.S_ISREG(os.stat(name, dir_fd=other.fd, follow_symlinks=False).st_mode):
                raise OSError(errno.ELOOP, "it is no regular file")  # a symlink need not lead there from here
        with self.naming(name):
            os.link(name, name, src_dir_fd=other.fd, dst_dir_fd=self.fd, follow_symlinks=False)

    def unlink(self, name: str) -> None:
        """Removes a file.

        Raises:
            FileNotFoundError: it is not there.
        """
        with self.naming(name):
            os.unlink(name, dir_fd=self.fd)

    def sync(self) -> None:
        """Makes names, and their removal, last, where the file system can sync directories."""
        with self.naming():
            check(lib.dt_sync_directory(self.fd))

    @contextmanager
    def naming(self, name: str = "") -> Iterator[None]:
        """An OSError in the block names the whole path of a file, whatever the call knew."""
        try:
            yield
        except OSError as error:
            if error.errno == errno.ENOENT and os.fstat(self.fd).st_nlink == 0:
                message = "the directory was removed; another one of its name is not this one"
                raise StoreRemovedError(errno.ENOENT, message, str(self.path)) from error
            no_descriptor = error.errno in (errno.EMFILE, errno.ENFILE)
            why = LIMITS[error.errno or 0] if no_descriptor else error.strerror
            raise OSError(error.errno, why, str(self.path / name)) from error

    def close(self) -> None:
        """Closes the descriptor; idempotent."""
        self._descriptor.close()


def make_directory(path: Path, *, sync: bool) -> None:
    """Makes a directory, and those above it, if they are not there; with *sync* their names are on the disk.

    Where it is there already its name is synced all the same, since whoever made it need not have seen to
    that, and a crash could take a whole chain with it; but not where this process may not read the directory
    above it.

    Raises:
        OSError: as the system says; none if something else has the name.
    """
    if not path.is_dir():
        make_directory(path.parent, sync=sync)
        with suppress(FileExistsError):  # who opens it sees what it is
            path.mkdir(mode=0o700)
    if not sync:
        return
    try:
        above = Descriptor(path.parent, _DIRECTORY)
    except PermissionError:
        return
    try:
        check(lib.dt_sync_directory(above.fd))
    finally:
        above.close()


def not_synced(code: int) -> OSError:
    """The error for a file that could not be synced, with the remedy where its system does not sync files."""
    error = OSError(code, os.strerror(code))
    if not is_not_offered(error):
        return error
    remedy = "pass fsync=False; a crash of the machine may cost checkpoints then"
    return OSError(code, f"{error.strerror}; no file can be synced here: {remedy}")


def is_not_offered(error: OSError) -> bool:
    """Whether a call failed because the file system, or a container's filter, does not offer it."""
    return bool(lib.dt_not_offered(error.errno or 0))


def check(error: int) -> None:
    """Raises what a native call has returned as -errno."""
    if error:
        raise OSError(-error, os.strerror(-error))
