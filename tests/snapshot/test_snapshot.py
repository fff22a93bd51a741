"""Snapshots of memory of every kind, whatever happens to it, and beside threads that write."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading

import numpy as np
import pytest

import dirtytrack
from _lib.raw import Raw
from _lib.support import PAGE_SIZE, in_child, resident_bytes
from _lib.tracked import open_cursors
from dirtytrack import ClosedError, DiffError, ForkedError, RegionLostError, Session
from dirtytrack.errors import KernelPermissionError
from dirtytrack.snapshot import History, Snapshot

_libc = ctypes.CDLL(None, use_errno=True)


def _bytes(memory: Raw) -> bytes:
    return ctypes.string_at(memory.start, memory.pages * PAGE_SIZE)


@pytest.fixture
def memory():
    """Eight pages by address, of ones."""
    with Raw(8) as memory:
        ctypes.memset(memory.start, 1, 8 * PAGE_SIZE)
        yield memory


@pytest.mark.slow
def test_ten_thousand_rollbacks(session):
    """Each puts everything back; the tracker sees all of it."""
    draw = np.random.default_rng(1)
    array = dirtytrack.empty(100 * PAGE_SIZE // 8, np.int64)
    array[:] = draw.integers(0, 1 << 60, len(array))
    pristine = array.copy()
    with Snapshot(session, array) as snapshot:
        for number in range(10_000):
            places = draw.integers(0, len(array), number % 4)
            array[places] += 1
            assert snapshot.rollback() == len(set(places // (PAGE_SIZE // 8)))
            if number % 100 == 0:
                assert (array == pristine).all()
                assert len(snapshot.verify()) == 0
        assert (array == pristine).all()


@pytest.mark.parametrize("nbytes", [1, 7, PAGE_SIZE, PAGE_SIZE + 1])
def test_tiny_and_unaligned_memory(session, nbytes):
    """Not a byte of the neighbours is compared or written."""
    memory = dirtytrack.alloc(4 * PAGE_SIZE)
    whole = np.frombuffer(memory, np.uint8)
    piece = whole[PAGE_SIZE - 3 : PAGE_SIZE - 3 + nbytes]
    with Snapshot(session, piece) as snapshot:
        whole[:] = 5
        assert [(one.start, one.stop) for one in snapshot.diff()] == [(0, nbytes)]
        snapshot.rollback()
        assert not piece.any()
        assert (whole == 5).sum() == len(whole) - nbytes


def test_many_regions(session):
    """A thousand of them, of which three were written."""
    arrays = [dirtytrack.empty(100, np.uint8) for _ in range(1000)]
    with Snapshot(session, *arrays) as snapshot:
        for place in (3, 500, 999):
            arrays[place][7] = 1
        assert [one.region for one in snapshot.diff()] == ["3", "500", "999"]
        assert snapshot.rollback() == 3
        assert not any(array.any() for array in arrays)


@pytest.mark.slow
def test_eight_gib_with_ten_written_pages():
    """Memory that was never touched takes none in the copy, and its pages are not looked at."""

    def child() -> None:
        before = resident_bytes()
        with Session() as session:
            memory = dirtytrack.alloc(8 << 30, huge=False)
            array = np.frombuffer(memory, np.uint8)
            places = np.arange(10) * (800 << 20) + 12345
            array[places] = 1
            with Snapshot(session, array) as snapshot:
                array[places] = 2
                assert [one.start for one in snapshot.diff()] == places.tolist()
                assert snapshot.rollback() == 10
                assert (array[places] == 1).all()
                assert resident_bytes() - before < 1 << 28

    in_child(child).check()


def test_dropped_pages_come_back(session, memory):
    """What the kernel was told to forget is found as zeros, and rolled back."""
    with Snapshot(session, memory.pair) as snapshot:
        before = _bytes(memory)
        address, nbytes = memory.piece(2, 4)
        assert _libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), mmap.MADV_DONTNEED) == 0
        (change,) = snapshot.diff()
        assert (change.start, change.stop) == (2 * PAGE_SIZE, 4 * PAGE_SIZE)
        assert not any(change.after)
        assert snapshot.rollback() == 2
        assert _bytes(memory) == before


def test_swapped_out_pages_are_what_they_were(session, memory):
    """Paging out is no write; a write after it is found and undone."""
    with open("/proc/swaps", encoding="ascii") as swaps:
        has_swap = len(swaps.readlines()) > 1
    with Snapshot(session, memory.pair) as snapshot:
        before = _bytes(memory)
        for number in range(2):
            ctypes.memset(memory.start + number * PAGE_SIZE, 9, 1)
            address, nbytes = memory.pair
            done = _libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), 21)  # MADV_PAGEOUT
            assert done == 0 or not has_swap
            assert [one.start for one in snapshot.diff()] == [number * PAGE_SIZE]
            assert snapshot.rollback() == 1
            assert _bytes(memory) == before


@pytest.mark.parametrize("protection", [mmap.PROT_READ, 0])
@pytest.mark.parametrize("kind", [Snapshot, History])
def test_protected_memory_is_refused(session, memory, kind, protection):
    """Pages that can't be written any more: told before the first byte, and it goes on when they can."""
    with kind(session, memory.pair) as one:
        state = one.save() if kind is History else None
        back = (lambda: one.restore(state)) if kind is History else one.rollback
        before = _bytes(memory)
        for page in (1, 5):
            ctypes.memset(memory.start + page * PAGE_SIZE, 9, 3)
        written = _bytes(memory)
        memory.protect(4, 6, protection)
        with pytest.raises(KernelPermissionError, match="mprotect"):
            back()
        if not protection:
            with pytest.raises(KernelPermissionError, match="read"):
                one.diff() if kind is Snapshot else one.save()
        memory.protect(4, 6, mmap.PROT_READ | mmap.PROT_WRITE)
        assert _bytes(memory) == written
        back()
        assert _bytes(memory) == before


