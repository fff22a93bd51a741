"""PAGEMAP_SCAN: what matches, what comes back, where it stops, and what it leaves armed."""

from __future__ import annotations

import ctypes
import mmap
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from _lib.kernel.area import ALL, HUGE_PAGES, MAP_HUGETLB, PRIVATE, TAKE, WRITTEN, Area, Lab, count
from _lib.support import PAGE_SIZE, PMD_SIZE, require
from dirtytrack.errors import KernelError, UnsupportedError
from dirtytrack.kernel import mappings, pagemap
from dirtytrack.kernel._scratch import scratch
from dirtytrack.kernel.pagemap import Category, PageRegion, ScanFlags, ScanResult, scan, scan_all
from dirtytrack.kernel.support import HoleReporting, hole_reporting
from dirtytrack.native import lib

PRESENT, SWAPPED, FILE, PFNZERO = Category.PRESENT, Category.SWAPPED, Category.FILE, Category.PFNZERO
WP = ScanFlags.WP_MATCHING


def take_all(area: Area, **how: Any) -> list[PageRegion]:
    return scan_all(area.address, area.stop, flags=TAKE, category_mask=WRITTEN, return_mask=WRITTEN, **how)


def test_looking_arms_nothing(lab: Lab) -> None:
    """Get only: the same answer twice."""
    area = lab.armed(8)
    area.touch(2, 3, 6)
    assert area.runs(area.get()) == area.runs(area.get()) == [(2, 4), (6, 7)]


def test_taking_arms_exactly_what_it_reports(lab: Lab) -> None:
    """Get and protect: what was reported is clean, what was outside of the range is not."""
    area = lab.armed(8)
    area.touch(2, 3, 6)
    assert area.runs(area.part(0, 4).take()) == [(2, 4)]
    assert area.runs(area.get()) == [(6, 7)]


def test_protect_only_heeds_no_mask(lab: Lab) -> None:
    """Protect only arms every written page of the range, also those that the masks exclude."""
    area = lab.armed(4)
    area.touch(1, 2)
    if hole_reporting() is HoleReporting.BLIND:
        with pytest.raises(UnsupportedError, match="without a vector"):
            area.take(vec_len=0)
        return
    result = area.get(WRITTEN | PFNZERO, flags=TAKE, vec_len=0, max_pages=1)
    assert result == ScanResult([], area.stop)
    assert area.get().regions == []


def test_what_is_armed_but_not_written_stays_armed(lab: Lab) -> None:
    """Get and protect with a mask that matches every page reports all, and the written ones are armed."""
    area = lab.armed(4)
    area.touch(1)
    assert area.runs(area.take(0, returned=0)) == [(0, 4)]
    assert area.get().regions == []


def test_an_inverted_bit_counts_only_in_a_mask(lab: Lab) -> None:
    """category_inverted is an exclusive or before the masks: alone it selects nothing."""
    area = lab.armed(4)
    area.touch(1)
    assert area.runs(area.get(PRESENT, inverted=PRESENT, returned=0)) == [(0, 1), (2, 4)]
    assert area.runs(area.get(PRESENT, inverted=WRITTEN, returned=0)) == [(1, 2)]
    assert area.runs(area.get(0, anyof=PRESENT, inverted=PRESENT, returned=0)) == [(0, 1), (2, 4)]


def test_an_inverted_bit_does_not_come_back_inverted(lab: Lab) -> None:
    """What is returned is what the page is; the inversion is for the masks alone."""
    area = lab.armed(2)
    area.touch(1)
    regions = area.get(WRITTEN, inverted=WRITTEN, returned=WRITTEN | PRESENT).regions
    assert regions == [PageRegion(area.at(0), area.at(1), Category(0))]
    regions = area.get(0, inverted=WRITTEN, returned=WRITTEN).regions
    assert [region.categories for region in regions] == [Category(0), WRITTEN]


def test_adjacent_pages_join_by_what_is_returned(lab: Lab) -> None:
    """Pages are one region exactly where their returned categories are equal."""
    area = lab.armed(6)
    area.part(1, 3).read()
    area.touch(3, 4)
    assert area.runs(area.get(0, returned=0)) == [(0, 6)]
    assert [
        (*run, region.categories)
        for region in area.get(0, returned=PRESENT | PFNZERO).regions
        for run in area.runs([region])
    ] == [
        (0, 1, Category(0)),
        (1, 3, PRESENT | PFNZERO),
        (3, 5, PRESENT),
        (5, 6, Category(0)),
    ]


