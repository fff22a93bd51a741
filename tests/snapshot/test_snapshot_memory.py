"""Memory that is sparse, protected in part, or gone: what is not touched, and what is told."""

from __future__ import annotations

import ctypes
import mmap
import resource

import pytest

import dirtytrack
from _lib.raw import Raw, unmap
from _lib.support import PAGE_SIZE, in_child
from dirtytrack import DiffError, RegionLostError, Session
from dirtytrack.errors import KernelPermissionError
from dirtytrack.snapshot import Snapshot


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
def test_only_written_pages_have_to_be_accessible(session, protection, can_query, monkeypatch):
    """Protected ones between them do not matter; where one is written, the error is about that."""
    with (
        Raw(8) as memory,
        Snapshot(session, memory.pair, dirtytrack.alloc(10)) as snapshot,
        open("/dev/null", "rb") as no_maps,
    ):
        if not can_query:  # as before Linux 6.11
            monkeypatch.setattr(snapshot._access, "maps", no_maps.fileno())
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
        monkeypatch.undo()


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
