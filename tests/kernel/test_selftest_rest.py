"""Parity with tools/testing/selftests/mm/pagemap_ioctl.c, cases 93 to 119: races, masks, zero pages, holes.

Written from a description of what each case states; the number in an id is the one that the selftest prints.
"""

from __future__ import annotations

import mmap
import os
import resource
import sys
import threading
from pathlib import Path

import pytest

from _lib.kernel.area import (
    ALL,
    HUGE_PAGES,
    PROT_NONE,
    READ_WRITE,
    TAKE,
    WRITTEN,
    Area,
    Lab,
    check,
    count,
    huge,
    libc,
)
from _lib.support import PAGE_SIZE, PMD_SIZE, require
from dirtytrack.kernel.pagemap import Category, PageRegion, ScanFlags, scan
from dirtytrack.kernel.support import HoleReporting, hole_reporting

PRESENT, SWAPPED, FILE, PFNZERO = Category.PRESENT, Category.SWAPPED, Category.FILE, Category.PFNZERO
NOT_WRITTEN = ALL & ~WRITTEN
MADV_COLLAPSE = 25


def test_93_one_page_a_hundred_times(lab: Lab) -> None:
    """Case 93: a page is clean whenever it was armed, and written whenever it was written."""
    page = lab.armed(1)
    for _ in range(100):
        assert page.get().regions == []
        page.touch(0)
        assert page.runs(page.get()) == [(0, 1)]
        page.arm()


def dance(area: Area) -> None:
    """Take all permissions away, and give them back step by step."""
    for prot in (PROT_NONE, mmap.PROT_READ, READ_WRITE):
        area.protect(prot)


def test_94_to_97_mprotect(lab: Lab) -> None:
    """Cases 94 to 97: changes of permission neither lose nor invent writes; a replaced page is armed anew."""
    area = lab.armed(2)
    area.write()
    assert area.runs(area.get()) == [(0, 2)]  # 94
    area.arm()
    assert area.get().regions == []  # 95
    second = Area.map(1, at=area.at(1))
    lab.register(second)
    dance(second)
    assert area.get().regions == []
    area.write()
    dance(area.part(0, 1))
    assert area.runs(area.get()) == [(0, 2)]  # 96
    area.arm()
    assert area.get().regions == []
    area.write()
    assert area.runs(area.get()) == [(0, 2)]  # 97


THREADS, PAGES_EACH, WRITES_EACH, ROUNDS = 6, 32, 8, 1000


