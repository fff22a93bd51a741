"""What the kernel's refusals mean: for each call and errno the exception, and the remedy that it names."""

from __future__ import annotations

import errno
import mmap
from typing import Final

from dirtytrack.errors import BusyError, KernelError, UnsupportedError, kernel_error
from dirtytrack.kernel._flags import FIRST, Category, ScanFlags
from dirtytrack.kernel._scan_arg import SCAN, SCAN_ARG_SIZE, ScanArg

OPEN = "userfaultfd"
API = "UFFDIO_API"
REGISTER = "UFFDIO_REGISTER"
WRITEPROTECT = "UFFDIO_WRITEPROTECT"
RWPROTECT = "UFFDIO_RWPROTECT"
SET_MODE = "UFFDIO_SET_MODE"
UNREGISTER = "UFFDIO_UNREGISTER"

_GONE = "The address space that the descriptor was opened in has ended: open a new one in this process."
_MAP_COUNT = (
    "Registering a part of a mapping splits it, and this process is at vm.max_map_count, or the kernel is "
    "out of memory: register fewer or larger ranges, or raise the sysctl."
)

UFFD_REMEDIES: Final[dict[tuple[str, int], str]] = {
    (OPEN, errno.EINVAL): (
        "The kernel does not know UFFD_USER_MODE_ONLY: dirtytrack needs Linux 6.7 or later."
    ),
    (API, errno.EINVAL): "The kernel lacks a feature asked for, or refuses the handshake as such.",
    (API, errno.EPERM): "EVENT_FORK needs CAP_SYS_PTRACE: leave it out.",
    (REGISTER, errno.EBUSY): (
        "Another userfaultfd owns memory in the range (a second session, a garbage collector, a debugger or "
        "emulator): within one process, share a session."
    ),
    (REGISTER, errno.EINVAL): (
        "Nothing is mapped in the range; or it holds memory that cannot be write-protected this way (vdso, "
        "vvar, device memory, MAP_DROPPABLE, a shadow stack), cuts a hugetlb page, or ends above user space; "
        "or the userfaultfd lacks WP_ASYNC or WP_HUGETLBFS_SHMEM for this kind of memory."
    ),
    (REGISTER, errno.EPERM): (
        "The range holds a mapping that can never be written: of a file opened read-only (open it to write), "
        "or one of the kernel's own, such as vvar (leave it out)."
    ),
    (REGISTER, errno.ENOMEM): _MAP_COUNT,
    (REGISTER, errno.ESRCH): _GONE,
    (WRITEPROTECT, errno.ENOENT): (
        "The range holds memory that is not registered (mapped over, moved or never registered); what lies "
        "before it is done already. Register the whole range first."
    ),
    (WRITEPROTECT, errno.EINVAL): (
        "The range cuts a hugetlb page or ends above user space: take whole huge pages."
    ),
    (WRITEPROTECT, errno.EAGAIN): (
        "The mappings are just being changed, as seen by a userfaultfd with EVENT_* features: read its "
        "events, then repeat the call."
    ),
    (WRITEPROTECT, errno.ENOMEM): (
        "The kernel is out of memory for page tables; a part of the range may be done."
    ),
    (WRITEPROTECT, errno.ESRCH): _GONE,
    (RWPROTECT, errno.ENOENT): (
        "The range holds memory that is not registered with RegisterMode.RWP (mapped over, moved or never "
        "registered). Register the whole range first."
    ),
    (RWPROTECT, errno.EINVAL): "It takes Linux 7.3, and whole huge pages where the range has such.",
    (RWPROTECT, errno.ESRCH): _GONE,
    (SET_MODE, errno.EINVAL): (
        "It takes Linux 7.3, and a userfaultfd with the feature RWP; only RWP_ASYNC can be turned on and off."
    ),
    (SET_MODE, errno.ESRCH): _GONE,
    (UNREGISTER, errno.EINVAL): (
        "Nothing is mapped in the range, or it holds memory that cannot be registered at all, is registered "
        "with another userfaultfd (Linux 6.17 and later), or cuts a hugetlb page."
    ),
    (UNREGISTER, errno.ENOMEM): _MAP_COUNT,
    (UNREGISTER, errno.ESRCH): _GONE,
}

