"""Huge pages from the pool (hugetlb): the unit of every report is the huge page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import dirtytrack
from _lib.support import in_child
from _lib.syscalls import MAP_ANONYMOUS, MAP_HUGETLB, MAP_PRIVATE, MAP_SHARED, Advice, punch_hole
from _lib.tracked import Tracked
from dirtytrack import BlindSpot

PAGES = 3


@pytest.fixture
def size(hugepages: Callable[[int], int]) -> int:
    """Bytes of a huge page; enough of them are in reserve for a mapping and a copy of it."""
    return hugepages(2 * PAGES)


@contextmanager
def private(session: dirtytrack.Session, size: int, *, populate: bool = True) -> Iterator[Tracked]:
    """Private huge pages, tracked."""
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB
    with Tracked(session, PAGES, flags=flags, page_size=size, populate=populate) as memory:
        yield memory


@contextmanager
def shared(session: dirtytrack.Session, size: int) -> Iterator[tuple[Tracked, int]]:
    """A memfd of huge pages, tracked, and its descriptor."""
    with os.fdopen(os.memfd_create("dirtytrack", os.MFD_HUGETLB), "w+b", buffering=0) as file:
        file.truncate(PAGES * size)
        with Tracked(session, PAGES, flags=MAP_SHARED, fd=file.fileno(), page_size=size) as memory:
            yield memory, file.fileno()


def test_private_huge_pages(session: dirtytrack.Session, size: int) -> None:
    """One byte written reports one huge page, of the size that the region says."""
    with private(session, size) as memory:
        assert memory.region.page_size == memory.page_size
        memory.touch(2)
        assert session.peek(memory.region).nbytes == memory.page_size
        assert memory.region.blind_spots == {BlindSpot.DMA, BlindSpot.DROPPED_PAGES}
        memory.expect({2})


def test_shared_huge_pages(session: dirtytrack.Session, size: int) -> None:
    """The same for a memfd."""
    with shared(session, size) as (memory, _):
        assert memory.region.page_size == memory.page_size
        memory.touch(1)
        memory.expect({1})


def test_huge_pages_never_populated(session: dirtytrack.Session, size: int) -> None:
    """Reading huge pages for the first time is no write; writing one is, and reports only that one."""
    with private(session, size, populate=False) as memory:
        memory.touch(2)
        memory.read(1)
        memory.expect({2})
        memory.touch(1)
        memory.expect({1})


def test_an_unaligned_piece_of_huge_pages(session: dirtytrack.Session, size: int) -> None:
    """A region within huge pages reports them clipped to its own bytes."""
    with private(session, size) as memory:
        session.untrack(memory.region)
        start, stop = memory.page_size + 5, 3 * memory.page_size - 7
        region = session.track(memoryview(memory.map)[start:stop])
        memory.touch(0)
        memory.map[2 * memory.page_size] = 9
        pages = session.collect(region)[region]
        assert pages.slices() == [slice(memory.page_size - 5, stop - start)]
        assert set(pages) == {1}
        memory.map[memory.page_size] = 9  # before its first byte, on its first page
        pages = session.collect(region)[region]
        assert pages.slices() == [slice(0, memory.page_size - 5)]
        session.untrack(region)


def test_dropped_private_huge_pages_are_missed(session: dirtytrack.Session, size: int) -> None:
    """MADV_DONTNEED on private huge pages loses their contents unreported: mark them."""
    with private(session, size) as memory:
        memory.advise(Advice.DONTNEED, 1, 2)
        memory.expect_unseen({1}, BlindSpot.DROPPED_PAGES)
        memory.touch(1)
        memory.expect({1})


def test_dropped_shared_huge_pages_keep_their_contents(session: dirtytrack.Session, size: int) -> None:
    """MADV_DONTNEED on a memfd of huge pages changes nothing, and is not reported."""
    with shared(session, size) as (memory, _):
        memory.advise(Advice.DONTNEED, 1, 2)
        memory.expect()
        memory.touch(1)
        memory.expect({1})


def test_stores_to_huge_pages_dropped_since_are_missed(session: dirtytrack.Session, size: int) -> None:
    """MADV_DONTNEED also takes a store not collected yet out of sight, shared memory or not: mark it."""
    with shared(session, size) as (memory, _):
        memory.touch(1)
        memory.advise(Advice.DONTNEED, 1, 2)
        memory.expect_unseen({1}, BlindSpot.DROPPED_PAGES)
    with private(session, size) as memory:
        memory.touch(1)
        memory.advise(Advice.DONTNEED, 1, 2)
        memory.expect_unseen({1}, BlindSpot.DROPPED_PAGES)


def test_a_private_mapping_of_shared_huge_pages(session: dirtytrack.Session, size: int) -> None:
    """A private mapping of a memfd of huge pages misses what changes in pages not copied yet: mark them."""
    with (
        shared(session, size) as (file, fd),
        Tracked(session, PAGES, flags=MAP_PRIVATE, fd=fd, page_size=file.page_size, populate=False) as memory,
    ):
        memory.sync()
        file.touch(2)
        memory.expect_unseen({2}, BlindSpot.OTHER_MAPPING)
        memory.touch(1)
        memory.expect({1})
        file.touch(1)
        memory.expect()


def test_punched_huge_pages_are_missed(session: dirtytrack.Session, size: int) -> None:
    """Holes punched into a memfd of huge pages, by fallocate or MADV_REMOVE, are not reported: mark them."""
    with shared(session, size) as (memory, fd):
        punch_hole(fd, memory.page_size, memory.page_size)
        memory.expect_unseen({1}, BlindSpot.HOLE_PUNCHING)
        memory.advise(Advice.REMOVE, 2, 3)
        memory.expect_unseen({2}, BlindSpot.HOLE_PUNCHING)


def test_another_mapping_of_huge_pages_is_missed(session: dirtytrack.Session, size: int) -> None:
    """What a child stores in shared huge pages is not reported here: mark it."""
    with shared(session, size) as (memory, _):
        in_child(lambda: memory.write(2, 9)).check()
        memory.expect_unseen({2}, BlindSpot.OTHER_MAPPING)


def test_fork_and_private_huge_pages(session: dirtytrack.Session, size: int) -> None:
    """After a fork the parent's first store, which copies the huge page, is reported; the child's is not."""
    with private(session, size) as memory:

        def child() -> int:
            memory.write(1, 9)
            return memory.read(1)[0]

        assert in_child(child).check() == 9
        memory.expect()
        memory.write(2, 7)
        memory.expect({2})
