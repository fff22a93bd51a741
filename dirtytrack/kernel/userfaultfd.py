"""userfaultfd(2) as far as write tracking needs it: open, handshake, register, write-protect, close.

With the feature ``WP_ASYNC`` (Linux 6.7) the kernel resolves write-protection faults by itself: nobody has to
read the descriptor, a fault never blocks, and what is no longer protected is what was written
(``dirtytrack.kernel.pagemap`` reads it). Mechanism only; ``dirtytrack.Session`` is the policy.
"""

from __future__ import annotations

import errno
import mmap
import operator
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self, final

from dirtytrack.errors import ClosedError, ForkedError, UnsupportedError
from dirtytrack.kernel._flags import Feature, Ioctl, RegisterMode
from dirtytrack.kernel._refusals import (
    API,
    OPEN,
    REGISTER,
    RWPROTECT,
    SET_MODE,
    UNREGISTER,
    WRITEPROTECT,
    uffd_refusal,
)
from dirtytrack.native import ffi, lib

__all__ = [
    "DEFAULT_FEATURES",
    "USER_SPACE_END",
    "Feature",
    "Ioctl",
    "RegisterMode",
    "Userfaultfd",
    "check_range",
    "probe_features",
]

DEFAULT_FEATURES: Final = Feature.WP_ASYNC | Feature.WP_UNPOPULATED | Feature.WP_HUGETLBFS_SHMEM

# The end of the widest user space of the 64-bit machines that can write-protect (x86-64 and riscv64 with five
# levels). What lies between this process's own end and this one, the kernel refuses with EINVAL.
USER_SPACE_END: Final = 1 << 56

_NONE: Final = Feature(0)
_USER_MODE_ONLY = 1
_OPEN_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | _USER_MODE_ONLY


def _open() -> tuple[int, str]:
    """A new descriptor, not yet initialised, and where it came from."""
    fd = lib.dt_uffd_syscall(_OPEN_FLAGS)
    if fd >= 0:
        return fd, "syscall"
    if -fd not in (errno.EPERM, errno.EACCES, errno.ENOSYS):
        raise uffd_refusal(OPEN, fd)
    device = lib.dt_uffd_device(_OPEN_FLAGS)
    if device >= 0:
        return device, "/dev/userfaultfd"
    cause = (
        "the kernel lacks it (CONFIG_USERFAULTFD) or a filter hides it"
        if -fd == errno.ENOSYS
        else "a filter forbids it, as the default seccomp profiles of container engines do"
    )
    raise UnsupportedError(
        -fd,
        OPEN,
        remedy=(
            f"The system call is refused: {cause}; and /dev/userfaultfd, the other way, failed with "
            f"'{os.strerror(-device)}'. In a container pass --device /dev/userfaultfd and make it readable "
            "and writable for this user, or allow userfaultfd in the seccomp profile."
        ),
    )


def _handshake(fd: int, features: int) -> Feature:
    """Initialise *fd* with *features*; all features that the kernel has. EINVAL leaves *fd* as it was."""
    inout = ffi.new("uint64_t *", features)
    error = lib.dt_uffd_api(fd, inout)
    if error < 0:
        raise uffd_refusal(API, error)
    return Feature(inout[0])


def probe_features() -> Feature:
    """Ask the kernel which userfaultfd features it has, on a descriptor that is thrown away.

    (The handshake works once per descriptor, so asking needs one of its own: UFFDIO_API(2const).)

    Raises:
        UnsupportedError: userfaultfd cannot be opened here; the message says why and what to do.
        KernelError: no descriptor or memory left.
    """
    fd, _ = _open()
    try:
        return _handshake(fd, 0)
    finally:
        lib.dt_close(fd)


def check_range(start: int, stop: int) -> tuple[int, int]:
    """Check that ``[start, stop)`` are page-aligned addresses of user space, and not empty.

    Raises:
        TypeError: not integers.
        ValueError: negative, empty, reversed, not aligned to the page size, or above user space.
    """
    start, stop = operator.index(start), operator.index(stop)
    where = f"the range [{start:#x}, {stop:#x})"
    if start < 0 or stop > USER_SPACE_END:
        raise ValueError(f"{where} is outside of user space: addresses are from 0 to {USER_SPACE_END:#x}")
    if start >= stop:
        raise ValueError(f"{where} is empty or reversed: start must be below stop")
    if (start | stop) % mmap.PAGESIZE:
        raise ValueError(f"{where} is not aligned: start and stop must be multiples of {mmap.PAGESIZE} bytes")
    return start, stop


