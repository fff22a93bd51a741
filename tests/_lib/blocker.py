"""A page at which the kernel stops until it is told to go on: holds a system call in its middle, for tests.

A userfaultfd in missing mode: whoever touches the page first, the kernel on behalf of a read included, waits.
Source of the layouts: include/uapi/linux/userfaultfd.h, userfaultfd(2), ioctl_userfaultfd(2).
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import select
import struct
from types import TracebackType

from _lib.limits import CHILD_HANG_SECONDS
from _lib.seccomp import UFFDIO_API, UFFDIO_REGISTER
from _lib.support import PAGE_SIZE, address_of

_USERFAULTFD = {"x86_64": 323, "aarch64": 282}
_UFFDIO_ZEROPAGE = 0xC020AA04
_REGISTER_MODE_MISSING = 1


class Blocker:
    """One page of memory that nobody has touched yet.

    Attributes:
        map: the page.
        address: where it is.

    Raises:
        OSError: without privilege the kernel does not let its own faults wait.
    """

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.syscall(_USERFAULTFD[platform.machine()], os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "userfaultfd")
        fcntl.ioctl(self._fd, UFFDIO_API, bytearray(struct.pack("QQQ", 0xAA, 0, 0)))
        self.map = mmap.mmap(-1, PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = address_of(self.map)
        register = struct.pack("QQQQ", self.address, PAGE_SIZE, _REGISTER_MODE_MISSING, 0)
        fcntl.ioctl(self._fd, UFFDIO_REGISTER, bytearray(register))

    def wait(self) -> None:
        """Wait until somebody stands before the page."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        assert poll.poll(CHILD_HANG_SECONDS * 1000), "nobody came to the page"
        os.read(self._fd, 32)

    def release(self) -> None:
        """Let them pass: the page becomes a page of zeros."""
        fcntl.ioctl(self._fd, _UFFDIO_ZEROPAGE, bytearray(struct.pack("QQQq", self.address, PAGE_SIZE, 0, 0)))

    def close(self) -> None:
        """End it; who still waits goes on."""
        os.close(self._fd)
        self.map.close()

    def __enter__(self) -> Blocker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
