"""What is mapped where, and of which kind.

Asked of the kernel by PROCMAP_QUERY (Linux 6.11: the cost is that of the mappings asked about), else read
from ``/proc/PID/maps`` (the cost is that of all mappings of the process, tens of thousands perhaps). Either
way the answer may be out of date when it arrives: another thread may map and unmap meanwhile. Descriptors
live for one call, so a forked child inherits none.
"""

from __future__ import annotations

import errno
import mmap
import operator
import os
import stat
from collections.abc import Callable, Iterator
from enum import Enum
from functools import cache
from io import FileIO
from typing import Any, Final, NamedTuple

from dirtytrack.errors import KernelError, kernel_error
from dirtytrack.kernel._scratch import scratch
from dirtytrack.kernel.proc import open_proc
from dirtytrack.native import ffi, lib


class Kind(Enum):
    """What backs a mapping. `Mapping.shared` says whether it is a shared or a private (copy-on-write) one."""

    ANONYMOUS = "anonymous"
    """Private memory of the process, heap and stacks included."""
    SHARED_ANONYMOUS = "shared anonymous"
    """MAP_SHARED | MAP_ANONYMOUS: shared with children forked since."""
    SHMEM = "shared memory"
    """A memfd, a file on tmpfs (``/dev/shm`` too), or System V shared memory."""
    PRIVATE_FILE = "private file"
    """A file, copied on write."""
    SHARED_FILE = "shared file"
    """A file, written through."""
    HUGETLB = "hugetlb"
    """Huge pages from the pool; see `Mapping.page_size`. Transparent huge pages are not a kind."""
    SPECIAL = "special"
    """vdso, vvar, a device, a ring of the kernel: not memory that can be tracked."""


class Mapping(NamedTuple):
    """One mapping (VMA) of a process: addresses ``[start, stop)`` in bytes.

    Attributes:
        start: first address.
        stop: the address after the last.
        permissions: "rwx", with "-" for what is not permitted.
        shared: made with MAP_SHARED.
        offset: of the first byte in the file, in bytes.
        device: of the file's filesystem, as ``st_dev`` is; 0 without a file.
        inode: of the file; 0 without one.
        name: the file's path (with " (deleted)" where it has none any more), or the kernel's name for it in
            brackets, or "".
        page_size: in bytes; that of the huge page on hugetlb.
        kind: what backs it.
    """

    start: int
    stop: int
    permissions: str
    shared: bool
    offset: int
    device: int
    inode: int
    name: str
    page_size: int
    kind: Kind


def overlapping(start: int, stop: int, *, pid: int | None = None) -> list[Mapping]:
    """List the mappings that overlap the addresses ``[start, stop)``, each as a whole, by ascending address.

    Args:
        start: first address; need not be aligned.
        stop: the address after the last.
        pid: another process by id, or None for this one.

    Raises:
        KernelError: the process is gone, or may not be looked at.
        TypeError, ValueError: not a range of addresses.
    """
    start, stop = operator.index(start), operator.index(stop)
    if not 0 <= start < stop:
        raise ValueError(f"[{start:#x}, {stop:#x}) is not a range of addresses: it must be 0 <= start < stop")
    with _open(pid, "maps") as file:
        try:
            return list(_query(file.fileno(), start, stop))
        except _NoQuery:
            return list(_parse(pid, start, stop))


class Stretch(NamedTuple):
    """Addresses that can be scanned as one, and the memory in them that may be written.

    Attributes:
        start: first address.
        stop: the address after the last.
        mappings: start, stop and name of each mapping there that was asked for. The names of shared ones
            begin with "/".
    """

    start: int
    stop: int
    mappings: list[tuple[int, int, str]]


