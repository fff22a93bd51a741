"""Memory of the process's own."""

from __future__ import annotations

import errno
import mmap

from dirtytrack.errors import kernel_error


def map_anonymous(nbytes: int) -> mmap.mmap:
    """Maps private anonymous memory: zeros, which a forked child gets a copy of.

    Raises:
        KernelError: there is none (ENOMEM); it names the limits of the process.
    """
    try:
        return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise kernel_error(error.errno or errno.ENOMEM, f"mmap of {nbytes} bytes") from None
