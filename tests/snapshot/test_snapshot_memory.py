"""Memory that is sparse, protected in part, or gone: what is not touched, and what is told."""

from __future__ import annotations

import ctypes
import mmap
import re
import resource
from pathlib import Path

import pytest

import dirtytrack
from _lib.raw import Raw, unmap
from _lib.support import PAGE_SIZE, PMD_SIZE, address_of, in_child, require, resident_bytes
from dirtytrack import DiffError, RegionLostError, Session
from dirtytrack.errors import KernelPermissionError
from dirtytrack.snapshot import History, Snapshot


@pytest.mark.parametrize("offset", [0, 100])
def test_a_sparse_region_stays_sparse(session, offset):
    """Memory that was never touched is not looked at: that would be a write, and undone as one."""
    memory = dirtytrack.alloc(1 << 30, huge=False)
    region = session.track(memoryview(memory)[offset : len(memory) - offset], sparse=True)
    other = session.cursor("other")
    memory[offset], memory[300 * PAGE_SIZE] = 1, 2
    with Snapshot(session, region) as snapshot:
        assert set(other.collect()[region]) == {0, 300}
        assert snapshot.rollback() == 0
        memory[offset], memory[300 * PAGE_SIZE + 1], memory[500 * PAGE_SIZE] = 5, 5, 5
        found = [(one.start + offset, bytes(one.before)) for one in snapshot.diff()]
        assert found == [(offset, b"\1"), (300 * PAGE_SIZE + 1, b"\0"), (500 * PAGE_SIZE, b"\0")]
        assert snapshot.rollback() == 3
        assert (memory[offset], memory[300 * PAGE_SIZE], memory[300 * PAGE_SIZE + 1]) == (1, 2, 0)
        assert memory[500 * PAGE_SIZE] == 0


def _page_table_bytes() -> int:
    (line,) = [
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmPTE")
    ]
    return int(line.split()[1]) << 10


