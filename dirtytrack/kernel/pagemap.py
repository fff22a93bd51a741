"""PAGEMAP_SCAN (Linux 6.7): which pages of a range are written, present, swapped; and arm them in one step.

The raw ioctl, complete: every field of ``struct pm_scan_arg``, on this process or another one. `scan` makes
one call, `scan_all` repeats it until the range is done. Sources of the facts told here: ioctl_pagemap_scan in
Documentation/admin-guide/mm/pagemap.rst, fs/proc/task_mmu.c of Linux 6.12 and 7.3, and tests/kernel, which
states each of them as a test.
"""

from __future__ import annotations

import errno
import operator
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from dirtytrack.errors import KernelError, UnsupportedError
from dirtytrack.kernel import mappings
from dirtytrack.kernel._descriptor import open_pagemap, pagemap_of
from dirtytrack.kernel._flags import Category, ScanFlags
from dirtytrack.kernel._hole_reporting import HoleReporting, hole_reporting
from dirtytrack.kernel._refusals import scan_refusal
from dirtytrack.kernel._scan_arg import SCAN, SCAN_ARG_SIZE, ScanArg
from dirtytrack.kernel._scratch import scratch
from dirtytrack.native import ffi, lib

if TYPE_CHECKING:
    from typing_extensions import Buffer


__all__ = [
    "EXACT_VEC_LEN",
    "SCAN_ARG_SIZE",
    "Category",
    "PageRegion",
    "ScanFlags",
    "ScanResult",
    "open_pagemap",
    "scan",
    "scan_all",
]


class PageRegion(NamedTuple):
    """Adjacent pages of equal categories: addresses ``[start, end)`` in bytes."""

    start: int
    end: int
    categories: Category


class ScanResult(NamedTuple):
    """What one scan reported, by address, and the address where the walk ended."""

    regions: list[PageRegion]
    walk_end: int


# The kernel collects results in a buffer of its own with PMD_SIZE / PAGE_SIZE entries (512 with pages of 4
# KiB, more with larger ones) and goes on walking after each flush. With no more entries than that walk_end is
# exact.
EXACT_VEC_LEN: Final = 512

_REGION = struct.Struct("=QQQ")
_VEC_OFFSET = 128  # bytes from the argument, at the start of a scratch block, to the vector in it

_WP_MATCHING = ScanFlags.WP_MATCHING.value
_WRITTEN = Category.WRITTEN.value