@pytest.mark.parametrize("kind", [Snapshot, History])
def test_lost_memory_is_told(session, memory, kind):
    """Memory that was mapped over is no longer what it was a copy of."""
    one = kind(session, memory.pair)
    memory.map_over(2, 4)
    for act in (one.diff, one.rollback, one.advance, one.verify) if kind is Snapshot else (one.save,):
        with pytest.raises(RegionLostError):
            act()
    one.close()


@pytest.mark.parametrize("private", [False, True])
def test_memory_of_a_memfd(session, private):
    """Shared or private, it is rolled back like any other."""
    fd = os.memfd_create("snapshot")
    os.ftruncate(fd, 4 * PAGE_SIZE)
    memory = mmap.mmap(fd, 4 * PAGE_SIZE, flags=mmap.MAP_PRIVATE if private else mmap.MAP_SHARED)
    os.close(fd)
    with Snapshot(session, memory) as snapshot:
        memory[PAGE_SIZE : PAGE_SIZE + 5] = b"hello"
        assert [bytes(one.after) for one in snapshot.diff()] == [b"hello"]
        assert snapshot.rollback() == 1
        assert bytes(memory) == bytes(4 * PAGE_SIZE)


def test_verify_finds_what_the_tracker_can_not_see(session):
    """A write through another mapping: no diff has it; verify has, and mark makes a rollback undo it."""
    fd = os.memfd_create("snapshot")
    os.ftruncate(fd, 4 * PAGE_SIZE)
    memory, other = mmap.mmap(fd, 4 * PAGE_SIZE), mmap.mmap(fd, 4 * PAGE_SIZE)
    os.close(fd)
    with Snapshot(session, memory) as snapshot:
        memory[0] = 1
        other[2 * PAGE_SIZE + 5] = 7
        assert [(one.start, one.stop) for one in snapshot.diff()] == [(0, 1)]
        (unseen,) = snapshot.verify()
        assert (unseen.start, unseen.stop, bytes(unseen.after)) == (
            2 * PAGE_SIZE + 5,
            2 * PAGE_SIZE + 6,
            b"\7",
        )
        session.mark(snapshot.regions[0], unseen.start, unseen.stop)
        assert snapshot.rollback() == 2
        assert bytes(memory) == bytes(len(memory))


def test_hugetlb_memory(session, hugepages):
    """Pages of another size: a whole one is put back."""
    nbytes = hugepages(2)
    memory = mmap.mmap(-1, 2 * nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)  # MAP_HUGETLB
    memory[:] = b"\1" * len(memory)
    with Snapshot(session, memory) as snapshot, History(session, snapshot.regions[0]) as history:
        state = history.save()
        memory[nbytes + 5] = 9
        assert [one.start for one in snapshot.diff()] == [nbytes + 5]
        assert snapshot.rollback() == 1
        memory[5] = 9
        assert history.restore(state) == 2
        assert bytes(memory) == b"\1" * len(memory)


