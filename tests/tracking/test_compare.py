"""What is different where contents are compared: what it sees beyond page tables, and what it does not."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from _lib.iouring import Ring
from _lib.raw import Raw
from _lib.support import PAGE_SIZE, in_child
from _lib.tracked import Tracked
from dirtytrack import BlindSpot, Session
from dirtytrack.checkpoint import Checkpointer, load
from dirtytrack.native import ffi, lib

_PROT_NONE = 0

pytestmark = pytest.mark.anywhere


@pytest.fixture
def session() -> Iterator[Session]:
    """A session that compares."""
    with Session(backend="compare") as session:
        yield session


def test_what_page_tables_can_not_see(session: Session) -> None:
    """Another mapping of a memfd, writes to it, and holes in it."""
    fd = os.memfd_create("compared", os.MFD_CLOEXEC)
    os.ftruncate(fd, 16 * PAGE_SIZE)
    with Tracked(session, flags=mmap.MAP_SHARED, fd=fd) as memory, mmap.mmap(fd, 16 * PAGE_SIZE) as other:
        other[5 * PAGE_SIZE] = 9
        memory.expect({5})
        os.pwrite(fd, b"new", 7 * PAGE_SIZE)
        memory.expect({7})
        other.madvise(mmap.MADV_REMOVE, 2 * PAGE_SIZE, 2 * PAGE_SIZE)
        memory.expect({2, 3})
        assert memory.region.blind_spots == {BlindSpot.UNDONE_STORES}
    os.close(fd)


def test_reads_into_registered_buffers(session: Session, ring: Ring, file: int) -> None:
    """DMA into pinned pages, and no false positive for pinning them."""
    with Tracked(session) as memory:
        ring.register(memory.at(4), 4 * PAGE_SIZE)
        memory.expect()
        ring.submit_read(file, memory.at(5), 2 * PAGE_SIZE)
        assert ring.wait() == 2 * PAGE_SIZE
        memory.expect({5, 6})


def test_dropped_copies_of_a_private_file(session: Session, tmp_path: Path) -> None:
    """Contents that fall back to the file's are a change."""
    path = tmp_path / "file"
    path.write_bytes(b"\1" * 16 * PAGE_SIZE)
    with path.open("r+b") as file:
        memory = Tracked(session, flags=mmap.MAP_PRIVATE, fd=file.fileno(), populate=False)
        memory.sync()
        with memory:
            memory.write(4, 7)
            memory.expect({4})
            memory.advise(mmap.MADV_DONTNEED, 4, 5)
            memory.expect({4})


def test_a_store_that_is_undone_is_not_seen(session: Session, memory: Raw) -> None:
    """Nor one of the same value: the blind spot."""
    region = session.track(memory.pair)
    byte = ctypes.c_ubyte.from_address(memory.start + 3 * PAGE_SIZE)
    byte.value = 0
    assert session.collect().pages == 0
    byte.value = 5
    byte.value = 0
    assert session.collect().pages == 0
    assert BlindSpot.UNDONE_STORES in region.blind_spots


def test_memory_that_can_not_be_read_waits(session: Session, memory: Raw) -> None:
    """It kills nobody, and what was stored before is reported once somebody can read it."""
    region = session.track(memory.pair)
    memory.write(3, 4, 5)
    memory.protect(4, 5, _PROT_NONE)
    assert set(session.collect()[region]) == {3, 5}
    memory.protect(4, 5, mmap.PROT_READ | mmap.PROT_WRITE)
    assert set(session.collect()[region]) == {4}
    assert session.collect().pages == 0


def test_pages_beyond_the_end_of_a_file_wait(session: Session, tmp_path: Path) -> None:
    """They go on being compared when the file has grown again: as zeros."""
    path = tmp_path / "file"
    path.write_bytes(b"\1" * 4 * PAGE_SIZE)
    with path.open("r+b") as file:
        map_ = mmap.mmap(file.fileno(), 4 * PAGE_SIZE)
        region = session.track(map_)
        os.truncate(path, 2 * PAGE_SIZE)
        map_[0] = 9
        assert set(session.collect()[region]) == {0}
        os.truncate(path, 4 * PAGE_SIZE)
        assert set(session.collect()[region]) == {2, 3}
        session.untrack(region)
        map_.close()


def test_memory_mapped_over_is_compared(session: Session, memory: Raw) -> None:
    """Nobody tells this backend of it, so that it is no loss; what is different there is reported."""
    region = session.track(memory.pair)
    memory.write(*range(16))
    assert session.collect().pages == 16
    memory.map_over(5, 7)
    assert set(session.collect()[region]) == {5, 6}


