"""One writer for a directory, within this process and among all.

The lock is a record lock of ``fcntl(2)``: a forked child does not inherit it, so it ends with its owner
however many workers live on. But such a lock also ends when its process closes any descriptor of the file, as
a copy of the directory made by the same process does: so it is asked for again before every commit. What the
file holds tells then whether somebody else has had it meanwhile.

Where no such locks are offered its owner can do without, by choice: then nobody is kept out, but for this
process, and who was there first learns of the other one by what the file holds.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import struct
import sys
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Literal
from weakref import WeakValueDictionary

from dirtytrack.checkpoint.store.descriptors import Descriptor
from dirtytrack.checkpoint.store.protocol import GO_ON, NativeClaim
from dirtytrack.checkpoint.store.system import Folder, is_not_offered
from dirtytrack.errors import BusyError, UnsupportedError
from dirtytrack.native import ffi, lib

LockName = Literal["record", "none"]

_NAME = "lock"
_SIGNATURE_BYTES = 16
_WITHOUT = (
    "This file system offers no record locks, which keep a second writer out. Choose a directory elsewhere; "
    'or see to it that one process writes to this one at a time, and pass lock="none" (--lock none)'
)
_FLOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length, pid

# By address space, device and inode: in a forked child none is its own. What nobody knows of is free again.
_held: WeakValueDictionary[tuple[int, int, int], WriterLock] = WeakValueDictionary()
_held_lock = threading.RLock()


def _renew() -> None:
    global _held_lock
    _held_lock = threading.RLock()


os.register_at_fork(after_in_child=_renew)


class WriterLock:
    """The right to write to a directory, a `Claim`."""

    _file: Descriptor | None = None

    def __init__(self, folder: Folder, lock: LockName) -> None:
        """Takes it.

        Raises:
            BusyError: somebody has it; the message says who.
            UnsupportedError: the file system has no such locks.
            OSError: the directory can't be written.
        """
        self._is_locked = lock == "record"
        status = os.fstat(folder.fd)
        self._key = lib.dt_address_space(), status.st_dev, status.st_ino
        self._folder = folder
        with _held_lock:
            other = _held.get(self._key)
            if other is not None:
                raise self._busy(
                    f"This process ({os.getpid()}) writes to it already, as {other._folder.path}: use one"
                )
            self._file = folder.open(_NAME, os.O_RDWR | os.O_CREAT)
            try:
                self._take()
                self._sign()
            except BaseException:
                self._file.close()
                raise
            _held[self._key] = self

    def holds(self, names: Collection[str]) -> bool:
        """See `Claim`."""
        return bool(lib.dt_claim_holds(self.native(names).question))

    def native(self, names: Collection[str]) -> NativeClaim:
        """See `Claim`."""
        kept = (
            ffi.new("char[]", _NAME.encode()),
            ffi.new("uint8_t[]", self._signature),
            ffi.new("char[]", "\0".join([*names, ""]).encode()),
        )
        name, signature, there = kept
        fields = (self._fd(), self._folder.fd, name, signature, _SIGNATURE_BYTES, self._is_locked)
        return NativeClaim(ffi.new("struct dt_claim *", (*fields, there, len(names))), kept)

    def renew(self) -> None:
        """Takes it again if it was lost.

        Raises:
            BusyError: somebody else has it, or has had it meanwhile, or may have without our knowledge.
        """
        self._take()
        with self._folder.naming(_NAME):
            there = self._status_of_name()
            signature = os.pread(self._fd(), _SIGNATURE_BYTES + 1, 0)
        if there is None or not os.path.samestat(there, os.fstat(self._fd())):
            done = "removed" if there is None else "replaced"
            raise self._busy(
                f"The file was {done}, so that it protects nothing. Close this Checkpointer. {GO_ON}"
            )
        if signature != self._signature:
            cause = (
                "the lock was lost, as it is when its owner opens and closes the file, to copy the directory "
                "perhaps"
                if self._is_locked
                else 'lock="none" keeps nobody out'
            )
            raise self._busy(f"Another writer has been here: {cause}. Close this Checkpointer. {GO_ON}")

    def close(self) -> None:
        """Gives it back; in a forked child, which does not have it, it only closes the descriptor."""
        if self._file is None:
            return
        with suppress(OSError):  # it is closed all the same, and holds nothing that could be lost
            self._file.close()
        if lib.dt_is_address_space(self._key[0]):
            with _held_lock:
                if _held.get(self._key) is self:
                    del _held[self._key]

    def __del__(self, is_exiting: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_exiting():  # then modules are empty
            self.close()

    def _status_of_name(self) -> os.stat_result | None:
        try:
            return os.stat(_NAME, dir_fd=self._folder.fd, follow_symlinks=False)
        except FileNotFoundError:
            if os.fstat(self._folder.fd).st_nlink == 0:  # the directory itself is gone
                raise
        return None

    def _fd(self) -> int:
        assert self._file is not None
        return self._file.fd

    def _take(self) -> None:
        if not self._is_locked:
            return
        try:
            fcntl.lockf(self._fd(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                told = f"{self._owner()} writes to it: close its Checkpointer, or wait until it ends"
                raise self._busy(told) from None
            if error.errno == errno.ENOLCK or is_not_offered(error):
                raise UnsupportedError(error.errno or 0, self._call, remedy=_WITHOUT) from error
            with self._folder.naming(_NAME):
                raise

    def _sign(self) -> None:
        self._signature = secrets.token_bytes(_SIGNATURE_BYTES)
        with self._folder.naming(_NAME):
            os.ftruncate(self._fd(), 0)
            if os.pwrite(self._fd(), self._signature, 0) < _SIGNATURE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _owner(self) -> str:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        with suppress(OSError):
            kind, *_, pid = _FLOCK.unpack(fcntl.fcntl(self._fd(), fcntl.F_GETLK, asked))
            if kind != fcntl.F_UNLCK and pid > 0:
                return f"Process {pid}"
        return "A process that can't be seen from here"

    @property
    def _call(self) -> str:
        return f"lock {self._folder.path / _NAME}"

    def _busy(self, remedy: str) -> BusyError:
        return BusyError(errno.EBUSY, self._call, remedy=remedy)
