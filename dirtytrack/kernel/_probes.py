"""Behavioural probes: each tries one thing in memory of its own, and leaves nothing open, mapped or armed.

They use the system calls as they are, since an errno is an answer here. None issues a call that a kernel with
PAGEMAP_SCAN is known to crash or hang on: every scan has room for its results, none touches hugetlb memory.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import NamedTuple

from dirtytrack.errors import kernel_error
from dirtytrack.kernel._flags import Category, Feature, RegisterMode, ScanFlags
from dirtytrack.kernel._scan_arg import SCAN, ScanArg
from dirtytrack.native import ffi, lib

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")

_COLLECT = ScanFlags.WP_MATCHING | ScanFlags.CHECK_WPASYNC
_USER_MODE_ONLY = 1  # include/uapi/linux/userfaultfd.h

Opener = Callable[[int], int]

# The ways to open a userfaultfd, in the order of preference.
OPENERS: dict[str, Opener] = {"syscall": lib.dt_uffd_syscall, "device": lib.dt_uffd_device}


class Handshake(NamedTuple):
    """What became of opening a userfaultfd one way; each errno is 0 where the step succeeded.

    Attributes:
        open: errno of the open.
        api: errno of UFFDIO_API when it asks for no feature, which any kernel grants.
        features: what the kernel offers.
        wp_async: errno of UFFDIO_API with UFFD_FEATURE_WP_ASYNC.
    """

    open: int
    api: int = 0
    features: Feature = Feature(0)
    wp_async: int = 0


def handshake(opener: Opener) -> Handshake:
    """Open a userfaultfd and ask for its features; each descriptor allows one handshake."""
    with _userfaultfd(opener) as fd:
        if fd < 0:
            return Handshake(-fd)
        offered = ffi.new("uint64_t *", 0)
        api = -lib.dt_uffd_api(fd, offered)
    with _userfaultfd(opener) as fd:
        if fd < 0:
            return Handshake(-fd)
        wp_async = -lib.dt_uffd_api(fd, ffi.new("uint64_t *", Feature.WP_ASYNC))
    return Handshake(0, api, Feature(offered[0]), wp_async)


def scannable() -> None:
    """Read the state of one page with PAGEMAP_SCAN.

    Raises:
        OSError: opening /proc/self/pagemap (with its name), or the ioctl (a KernelError), was refused.
    """
    with closing(mmap.mmap(-1, PAGE_SIZE)) as memory, _pagemap() as pagemap, _address(memory) as start:
        _scan(pagemap, start, start + PAGE_SIZE)


def categories() -> tuple[str, ...]:
    """The page categories that PAGEMAP_SCAN accepts here, by name. It has to be scannable()."""
    known = []
    with closing(mmap.mmap(-1, PAGE_SIZE)) as memory, _pagemap() as pagemap, _address(memory) as start:
        for category in Category:
            try:
                _scan(pagemap, start, start + PAGE_SIZE, returned=category)
            except OSError:
                continue
            known.append(str(category.name))
    return tuple(known)


def round_trip(opener: Opener, *, shared: bool = False) -> str:
    """Track four pages of memory: arm, write, collect, write, collect; as a session would do it.

    Args:
        opener: how to open a userfaultfd.
        shared: use a memfd instead of private anonymous memory.

    Returns:
        Empty if every collect reported exactly what was written, else what it reported.

    Raises:
        OSError: a call was refused.
    """
    with closing(_shared_memory() if shared else _private_memory(4 * PAGE_SIZE)) as memory:
        memory[:] = bytes([1]) * len(memory)
        with _registered(opener, memory) as (fd, pagemap, start):
            _status(lib.dt_uffd_writeprotect(fd, start, len(memory), 1), "UFFDIO_WRITEPROTECT", start, memory)
            for written in (1, 3):
                memory[written * PAGE_SIZE] = 2
                stop = start + len(memory)
                runs = _scan(pagemap, start, stop, flags=_COLLECT)
                if runs != [(written, written + 1)]:
                    return f"page {written} was written, the pages reported are {runs}"
    return ""


def is_blind_to_holes() -> bool:
    """Whether this kernel overlooks holes in registered memory, where it should report them as written.

    A page that was never armed is "written". A blind kernel overlooks it where there is no page table entry
    (in a scan that asks for more than one category) or no page table at all.

    Raises:
        OSError: a call was refused.
    """
    with _any_userfaultfd() as fd, _pagemap() as pagemap:
        _status(lib.dt_uffd_api(fd, ffi.new("uint64_t *", Feature.WP_ASYNC)), "UFFDIO_API")
        holes = lib.dt_probe_hole_reporting(fd, pagemap)
        _status(holes, SCAN)
    return holes != lib.DT_HOLES_REPORTED


def reports_unregistered() -> bool:
    """Whether this kernel reports memory that nobody registered as written.

    Raises:
        OSError: a call was refused.
    """
    with closing(_private_memory(PAGE_SIZE)) as memory, _pagemap() as pagemap, _address(memory) as start:
        memory[0] = 1
        return bool(_scan(pagemap, start, start + PAGE_SIZE))


def _private_memory(nbytes: int) -> mmap.mmap:
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without transparent huge pages
        memory.madvise(mmap.MADV_NOHUGEPAGE)  # one touch must not populate more than one page
    return memory


def _shared_memory() -> mmap.mmap:
    file = os.memfd_create("dirtytrack-probe", os.MFD_CLOEXEC)
    try:
        os.ftruncate(file, 4 * PAGE_SIZE)
        return mmap.mmap(file, 4 * PAGE_SIZE)
    finally:
        os.close(file)


@contextmanager
def _userfaultfd(opener: Opener) -> Iterator[int]:
    """A new descriptor, or -errno."""
    fd = opener(os.O_CLOEXEC | os.O_NONBLOCK | _USER_MODE_ONLY)
    try:
        yield fd
    finally:
        if fd >= 0:
            lib.dt_close(fd)


@contextmanager
def _any_userfaultfd() -> Iterator[int]:
    """A new descriptor, by the first way that works."""
    for opener in OPENERS.values():
        with _userfaultfd(opener) as fd:
            if fd >= 0:
                yield fd
                return
    _status(fd, "userfaultfd")


@contextmanager
def _pagemap() -> Iterator[int]:
    fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _address(memory: mmap.mmap) -> Iterator[int]:
    with ffi.from_buffer("char[]", memory) as buffer:
        yield int(ffi.cast("uintptr_t", buffer))


@contextmanager
def _registered(opener: Opener, memory: mmap.mmap) -> Iterator[tuple[int, int, int]]:
    """Register the memory, nothing armed: userfaultfd, pagemap descriptor, address of the memory."""
    with _userfaultfd(opener) as fd, _pagemap() as pagemap, _address(memory) as start:
        _status(fd, "userfaultfd")
        _status(lib.dt_uffd_api(fd, ffi.new("uint64_t *", Feature.WP_ASYNC)), "UFFDIO_API")
        ioctls = ffi.new("uint64_t *")
        _status(
            lib.dt_uffd_register(fd, start, len(memory), RegisterMode.WP, ioctls),
            "UFFDIO_REGISTER",
            start,
            memory,
        )
        try:
            yield fd, pagemap, start
        finally:
            # Closing is not enough: a process forked meanwhile may hold the descriptor.
            lib.dt_uffd_unregister(fd, start, len(memory))


def _scan(
    pagemap: int, start: int, stop: int, *, flags: int = 0, returned: int = Category.WRITTEN
) -> list[tuple[int, int]]:
    """Scan for written pages: their runs [start, stop) in pages from *start*."""
    room = 8
    entries = ffi.new("struct dt_page_region[]", room)
    arg = ScanArg(
        flags=flags,
        start=start,
        end=stop,
        vec=int(ffi.cast("uintptr_t", entries)),
        vec_len=room,
        category_mask=Category.WRITTEN,
        return_mask=returned,
    )
    count = lib.dt_pagemap_scan(pagemap, ffi.new("struct dt_pm_scan_arg *", arg))
    if count < 0:
        raise kernel_error(-count, SCAN, start=start, stop=stop)
    return [
        ((entry.start - start) // PAGE_SIZE, (entry.end - start) // PAGE_SIZE) for entry in entries[0:count]
    ]


def _status(result: int, call: str, start: int | None = None, memory: mmap.mmap | None = None) -> None:
    if result < 0:
        stop = None if start is None or memory is None else start + len(memory)
        raise kernel_error(-result, call, start=start, stop=stop)