def scan(
    start: int,
    end: int,
    *,
    flags: ScanFlags | int = 0,
    category_mask: Category | int = 0,
    category_inverted: Category | int = 0,
    category_anyof_mask: Category | int = 0,
    return_mask: Category | int = 0,
    vec_len: int | None = None,
    max_pages: int = 0,
    size: int = SCAN_ARG_SIZE,
    pid: int | None = None,
    vec: Buffer | int | None = None,
) -> ScanResult:
    """Make one PAGEMAP_SCAN call over the addresses ``[start, end)``, in bytes, with exactly these fields.

    **What matches.** A page's categories are first XORed with *category_inverted*; then it matches when all
    bits of *category_mask* are set, and at least one of *category_anyof_mask* unless that is 0. So "not
    present" is ``category_mask=PRESENT, category_inverted=PRESENT``; an inverted bit that is in neither mask
    has no effect. With both masks 0 every page of every mapping matches, unpopulated ones included.

    **What comes back.** Regions by ascending address, each with its categories as they are (not inverted),
    restricted to *return_mask* (0 is legal). Adjacent pages whose returned categories are equal make one
    region, even across mappings. Unmapped gaps yield nothing, and no error, whatever the flags.

    **Get only** (flags 0), **get and protect** (WP_MATCHING): each matching page that is written is
    write-protected in the same step as it is read. The step is atomic for each page, not for the range. Once
    the call has returned, every later write is reported by a later scan; a write that raced with it may be in
    this result, the next, or both. So copy the contents of a page *after* the scan that reported it.
    **Protect only** is ``vec_len=0``: it protects everything written in the range, heeding neither masks nor
    *max_pages*.

    **Where it stops.** At *end*; when the next region would not fit into *vec_len* entries; or when a further
    matching page would exceed *max_pages* (0: no limit; counted in base pages). `walk_end` is where to go on.
    It is exact while a call yields at most 512 regions; after more, kernels up to at least 7.3 leave a
    stale one behind (the start of region 513, 1025, ...), though the call is complete: then fewer than
    *vec_len* regions mean "done". `scan_all` gets this right. A limit inside a written transparent huge page
    splits it when WP_MATCHING is set; one inside a hugetlb page protects nothing and makes `walk_end` skip
    pages: scan hugetlb aligned to its page size and without *max_pages*.

    **Huge pages.** With WP_MATCHING, kernels before mid-2026 neither report nor protect hugetlb pages that
    are not as large as what a page table maps (1 GiB on x86-64): scan without it, and protect what was
    reported by `Userfaultfd.write_protect`. A transparent huge page of a file or of shared memory is
    protected as a whole, and all of it counts as written when one byte of it is, on every kernel:
    `write_protect` protects it by small pages.

    **Cost.** Asking with ``category_mask=WRITTEN, return_mask=WRITTEN`` and nothing else takes the kernel's
    fast path, three times as fast as any other question. FILE is ten times slower than the rest.

    **What an error loses.** Pages are protected before the results are copied out. EFAULT for a *vec* that
    cannot be written has protected pages that nobody will hear of. EPERM from CHECK_WPASYNC in the middle of
    the range has protected the written pages of the mappings before; their regions are in *vec*, but not
    their number (pass a zeroed *vec* to salvage them). After either, with WP_MATCHING, take the whole range
    for written.

    Args:
        start: first address, a multiple of the page size.
        end: the address after the last; rounded up to a page by the kernel.
        flags: see `ScanFlags`.
        category_mask: all of these must be set, after the inversion.
        category_inverted: bits to invert before the masks are applied.
        category_anyof_mask: at least one of these must be set, after the inversion.
        return_mask: the categories to return.
        vec_len: the most regions to return: by default what *vec* holds, or 512 without one.
        max_pages: the most pages to report in this call; 0 for no limit.
        size: of the argument, for kernels to come.
        pid: another process, by id. With WP_MATCHING its memory must be registered with a userfaultfd of its
            own. See to it that the process does not exit meanwhile (stop it, or have it wait for this one):
            kernels before October 2026 may crash when a process with shared hugetlb memory is scanned while
            it exits. Whether it still has memory is checked before the call, and can't be during it.
        vec: where the kernel shall write its ``struct page_region`` entries (24 bytes each): a writable
            contiguous buffer, an address, 0 for NULL, or None for memory of the library's own. A buffer
            inside the scanned range becomes written by the scan.

    Raises:
        UnsupportedError: the kernel has no PAGEMAP_SCAN (ENOTTY), or does not know a category asked for
            (EINVAL); or the kernel is blind to holes (`dirtytrack.kernel.support.HoleReporting`), and may
            crash or hang on this call, which was not made: WP_MATCHING with no room for results (an oops
            before 6.12.50), or WP_MATCHING that could match pages not written, over hugetlb (a deadlock
            before 6.12.97).
        KernelError: with `errno` EINVAL (size, an unknown flag or category, *start* not aligned, a NULL *vec*
            with *vec_len* > 0), EFAULT (*vec* not writable, *start* above *end*, or the range above user
            space), EPERM (CHECK_WPASYNC), ENOMEM, EINTR (only when the process is being killed), ESRCH (the
            other process has gone); from opening pagemap ENOENT, ESRCH, EACCES. The message gives the range
            and the remedy.
        TypeError, ValueError: a value does not fit its field, or *vec* is too small, read-only or not
            contiguous.
    """
    address, room = _locate(vec, vec_len)
    arg = ScanArg(
        size=size,
        flags=flags,
        start=start,
        end=end,
        vec=address,
        vec_len=room,
        max_pages=max_pages,
        category_inverted=category_inverted,
        category_mask=category_mask,
        category_anyof_mask=category_anyof_mask,
        return_mask=return_mask,
    )
    with pagemap_of(pid) as fd:
        return _scan(fd, pid, arg, own_vec=vec is None)


def scan_all(
    start: int,
    end: int,
    *,
    flags: ScanFlags | int = 0,
    category_mask: Category | int = 0,
    category_inverted: Category | int = 0,
    category_anyof_mask: Category | int = 0,
    return_mask: Category | int = 0,
    vec_len: int | None = None,
    max_pages: int = 0,
    size: int = SCAN_ARG_SIZE,
    pid: int | None = None,
    vec: Buffer | int | None = None,
) -> list[PageRegion]:
    """Scan all of ``[start, end)``, and return the regions that one call with room for all would return.

    The arguments are those of `scan`. No page is reported twice, whatever *vec_len* is: a call uses at most
    512 entries of it, which keeps `walk_end` exact, and adjacent regions of equal categories are joined
    across calls. *max_pages* limits each call, not the sum. A write during the scan is reported if its page
    was still to come; with WP_MATCHING a later scan reports it otherwise.

    Raises:
        UnsupportedError: as `scan`; and *max_pages* with hugetlb in the range, where the kernel skips pages.
        KernelError: as `scan`; and EIO if a call makes no progress. If WP_MATCHING is set and this is not the
            first call, pages already protected are not reported: take the whole range for written.
        TypeError, ValueError: as `scan`.
    """
    address, room = _locate(vec, vec_len)
    room = min(room, EXACT_VEC_LEN)
    if max_pages and _holds_hugetlb(start, end, pid):
        raise UnsupportedError(
            errno.EOPNOTSUPP,
            SCAN,
            start=start,
            stop=end,
            remedy="The kernel skips hugetlb pages when max_pages cuts one: leave max_pages at 0 here.",
        )
    arg = ScanArg(
        size=size,
        flags=flags,
        start=start,
        end=end,
        vec=address,
        vec_len=room,
        max_pages=max_pages,
        category_inverted=category_inverted,
        category_mask=category_mask,
        category_anyof_mask=category_anyof_mask,
        return_mask=return_mask,
    )
    regions: list[PageRegion] = []
    with pagemap_of(pid) as fd:
        while True:
            found, walk_end = _scan(fd, pid, arg, own_vec=vec is None)
            _join(regions, found)
            if room == 0 or walk_end >= end:
                return regions
            if walk_end <= arg.start:
                raise KernelError(
                    errno.EIO,
                    SCAN,
                    start=arg.start,
                    stop=end,
                    remedy="The call made no progress: leave max_pages at 0, start at a huge page on "
                    "hugetlb.",
                )
            arg = arg._replace(start=walk_end)