@final
class Userfaultfd:
    """A userfaultfd of this process, open and initialised. A context manager.

    Opened by the system call with ``O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY``, which any user may; where
    that is refused (a container's seccomp profile), through ``/dev/userfaultfd``, which needs only the
    permissions of that file. User-mode-only is enough: an asynchronous fault is resolved before the question
    who raised it comes up, so that system calls which write into tracked memory work and are tracked.

    Addresses are in bytes, every range is half-open and aligned to the page size (to the huge page on
    hugetlb). Methods may be called from any thread. In a forked child every call but `close` raises
    `ForkedError`: an ioctl on the inherited descriptor would act on the parent's memory.

    The kernel drops the registrations when the *last* copy of the descriptor is closed. A forked child holds
    one until it execs or exits, so `unregister` first where that matters.

    Args:
        features: exactly these, or None for WP_ASYNC, with WP_UNPOPULATED and WP_HUGETLBFS_SHMEM where the
            kernel has them. Without WP_ASYNC a write to protected memory blocks until somebody answers it.
        descriptor: one that another process has opened and initialised, and passed on by SCM_RIGHTS, to be
            taken over: what is done with it is done to the memory of that process. *features* are those that
            it was initialised with then.

    Attributes:
        source: "syscall", "/dev/userfaultfd" or "descriptor".
        features: all features that the kernel has, asked for or not.
        enabled: the features that this descriptor was initialised with.

    Raises:
        UnsupportedError: userfaultfd cannot be opened here, or the kernel lacks a feature; the message says
            which, why, and what to do.
        KernelError: EMFILE, ENFILE or ENOMEM; EPERM for EVENT_FORK without CAP_SYS_PTRACE.
    """

    source: Final[str]
    features: Final[Feature]
    enabled: Final[Feature]
    _fd = -1  # until __init__ has got one; __del__ runs even if it raised

    def __init__(self, features: Feature | int | None = None, *, descriptor: int | None = None) -> None:
        self._owner = lib.dt_address_space()
        # Held during each call, so that close cannot hand the descriptor's number to another file under it.
        # Reentrant, for a signal handler that closes.
        self._lock = threading.RLock()
        self._fd, self.source = _open() if descriptor is None else (descriptor, "descriptor")
        try:
            known = Feature(operator.index(features or 0))
            self.features, self.enabled = self._initialise(features) if descriptor is None else (known, known)
        except BaseException:
            self.close()
            raise

    def _initialise(self, features: Feature | int | None) -> tuple[Feature, Feature]:
        choices = (
            (DEFAULT_FEATURES, Feature.WP_ASYNC) if features is None else (Feature(operator.index(features)),)
        )
        for wanted in choices:
            try:
                return _handshake(self._fd, wanted), wanted
            except UnsupportedError:  # the descriptor is as it was: kernels check before they initialise
                continue
        known = probe_features()
        lacking = Feature(choices[-1].value & ~known.value)
        raise UnsupportedError(
            errno.EINVAL,
            API,
            remedy=(
                f"This kernel lacks {lacking.name or lacking.value}; it has {known.name}. WP_ASYNC needs "
                "Linux 6.7 or later (arm64: 6.10) with CONFIG_PTE_MARKER_UFFD_WP."
            ),
        )

    def register(self, start: int, stop: int, *, mode: RegisterMode = RegisterMode.WP) -> Ioctl:
        """Register ``[start, stop)``: what is mapped there can be armed from now on.

        Registering arms nothing. Unmapped holes are skipped, but something must be mapped. Registering again
        with the same descriptor is allowed and keeps the protection. A mapping made later, the growth of the
        heap included, is not registered; growth of a stack or in place by mremap is. A part of a mapping
        splits it (see vm.max_map_count), and a transparent huge page at the border.

        Args:
            start: first address.
            stop: the address after the last.
            mode: WP, the default, for `write_protect`; RWP for `rw_protect`, which takes a descriptor with
                the feature RWP (Linux 7.3). The kernel refuses both at once, and one after the other.

        Returns:
            The ioctls that all of the range supports.

        Raises:
            BusyError: EBUSY, another userfaultfd owns a part. Nothing is registered.
            KernelError: EINVAL, EPERM, ENOMEM: the message says what they mean here. After ENOMEM a part may
                be registered.
            TypeError, ValueError: not a page-aligned range of user space.
            ClosedError, ForkedError: closed, or of a parent process.
        """
        start, stop = check_range(start, stop)
        ioctls = ffi.new("uint64_t *")
        with self._owned() as fd:
            error = lib.dt_uffd_register(fd, start, stop - start, operator.index(mode), ioctls)
        if error < 0:
            raise uffd_refusal(REGISTER, error, start, stop)
        return Ioctl(ioctls[0])

    def write_protect(self, start: int, stop: int) -> None:
        """Arm every page of ``[start, stop)``: once this returns, a write makes its page "written".

        Unpopulated pages are armed by markers (page tables: 2 MiB for each GiB with pages of 4 KiB). Unmapped
        holes are skipped. Guard pages are not armed. The kernel does not check whose registration it is:
        memory registered by another userfaultfd of this process is armed as well.

        Raises:
            KernelError: ENOENT, a part is not registered, and the mappings before it are armed; others as the
                message says.
            TypeError, ValueError: not a page-aligned range of user space.
            ClosedError, ForkedError: closed, or of a parent process.
        """
        self._protect(WRITEPROTECT, start, stop, True)

    def un_protect(self, start: int, stop: int) -> None:
        """Lift the protection of ``[start, stop)``: with WP_ASYNC this declares every page of it written.

        Raises:
            KernelError, TypeError, ValueError, ClosedError, ForkedError: as `write_protect`.
        """
        self._protect(WRITEPROTECT, start, stop, False)

    def rw_protect(self, start: int, stop: int) -> None:
        """Arm every page of ``[start, stop)`` against any use: a read or a write makes it "accessed".

        Linux 7.3, on memory that is registered with `RegisterMode.RWP`. With the feature RWP_ASYNC the kernel
        lets the first use through and notes it: `pagemap.Category.ACCESSED` is what such pages are. Without
        it, the use blocks until somebody answers it.

        Raises:
            KernelError: ENOENT, a part is not registered so; EINVAL, the kernel has no such call; others as
                the message says.
            TypeError, ValueError: not a page-aligned range of user space.
            ClosedError, ForkedError: closed, or of a parent process.
        """
        self._protect(RWPROTECT, start, stop, True)

    def rw_un_protect(self, start: int, stop: int) -> None:
        """Lift that protection of ``[start, stop)``: every page of it counts as accessed.

        Raises:
            KernelError, TypeError, ValueError, ClosedError, ForkedError: as `rw_protect`.
        """
        self._protect(RWPROTECT, start, stop, False)

    def set_mode(self, *, enable: Feature = _NONE, disable: Feature = _NONE) -> None:
        """Turn features of this descriptor on and off: RWP_ASYNC, and no other (Linux 7.3).

        Off, the next use of an armed page blocks its thread until it is answered, as a program needs that
        moves idle pages elsewhere; on, uses are noted again. The call waits for all faults in flight.

        Args:
            enable: what to turn on. RWP_ASYNC takes a descriptor with the feature RWP.
            disable: what to turn off.

        Raises:
            KernelError: EINVAL, another feature, one in both, or the kernel has no such call.
            ClosedError, ForkedError: closed, or of a parent process.
        """
        with self._owned() as fd:
            error = lib.dt_uffd_set_mode(fd, operator.index(enable), operator.index(disable))
        if error < 0:
            raise uffd_refusal(SET_MODE, error)

    def _protect(self, call: str, start: int, stop: int, protect: bool) -> None:
        start, stop = check_range(start, stop)
        change = lib.dt_uffd_rwprotect if call == RWPROTECT else lib.dt_uffd_writeprotect
        with self._owned() as fd:
            error = change(fd, start, stop - start, protect)
        if error < 0:
            raise uffd_refusal(call, error, start, stop)

    def unregister(self, start: int, stop: int) -> None:
        """Release ``[start, stop)`` and its protection. Mappings that are not registered are skipped.

        Up to Linux 6.16 this releases the memory of another userfaultfd of this process as well; later
        kernels refuse that with EINVAL.

        Raises:
            KernelError: EINVAL, nothing is mapped there, or another userfaultfd owns it; ENOMEM.
            TypeError, ValueError: not a page-aligned range of user space.
            ClosedError, ForkedError: closed, or of a parent process.
        """
        start, stop = check_range(start, stop)
        with self._owned() as fd:
            error = lib.dt_uffd_unregister(fd, start, stop - start)
        if error < 0:
            raise uffd_refusal(UNREGISTER, error, start, stop)

    def fileno(self) -> int:
        """Return the descriptor, for poll and the like. This object keeps it, and closes it.

        Raises:
            ClosedError, ForkedError: closed, or of a parent process.
        """
        with self._owned() as fd:
            return fd

    def detach(self) -> int:
        """Hand the descriptor over to the caller, who has to close it. This object is closed from then on.

        Raises:
            ClosedError, ForkedError: closed, or of a parent process.
        """
        with self._owned() as fd:
            self._fd = -1
            return fd

    @property
    def closed(self) -> bool:
        """Whether this process has closed it."""
        return self._fd < 0

    def close(self) -> None:
        """Close the descriptor; a second call does nothing. In a forked child only the child's copy goes."""
        if lib.dt_address_space() != self._owner:
            self._close()  # without the lock: the thread that may hold it exists in the parent only
            return
        with self._lock:
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            lib.dt_close(fd)

    @contextmanager
    def _owned(self) -> Iterator[int]:
        """The descriptor, held open for the block; refused before any lock and ioctl in a forked child."""
        if lib.dt_address_space() != self._owner:
            raise ForkedError("this userfaultfd belongs to a parent process: open a new one in this process")
        with self._lock:
            if self._fd < 0:
                raise ClosedError("this userfaultfd is closed")
            yield self._fd

    def __enter__(self) -> Self:
        with self._owned():
            return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self, is_exiting: Callable[[], bool] = sys.is_finalizing) -> None:
        if self._fd < 0 or is_exiting():  # then modules are empty
            return
        if lib.dt_address_space() == self._owner:  # a child did not leak it, it inherited it
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=1, source=self)
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._fd < 0 else f"fd {self._fd} from {self.source}"
        return f"<Userfaultfd {state}>"