def test_writers_beside_a_diff(session):
    """What was written before the call is in it, as it was or later; what is not in it was never written."""
    array = dirtytrack.empty((64, PAGE_SIZE // 8), np.int64)
    stop, counts = threading.Event(), [0]

    def write() -> None:
        while not stop.is_set():
            counts[0] += 1
            array[counts[0] % 32] = counts[0]

    with Snapshot(session, array) as snapshot:
        thread = threading.Thread(target=write)
        thread.start()
        for _ in range(200):
            before = array.copy()
            elements = np.frombuffer(bytes(array.nbytes), np.int64).reshape(array.shape).copy()
            snapshot.diff().apply(elements)
            assert (elements >= before).all()
            assert (elements <= counts[0] + 1).all()
            assert not elements[32:].any()
        stop.set()
        thread.join()
        exact = np.zeros_like(array)
        snapshot.diff().apply(exact)
        assert (exact == array).all()


def test_a_diff_that_advances(session):
    """The copy takes on what the diff says; a diff that is refused advances nothing."""
    array = dirtytrack.empty((64, PAGE_SIZE // 8), np.int64)
    with Snapshot(session, array) as snapshot:
        array[3, 5], array[20, 1] = 7, 8
        with pytest.raises(DiffError, match="more than 1 bytes"):
            snapshot.diff(max_nbytes=1, advance=True)
        plain = snapshot.diff()
        assert snapshot.diff(gap=4 * PAGE_SIZE, advance=True).sizes == plain.sizes
        assert not snapshot.diff()
        assert snapshot.rollback() == 0
        array[3, 5] = 9
        (change,) = snapshot.diff(advance=True)
        assert (change.before[0], change.after[0]) == (7, 9)
        array[:] = 0
        snapshot.rollback()
        assert (array[3, 5], array[20, 1], np.count_nonzero(array)) == (9, 8, 2)


def test_methods_take_turns(session):
    """Many threads diff and roll back at once."""
    array = dirtytrack.empty(1000, np.int64)
    with Snapshot(session, array) as snapshot:

        def work() -> None:
            for _ in range(50):
                array[500] = 1
                assert len(snapshot.diff()) <= 1
                snapshot.rollback()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        snapshot.rollback()
        assert not array.any()


@pytest.mark.parametrize("kind", [Snapshot, History])
def test_a_fork_keeps_out(session, kind):
    """The child is refused, and closes without harm; the parent goes on."""
    array = dirtytrack.empty(1000, np.int64)
    with kind(session, array) as one:
        state = one.save() if kind is History else None
        array[5] = 1

        def child() -> None:
            for act in (one.diff, one.rollback, one.advance, one.verify) if kind is Snapshot else (one.save,):
                with pytest.raises(ForkedError, match="another process"):
                    act()
            one.close()

        in_child(child).check()
        one.rollback() if kind is Snapshot else one.restore(state)
        assert not array.any()


@pytest.mark.parametrize("kind", [Snapshot, History])
def test_closed_and_forgotten(session, kind):
    """After close every call says so, and nothing is tracked for it; who forgets to close is warned."""
    array = dirtytrack.empty(1000, np.int64)
    one = kind(session, array)
    one.close()
    one.close()
    assert one.closed
    assert session.regions == ()
    assert open_cursors(session) == 1
    for act in (one.diff, one.rollback, one.advance, one.verify) if kind is Snapshot else (one.save,):
        with pytest.raises(ClosedError, match="closed"):
            act()
    forgotten = kind(session, array)
    with pytest.warns(ResourceWarning, match="never closed"):
        del forgotten
    assert session.regions == ()


@pytest.mark.parametrize("kind", [Snapshot, History])
def test_a_region_of_the_users_own_stays_tracked(session, kind):
    """It keeps its name, and outlives what was made of it; untracked under it, it says so."""
    region = session.track(bytearray(100), name="mine")
    with kind(session, region):
        pass
    assert session.regions == (region,)
    one = kind(None, region)
    session.untrack(region)
    with pytest.raises(ClosedError, match="mine"):
        one.rollback() if kind is Snapshot else one.save()
    one.close()


@pytest.mark.parametrize("kind", [Snapshot, History])
def test_bad_memory_is_refused(session, kind):
    """Before anything is tracked."""
    array = np.zeros(100)
    with Session() as other:
        foreign = other.track(dirtytrack.alloc(10))
        for arguments, error, match in [
            ((session,), ValueError, "no memory"),
            ((array, array), TypeError, "Session or None"),
            ((session, array, array), ValueError, "overlaps"),
            ((session, array[:50], array[10:]), ValueError, "overlaps"),
            ((session, "text"), TypeError, None),
            ((session, np.zeros(0)), ValueError, None),
            ((session, foreign), ValueError, "another session"),
            ((None, foreign, session.track(bytearray(10), name="x")), ValueError, "another session"),
        ]:
            with pytest.raises(error, match=match):
                kind(*arguments)
        name = session.track(bytearray(10), name="twice"), session.track(bytearray(10), name="twice")
        with pytest.raises(ValueError, match="'twice'"):
            kind(session, *name)
    assert open_cursors(session) == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"gap": -1}, ValueError), ({"gap": "x"}, TypeError), ({"max_nbytes": -1}, ValueError)],
)
def test_bad_arguments_of_a_diff(session, arguments, error):
    """Named, before anything is read."""
    with Snapshot(session, bytearray(10)) as snapshot, pytest.raises(error):
        snapshot.diff(**arguments)
