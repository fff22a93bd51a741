"""What a backend opens."""

from __future__ import annotations

from typing import NamedTuple


class Descriptors(NamedTuple):
    """The open files of a native session, which closes them.

    Attributes:
        pagemap: of ``/proc/self/pagemap``; -1: none.
        userfaultfd: write-protects asynchronously; None: the session compares memory with a copy.
        holes: how the kernel reports them, as ``dt_session_open`` takes it.
    """

    pagemap: int
    userfaultfd: int | None = None
    holes: int = 0
