"""What the kernel, another thread or a vforked child stores in tracked memory is reported as any store is."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

import dirtytrack
from _lib.support import PAGE_SIZE, require
from _lib.syscalls import getrandom, process_vm_writev, store_in_vforked_child
from _lib.tracked import Tracked


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of four pages, each byte 0xEE."""
    path = tmp_path / "data"
    path.write_bytes(b"\xee" * 4 * PAGE_SIZE)
    return path


def test_reading_a_file_into_memory(session: dirtytrack.Session, file: Path) -> None:
    """readinto, and readv into scattered pages, are reported to the page."""
    with Tracked(session) as memory, file.open("rb", buffering=0) as source:
        with memory.view(2) as target:
            assert source.readinto(target) == PAGE_SIZE
        memory.expect({2})
        with memory.view(5) as first, memory.view(9) as second:
            assert os.readv(source.fileno(), [first[:100], second[-100:]]) == 200
        memory.expect({5, 9})


def test_a_short_read_reports_what_it_filled(session: dirtytrack.Session) -> None:
    """A read that could have filled four pages and filled one reports that one."""
    reader, writer = os.pipe()
    with (
        Tracked(session) as memory,
        open(reader, "rb", buffering=0) as source,
        open(writer, "wb", buffering=0),
    ):
        os.write(writer, b"\xee" * 10)
        with memory.region.view[memory.slice(4).start : memory.slice(7).stop] as target:
            assert source.readinto(target) == 10
        memory.expect({4})


def test_receiving_into_memory(session: dirtytrack.Session) -> None:
    """recv_into is reported."""
    ours, theirs = socket.socketpair()
    with Tracked(session) as memory, ours, theirs:
        theirs.sendall(b"\xee" * 10)
        with memory.view(3) as target:
            assert ours.recv_into(target) == 10
        memory.expect({3})


def test_random_bytes_from_the_kernel(session: dirtytrack.Session) -> None:
    """Getrandom into memory, across two pages, is reported."""
    with Tracked(session) as memory:
        getrandom(memory.at(7) - 32, 64)
        memory.expect({6, 7})


def test_a_debuggers_write(session: dirtytrack.Session) -> None:
    """process_vm_writev and a write to /proc/self/mem are reported."""
    with Tracked(session) as memory, open("/proc/self/mem", "r+b", buffering=0) as mem:
        process_vm_writev(b"\xee" * 10, memory.at(3))
        memory.expect({3})
        assert os.pwrite(mem.fileno(), b"\xee" * 10, memory.at(8)) == 10
        memory.expect({8})


def test_the_kernel_reading_is_no_write(session: dirtytrack.Session, tmp_path: Path) -> None:
    """Writing tracked memory to a file or a socket is not reported."""
    ours, theirs = socket.socketpair()
    with Tracked(session) as memory, (tmp_path / "out").open("wb", buffering=0) as sink, ours, theirs:
        with memory.view(2) as source:
            assert sink.write(source) == PAGE_SIZE
            ours.sendall(source[:100])
        memory.expect()


@pytest.mark.parametrize("populate", [True, False])
def test_direct_io_started_after_arming(session: dirtytrack.Session, file: Path, populate: bool) -> None:
    """An O_DIRECT read that begins and ends between two collects is reported."""
    with Tracked(session, populate=populate) as memory:
        try:
            fd = os.open(file, os.O_RDONLY | os.O_DIRECT)
        except OSError:
            require(False, "the file system of the temporary directory has no O_DIRECT")
        with open(fd, "rb", buffering=0), memory.view(6) as target:
            assert os.preadv(fd, [target], 0) == PAGE_SIZE
        memory.expect({6})


def test_another_threads_write(session: dirtytrack.Session) -> None:
    """A store by any thread of the process is reported."""
    with Tracked(session) as memory:
        thread = threading.Thread(target=memory.touch, args=(11,))
        thread.start()
        thread.join()
        memory.expect({11})


def test_a_vforked_childs_write(session: dirtytrack.Session) -> None:
    """A child that shares the address space, as after vfork, stores in our memory: reported."""
    with Tracked(session) as memory:
        store_in_vforked_child(memory.at(12))
        memory.expect({12})
        assert memory.read(12)[:8] != b"\x01" * 8