@pytest.mark.forked
@pytest.mark.parametrize("kind", [Snapshot, History])
def test_nothing_grows_where_memory_is_sparse(kind):
    """Page tables and memory stay as they are through every verb, and the other cursors are told nothing."""
    memory = dirtytrack.alloc(1 << 30, huge=False)
    used = range(0, 100 * 37 * PAGE_SIZE, 37 * PAGE_SIZE)
    for start in used:
        memory[start] = 1
    with Session() as session:
        region = session.track(memory, sparse=True)
        other = session.cursor("other")
        tables, resident = _page_table_bytes(), resident_bytes()
        with kind(session, region) as one:
            if kind is Snapshot:
                one.verify()
                one.diff(advance=True)
                one.advance()
                one.rollback()
            else:
                first = one.save()
                one.save()
                one.restore(first)
            assert other.collect().pages == 0
            assert _page_table_bytes() - tables < 600 << 10
            assert resident_bytes() - resident < 10 << 20
            memory[500 << 20] = 5
            if kind is Snapshot:
                assert not one.verify()
                assert [change.start for change in one.diff()] == [500 << 20]
                one.rollback()
            else:
                second = one.save()
                one.restore(first)
                assert memory[500 << 20] == 0
                one.restore(second)
                assert memory[500 << 20] == 5
                one.restore(first)
            assert memory[500 << 20] == 0
            assert set(other.collect()[region]) == {(500 << 20) // PAGE_SIZE}
            assert all(memory[start] == 1 for start in used)
            assert _page_table_bytes() - tables < 700 << 10


def test_a_dropped_page_of_a_sparse_region_is_verified(session):
    """The tracker does not see it; the copy has what was there."""
    memory = dirtytrack.alloc(64 * PAGE_SIZE, huge=False)
    region = session.track(memory, sparse=True)
    memory[20 * PAGE_SIZE + 3] = 7
    with Snapshot(session, region) as snapshot:
        memory.madvise(mmap.MADV_DONTNEED, 20 * PAGE_SIZE, PAGE_SIZE)
        (change,) = snapshot.verify()
        assert (change.start, change.stop) == (20 * PAGE_SIZE + 3, 20 * PAGE_SIZE + 4)
        assert (change.before[0], change.after[0]) == (7, 0)


@pytest.mark.forked
def test_a_copy_takes_what_the_memory_takes():
    """Of one page in each 2 MiB it is small; of dense memory it lies on huge pages, where there are any."""
    memory = dirtytrack.alloc(256 << 20, huge=False)
    for start in range(0, len(memory), PMD_SIZE):
        memory[start] = 1
    before = resident_bytes()
    with Session() as session, Snapshot(session, memory):
        assert resident_bytes() - before < 16 << 20
    memory = dirtytrack.alloc(16 << 20, huge=False)
    memory[:] = b"\1" * len(memory)
    with Session() as session, Snapshot(session, memory) as snapshot:
        asked = "always" in (Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()).replace(
            "[never]", ""
        )
        require(asked, "transparent huge pages")
        assert _huge_bytes(snapshot._copy) >= 12 << 20


def _huge_bytes(memory: mmap.mmap) -> int:
    """Of the mappings in an mmap object, on transparent huge pages."""
    start, found, inside = address_of(memory), 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(match[1], 16) < start + len(memory) and start < int(match[2], 16)
        elif inside and line.startswith("AnonHugePages:"):
            found += int(line.split()[1]) << 10
    return found


def test_a_sparse_region_of_a_file(session, tmp_path):
    """A private mapping has contents where nothing is populated yet: they are in the copy."""
    path = tmp_path / "file"
    path.write_bytes(bytes(range(1, 256)) * PAGE_SIZE)
    with open(path, "rb") as file:
        memory = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    with Snapshot(session, session.track(memory, sparse=True)) as snapshot:
        memory[5 * PAGE_SIZE : 7 * PAGE_SIZE] = bytes(2 * PAGE_SIZE)
        snapshot.rollback()
        assert bytes(memory) == path.read_bytes()


@pytest.mark.parametrize("protection", [mmap.PROT_READ, 0])
@pytest.mark.parametrize("can_query", [True, False])
def test_only_written_pages_have_to_be_accessible(session, protection, can_query):
    """Protected ones between them do not matter; where one is written, the error is about that."""
    with (
        Raw(8) as memory,
        Snapshot(session, memory.pair, dirtytrack.alloc(10)) as snapshot,
        open("/dev/null", "rb") as no_maps,
    ):
        if not can_query:  # as before Linux 6.11
            snapshot._native.maps = no_maps.fileno()
        memory.write(1, 4, 6)
        memory.protect(2, 4, protection)
        memory.protect(7, 8, protection)
        assert [one.start // PAGE_SIZE for one in snapshot.diff()] == [1, 4, 6]
        assert snapshot.rollback() == 3
        memory.write(1, 4, 6)
        memory.protect(6, 7, protection)
        with pytest.raises(KernelPermissionError, match=r"region '0'.*mprotect") as caught:
            snapshot.rollback()
        assert caught.value.start == memory.at(6)[0]
        assert ctypes.string_at(memory.at(1)[0], 1) == b"\1"
        memory.protect(0, 8, mmap.PROT_READ | mmap.PROT_WRITE)
        assert snapshot.rollback() == 3


@pytest.mark.forked
@pytest.mark.parametrize("how", ["unmap", "move"])
def test_one_region_of_two_is_lost(session, how):
    """Every call tells which; neither is written, and the other one is whole in a snapshot of its own."""
    with Raw(8) as lost, Raw(8) as whole:
        snapshot = Snapshot(session, session.track(lost.pair, name="lost"), session.track(whole.pair))
        only = Snapshot(session, snapshot.regions[1])
        lost.write(0, 5)
        whole.write(3)
        moved = lost.move_away(5, 6) if how == "move" else lost.unmap(5, 6)
        for act in (snapshot.diff, snapshot.rollback, snapshot.advance, snapshot.verify):
            with pytest.raises(RegionLostError, match="'lost'"):
                act()
        assert ctypes.string_at(lost.start, 1) == b"\1"
        assert ctypes.string_at(whole.at(3)[0], 1) == b"\1"
        if moved:
            assert ctypes.string_at(moved, 1) == b"\1"
            unmap(moved, 1)
        assert only.rollback() == 1
        assert ctypes.string_at(whole.at(3)[0], 1) == b"\0"
        snapshot.close()
        only.close()


def test_a_limit_holds_before_the_memory_is_taken():
    """A change that a gap makes of two, a GiB apart, is refused without its bytes being there first."""

    def child() -> None:
        memory = dirtytrack.alloc(1 << 30, huge=False)
        with Session() as session, Snapshot(session, memory) as snapshot:
            memory[0], memory[-1] = 1, 1
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            with pytest.raises(DiffError, match="more than 1000 bytes"):
                snapshot.diff(gap=1 << 30, max_nbytes=1000)
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB

    in_child(child).check()
