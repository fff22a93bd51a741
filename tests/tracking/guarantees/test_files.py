"""Mapped files: our own stores are reported; the file changing underneath is not."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

import dirtytrack
from _lib.support import PAGE_SIZE
from _lib.syscalls import MAP_PRIVATE, MAP_SHARED, Advice, punch_hole
from _lib.tracked import Tracked
from dirtytrack import BlindSpot

BACKED = {BlindSpot.DMA, BlindSpot.OTHER_MAPPING, BlindSpot.FILE_WRITES, BlindSpot.HOLE_PUNCHING}


@pytest.fixture(params=["file", "memfd"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BinaryIO]:
    """16 pages of a regular file or of a memfd, each byte 1."""
    if request.param == "file":
        opened = (tmp_path / "data").open("w+b", buffering=0)
    else:
        opened = os.fdopen(os.memfd_create("dirtytrack"), "w+b", buffering=0)
    with opened:
        opened.write(b"\x01" * 16 * PAGE_SIZE)
        yield opened


@contextmanager
def private(session: dirtytrack.Session, file: BinaryIO) -> Iterator[Tracked]:
    """A private mapping of the file, tracked; no page of it is a copy yet."""
    with Tracked(session, fd=file.fileno(), flags=MAP_PRIVATE, populate=False) as memory:
        memory.sync()
        yield memory


@contextmanager
def shared(session: dirtytrack.Session, file: BinaryIO) -> Iterator[Tracked]:
    """A shared mapping of the file, tracked."""
    with Tracked(session, fd=file.fileno(), flags=MAP_SHARED) as memory:
        yield memory


def test_a_private_mapping_reports_its_own_stores(session: dirtytrack.Session, file: BinaryIO) -> None:
    """The first store, which copies the page, and later ones are reported; the file stays as it was."""
    with private(session, file) as memory:
        memory.expect()
        for _ in range(2):
            memory.touch(3)
            memory.expect({3})
        assert os.pread(file.fileno(), 16 * PAGE_SIZE, 0) == b"\x01" * 16 * PAGE_SIZE
        assert memory.region.blind_spots == BACKED | {BlindSpot.DROPPED_PAGES}


def test_a_private_mapping_misses_writes_to_the_file(session: dirtytrack.Session, file: BinaryIO) -> None:
    """A page not copied yet shows what is written to the file, unreported: mark it, or copy it first."""
    with private(session, file) as memory:
        os.pwrite(file.fileno(), b"\xee", 3 * PAGE_SIZE)
        memory.expect_unseen({3}, BlindSpot.FILE_WRITES)
        memory.touch(5)
        memory.expect({5})
        os.pwrite(file.fileno(), b"\xee", 5 * PAGE_SIZE)  # our copy is our own
        memory.expect()


def test_a_private_mapping_misses_its_dropped_copies(session: dirtytrack.Session, file: BinaryIO) -> None:
    """MADV_DONTNEED on a copied page brings the file's contents back, unreported: mark it."""
    with private(session, file) as memory:
        memory.touch(3)
        memory.expect({3})
        memory.advise(Advice.DONTNEED, 3, 4)
        memory.expect_unseen({3}, BlindSpot.DROPPED_PAGES)
        memory.touch(3)
        memory.expect({3})


def test_a_private_mapping_misses_holes(session: dirtytrack.Session, file: BinaryIO) -> None:
    """A hole punched into the file empties pages not copied yet, unreported: mark them."""
    with private(session, file) as memory:
        punch_hole(file.fileno(), 4 * PAGE_SIZE, 2 * PAGE_SIZE)
        memory.expect_unseen({4, 5}, BlindSpot.HOLE_PUNCHING)


def test_a_private_mapping_copied_in_full_is_its_own(session: dirtytrack.Session, file: BinaryIO) -> None:
    """Once every page was written, nothing that is written to the file changes the memory."""
    with private(session, file) as memory:
        memory.fill(2)
        memory.expect(range(16))
        os.pwrite(file.fileno(), b"\xee" * 16 * PAGE_SIZE, 0)
        memory.expect()


