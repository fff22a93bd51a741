"""The kernel's flags, typed. Bits that they don't name are kept, so that a later kernel's come through.

Sources: include/uapi/linux/userfaultfd.h and include/uapi/linux/fs.h of Linux 6.7 to 7.3.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Final, Self


class Feature(IntFlag):
    """``UFFD_FEATURE_*`` of UFFDIO_API(2const): what can be asked for, and what the kernel has.

    Beware of the ``EVENT_*`` features: they block the calls they are about (fork, mremap, madvise, munmap)
    until somebody reads the event from the descriptor.
    """

    PAGEFAULT_FLAG_WP = 1 << 0
    EVENT_FORK = 1 << 1
    EVENT_REMAP = 1 << 2
    EVENT_REMOVE = 1 << 3
    MISSING_HUGETLBFS = 1 << 4
    MISSING_SHMEM = 1 << 5
    EVENT_UNMAP = 1 << 6
    SIGBUS = 1 << 7
    THREAD_ID = 1 << 8
    MINOR_HUGETLBFS = 1 << 9
    MINOR_SHMEM = 1 << 10
    EXACT_ADDRESS = 1 << 11
    WP_HUGETLBFS_SHMEM = 1 << 12
    """Write-protection of hugetlb and shared memory."""
    WP_UNPOPULATED = 1 << 13
    """Write-protection of pages that were never touched, by markers in the page table."""
    POISON = 1 << 14
    WP_ASYNC = 1 << 15
    """Linux 6.7: write-protection faults are resolved by the kernel. Implies WP_UNPOPULATED."""
    MOVE = 1 << 16
    RWP = 1 << 17
    """Linux 7.3: protection against reads as well."""
    RWP_ASYNC = 1 << 18


class RegisterMode(IntFlag):
    """``UFFDIO_REGISTER_MODE_*``: what memory is registered for. Only one at a time, on each mapping."""

    WP = 1 << 1
    """Its first write after `Userfaultfd.write_protect`."""
    RWP = 1 << 3
    """Linux 7.3, with the feature RWP: its first use after `Userfaultfd.rw_protect`, by reading as well."""


class Ioctl(IntFlag):
    """What a registered range supports: bit *n* stands for ``UFFDIO_*`` number *n*. Unknown bits are kept."""

    WAKE = 1 << 2
    COPY = 1 << 3
    ZEROPAGE = 1 << 4
    """Absent when a hugetlb mapping is in the range."""
    MOVE = 1 << 5
    WRITEPROTECT = 1 << 6
    CONTINUE = 1 << 7
    POISON = 1 << 8
    RWPROTECT = 1 << 9
    SET_MODE = 1 << 10


FIRST: Final = "6.7"  # the Linux that brought PAGEMAP_SCAN


class ScanBit(IntFlag):
    """A flag of PAGEMAP_SCAN. Everything that is known of one stands where it is defined, and nowhere else.

    Attributes:
        since: the first Linux that knows the flag, such as "6.7".
        meaning: a sentence. The member's docstring is made of both.
    """

    since: str
    meaning: str

    def __new__(cls, bit: int, since: str = "", meaning: str = "") -> Self:
        """Define a member. Only definitions get here: ``Category(3)`` looks one up."""
        if not (since and meaning):
            raise TypeError(f"{cls.__name__} {bit:#x}: say which Linux brought it, and what it means")
        member = int.__new__(cls, bit)
        member._value_ = bit
        member.since, member.meaning = since, meaning
        member.__doc__ = f"{meaning} Linux {since}."
        return member


class Category(ScanBit):
    """``PAGE_IS_*``: what can be asked, and is told, about a page. Bits of kernels yet to come are kept."""

    WPALLOWED = (
        1 << 0,
        FIRST,
        "The mapping is registered for asynchronous write-protection (a property of the mapping).",
    )
    WRITTEN = (
        1 << 1,
        FIRST,
        "Not write-protected by userfaultfd. Up to Linux 7.2 true of all memory that is not registered, too.",
    )
    FILE = (
        1 << 2,
        FIRST,
        "Belongs to a file. Looks at each page's owner: ten times the cost of the others.",
    )
    PRESENT = 1 << 3, FIRST, "In memory."
    SWAPPED = (
        1 << 4,
        FIRST,
        "The page table holds something else than a page: swapped, being migrated, or a marker (armed while "
        "unpopulated, guard).",
    )
    PFNZERO = 1 << 5, FIRST, "The zero page, small or huge: read but never written."
    HUGE = 1 << 6, FIRST, "Mapped as a transparent huge page, or hugetlb."
    SOFT_DIRTY = 1 << 7, "6.8", "Written since /proc/PID/clear_refs was told 4."
    GUARD = 1 << 8, "6.16", "A guard page of MADV_GUARD_INSTALL."
    ACCESSED = 1 << 9, "7.3", "Accessed since read-protected."


class ScanFlags(ScanBit):
    """``PM_SCAN_*``: what a scan does besides looking."""

    WP_MATCHING = (
        1 << 0,
        FIRST,
        "Write-protect the pages reported that are written, each atomically with its being reported.",
    )
    CHECK_WPASYNC = (
        1 << 1,
        FIRST,
        "Fail with EPERM at the first mapping that is not registered for asynchronous write-protection.",
    )
