"""Every exception of dirtytrack, and the one place where an errno becomes one.

The classes inherit from the built-in that a caller would expect, so ``except OSError`` and ``except
ValueError`` work; a refusal by the kernel names the call, the address range and the remedy.
"""

from __future__ import annotations

import errno as _errno
import os
from typing import NamedTuple


class DirtyTrackError(Exception):
    """Base of all exceptions that only dirtytrack raises."""


class ClosedError(DirtyTrackError, ValueError):
    """The session, cursor or region was closed or untracked. Nothing was read or changed."""


class ForkedError(DirtyTrackError, RuntimeError):
    """The object belongs to a parent process. Open a new session in this one."""


class Loss(NamedTuple):
    """A region and the address ranges of it, half-open, that an error is about."""

    region: object
    ranges: tuple[tuple[int, int], ...]


class RegionLostError(DirtyTrackError, RuntimeError):
    """Tracked memory is no longer what was registered: unmapped, mapped over, moved, or taken.

    Raised by every verb on the region until it is untracked. The pages of the other regions are not lost:
    they are in the next epoch.

    Attributes:
        losses: every lost region with its lost address ranges, all at once.
    """

    def __init__(self, message: str, losses: tuple[Loss, ...] = ()) -> None:
        super().__init__(message)
        self.losses = losses

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        losses = tuple(Loss(repr(loss.region), loss.ranges) for loss in self.losses)
        return type(self), (self.args[0], losses)


class MissedWriteError(DirtyTrackError, RuntimeWarning):
    """A session's double check found pages whose contents have changed and that no epoch has reported.

    Raised by the collect that found it, or given as a warning, as ``Session(on_missed=...)`` says. The
    pages are in the next epoch of every cursor.

    Attributes:
        missed: the regions concerned with the address ranges of the pages, half-open.
    """

    def __init__(self, message: str, missed: tuple[Loss, ...] = ()) -> None:
        super().__init__(message)
        self.missed = missed

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.args[0], tuple(Loss(repr(one.region), one.ranges) for one in self.missed))


class KernelError(DirtyTrackError, OSError):
    """The kernel refused a call.

    Attributes:
        errno: the error number, as of any OSError.
        call: the system call or ioctl by name.
        start: first address concerned, or None.
        stop: the address after the last one, or None.
        remedy: what to do about it.
    """

    def __init__(
        self,
        errno: int,
        call: str,
        *,
        start: int | None = None,
        stop: int | None = None,
        remedy: str = "",
    ) -> None:
        where = "" if start is None or stop is None else f" on [{start:#x}, {stop:#x})"
        advice = f". {remedy}" if remedy else ""
        super().__init__(errno, f"{call}{where}: {os.strerror(errno)}{advice}")
        self.call = call
        self.start = start
        self.stop = stop
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.errno, self.call, self.start, self.stop, self.remedy)


class KernelPermissionError(KernelError, PermissionError):
    """A KernelError with EPERM or EACCES, so that ``except PermissionError`` catches it."""


class UnsupportedError(KernelError):
    """This kernel, or this environment (container, sysctl), cannot do what was asked."""


class BusyError(KernelError):
    """Somebody else has it: another userfaultfd the memory, or another writer the checkpoint chain."""


class ChainError(DirtyTrackError, ValueError):
    """A chain can't give what was asked: files are damaged or missing, or memory or names don't fit."""


class StoreError(DirtyTrackError, ValueError):
    """A place for a chain is none: a URL of a kind that is not known, or options that it does not have."""


class GroupError(DirtyTrackError, ValueError):
    """The processes of a group don't fit together, or one of them could not begin. Nothing was committed."""


class DiffError(DirtyTrackError, ValueError):
    """A diff does not fit the memory or another diff, its bytes are corrupt, or it would be too large."""


class RecordingError(DirtyTrackError, ValueError):
    """A file is no recording, is of a later version of the format, damaged, or too large."""


class CheckpointError(DirtyTrackError, OSError):
    """Checkpoints could not be written. Their pages are in the next save; nothing is lost.

    Attributes:
        errno: of the failed operation, as of any OSError.
        filename: the file that it was about, as of any OSError.
        checkpoints: the numbers of all checkpoints that were not committed.
    """

    def __init__(
        self, errno: int, message: str, filename: str | None = None, checkpoints: tuple[int, ...] = ()
    ) -> None:
        super().__init__(errno, message, filename)
        self.checkpoints = checkpoints

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.errno, self.strerror, self.filename, self.checkpoints)


def _rebuild(
    kind: type[KernelError], errno: int, call: str, start: int | None, stop: int | None, remedy: str
) -> KernelError:
    return kind(errno, call, start=start, stop=stop, remedy=remedy)


LIMITS = {
    _errno.EMFILE: "This process has as many files open as it may, RLIMIT_NOFILE: raise it (ulimit -n), or "
    "close some.",
    _errno.ENFILE: "The system has as many files open as it may: raise the sysctl fs.file-max.",
    _errno.ENOMEM: "There is no more memory, or not for this process: free some, or raise RLIMIT_AS "
    "(ulimit -v).",
}


def kernel_error(
    errno: int, call: str, *, start: int | None = None, stop: int | None = None, remedy: str = ""
) -> KernelError:
    """The exception for a refused *call*: its class follows from *errno*; a limit that was hit is named."""
    if errno in (_errno.EMFILE, _errno.ENFILE):  # whatever the call was
        remedy = LIMITS[errno]
    elif errno in LIMITS:
        remedy = f"{remedy} {LIMITS[errno]}".strip()
    kind = KernelPermissionError if errno in (_errno.EPERM, _errno.EACCES) else KernelError
    return kind(errno, call, start=start, stop=stop, remedy=remedy)