def test_a_shared_mapping_reports_its_own_stores(session: dirtytrack.Session, file: BinaryIO) -> None:
    """Stores through the tracked mapping are reported, and reach the file."""
    with shared(session, file) as memory:
        memory.touch(3)
        memory.expect({3})
        assert os.pread(file.fileno(), 1, 3 * PAGE_SIZE) == b"\x02"
        assert memory.region.blind_spots == BACKED


def test_flushing_a_shared_mapping(session: dirtytrack.Session, file: BinaryIO) -> None:
    """Msync and fsync are no writes, take nothing that was written, and lose nothing written later."""
    with shared(session, file) as memory:
        memory.touch(3)
        memory.map.flush()
        os.fsync(file.fileno())
        memory.expect({3})
        memory.map.flush()
        memory.expect()
        memory.touch(3)
        memory.touch(4)
        memory.expect({3, 4})


def test_a_shared_mapping_misses_writes_to_the_file(session: dirtytrack.Session, file: BinaryIO) -> None:
    """What write(2) puts into the file is not reported: mark it."""
    with shared(session, file) as memory:
        os.pwrite(file.fileno(), b"\xee", 3 * PAGE_SIZE)
        memory.expect_unseen({3}, BlindSpot.FILE_WRITES)


def test_a_shared_mapping_misses_other_mappings(session: dirtytrack.Session, file: BinaryIO) -> None:
    """A store through another mapping is not reported; tracked as well, that mapping reports it."""
    with shared(session, file) as memory, mmap.mmap(file.fileno(), 0) as other:
        other[3 * PAGE_SIZE] = 0xEE
        memory.expect_unseen({3}, BlindSpot.OTHER_MAPPING)
        also = session.track(other)
        other[4 * PAGE_SIZE] = 0xEE
        epoch = session.collect()
        assert {region: set(pages) for region, pages in epoch.items()} == {memory.region: set(), also: {4}}
        assert memory.changed() == {4}
        session.untrack(also)


def test_a_shared_mapping_misses_holes(session: dirtytrack.Session, file: BinaryIO) -> None:
    """A hole punched into the file, by fallocate or MADV_REMOVE, is not reported: mark it."""
    with shared(session, file) as memory:
        punch_hole(file.fileno(), 4 * PAGE_SIZE, 2 * PAGE_SIZE)
        memory.expect_unseen({4, 5}, BlindSpot.HOLE_PUNCHING)
        memory.advise(Advice.REMOVE, 7, 8)
        memory.expect_unseen({7}, BlindSpot.HOLE_PUNCHING)
        memory.touch(4)
        memory.expect({4})


def test_a_shared_mapping_misses_truncation(session: dirtytrack.Session, file: BinaryIO) -> None:
    """A file cut and grown again reads as zeros behind the cut, unreported: mark it."""
    with shared(session, file) as memory:
        file.truncate(12 * PAGE_SIZE)
        file.truncate(16 * PAGE_SIZE)
        memory.expect_unseen({12, 13, 14, 15}, BlindSpot.HOLE_PUNCHING)
        memory.touch(13)
        memory.expect({13})


def test_dropping_pages_of_a_shared_mapping(session: dirtytrack.Session, file: BinaryIO) -> None:
    """MADV_DONTNEED on a shared mapping keeps the contents, and what was written is still reported."""
    with shared(session, file) as memory:
        memory.touch(3)
        memory.advise(Advice.DONTNEED)
        memory.expect({3})
        memory.advise(Advice.DONTNEED)
        memory.expect()
        memory.touch(4)
        memory.expect({4})


@pytest.mark.parametrize("make", [private, shared])
def test_pages_beyond_the_end_of_the_file(session: dirtytrack.Session, file: BinaryIO, make: object) -> None:
    """A cut file leaves pages that kill whoever touches them; collects go on, and report the others."""
    assert callable(make)
    with make(session, file) as memory:
        memory.touch(2)
        memory.expect({2})
        file.truncate(8 * PAGE_SIZE)
        memory.touch(5)
        assert memory.reported() == {5}
        assert memory.reported() == set()