def writable(pid: int | None = None, *, shared: bool = False) -> list[Stretch]:
    """List the writable private anonymous mappings of a process, by ascending address.

    Args:
        pid: another process by id, or None for this one.
        shared: the writable shared ones as well: of files, shared memory and memfds, not of devices.

    It reads ``/proc/PID/maps`` once, a microsecond for each mapping, where `overlapping` takes twenty.
    Between two stretches lie huge pages from the pool, which not every kernel can scan along with others.

    Raises:
        KernelError: the process is gone, or may not be looked at.
    """
    stretches: list[Stretch] = []
    is_open = False
    for line in _lines_of(pid, "maps"):
        addresses, permissions, _, _, inode, *path = line.split(None, 5)
        if path and b"huge" in path[0]:
            is_open = False
            continue
        if permissions[1:2] != b"w":
            continue
        name = os.fsdecode(path[0].rstrip(b"\n")) if path else ""
        if not _is_own(permissions, inode, name) and not (shared and _is_shared(permissions, name)):
            continue
        first, _, end = addresses.partition(b"-")
        start, stop = int(first, 16), int(end, 16)
        if not is_open:
            stretches.append(Stretch(start, stop, []))
            is_open = True
        stretches[-1].mappings.append((start, stop, name))
        stretches[-1] = stretches[-1]._replace(stop=stop)
    return stretches


def _is_own(permissions: bytes, inode: bytes, name: str) -> bool:
    return permissions[3:4] == b"p" and inode == b"0" and _kind_of_anonymous(name) is Kind.ANONYMOUS


def _is_shared(permissions: bytes, name: str) -> bool:
    is_memory = name.startswith(("/dev/shm/", "/dev/zero"))
    is_other = not name.startswith("/") or name.startswith(("/dev/", "/[aio]"))
    return permissions[3:4] == b"s" and (is_memory or not is_other)


def page_size_at(address: int) -> int:
    """Give the page size, in bytes, of the mapping of this process that holds *address*.

    Raises:
        KernelError: ENOENT, nothing is mapped there.
        TypeError, ValueError: not an address.
    """
    for mapping in overlapping(address, address + 1):
        return mapping.page_size
    raise kernel_error(
        errno.ENOENT,
        "page_size_at",
        start=address,
        stop=address + 1,
        remedy="Nothing is mapped at this address.",
    )


def _open(pid: int | None, name: str) -> FileIO:
    return open_proc(name, pid, remedy="Is the process alive, and of this user?")


# PROCMAP_QUERY: struct procmap_query in include/uapi/linux/fs.h.
_ARG_SIZE = ffi.sizeof("struct dt_procmap_query")
_NAME_SIZE = 4096  # PATH_MAX, the most that the kernel gives
_SHARED = 1 << 3
_PERMISSIONS = ((1 << 0, "r"), (1 << 1, "w"), (1 << 2, "x"))


class _NoQuery(Exception):
    """PROCMAP_QUERY cannot answer: before Linux 6.11, or a path longer than its buffer."""


def _query(fd: int, start: int, stop: int) -> Iterator[Mapping]:
    tmpfs = cache(_tmpfs_devices)
    with scratch(_ARG_SIZE + _NAME_SIZE) as block:
        out: Any = ffi.cast("struct dt_procmap_query *", block.address)
        name = ffi.cast("char *", block.address + _ARG_SIZE)
        while start < stop:
            error = -lib.dt_procmap_query(fd, start, 1, out, name, _NAME_SIZE)
            if error in (errno.ENOTTY, errno.ENAMETOOLONG):
                raise _NoQuery
            if error not in (0, errno.ENOENT):
                raise _gone(error, "PROCMAP_QUERY", start, stop)
            if error == errno.ENOENT or out.vma_start >= stop:
                return
            yield _mapping(
                out.vma_start,
                out.vma_end,
                "".join(letter if out.vma_flags & bit else "-" for bit, letter in _PERMISSIONS),
                bool(out.vma_flags & _SHARED),
                out.vma_offset,
                os.makedev(out.dev_major, out.dev_minor),
                out.inode,
                os.fsdecode(ffi.string(name, _NAME_SIZE)),
                out.vma_page_size,
                tmpfs,
            )
            start = out.vma_end


def _gone(error: int, call: str, start: int, stop: int) -> KernelError:
    remedy = "The process has exited." if error == errno.ESRCH else ""
    return kernel_error(error, call, start=start, stop=stop, remedy=remedy)


# /proc/PID/maps and smaps: Documentation/filesystems/proc.rst.
_KERNEL_HALF = 1 << 63  # the line [vsyscall] of x86-64 lies there: no mapping of the process, and not queried