def _join(regions: list[PageRegion], found: list[PageRegion]) -> None:
    """Append *found*, joining the regions that a stop between two calls has cut."""
    if regions and found:
        last, first = regions[-1], found[0]
        if last.end == first.start and last.categories == first.categories:
            regions[-1] = PageRegion(last.start, first.end, last.categories)
            del found[0]
    regions += found


def _locate(vec: Buffer | int | None, vec_len: int | None) -> tuple[int, int]:
    """Address and number of entries of the caller's vector; address 0 also for "the library's own"."""
    if vec_len is not None:
        vec_len = operator.index(vec_len)
    if vec is None:
        return 0, EXACT_VEC_LEN if vec_len is None else vec_len
    if isinstance(vec, int):
        if vec_len is None:
            raise ValueError("vec is an address: say with vec_len how many regions may be written there")
        return vec, vec_len
    view = memoryview(vec)
    if view.readonly or not view.c_contiguous:
        raise TypeError("vec must be a writable, contiguous buffer")
    capacity = view.nbytes // _REGION.size
    if vec_len is None:
        vec_len = capacity
    elif vec_len > capacity:
        raise ValueError(
            f"vec holds {capacity} regions of {_REGION.size} bytes, fewer than vec_len={vec_len}"
        )
    return (int(ffi.cast("uintptr_t", ffi.from_buffer(view))) if view.nbytes else 0), vec_len


def _scan(fd: int, pid: int | None, arg: ScanArg, *, own_vec: bool) -> ScanResult:
    own_room = arg.vec_len if own_vec and arg.vec_len > 0 else 0
    with scratch(_VEC_OFFSET + own_room * _REGION.size) as block:
        if own_room:
            arg = arg._replace(vec=block.address + _VEC_OFFSET)
        arg.write(block.view)
        arg = ScanArg.read(block.view)  # plain integers: arithmetic on flags is slow
        if arg.flags & _WP_MATCHING:
            _refuse_dangerous(pid, arg)
        count = lib.dt_pagemap_scan(fd, ffi.cast("struct dt_pm_scan_arg *", block.address))
        if count < 0:
            raise scan_refusal(-count, arg)
        return ScanResult(_regions(arg.vec, count), ScanArg.read(block.view).walk_end)


def _regions(address: int, count: int) -> list[PageRegion]:
    entries = ffi.buffer(ffi.cast("char *", address), count * _REGION.size)
    # Making a flag costs more than the rest of a region, and few combinations occur.
    known: dict[int, Category] = {}
    regions = []
    for start, end, bits in _REGION.iter_unpack(entries):
        categories = known.get(bits)
        if categories is None:
            categories = known[bits] = Category(bits)
        regions.append(PageRegion(start, end, categories))
    return regions


def _refuse_dangerous(pid: int | None, arg: ScanArg) -> None:
    """Refuse the two WP_MATCHING calls on which kernels that are blind to holes may crash; see `scan`."""
    if arg.vec_len != 0 and _needs_written(arg):
        return
    if hole_reporting() is not HoleReporting.BLIND:
        return
    if arg.vec_len == 0:
        remedy = (
            "Protecting without a vector crashes some kernels of this age (fixed in 6.12.50 and 6.17), so it "
            "was not tried: pass vec_len > 0, or arm with Userfaultfd.write_protect."
        )
    elif _holds_hugetlb(arg.start, arg.end, pid):
        remedy = (
            "Protecting hugetlb pages that need not be written hangs some kernels of this age (fixed in "
            "6.12.97), so it was not tried: ask with category_mask=WRITTEN."
        )
    else:
        return
    raise UnsupportedError(errno.EOPNOTSUPP, SCAN, start=arg.start, stop=arg.end, remedy=remedy)


def _needs_written(arg: ScanArg) -> bool:
    """Whether only written pages can match."""
    if arg.category_inverted & _WRITTEN:
        return False
    return bool(arg.category_mask & _WRITTEN) or arg.category_anyof_mask == _WRITTEN


def _holds_hugetlb(start: int, end: int, pid: int | None) -> bool:
    if start >= end:
        return False
    return any(m.kind is mappings.Kind.HUGETLB for m in mappings.overlapping(start, end, pid=pid))