def test_two_sessions_may_have_the_same_page(session: Session, memory: Raw) -> None:
    """Comparing takes nothing from anybody."""
    region = session.track(memory.pair)
    with Session(backend="compare") as second:
        theirs = second.track(memory.pair)
        memory.write(3)
        assert set(session.collect()[region]) == {3}
        assert set(second.collect()[theirs]) == {3}
    memory.write(4)
    assert set(session.collect()[region]) == {4}


def test_a_sparse_reservation_stays_empty() -> None:
    """Only what is populated is read: no page tables are made, and a dropped page is missed."""

    def child() -> tuple[int, list[int], int]:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
        with mmap.mmap(-1, 4 << 30, flags=flags) as memory, Session(backend="compare") as session:
            before = _page_tables()
            region = session.track(memory, sparse=True)
            session.collect()
            grown = _page_tables() - before
            memory[7 * PAGE_SIZE] = 1
            memory[1 << 30] = 1
            pages = list(session.collect()[region])
            memory.madvise(mmap.MADV_DONTNEED, 0, 16 * PAGE_SIZE)
            assert BlindSpot.DROPPED_PAGES in region.blind_spots
            missed = session.collect().pages
            session.untrack(region)
            return grown, pages, missed

    grown, pages, missed = in_child(child).check()
    assert grown < 1 << 20  # of its own tables; all of the reservation's would be 8 MiB
    assert pages == [7, (1 << 30) // PAGE_SIZE]
    assert missed == 0


def _page_tables() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmPTE:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmPTE")


def test_a_copy_is_what_the_scan_saw(session: Session, memory: Raw) -> None:
    """A store after the scan that is undone before the next one is in no epoch, so it must be in no copy."""
    region = session.track(memory.pair)
    memory.write(1)
    assert set(session.collect()[region]) == {1}
    seen = ctypes.string_at(memory.start, 2 * PAGE_SIZE)
    byte = ctypes.c_ubyte.from_address(memory.start + PAGE_SIZE)
    byte.value += 1
    copy = ffi.new("uint8_t[]", 2 * PAGE_SIZE)
    arguments = memory.start, 2 * PAGE_SIZE, copy, ffi.new("uint64_t *")
    assert lib.dt_session_contents(session._tracker._native, *arguments) == 0
    byte.value -= 1
    assert bytes(ffi.buffer(copy)) == seen
    assert session.collect().pages == 0


@pytest.mark.forked
@pytest.mark.parametrize("end", ["untrack", "close"])
def test_a_copy_of_what_is_no_longer_tracked(session: Session, end: str) -> None:
    """A copy that goes on beside the end of a region or a session is one of the memory, and no wild read."""
    with Raw(4) as memory, Raw(4) as other:
        low, high = sorted((memory, other), key=lambda raw: raw.start)
        region = session.track(low.pair)
        session.track(high.pair)
        low.write(0, 1, 2, 3)
        session.collect().abort()
        session.untrack(region) if end == "untrack" else session.close()
        copy = ffi.new("uint8_t[]", 4 * PAGE_SIZE)
        arguments = low.start, 4 * PAGE_SIZE, copy, ffi.new("uint64_t *")
        assert lib.dt_session_contents(session._tracker._native, *arguments) == 0
        assert bytes(ffi.buffer(copy)) == ctypes.string_at(low.start, 4 * PAGE_SIZE)


def test_a_checkpoint_never_claims_a_proof(session: Session, tmp_path: Path) -> None:
    """Contents that are the same prove no quiet; the caller's pause does. The bytes are right either way."""
    memory = bytearray(os.urandom(20 * PAGE_SIZE + 5))
    with Checkpointer(tmp_path / "chain", {"m": memory}, session=session) as checkpoints:
        assert checkpoints.save(wait=True).consistency == "unproven"
        memory[7 * PAGE_SIZE] ^= 1
        save = checkpoints.save(pause=nullcontext(), wait=True)
        assert (save.consistency, save.kind) == ("paused", "delta")
    assert bytes(load(tmp_path / "chain")["m"]) == memory


def test_huge_pages_are_compared_by_ordinary_pages(session: Session, hugepages: Callable[[int], int]) -> None:
    """The processor's unit does not matter here."""
    size = hugepages(1)
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000) as memory:
        region = session.track(memory)
        memory[5 * PAGE_SIZE] = 1
        assert (region.page_size, list(session.collect()[region])) == (PAGE_SIZE, [5])
        session.untrack(region)
