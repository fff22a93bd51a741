"""Shared memory on transparent huge pages, and private mappings of such files: exact to the small page.

To the kernel such memory is a file's. It unmaps a huge page of a file whole when one byte is stored to it,
and when it is dropped or paged out: with one mark for all of it, all of it would then count as written.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import dirtytrack
from _lib.support import PAGE_SIZE, PMD_SIZE, Memory, require
from _lib.syscalls import MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, Advice
from _lib.tracked import Tracked
from dirtytrack.kernel.pagemap import Category, scan_all

PER_HUGE = PMD_SIZE // PAGE_SIZE
PAGES = 2 * PER_HUGE


def memfd() -> int:
    """A file in memory."""
    fd = os.memfd_create("dirtytrack")
    os.ftruncate(fd, PAGES * PAGE_SIZE)
    return fd


def tmpfs() -> int:
    """A file below /dev/shm, without a name."""
    path = Path(f"/dev/shm/dirtytrack-{os.getpid()}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    path.unlink()
    os.ftruncate(fd, PAGES * PAGE_SIZE)
    return fd


FILES: dict[str, Callable[[], int]] = {"memfd": memfd, "anonymous": lambda: -1, "tmpfs": tmpfs}


@pytest.fixture(params=FILES)
def fd(request: pytest.FixtureRequest) -> Iterator[int]:
    """Whatever is behind shared memory."""
    fd = FILES[request.param]()
    yield fd
    if fd >= 0:
        os.close(fd)


def is_huge(memory: Memory) -> bool:
    """Whether all of it is mapped by huge pages."""
    found = scan_all(memory.address, memory.address + memory.nbytes, category_mask=Category.HUGE)
    return sum(one.end - one.start for one in found) == memory.nbytes


@contextmanager
def on_huge_pages(session: dirtytrack.Session, fd: int, *, track: bool = True) -> Iterator[Tracked]:
    """Shared memory that was put on huge pages before it was tracked."""
    flags = MAP_SHARED if fd >= 0 else MAP_SHARED | MAP_ANONYMOUS
    with Tracked(session, PAGES, flags=flags, fd=fd, aligned=True) as memory:
        session.untrack(memory.region)
        put_on_huge_pages(memory)
        if track:
            memory.region = session.track(memory.map)
        yield memory


def put_on_huge_pages(memory: Memory) -> None:
    """Skip the test where that can't be."""
    try:
        memory.advise(Advice.COLLAPSE)
    except OSError:
        require(False, "the kernel puts no shared memory on huge pages")
    require(is_huge(memory), "the kernel mapped no huge pages")


def test_tracking_maps_shared_huge_pages_by_small_ones(session: dirtytrack.Session, fd: int) -> None:
    """Its huge pages are gone from the mapping, also without a store, until it is no longer tracked."""
    with on_huge_pages(session, fd) as memory:
        assert not is_huge(memory)
        memory.expect()
        session.untrack(memory.region)
        put_on_huge_pages(memory)


def test_one_byte_of_a_shared_huge_page(session: dirtytrack.Session, fd: int) -> None:
    """One small page is reported, of a huge page that was never stored to and of one that was."""
    with on_huge_pages(session, fd) as memory:
        memory.expect()
        memory.touch(PER_HUGE + 5)
        memory.expect({PER_HUGE + 5})
        memory.touch(PER_HUGE + 6)
        memory.touch(0)
        memory.expect({0, PER_HUGE + 6})


@pytest.mark.parametrize("advice", [Advice.DONTNEED, Advice.PAGEOUT])
def test_shared_huge_pages_dropped_and_paged_out(
    session: dirtytrack.Session, fd: int, advice: Advice
) -> None:
    """Their contents stay, and so does what was written: neither is a write, of a page or of all."""
    with on_huge_pages(session, fd) as memory:
        memory.advise(advice, PER_HUGE, PER_HUGE + 1)
        memory.expect()
        memory.advise(advice)
        memory.expect()
        memory.touch(7)
        memory.advise(advice)
        memory.expect({7})


