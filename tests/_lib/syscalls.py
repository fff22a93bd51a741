"""System calls that Python does not offer, for tests: each raises OSError where the kernel refuses."""

from __future__ import annotations

import ctypes
import os
import signal
from enum import IntEnum
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = _libc.mremap.restype = ctypes.c_void_p
_FAILED = ctypes.c_void_p(-1).value


class Advice(IntEnum):
    """For madvise: asm-generic/mman-common.h. Several are missing in Python's mmap module."""

    NORMAL, RANDOM, SEQUENTIAL, WILLNEED, DONTNEED = range(5)
    FREE = 8
    REMOVE = 9
    DONTFORK, DOFORK, MERGEABLE, UNMERGEABLE, HUGEPAGE, NOHUGEPAGE, DONTDUMP, DODUMP = range(10, 18)
    WIPEONFORK, KEEPONFORK, COLD, PAGEOUT, POPULATE_READ, POPULATE_WRITE, DONTNEED_LOCKED, COLLAPSE = range(
        18, 26
    )
    GUARD_INSTALL, GUARD_REMOVE = 102, 103


PROT_NONE, PROT_READ, PROT_WRITE = 0, 1, 2
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_HUGETLB = 0x01, 0x02, 0x10, 0x20, 0x40000
MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP = 1, 2, 4
MCL_CURRENT = 1
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE = 0x01, 0x02
CLONE_VM, CLONE_VFORK = 0x100, 0x4000


def _checked(name: str, result: Any, failed: object = -1) -> Any:
    if result == failed:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result


def _call(name: str, *arguments: int | bytes | None) -> int:
    """Call *name* with every integer as wide as a register, as variadic and 64-bit parameters need it."""
    wide = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    result: int = _checked(name, getattr(_libc, name)(*wide))
    return result


def mprotect(address: int, nbytes: int, protection: int) -> None:
    """Change what is permitted there."""
    _call("mprotect", address, nbytes, protection)


def mlock(address: int, nbytes: int) -> None:
    """Keep the memory in RAM, faulting it in for writing if it is writable."""
    _call("mlock", address, nbytes)


def mlockall(flags: int) -> None:
    """The same for the whole process."""
    _call("mlockall", flags)


def munmap(address: int, nbytes: int) -> None:
    """Unmap memory, whoever believes to own it."""
    _call("munmap", address, nbytes)


def map_anonymous(nbytes: int, *, at: int | None = None, flags: int = 0) -> int:
    """Map private anonymous memory, *at* in the place of whatever is mapped there; returns the address."""
    flags |= MAP_PRIVATE | MAP_ANONYMOUS | (MAP_FIXED if at is not None else 0)
    size, fd, offset = ctypes.c_size_t(nbytes), ctypes.c_int(-1), ctypes.c_long(0)
    result = _libc.mmap(ctypes.c_void_p(at), size, PROT_READ | PROT_WRITE, flags, fd, offset)
    return int(_checked("mmap", result, _FAILED))


def map_aligned(nbytes: int, alignment: int, flags: int, fd: int) -> int:
    """Map memory, readable and writable, at a multiple of *alignment*; returns the address."""
    zero = ctypes.c_long(0)

    def mmap(at: int | None, size: int, protection: int, how: int, file: int) -> int:
        arguments = ctypes.c_void_p(at), ctypes.c_size_t(size), protection, how, ctypes.c_int(file), zero
        return int(_checked("mmap", _libc.mmap(*arguments), _FAILED))

    start = mmap(None, nbytes + alignment, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1)
    address = (start + alignment - 1) // alignment * alignment
    mmap(address, nbytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd)
    for first, last in ((start, address), (address + nbytes, start + nbytes + alignment)):
        if first < last:
            munmap(first, last - first)
    return address


def madvise(address: int, nbytes: int, advice: int) -> None:
    """Tell the kernel what the memory is for."""
    _call("madvise", address, nbytes, advice)


def mremap(address: int, nbytes: int, new_nbytes: int, flags: int = 0, *, to: int = 0) -> int:
    """Resize a mapping, or move it where *flags* allow that; returns its address."""
    start, old, new, target = (ctypes.c_void_p(item) for item in (address, nbytes, new_nbytes, to))
    return int(_checked("mremap", _libc.mremap(start, old, new, flags, target), _FAILED))


def punch_hole(fd: int, offset: int, nbytes: int) -> None:
    """Make a range of a file read as zeros."""
    _call("fallocate", fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, nbytes)


def getrandom(address: int, nbytes: int) -> None:
    """Let the kernel write random bytes to *address*."""
    assert _call("getrandom", address, nbytes, 0) == nbytes


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_size_t), ("len", ctypes.c_size_t))


def process_vm_writev(data: bytes, address: int) -> None:
    """Write *data* to *address* of this process, in the way that a debugger would."""
    source = ctypes.create_string_buffer(data, len(data))
    local = _Iovec(ctypes.addressof(source), len(data))
    remote = _Iovec(address, len(data))
    arguments = (
        ctypes.byref(local),
        ctypes.c_ulong(1),
        ctypes.byref(remote),
        ctypes.c_ulong(1),
        ctypes.c_ulong(0),
    )
    written = _libc.process_vm_writev(os.getpid(), *arguments)
    assert _checked("process_vm_writev", written) == len(data)


def store_in_vforked_child(address: int) -> None:
    """Store the time at *address* from a child that shares this process's memory, as vfork makes one.

    The child runs nothing but libc's ``time(address)``.
    """
    stack = ctypes.create_string_buffer(1 << 16)
    top = (ctypes.addressof(stack) + len(stack)) & ~0xFF
    flags = CLONE_VM | CLONE_VFORK | signal.SIGCHLD
    pid = _checked("clone", _libc.clone(_libc.time, ctypes.c_void_p(top), flags, ctypes.c_void_p(address)))
    os.waitpid(pid, 0)


def swapon(path: str) -> None:
    """Swap to a file."""
    _call("swapon", os.fsencode(path), 0)


def swapoff(path: str) -> None:
    """Bring everything back from a file."""
    _call("swapoff", os.fsencode(path))


def pagemap(address: int, pages: int) -> list[int]:
    """The entries of /proc/self/pagemap: bit 63 is "present", bit 62 "swapped"."""
    size = os.sysconf("SC_PAGE_SIZE")
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        return memoryview(os.pread(file.fileno(), pages * 8, address // size * 8)).cast("Q").tolist()
