"""Parity with tools/testing/selftests/mm/pagemap_ioctl.c, cases 36 to 92: kinds of memory, huge pages.

Written from a description of what each case states; the number in an id is the one that the selftest prints.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from _lib.kernel.area import HUGE_PAGES, MAP_HUGETLB, PRIVATE, WRITTEN, Area, Lab, check, huge, libc
from _lib.support import PAGE_SIZE, require_root
from dirtytrack.kernel.mappings import page_size_at
from dirtytrack.kernel.pagemap import Category, PageRegion

MFD_HUGETLB = os.MFD_HUGETLB
IPC_PRIVATE, IPC_RMID, IPC_CREAT, SHM_HUGETLB = 0, 0, 0o1000, 0o4000


@contextmanager
def system_v(nbytes: int) -> Iterator[Area]:
    """A System V segment of huge pages, which is gone once it is detached."""
    identifier = check(libc.shmget(IPC_PRIVATE, nbytes, SHM_HUGETLB | IPC_CREAT | 0o600))
    try:
        address = check(libc.shmat(identifier, None, 0))
    finally:
        check(libc.shmctl(identifier, IPC_RMID, None))
    try:
        yield Area(address, nbytes // PAGE_SIZE)
    finally:
        check(libc.shmdt(address))


@contextmanager
def of_file(lab: Lab, fd: int, pages: int, flags: int, nbytes: int | None = None) -> Iterator[Area]:
    """A mapping of the file *fd*, which is closed."""
    try:
        os.ftruncate(fd, nbytes or pages * PAGE_SIZE)
        yield lab.map(pages, flags=flags, fd=fd)
    finally:
        os.close(fd)


@pytest.fixture(
    params=[
        pytest.param("anonymous", id="cases 36-41: anonymous pages"),
        pytest.param("large", id="cases 42-47: 20 MiB of anonymous pages"),
        pytest.param("thp", id="cases 48-53: a transparent huge page"),
        pytest.param("hugetlb-sysv", id="cases 54-59: System V hugetlb"),
        pytest.param("hugetlb-private", id="cases 60-65: private hugetlb"),
        pytest.param("hugetlb-memfd", id="cases 66-71: hugetlb memfd"),
        pytest.param("file", id="cases 72-77: private mapping of a file"),
        pytest.param("memfd", id="cases 78-83: private mapping of a memfd"),
    ]
)
def memory(
    request: pytest.FixtureRequest, lab: Lab, tmp_path: Path, hugepages: Callable[[int], int]
) -> Iterator[Area]:
    """Each kind of memory in turn, armed."""
    kind: str = request.param
    if kind == "anonymous":
        yield lab.armed(10)
    elif kind == "large":
        yield lab.armed(5120)
    elif kind == "thp":
        yield lab.register(huge(lab, 1))
    elif kind == "hugetlb-sysv":
        require_root("System V huge pages need CAP_IPC_LOCK")
        with system_v(hugepages(1)) as area:
            yield lab.register(area)
    elif kind == "hugetlb-private":
        yield lab.armed(hugepages(1) // PAGE_SIZE, flags=PRIVATE | MAP_HUGETLB)
    elif kind == "hugetlb-memfd":
        fd = os.memfd_create("huge", MFD_HUGETLB)
        with of_file(lab, fd, hugepages(1) // PAGE_SIZE, mmap.MAP_SHARED) as area:
            yield lab.register(area)
    else:
        fd = (
            os.memfd_create("small")
            if kind == "memfd"
            else os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        )
        with of_file(lab, fd, 10, mmap.MAP_PRIVATE) as area:
            yield lab.register(area)


def is_hugetlb(area: Area) -> bool:
    return page_size_at(area.address) > PAGE_SIZE


def test_a_nothing_is_written_after_arming(memory: Area) -> None:
    """Assertion 1 of 6 of each kind: what was armed is clean."""
    assert memory.take(vec_len=1).regions == []


def test_b_writing_all_is_one_region(memory: Area) -> None:
    """Assertion 2 of 6: all pages written are one region over all of them."""
    memory.write()
    assert memory.runs(memory.get(vec_len=1)) == [(0, memory.pages)]


def test_c_the_first_and_last_page_may_stay_clean(memory: Area) -> None:
    """Assertion 3 of 6: all but the outer pages written are one region; whole pages, if they are huge."""
    memory.write()
    memory.take()
    memory.write(1, memory.pages - 1)
    inner = (0, memory.pages) if is_hugetlb(memory) else (1, memory.pages - 1)
    assert memory.runs(memory.take(vec_len=1)) == [inner]


def test_d_nothing_is_written_after_taking(memory: Area) -> None:
    """Assertion 4 of 6: what was taken is clean for the next reader."""
    memory.write()
    memory.take()
    assert memory.get().regions == []


def test_e_one_page_is_found(memory: Area) -> None:
    """Assertion 5 of 6: a write to the middle page is that page; the whole one, if it is huge."""
    memory.write()
    memory.take()
    middle = memory.pages // 2
    memory.touch(middle)
    page = (0, memory.pages) if is_hugetlb(memory) else (middle, middle + 1)
    assert memory.runs(memory.get()) == [page]


def test_f_two_pages_are_one_region(memory: Area) -> None:
    """Assertion 6 of 6: asking about the two pages written yields exactly these two."""
    memory.write()
    memory.take(returned=WRITTEN | Category.HUGE)
    middle = memory.pages // 2
    memory.touch(middle, middle + 1)
    assert memory.runs(memory.part(middle, middle + 2).get(vec_len=1)) == [(middle, middle + 2)]


@pytest.fixture
def huge_area(lab: Lab) -> Area:
    """Ten transparent huge pages, armed."""
    return lab.register(huge(lab, 10))


def test_84_85_armed_huge_pages_are_clean(huge_area: Area) -> None:
    """Cases 84 and 85: nothing is written after arming, with and without protecting."""
    assert huge_area.take().regions == []
    assert huge_area.get().regions == []


def test_86_writing_all_huge_pages_is_one_region(huge_area: Area) -> None:
    """Case 86: one region over all of them, of the category asked for and no other."""
    huge_area.write()
    assert huge_area.take().regions == [PageRegion(huge_area.address, huge_area.stop, WRITTEN)]


def test_87_one_byte_in_a_huge_page(huge_area: Area) -> None:
    """Case 87: a write of one byte is one page, since the kernel splits the huge page."""
    huge_area.write()
    huge_area.arm()
    middle = huge_area.pages // 2
    huge_area.touch(middle)
    assert huge_area.runs(huge_area.get()) == [(middle, middle + 1)]


def test_88_arming_half_of_the_huge_pages(huge_area: Area) -> None:
    """Case 88: with the first half armed, the second half is what is written."""
    half = huge_area.pages // 2
    huge_area.write()
    huge_area.part(0, half).arm()
    assert huge_area.runs(huge_area.get()) == [(half, huge_area.pages)]


def test_89_taking_half_of_the_pages(huge_area: Area) -> None:
    """Case 89: max_pages takes the first half and leaves the second."""
    half = huge_area.pages // 2
    huge_area.write()
    assert huge_area.runs(huge_area.take(max_pages=half)) == [(0, half)]
    assert huge_area.runs(huge_area.get()) == [(half, huge_area.pages)]


def test_90_taking_the_second_half(huge_area: Area) -> None:
    """Case 90: a range that begins in the middle takes only what is in it."""
    half = huge_area.pages // 2
    huge_area.write()
    huge_area.part(half, huge_area.pages).take()
    assert huge_area.runs(huge_area.get()) == [(0, half)]


def test_91_92_taking_half_of_a_huge_page(huge_area: Area) -> None:
    """Cases 91 and 92: max_pages in the middle of a huge page takes its half, and leaves all the rest."""
    half = HUGE_PAGES // 2
    huge_area.write()
    assert huge_area.runs(huge_area.take(vec_len=1, max_pages=half)) == [(0, half)]
    assert huge_area.runs(huge_area.get()) == [(half, huge_area.pages)]
