"""Swapping: a page that goes out and comes back is no write, and its writes are never lost on the way."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import dirtytrack
from _lib.support import PAGE_SIZE, require, require_root
from _lib.syscalls import Advice, pagemap, swapoff, swapon
from _lib.tracked import Tracked, on_one_cpu

_SWAPPED = 1 << 62


@pytest.fixture(scope="module")
def swap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Somewhere to swap to: what the system has, or a file of our own while the tests run."""
    if len(Path("/proc/swaps").read_text().splitlines()) > 1:
        yield
        return
    require_root("to make a swap file")
    path = str(tmp_path_factory.mktemp("swap") / "file")
    pages = (8 << 20) // PAGE_SIZE
    # The header, as mkswap makes it: version and last page at 1024, the magic at the end of the first page.
    header = bytearray(PAGE_SIZE)
    header[1024:1032] = struct.pack("II", 1, pages - 1)
    header[-10:] = b"SWAPSPACE2"
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(header + bytes((pages - 1) * PAGE_SIZE))
        os.fsync(file.fileno())
    try:
        swapon(path)
    except OSError as error:
        require(False, f"no swap to a file here: {error}")
    yield
    swapoff(path)


@pytest.fixture
def session(swap: None, session: dirtytrack.Session) -> Iterator[dirtytrack.Session]:
    """A session on either kind of kernel, with swap."""
    with on_one_cpu():
        yield session


def swap_out(memory: Tracked, start: int, stop: int) -> None:
    """Send pages out, and make sure that they went."""
    memory.advise(Advice.PAGEOUT, start, stop)
    gone = all(entry & _SWAPPED for entry in pagemap(memory.at(start), stop - start))
    require(gone, "the kernel did not swap when asked to")


def test_swapping_out_and_in_is_no_write(session: dirtytrack.Session) -> None:
    """A page that is swapped out, and read back, is not reported at any point."""
    with Tracked(session) as memory:
        swap_out(memory, 4, 8)
        assert memory.reported() == set()
        assert memory.read(5)[0] == 1
        memory.expect()


def test_writing_to_a_swapped_page(session: dirtytrack.Session) -> None:
    """A store that brings a page back is reported, and its neighbours in the swap file are not."""
    with Tracked(session) as memory:
        swap_out(memory, 4, 8)
        memory.write(5, 9)
        memory.expect({5})


def test_written_and_then_swapped_out(session: dirtytrack.Session) -> None:
    """A page written, swapped out and not collected in between is reported once, without being read back."""
    with Tracked(session) as memory:
        memory.write(5, 9)
        swap_out(memory, 4, 8)
        assert memory.reported() == {5}
        assert all(entry & _SWAPPED for entry in pagemap(memory.at(4), 4))
        memory.copy({5})
        memory.expect()
        memory.touch(5)
        memory.expect({5})


def test_written_swapped_out_and_read_back(session: dirtytrack.Session) -> None:
    """A written page stays written on its way out and in."""
    with Tracked(session) as memory:
        memory.write(5, 9)
        swap_out(memory, 4, 8)
        assert memory.read(5)[0] == 9
        memory.expect({5})


def test_tracking_swapped_memory(session: dirtytrack.Session) -> None:
    """Memory that is swapped out when it is tracked is armed where it is."""
    with Tracked(session) as memory:
        session.untrack(memory.region)
        swap_out(memory, 4, 8)
        memory.region = session.track(memory.map)
        assert memory.reported() == set()
        assert all(entry & _SWAPPED for entry in pagemap(memory.at(4), 4))
        memory.expect()
        memory.touch(6)
        memory.expect({6})


def test_dropping_a_swapped_page(session: dirtytrack.Session) -> None:
    """A page dropped while it is swapped out reads as zeros, and is reported."""
    with Tracked(session) as memory:
        swap_out(memory, 4, 8)
        memory.advise(Advice.DONTNEED, 5, 7)
        memory.expect({5, 6})


def test_shared_memory_swaps_unnoticed(session: dirtytrack.Session) -> None:
    """Shared memory keeps its contents and its state when it is swapped out and read back."""
    with os.fdopen(os.memfd_create("dirtytrack"), "w+b", buffering=0) as file:
        file.truncate(16 * PAGE_SIZE)
        with Tracked(session, fd=file.fileno(), flags=1) as memory:
            memory.touch(2)
            memory.expect({2})
            memory.touch(3)
            memory.advise(Advice.PAGEOUT)
            require(
                not any(entry >> 63 for entry in pagemap(memory.address, 16)), "the kernel did not page out"
            )
            memory.expect({3})
            memory.touch(4)
            memory.expect({4})