def test_regions_join_across_mappings_but_not_across_gaps(lab: Lab) -> None:
    """Two neighbouring mappings make one region; an unmapped page between pages makes two, and no error."""
    area = lab.map(6)
    area.part(0, 2).protect(mmap.PROT_READ)
    area.part(2, 6).write()
    assert len(mappings.overlapping(area.address, area.stop)) == 2
    assert area.runs(area.get(0, returned=0)) == [(0, 6)]
    area.part(3, 4).unmap()
    assert area.runs(area.get(0, returned=0)) == [(0, 3), (4, 6)]
    Area.map(1, at=area.at(3))  # for the fixture to unmap


def test_an_unaligned_end_is_rounded_up(lab: Lab) -> None:
    """The page that holds the last byte is scanned."""
    area = lab.armed(4)
    area.touch(2)
    result = scan(area.address, area.at(2) + 1, category_mask=WRITTEN, return_mask=WRITTEN)
    assert area.runs(result) == [(2, 3)]


def test_the_categories_of_private_memory(lab: Lab) -> None:
    """Untouched, read, written and swap-marked pages are told apart."""
    area = lab.map(3)
    lab.uffd.register(area.address, area.stop)
    area.part(1, 2).read()
    area.touch(2)
    lab.uffd.write_protect(area.address, area.stop)
    regions = area.get(0, returned=ALL & ~Category.SOFT_DIRTY).regions
    known = ALL & ~FILE
    assert [region.categories & known for region in regions] == [
        Category.WPALLOWED | SWAPPED,  # the marker of an armed page that was never touched
        Category.WPALLOWED | PRESENT | PFNZERO,
        Category.WPALLOWED | PRESENT,
    ]


def test_the_category_of_files(lab: Lab, tmp_path: Path) -> None:
    """A page of a file is one until it is copied on write."""
    path = tmp_path / "file"
    path.write_bytes(bytes(2 * PAGE_SIZE))
    with open(path, "rb") as file:
        area = lab.map(2, flags=mmap.MAP_PRIVATE, fd=file.fileno())
    area.read()
    area.touch(1)
    assert area.runs(area.get(FILE, returned=FILE)) == [(0, 1)]


def test_the_category_of_guard_pages(lab: Lab) -> None:
    """Guard pages are told where the kernel knows the category; the refusal names it where not."""
    area = lab.armed(3)
    try:
        area.part(1, 2).advise(102)  # MADV_GUARD_INSTALL
    except OSError:
        require(False, "the kernel has no guard pages (Linux 6.13)")
    try:
        regions = area.get(Category.GUARD, returned=Category.GUARD).regions
    except UnsupportedError as error:
        require("Category.GUARD" not in str(error), "the kernel does not report guard pages (Linux 6.16)")
        raise
    assert area.runs(regions) == [(1, 2)]


def test_memory_not_registered_is_skipped_or_refused(lab: Lab) -> None:
    """Without CHECK_WPASYNC memory that is not registered is skipped; with it the scan is refused."""
    area = lab.map(4)
    area.write()
    lab.register(area.part(0, 2))
    area.touch(0)
    area.get(flags=WP)
    assert area.part(0, 2).get().regions == []
    with pytest.raises(KernelError, match="already protected again"):
        area.take()


def test_a_refused_scan_has_armed_what_came_before(lab: Lab) -> None:
    """EPERM in the middle loses the count, not the regions: they are in a zeroed vec."""
    area = lab.map(6)
    lab.register(area.part(0, 4))
    area.touch(1, 2)
    vec = bytearray(24 * 8)
    with pytest.raises(PermissionError):
        area.take(vec=vec)
    assert area.part(0, 4).get().regions == []
    salvaged = memoryview(vec).cast("Q").tolist()[:6]
    assert salvaged == [area.at(1), area.at(3), WRITTEN, 0, 0, 0]


def test_a_vector_that_cannot_be_written_loses_what_was_armed(lab: Lab) -> None:
    """EFAULT comes after the protecting: the message says that the range counts as written."""
    area, vec = lab.armed(4), lab.map(1, prot=mmap.PROT_READ)
    area.touch(1)
    with pytest.raises(KernelError, match="take the range for written"):
        area.take(vec=vec.address, vec_len=10)
    assert area.get().regions == []


def test_a_vector_of_the_callers(lab: Lab) -> None:
    """Results land in the caller's buffer, and its size limits them unless vec_len does."""
    area = lab.armed(10)
    area.touch(1, 3, 5, 7)
    vec = bytearray(3 * 24 + 23)
    result = area.get(vec=vec)
    assert area.runs(result) == [(1, 2), (3, 4), (5, 6)]
    assert result.walk_end == area.at(7)
    entries = memoryview(vec)[:72].cast("Q").tolist()
    assert entries == [word for region in result.regions for word in region]
    assert area.runs(area.get(vec=memoryview(vec).cast("B"), vec_len=2)) == [(1, 2), (3, 4)]