_UFFD_KINDS: Final[dict[tuple[str, int], type[KernelError]]] = {
    (OPEN, errno.EINVAL): UnsupportedError,
    (API, errno.EINVAL): UnsupportedError,
    (REGISTER, errno.EBUSY): BusyError,
    (RWPROTECT, errno.EINVAL): UnsupportedError,
    (SET_MODE, errno.EINVAL): UnsupportedError,
}


def uffd_refusal(call: str, error: int, start: int | None = None, stop: int | None = None) -> KernelError:
    """The exception for *call* refused with -errno *error*."""
    case = call, -error
    maker = _UFFD_KINDS.get(case, kernel_error)
    return maker(-error, call, start=start, stop=stop, remedy=UFFD_REMEDIES.get(case, ""))


_ALREADY_ARMED = "The written pages of the mappings before it are already protected again."

_SCAN_REMEDIES: Final[dict[int, str]] = {
    errno.ENOTTY: f"This kernel has no PAGEMAP_SCAN: dirtytrack needs Linux {FIRST} or later.",
    errno.EPERM: (
        "A mapping in the range is not registered for asynchronous write-protection (it never was, was "
        "mapped over or moved, or is device memory): register it, or drop CHECK_WPASYNC to have such "
        "mappings skipped."
    ),
    errno.ENOMEM: "The kernel is out of memory for its result buffer or for page tables.",
    errno.EINTR: "The process is being killed.",
    errno.ESRCH: "The process has exited, or replaced its address space by exec.",
}


def scan_refusal(error: int, arg: ScanArg) -> KernelError:
    """The exception for a scan refused with *error*, with the cause as far as the fields show it."""
    kind = kernel_error
    remedy = _SCAN_REMEDIES.get(error, "")
    if error == errno.ENOTTY:
        kind = UnsupportedError
    elif error == errno.EPERM and arg.flags & ScanFlags.WP_MATCHING:
        remedy = f"{remedy} {_ALREADY_ARMED}"
    elif error == errno.EFAULT:
        remedy = _efault_cause(arg)
    elif error == errno.EINVAL:
        remedy = _einval_cause(arg)
        if not remedy and (later := _later_flags(arg)):
            kind = UnsupportedError
            remedy = f"This kernel does not know all that was asked for: {later}. Leave out what it lacks."
    return kind(error, SCAN, start=arg.start, stop=arg.end, remedy=remedy)


def _einval_cause(arg: ScanArg) -> str:
    if arg.size != SCAN_ARG_SIZE:
        return f"This kernel's argument has {SCAN_ARG_SIZE} bytes, not size={arg.size}."
    if arg.start % mmap.PAGESIZE:
        return f"start must be a multiple of the page size, {mmap.PAGESIZE} bytes."
    if arg.vec == 0 and arg.vec_len:
        return f"vec is NULL but vec_len is {arg.vec_len}: pass a buffer, or vec_len=0."
    if unknown := arg.flags & ~sum(ScanFlags):
        return f"flags has the unknown bits {unknown:#x}: use the members of ScanFlags."
    if unknown := arg.categories & ~sum(Category):
        return f"The masks have the unknown bits {unknown:#x}: use the members of Category."
    return ""


def _later_flags(arg: ScanArg) -> str:
    """Which of the flags and categories asked for came later than the call itself, and when."""
    asked = (
        *(flag for flag in ScanFlags if flag & arg.flags),
        *(category for category in Category if category & arg.categories),
    )
    return ", ".join(f"{one.name} needs Linux {one.since}" for one in asked if one.since != FIRST)


def _efault_cause(arg: ScanArg) -> str:
    if arg.start > arg.end:
        return "start is above end."
    remedy = "The range ends above user space, or vec cannot be written for vec_len entries."
    if arg.flags & ScanFlags.WP_MATCHING:
        remedy += (
            " In the latter case written pages were protected and not reported: take the range for written."
        )
    return remedy