def test_shared_memory_that_comes_back_on_huge_pages(session: dirtytrack.Session, fd: int) -> None:
    """Written all over and dropped, it may be mapped by huge pages again: exact from the next collect on."""
    with on_huge_pages(session, fd) as memory:
        memory.fill(3)
        memory.advise(Advice.DONTNEED)
        memory.read(0)
        memory.read(PER_HUGE)
        memory.expect(range(PAGES))
        memory.touch(PER_HUGE + 5)
        memory.expect({PER_HUGE + 5})
        memory.advise(Advice.DONTNEED)
        memory.expect()


def test_shared_memory_put_on_huge_pages_later(session: dirtytrack.Session, fd: int) -> None:
    """Being put on huge pages while it is tracked is no write, and hides none."""
    flags = MAP_SHARED if fd >= 0 else MAP_SHARED | MAP_ANONYMOUS
    with Tracked(session, PAGES, flags=flags, fd=fd, aligned=True) as memory:
        memory.touch(3)
        with suppress(OSError):  # some kernels refuse; then nothing has changed either
            memory.advise(Advice.COLLAPSE)
        memory.expect({3})
        memory.touch(PER_HUGE)
        memory.expect({PER_HUGE})


def test_a_piece_of_a_shared_huge_page(session: dirtytrack.Session, fd: int) -> None:
    """Tracking a piece of one reports the stores to this piece, each as its small page."""
    with on_huge_pages(session, fd, track=False) as memory:
        start, stop = memory.slice(10).start, memory.slice(PER_HUGE + 20).stop
        piece = session.track(memoryview(memory.map)[start:stop])
        for page in (9, 12, PER_HUGE + 3, PER_HUGE + 21):
            memory.touch(page)
        assert set(session.collect(piece)[piece]) == {2, PER_HUGE - 7}
        memory.advise(Advice.DONTNEED)
        assert set(session.collect(piece)[piece]) == set()
        session.untrack(piece)


def test_tracking_shared_huge_pages_beside_a_writer(session: dirtytrack.Session, fd: int) -> None:
    """A store while it is tracked makes no other page count as written."""
    with on_huge_pages(session, fd, track=False) as memory:
        stop = threading.Event()
        byte = memory.slice(PER_HUGE + 9).start

        def write() -> None:
            while not stop.is_set():
                memory.map[byte] = (memory.map[byte] + 1) % 256

        writer = threading.Thread(target=write)
        writer.start()
        memory.region = session.track(memory.map)
        stop.set()
        writer.join()
        assert memory.reported() <= {PER_HUGE + 9}
        memory.sync()
        memory.expect()


def test_hot_pages_of_a_shared_huge_page(fd: int) -> None:
    """An adaptive session is exact there, too, but for what it says to assume."""
    with dirtytrack.Session(adaptive=True) as session, on_huge_pages(session, fd) as memory:
        for round_ in range(40):
            memory.touch(5)
            if round_ % 8 == 0:
                memory.touch(PER_HUGE + round_)
            with session.collect(memory.region) as epoch:
                written = {5, PER_HUGE + round_} if round_ % 8 == 0 else {5}
                assert set(epoch[memory.region]) >= written
                assert set(epoch[memory.region]) - set(epoch.assumed[memory.region]) <= written


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_a_private_mapping_of_a_huge_page(session: dirtytrack.Session, sparse: bool) -> None:
    """A store copies one small page, and reports that one."""
    with (
        on_huge_pages(session, fd := memfd(), track=False),
        Memory(PAGES, flags=MAP_PRIVATE, fd=fd, aligned=True) as memory,
    ):
        memory.advise(Advice.POPULATE_READ)
        require(is_huge(memory), "the kernel maps no huge pages privately")
        region = session.track(memory.map, sparse=sparse)
        for written in ({PER_HUGE + 5}, {0, PER_HUGE + 6}):
            for page in written:
                memory.touch(page)
            assert set(session.collect(region)[region]) == written
            memory.advise(Advice.PAGEOUT)
            assert set(session.collect(region)[region]) == set()
        session.untrack(region)
    os.close(fd)