def test_a_vector_at_an_address(lab: Lab) -> None:
    """An address stands for the memory there."""
    area, room = lab.armed(4), lab.map(1)
    area.touch(2)
    result = area.get(vec=room.address + 8, vec_len=5)
    assert area.runs(result) == [(2, 3)]
    entry = (ctypes.c_uint64 * 3).from_address(room.address + 8)
    assert list(entry) == [area.at(2), area.at(3), WRITTEN]


def test_a_vector_in_the_scanned_range_is_written_by_the_scan(lab: Lab) -> None:
    """The kernel copies results out after arming, so a vec in tracked memory is found by the next scan."""
    area = lab.armed(4)
    area.touch(1)
    assert area.runs(area.take(vec=area.at(3), vec_len=5)) == [(1, 2)]
    assert area.runs(area.get()) == [(3, 4)]


def test_the_librarys_own_memory_is_not_the_heap() -> None:
    """The vector and the argument lie in private mappings, apart from malloc's memory."""
    with scratch(100) as first, scratch(1 << 21) as second:
        assert first.address != second.address
        for block in (first, second):
            (mapping,) = mappings.overlapping(block.address, block.address + 1)
            assert (mapping.kind, mapping.shared) == (mappings.Kind.ANONYMOUS, False)
            assert mapping.name != "[heap]"
            assert block.address % PAGE_SIZE == 0


def test_a_vector_too_large_to_map(lab: Lab) -> None:
    """More entries than there is address space for is ENOMEM, with the remedy."""
    area = lab.armed(1)
    with pytest.raises(KernelError, match="pass a smaller vec_len"):
        area.get(vec_len=1 << 60)


def test_more_than_512_regions_in_one_call(lab: Lab) -> None:
    """One call finds them all; walk_end is then either the end or the stale start of region 513."""
    area = lab.armed(1026)
    area.touch(*range(0, 1026, 2))
    result = area.get(vec_len=10000)
    assert area.runs(result) == [(page, page + 1) for page in range(0, 1026, 2)]
    assert result.walk_end == area.stop or result.walk_end in (region.start for region in result.regions)


@pytest.mark.parametrize("room", [1, 2, 7, 511, 512, 513, 1024, 100000])
def test_scan_all_reports_every_page_once(lab: Lab, room: int) -> None:
    """Whatever the size of the vector, random writes come back exactly, and are armed."""
    area = lab.armed(3000)
    pages = sorted(set(random.Random(room).choices(range(area.pages), k=1800)))
    area.touch(*pages)
    expected = area.runs(area.get(vec_len=100000))
    assert [page for run in expected for page in range(*run)] == pages
    looked = scan_all(area.address, area.stop, vec_len=room, category_mask=WRITTEN, return_mask=WRITTEN)
    assert area.runs(looked) == expected
    assert area.runs(take_all(area, vec_len=room)) == expected
    assert area.get().regions == []


@pytest.mark.parametrize("limit", [1, 3, 100, 3000])
def test_scan_all_joins_what_max_pages_cuts(lab: Lab, limit: int) -> None:
    """A limit on each call changes the number of calls, not the answer."""
    area = lab.armed(300)
    area.write(0, 150)
    area.touch(170, 299)
    assert area.runs(take_all(area, max_pages=limit)) == [(0, 150), (170, 171), (299, 300)]


def test_scan_all_with_a_vector_of_the_callers(lab: Lab) -> None:
    """The caller's vector serves every call."""
    area = lab.armed(100)
    area.touch(*range(0, 100, 2))
    assert len(take_all(area, vec=bytearray(24 * 3))) == 50


def test_scan_all_of_nothing(lab: Lab) -> None:
    """An empty range, and protecting only, are one call each."""
    area = lab.armed(4)
    assert scan_all(area.address, area.address, category_mask=WRITTEN) == []
    area.touch(1)
    if hole_reporting() is HoleReporting.BLIND:
        with pytest.raises(UnsupportedError, match="without a vector"):
            take_all(area, vec_len=0)
        return
    assert take_all(area, vec_len=0) == []
    assert area.get().regions == []


class Stuck:
    """The C core on a kernel whose scan ends where it begins."""

    dt_address_space = staticmethod(lib.dt_address_space)

    def dt_pagemap_scan(self, _fd: int, arg: Any) -> int:
        arg.walk_end = arg.start
        return 0