@pytest.mark.slow
def test_98_to_100_a_concurrent_scan_loses_no_write(lab: Lab) -> None:
    """Cases 98 to 100: what threads write during a scan is in it or in the next, and no other page is."""
    area = lab.armed(THREADS * PAGES_EACH)
    area.write()
    assert count(area.runs(area.take())) == area.pages  # 98
    assert area.take().regions == []  # 99

    begin, end = threading.Barrier(THREADS + 1), threading.Barrier(THREADS + 1)
    faults: list[int] = []

    def writer(number: int) -> None:
        mine = area.part(number * PAGES_EACH, (number + 1) * PAGES_EACH)
        for turn in range(ROUNDS):
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
            begin.wait()
            mine.touch(*((turn + step) % PAGES_EACH for step in range(WRITES_EACH)))
            end.wait()
            faults.append(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)

    threads = [threading.Thread(target=writer, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    lost, excess = [], []
    for turn in range(ROUNDS):
        begin.wait()
        during = pages_of(area, area.take().regions)
        end.wait()
        after = pages_of(area, area.take().regions)
        written = {
            number * PAGES_EACH + (turn + step) % PAGES_EACH
            for number in range(THREADS)
            for step in range(WRITES_EACH)
        }
        lost.append(written - (during | after))
        excess.append((during | after) - written)
    for thread in threads:
        thread.join()
    assert not any(lost)
    assert not any(excess)
    assert min(faults) >= WRITES_EACH


def pages_of(area: Area, regions: list[PageRegion]) -> set[int]:
    return {page for run in area.runs(regions) for page in range(*run)}


EVERY_MASK = [
    pytest.param({"mask": ALL, "returned": ALL}, [], id="case 101: mask and return_mask"),
    pytest.param({"mask": ALL, "returned": 0}, [], id="case 102: mask"),
    pytest.param({"mask": 0, "anyof": ALL, "returned": 0}, [(0, 10)], id="case 103: anyof"),
    pytest.param({"mask": 0, "inverted": ALL, "returned": 0}, [(0, 10)], id="case 104: inverted"),
    pytest.param({"mask": ALL, "anyof": ALL, "returned": 0}, [], id="case 105: mask and anyof"),
]


@pytest.mark.parametrize(("masks", "expected"), EVERY_MASK)
def test_101_to_105_every_category_in_every_mask(
    lab: Lab, masks: dict[str, int], expected: list[tuple[int, int]]
) -> None:
    """Cases 101 to 105: each mask takes all categories; no page has all, every armed one has some."""
    area = lab.armed(10)
    assert area.runs(area.get(**masks)) == expected


WRITTEN_PAGES = [
    pytest.param({"mask": 0, "anyof": ALL, "returned": ALL}, True, id="case 106: anyof"),
    pytest.param({"mask": ALL, "returned": ALL}, False, id="case 107: mask"),
    pytest.param({"mask": WRITTEN, "anyof": PRESENT, "returned": ALL}, True, id="case 108: mask and anyof"),
    pytest.param({"mask": WRITTEN, "inverted": WRITTEN, "returned": ALL}, False, id="case 109: not written"),
    pytest.param({"mask": PRESENT, "inverted": PRESENT, "returned": ALL}, False, id="case 110: not present"),
]


@pytest.mark.parametrize(("masks", "matches"), WRITTEN_PAGES)
def test_106_to_110_masks_over_written_pages(lab: Lab, masks: dict[str, int], matches: bool) -> None:
    """Cases 106 to 110: pages just written are written and present, and nothing that is neither matches."""
    area = lab.armed(10)
    area.write()
    regions = area.get(**masks).regions
    assert area.runs(regions) == ([(0, 10)] if matches else [])
    assert all(region.categories & ALL & (WRITTEN | PRESENT) == WRITTEN | PRESENT for region in regions)


def test_111_only_the_categories_asked_for_come_back(lab: Lab) -> None:
    """Case 111: pages selected by any category are returned as written, and as nothing else."""
    area = lab.armed(10)
    area.write()
    result = area.get(0, anyof=ALL, flags=TAKE)
    assert result.regions == [PageRegion(area.address, area.stop, WRITTEN)]


def test_112_pages_of_a_program(lab: Lab) -> None:
    """Case 112: the pages of a mapped executable, once read, are present and of a file."""
    with open(sys.executable, "rb") as program:
        pages = -(-os.fstat(program.fileno()).st_size // PAGE_SIZE)
        area = lab.map(pages, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE, fd=program.fileno())
    area.read()
    regions = area.get(0, anyof=NOT_WRITTEN, returned=FILE | PRESENT).regions
    assert regions == [PageRegion(area.address, area.stop, FILE | PRESENT)]


def test_113_pages_of_a_file_copied_on_write(lab: Lab, tmp_path: Path) -> None:
    """Case 113: all pages of a private file mapping are written once they are, msync or not."""
    with open(tmp_path / "file", "w+b") as file:
        file.write(bytes(10 * PAGE_SIZE))
        file.flush()
        area = lab.armed(10, flags=mmap.MAP_PRIVATE, fd=file.fileno())
    area.arm()
    area.write()
    check(libc.msync(area.address, area.stop - area.address, 4))  # MS_SYNC
    result = area.get(WRITTEN, anyof=PRESENT | SWAPPED | FILE)
    assert result.regions == [PageRegion(area.address, area.stop, WRITTEN)]


def test_114_unmapped_memory_holds_no_pages(lab: Lab) -> None:
    """Case 114: a range where nothing is mapped is no error and yields nothing."""
    area = lab.map(64)
    check(libc.munmap(area.address, 64 * PAGE_SIZE))
    try:
        assert scan(area.address, area.stop, category_mask=WRITTEN, return_mask=WRITTEN).regions == []
    finally:
        Area.map(64, at=area.address)  # for the fixture to unmap


def test_115_memory_registered_without_any_permission(lab: Lab) -> None:
    """Case 115: pages armed while forbidden stay armed as their permissions come, however mixed."""
    area = lab.armed(16, prot=PROT_NONE)
    mixed = (
        READ_WRITE,
        mmap.PROT_READ,
        PROT_NONE,
        READ_WRITE,
        mmap.PROT_READ,
        PROT_NONE,
        READ_WRITE,
        PROT_NONE,
    )
    for number, prot in enumerate(mixed):
        area.part(2 * number, 2 * number + 2).protect(prot)
    area.part(3, 13).arm()
    area.arm()
    assert area.take(vec_len=1).regions == []
    area.touch(0, 7)
    assert area.runs(area.take()) == [(0, 1), (7, 8)]


def test_116_reading_maps_the_zero_page(lab: Lab) -> None:
    """Case 116: pages that were read and never written are the zero page."""
    area = lab.map(10, prot=mmap.PROT_READ)
    area.read()
    assert area.runs(area.get(PFNZERO, returned=PFNZERO)) == [(0, 10)]


def test_117_reading_may_map_the_huge_zero_page(lab: Lab) -> None:
    """Case 117: the huge zero page is one region of all the pages it stands for."""
    switch = Path("/sys/kernel/mm/transparent_hugepage/use_zero_page")
    require(switch.exists() and switch.read_text().strip() == "1", "the kernel uses no huge zero page")
    room = lab.map(2 * HUGE_PAGES)
    area = room.part(first := -room.address % PMD_SIZE // PAGE_SIZE, first + HUGE_PAGES)
    area.advise(mmap.MADV_HUGEPAGE)
    area.part(0, 1).read()
    require(
        area.runs(area.get(Category.HUGE, returned=0)) == [(0, HUGE_PAGES)],
        "the kernel gives no transparent huge pages",
    )
    assert area.runs(area.get(PFNZERO, returned=PFNZERO)) == [(0, HUGE_PAGES)]


def both_ways(area: Area) -> tuple[int, int]:
    """Written pages as told by the kernel's fast path, and by its general one."""
    return count(area.runs(area.get())), count(area.runs(area.get(0, anyof=WRITTEN)))


@pytest.fixture
def is_e1(monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the kernel itself is blind to holes, whatever the environment asks the library to believe."""
    monkeypatch.delenv("DIRTYTRACK_HOLE_REPORTING", raising=False)
    return hole_reporting() is HoleReporting.BLIND


def test_118_dropped_pages_are_written(lab: Lab, is_e1: bool) -> None:
    """Case 118: pages dropped by MADV_DONTNEED have changed; blind kernels say so on one path only."""
    area = lab.armed(16)
    area.write()
    area.advise(mmap.MADV_DONTNEED)
    assert both_ways(area) == ((16, 0) if is_e1 else (16, 16))


def test_119_a_dropped_huge_page_is_written(lab: Lab, is_e1: bool) -> None:
    """Case 119: a dropped huge page has changed; blind kernels never say so."""
    area = huge(lab, 1)
    lab.uffd.register(area.address, area.stop)
    area.advise(MADV_COLLAPSE)
    lab.uffd.write_protect(area.address, area.stop)
    area.advise(mmap.MADV_DONTNEED)
    assert both_ways(area) == ((0, 0) if is_e1 else (HUGE_PAGES, HUGE_PAGES))


def test_flags_of_the_selftest_have_the_values_of_the_kernel() -> None:
    """The categories and flags have the values of include/uapi/linux/fs.h."""
    assert [category.value for category in Category] == [1 << bit for bit in range(10)]
    assert [flag.value for flag in ScanFlags] == [1, 2]
