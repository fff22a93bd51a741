"""``/proc/PID/pagemap``: whose address space a descriptor stands for, and that it has one."""

from __future__ import annotations

import errno
import operator
import os
from collections.abc import Iterator
from contextlib import contextmanager

from dirtytrack.errors import kernel_error
from dirtytrack.native import lib

_ENTRY_BYTES = 8  # of a page in the file


def open_pagemap(pid: int | None = None) -> int:
    """Open ``/proc/PID/pagemap`` of this process or another one. The caller closes the descriptor.

    The descriptor means the address space that the process has *now*: inherited by a forked child it still
    means the parent's (and a scan there re-arms the parent's pages), after an exec the old one.

    Raises:
        KernelError: ENOENT or ESRCH, no such process, or one without memory: dead, or a thread of the kernel;
            EACCES or EPERM, not permitted (PTRACE_MODE_READ_FSCREDS: the same user, and not made
            undumpable).
    """
    path = f"/proc/{'self' if pid is None else operator.index(pid)}/pagemap"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise kernel_error(error.errno or 0, f"open {path}", remedy=_open_remedy(error.errno, pid)) from None
    if pid is None or _has_memory(fd):
        return fd
    os.close(fd)
    raise kernel_error(errno.ESRCH, f"open {path}", remedy=_open_remedy(errno.ESRCH, pid))


def _has_memory(fd: int) -> bool:
    """Whether an address space stands behind a pagemap descriptor.

    Older kernels let the pagemap of a process without one be opened; reading it gives nothing, and
    PAGEMAP_SCAN crashes the kernel (seen on 6.12.43). A descriptor that has one keeps it, so asking once is
    enough.
    """
    return len(os.pread(fd, _ENTRY_BYTES, 0)) > 0


def _open_remedy(error: int | None, pid: int | None) -> str:
    if error in (errno.EACCES, errno.EPERM):
        if pid is None:
            return (
                "A process that changed its user ids may not look at itself: call prctl(PR_SET_DUMPABLE, 1) "
                "after setuid."
            )
        return "Reading another process needs its user id, or CAP_SYS_PTRACE, and that it is dumpable."
    if error in (errno.ENOENT, errno.ESRCH):
        if pid is None:
            return "/proc is not mounted, or the kernel lacks CONFIG_PROC_PAGE_MONITOR."
        return "There is no such process, it has exited, or it is a thread of the kernel."
    return ""


_own: dict[int, int] = {}


def own_pagemap() -> int:
    """The descriptor of this process's pagemap, kept open; an inherited one is closed, never used."""
    me = lib.dt_address_space()
    fd = _own.get(me)
    if fd is not None:
        return fd
    opened = open_pagemap()
    fd = _own.setdefault(me, opened)  # atomic: of two threads one wins
    if fd != opened:
        os.close(opened)
    for owner in [owner for owner in _own if owner != me]:
        inherited = _own.pop(owner, None)
        if inherited is not None:
            os.close(inherited)
    return fd


@contextmanager
def pagemap_of(pid: int | None) -> Iterator[int]:
    """The descriptor with which to look at this process or another one, while the block runs."""
    if pid is None:
        yield own_pagemap()
        return
    fd = open_pagemap(pid)  # anew each time: pids are used again
    try:
        yield fd
    finally:
        os.close(fd)
