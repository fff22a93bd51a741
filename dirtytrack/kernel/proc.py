"""Files of ``/proc``: an error says what could not be opened, and which limit was hit."""

from __future__ import annotations

import operator
from io import FileIO

from dirtytrack.errors import kernel_error


def open_proc(name: str, pid: int | None = None, *, remedy: str = "") -> FileIO:
    """Opens a file of this process, or of another one.

    What comes back is an object, not a descriptor: if Ctrl-C comes before it is in a ``with``, its destructor
    closes it.

    Args:
        name: below ``/proc/PID``.
        pid: of the process; None: this one.
        remedy: for the error.

    Raises:
        KernelError: it can't be opened; with EMFILE or ENFILE it names the limit.
        TypeError: *pid* is no integer.
    """
    path = f"/proc/{'self' if pid is None else operator.index(pid)}/{name}"
    try:
        return FileIO(path)
    except OSError as error:
        raise kernel_error(error.errno or 0, f"open {path}", remedy=remedy) from None