def _parse(pid: int | None, start: int, stop: int) -> Iterator[Mapping]:
    tmpfs = cache(_tmpfs_devices)
    page_sizes = cache(lambda: _smaps_page_sizes(pid))
    for line in _lines_of(pid, "maps"):
        addresses, permissions, place, device, number, *name = line.split(None, 5)
        begin, end = (int(address, 16) for address in addresses.split(b"-"))
        if end <= start:
            continue
        if begin >= min(stop, _KERNEL_HALF):
            return
        major, minor = (int(half, 16) for half in device.split(b":"))
        # A hugetlb page belongs to a file of hugetlbfs, which has no block device. smaps is slow: it looks at
        # pages.
        page_size = page_sizes().get(begin, mmap.PAGESIZE) if major == 0 < minor else mmap.PAGESIZE
        yield _mapping(
            begin,
            end,
            permissions[:3].decode(),
            permissions[3:] == b"s",
            int(place, 16),
            os.makedev(major, minor),
            int(number),
            os.fsdecode(b"".join(name).replace(b"\\012", b"\n")),
            page_size,
            tmpfs,
        )


def _smaps_page_sizes(pid: int | None) -> dict[int, int]:
    sizes = {}
    begin = 0
    for line in _lines_of(pid, "smaps"):
        word, _, rest = line.partition(b" ")
        if not word.endswith(b":"):  # a mapping's first line; those after it say what they are about
            begin = int(word.partition(b"-")[0], 16)
        elif word == b"KernelPageSize:":
            sizes[begin] = int(rest.split()[0]) * 1024
    return sizes


def _lines_of(pid: int | None, name: str) -> list[bytes]:
    # Names of files may have a carriage return; a newline in one is written as an escape.
    with _open(pid, name) as file:
        return file.readall().split(b"\n")[:-1]


def _mapping(
    start: int,
    stop: int,
    permissions: str,
    shared: bool,
    offset: int,
    device: int,
    inode: int,
    name: str,
    page_size: int,
    tmpfs: Callable[[], frozenset[int]],
) -> Mapping:
    if page_size > mmap.PAGESIZE:
        kind = Kind.HUGETLB
    elif not (device or inode):  # the inode number alone may be 0: the first System V segment's is
        kind = _kind_of_anonymous(name)
    else:
        kind = _kind_of_file(shared, device, name, tmpfs)
    return Mapping(start, stop, permissions, shared, offset, device, inode, name, page_size, kind)


def _kind_of_anonymous(name: str) -> Kind:
    usual = not name or name.startswith(("[heap]", "[stack", "[anon:"))
    return Kind.ANONYMOUS if usual else Kind.SPECIAL  # [vdso], [vvar], [vsyscall], [uprobes], ...


_SHARED_ANONYMOUS_NAMES: Final = ("/dev/zero (deleted)", "[anon_shmem:")


def _kind_of_file(shared: bool, device: int, name: str, tmpfs: Callable[[], frozenset[int]]) -> Kind:
    if device == _shmem_device():
        return Kind.SHARED_ANONYMOUS if name.startswith(_SHARED_ANONYMOUS_NAMES) else Kind.SHMEM
    if not name.startswith("/") or name.startswith("/[aio]"):  # anon_inode:[io_uring], socket:[1], ...
        return Kind.SPECIAL
    if name.startswith("/dev/") and _is_device(name):
        return Kind.ANONYMOUS if name == "/dev/zero" else Kind.SPECIAL
    if device in tmpfs():
        return Kind.SHMEM
    return Kind.SHARED_FILE if shared else Kind.PRIVATE_FILE


def _is_device(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 (pathlib takes a tenth of the time of importing the library)
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


@cache
def _shmem_device() -> int:
    """The kernel's own tmpfs, mounted nowhere: memfds, System V and shared anonymous memory lie on it."""
    try:
        fd = os.memfd_create("dirtytrack", os.MFD_CLOEXEC)
    except OSError as error:
        raise kernel_error(error.errno or 0, "memfd_create") from None
    try:
        return os.fstat(fd).st_dev
    finally:
        os.close(fd)


def _tmpfs_devices() -> frozenset[int]:
    """The devices of the mounted tmpfs: Documentation/filesystems/proc.rst, section 3.5, mountinfo."""
    devices = set()
    with open_proc("mountinfo") as file:
        text = os.fsdecode(file.readall())
    for line in text.splitlines():
        fields, _, filesystem = line.partition(" - ")
        if filesystem.startswith("tmpfs "):
            major, _, minor = fields.split()[2].partition(":")
            devices.add(os.makedev(int(major), int(minor)))
    return frozenset(devices)
