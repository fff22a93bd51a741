"""What of tracked memory lies on transparent huge pages."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Iterable
from typing import NamedTuple

from dirtytrack.kernel.mappings import Kind, Mapping
from dirtytrack.native import lib

HUGE_PAGE = lib.DT_CHUNK_PAGES * mmap.PAGESIZE
"""Bytes of a huge page that can be kept."""

UNASKED = "this session does not keep huge pages: Session(keep_huge_pages=True) does"
COMPARES = 'the backend "compare" protects no page, and so splits no huge page'

UNSUPPORTED = {
    errno.EOPNOTSUPP: "the kernel has no transparent huge pages: take one with CONFIG_TRANSPARENT_HUGEPAGE",
    errno.EPERM: "this process is not to have transparent huge pages: prctl(PR_SET_THP_DISABLE) says so",
    errno.E2BIG: "huge pages are too large here to be copied: pages have to be of 4 KiB, huge ones of 2 MiB",
}
"""Why a session can't keep huge pages, by the native error."""

_KINDS = {
    Kind.HUGETLB: "hugetlb memory: its pages are never split",
    Kind.PRIVATE_FILE: "a private mapping of a file, which the kernel puts on huge pages by itself or never",
}
_SHARED = "shared memory, which is mapped by small pages as soon as it is tracked"


class HugePages(NamedTuple):
    """What of a region lies on transparent huge pages, in a session that keeps them.

    Counted are the huge pages, of 2 MiB each, of which every byte belongs to the region.

    Attributes:
        whole: how many there are, as far as collects have seen.
        split: how many tracking has split, and not put back yet.
        cold: how many of those are about to be put back.
        returned: how often one was put back since it was tracked.
        reason: why none of the region can be put back; "" if they can.
    """

    whole: int
    split: int
    cold: int
    returned: int
    reason: str


def reason_of(start: int, stop: int, found: Iterable[Mapping]) -> str:
    """Returns why nothing of [start, stop), addresses, can be put back on huge pages; "" if some can.

    Args:
        start: address of the first page.
        stop: the address after the last one.
        found: the mappings there.
    """
    reasons = {_SHARED if one.shared else _KINDS.get(one.kind, "") for one in found}
    if "" not in reasons:
        return "; ".join(sorted(reasons))
    first = -(-start // HUGE_PAGE) * HUGE_PAGE
    if first + HUGE_PAGE > stop:
        return f"no {HUGE_PAGE >> 20} MiB that begin at a multiple of {HUGE_PAGE >> 20} MiB lie in it"
    return ""