def test_scan_all_notices_a_lack_of_progress(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that ends where it began is an error, not an endless loop."""
    area = lab.armed(4)
    monkeypatch.setattr(pagemap, "lib", Stuck())
    with pytest.raises(KernelError, match="no progress"):
        take_all(area)


@pytest.fixture
def huge(lab: Lab, hugepages: Callable[[int], int]) -> Area:
    """Four written hugetlb pages between ordinary ones, all registered; the area is the huge ones."""
    size = hugepages(4) // PAGE_SIZE
    area = lab.armed(4 * size, flags=PRIVATE | MAP_HUGETLB)
    area.write()
    return area


def test_a_huge_page_is_written_as_a_whole(huge: Area) -> None:
    """One byte in a hugetlb page is the whole page."""
    huge.arm()
    size = huge.pages // 4
    huge.touch(size + 1)
    assert huge.runs(huge.take()) == [(size, 2 * size)]


def test_max_pages_on_huge_pages_delays_but_does_not_lose(huge: Area) -> None:
    """A limit that cuts a hugetlb page may skip pages of the range; they stay written. scan_all refuses."""
    first = count(huge.runs(huge.take(max_pages=huge.pages // 4 + 1)))
    assert count(huge.written()) == huge.pages - first
    with pytest.raises(UnsupportedError, match="leave max_pages at 0"):
        take_all(huge, max_pages=huge.pages // 4 + 1)
    take_all(huge)
    assert huge.written() == []


def test_old_kernels_are_not_asked_dangerous_questions(
    lab: Lab, huge: Area, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels blind to holes are not told to protect without a vector, nor to protect unwritten hugetlb."""
    monkeypatch.setenv("DIRTYTRACK_HOLE_REPORTING", "blind")
    small = lab.armed(4)
    small.touch(1)
    with monkeypatch.context() as patched:
        patched.setattr(pagemap, "lib", SimpleNamespace(dt_address_space=lib.dt_address_space))
        for vec in (None, 0, bytearray(24)):
            with pytest.raises(UnsupportedError, match=r"6\.12\.50.*pass vec_len"):
                small.take(vec=vec, vec_len=0)
        for masks in ({"mask": 0}, {"mask": PRESENT}, {"mask": 0, "anyof": WRITTEN | PRESENT}):
            with pytest.raises(UnsupportedError, match=r"6\.12\.97.*category_mask=WRITTEN"):
                huge.get(flags=WP, **masks)
        with pytest.raises(UnsupportedError, match=r"6\.12\.97"):
            huge.get(WRITTEN | PRESENT, flags=WP, inverted=WRITTEN)
    assert small.runs(small.take(0, returned=0)) == [(0, 4)]  # no hugetlb in this range
    assert huge.get(PRESENT, returned=0).regions  # looking is harmless
    assert huge.runs(huge.part(0, huge.pages // 2).take()) == [(0, huge.pages // 2)]
    assert huge.runs(huge.get(0, anyof=WRITTEN, flags=TAKE)) == [(huge.pages // 2, huge.pages)]


def test_asking_for_holes_finds_them(lab: Lab) -> None:
    """Dropped pages are neither present nor swapped, on every kernel; armed they are markers."""
    area = lab.armed(8)
    area.write()
    area.arm()
    area.part(3, 5).advise(mmap.MADV_DONTNEED)
    holes = PRESENT | SWAPPED
    assert area.runs(area.get(holes, inverted=holes, returned=0, flags=TAKE)) == [(3, 5)]
    # A blind kernel arms a missing entry of a page table only where nothing but WRITTEN is asked for.
    assert area.runs(area.take()) in ([], [(3, 5)])
    assert area.get(holes, inverted=holes, returned=0).regions == []
    assert area.get().regions == []
    area.touch(4)
    assert area.runs(area.take()) == [(4, 5)]


def test_asking_for_missing_page_tables_finds_and_arms_them(lab: Lab) -> None:
    """Where there is no page table yet, the question for holes makes one full of markers, on every kernel."""
    room = lab.map(3 * HUGE_PAGES)
    first = -room.address % PMD_SIZE // PAGE_SIZE
    area = room.part(first, first + 2 * HUGE_PAGES)
    area.advise(mmap.MADV_NOHUGEPAGE)
    lab.uffd.register(area.address, area.stop)
    holes = PRESENT | SWAPPED
    assert area.runs(area.get(holes, inverted=holes, returned=0, flags=TAKE)) == [(0, area.pages)]
    assert area.get(holes, inverted=holes, returned=0).regions == []
    assert area.get().regions == []
    area.touch(HUGE_PAGES + 4)
    assert area.runs(area.take()) == [(HUGE_PAGES + 4, HUGE_PAGES + 5)]
