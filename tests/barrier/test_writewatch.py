"""GetWriteWatch: ascending addresses, as many as there is room for, none twice and none left out."""

from __future__ import annotations

import array
import ctypes
import threading

import numpy as np
import pytest

import dirtytrack
from _lib.interrupts import at_every_point, interrupted_at, traced
from _lib.raw import Raw
from _lib.support import PAGE_SIZE, in_child
from _lib.syscalls import MAP_HUGETLB, map_anonymous, munmap
from dirtytrack import RegionLostError, Session
from dirtytrack.barrier import CardTable, get_write_watch, reset_write_watch


def _room(count):
    return array.array("Q", bytes(8 * count))


def _watch(memory, first, last, room, reset):
    """Pages [first, last) of memory that are listed, counted from its start."""
    out = _room(room)
    found = get_write_watch(memory.start + first * PAGE_SIZE, (last - first) * PAGE_SIZE, out, reset=reset)
    assert found.granularity == PAGE_SIZE
    assert list(out[found.pages :]) == [0] * (room - found.pages)
    return [(address - memory.start) / PAGE_SIZE for address in out[: found.pages]]


def test_written_pages_are_listed(session):
    """Since the memory was tracked, or since they were reset; without reset again and again."""
    memory = Raw(20)
    memory.write(3)
    session.track(memory.pair)
    assert _watch(memory, 0, 20, 30, False) == []
    memory.write(17, 4, 5, 0, 19)
    for _ in range(2):
        assert _watch(memory, 0, 20, 30, False) == [0, 4, 5, 17, 19]
    assert _watch(memory, 5, 18, 30, True) == [5, 17]
    assert _watch(memory, 0, 20, 30, True) == [0, 4, 19]
    assert _watch(memory, 0, 20, 30, True) == []


@pytest.mark.parametrize("room", [0, 1, 2, 3, 5, 100])
def test_a_small_buffer_is_resumed(session, room):
    """With reset by asking again; without by going on behind the last address. What was no room for stays."""
    memory = Raw(40)
    session.track(memory.pair)
    written = [0, 1, 2, 7, 9, 10, 11, 12, 30, 39]
    memory.write(*written)
    if room:
        found, first = [], 0
        while pages := _watch(memory, first, 40, room, False):
            found += pages
            first = int(pages[-1]) + 1
            if first == 40:
                break
        assert found == written
        found = []
        while pages := _watch(memory, 0, 40, room, True):
            assert len(pages) <= room
            found += pages
        assert found == written
    else:
        assert _watch(memory, 0, 40, 0, True) == []
        assert _watch(memory, 0, 40, 99, True) == written


def test_a_range_of_pages_of_several_sizes_is_refused(session, hugepages):
    """One granularity can't describe it. Each of its regions can be asked for, and has lost nothing."""
    size = hugepages(1)
    reserved = map_anonymous(3 * size)
    huge = -(-reserved // size) * size + size
    map_anonymous(size, at=huge, flags=MAP_HUGETLB)
    small = huge - 2 * PAGE_SIZE
    session.track((small, 2 * PAGE_SIZE))
    session.track((huge, size))
    ctypes.memset(small + PAGE_SIZE, 1, PAGE_SIZE + 1)
    out = _room(10)
    with pytest.raises(ValueError, match="pages of several sizes"):
        get_write_watch(small, 2 * PAGE_SIZE + size, out, reset=True)
    assert tuple(get_write_watch(small, 2 * PAGE_SIZE, out, reset=True)) == (1, PAGE_SIZE)
    assert out[0] == small + PAGE_SIZE
    assert tuple(get_write_watch(huge, size, out, reset=True)) == (1, size)
    assert out[0] == huge
    session.close()
    munmap(reserved, 3 * size)


def test_what_is_written_between_two_calls_comes_once(session):
    """A page listed and reset comes again when it is written again, and not else."""
    memory = Raw(10)
    session.track(memory.pair)
    memory.write(1, 5, 8)
    assert _watch(memory, 0, 10, 2, True) == [1, 5]
    memory.write(1, 9, 8)
    assert _watch(memory, 0, 10, 9, True) == [1, 8, 9]


def test_reset_forgets(session):
    """The pages of its range, and no others."""
    memory = Raw(10)
    session.track(memory.pair)
    memory.write(0, 4, 5, 9)
    reset_write_watch(memory.start + 4 * PAGE_SIZE, 2 * PAGE_SIZE)
    assert _watch(memory, 0, 10, 9, False) == [0, 9]
    memory.write(5)
    assert _watch(memory, 0, 10, 9, True) == [0, 5, 9]


def test_a_range_over_several_regions(session):
    """That touch or share pages; of a range in the middle of pages all of them count."""
    memory = Raw(10)
    for first, last in ((6, 10), (0, 3), (2, 7)):
        session.track(memory.piece(first, last))
    memory.write(0, 2, 6, 9)
    assert _watch(memory, 0, 10, 9, False) == [0, 2, 6, 9]
    out = _room(9)
    found = get_write_watch(memory.start + 2 * PAGE_SIZE + 5, 4 * PAGE_SIZE, out, reset=True)
    assert [address - memory.start for address in out[: found.pages]] == [2 * PAGE_SIZE, 6 * PAGE_SIZE]
    assert _watch(memory, 0, 10, 9, True) == [0, 9]
    assert _watch(memory, 0, 10, 9, True) == []


def test_the_session_that_tracks_it_is_found():
    """Among several; its own cursor is what is asked, so collect takes from the same, and others do not."""
    memory, other = Raw(4), dirtytrack.alloc(PAGE_SIZE)
    with Session() as first, Session() as second:
        first.track(other)
        region = second.track(memory.pair)
        with CardTable(second, region, card_size=PAGE_SIZE) as cards:
            memory.write(1, 2)
            assert _watch(memory, 0, 4, 9, False) == [1, 2]
            assert set(second.collect()[region]) == {1, 2}
            assert _watch(memory, 0, 4, 9, True) == []
            memory.write(3)
            assert _watch(memory, 0, 4, 9, True) == [3]
            assert cards.take(bytearray(1)) == 3


def test_what_is_not_tracked_is_refused():
    """All of it, a part, lost memory, no range; and nothing of the rest is reset."""
    memory = Raw(10)
    with Session() as session:
        session.track(memory.piece(0, 4))
        last = session.track(memory.piece(5, 10))
        memory.write(3, 6)
        for first, stop in ((4, 5), (3, 5), (0, 10), (9, 11)):
            with pytest.raises(ValueError, match="is not tracked by one session"):
                _watch(memory, first, stop, 9, True)
            with pytest.raises(ValueError, match="is not tracked by one session"):
                reset_write_watch(memory.start + first * PAGE_SIZE, (stop - first) * PAGE_SIZE)
        for address, nbytes in ((memory.start, 0), (memory.start, -1), (-1, 5), (memory.start, 1 << 63)):
            with pytest.raises(ValueError, match="no range of addresses"):
                get_write_watch(address, nbytes, _room(1), reset=False)
        with pytest.raises(TypeError):
            get_write_watch(0.5, 1, _room(1), reset=False)
        assert _watch(memory, 0, 4, 9, True) == [3]
        memory.unmap(8, 9)
        for _ in range(2):
            with pytest.raises(RegionLostError):
                _watch(memory, 5, 10, 9, True)
        session.untrack(last)
    with pytest.raises(ValueError, match="is not tracked"):
        _watch(memory, 0, 4, 9, True)


@pytest.mark.parametrize(
    "out",
    [
        bytearray(7),
        memoryview(bytearray(17))[1:],
        memoryview(bytearray(20))[4:],
        bytes(8),
        array.array("I", bytes(16)),
        array.array("d", bytes(16)),
        np.zeros(4, ">u8"),
        np.zeros(4, np.complex64),
        np.zeros(8, np.uint64)[::2],
        "text",
        None,
    ],
)
def test_buffers_that_are_refused(out):
    """No whole number of integers, unaligned, read-only, of another kind, not contiguous, no buffer."""
    memory = Raw(2)
    with Session() as session:
        session.track(memory.pair)
        memory.write(1)
        with pytest.raises((ValueError, TypeError, BufferError), match=r"^out "):
            get_write_watch(memory.start, PAGE_SIZE, out, reset=True)
        assert _watch(memory, 0, 2, 9, True) == [1]


def test_a_forked_child_has_no_sessions():
    """So the memory is not tracked there, until the child does it."""
    memory = Raw(2)
    with Session() as session:
        session.track(memory.pair)

        def child():
            with pytest.raises(ValueError, match="is not tracked"):
                get_write_watch(memory.start, PAGE_SIZE, _room(1), reset=True)
            with Session() as mine:
                mine.track(memory.pair)
                memory.write(1)
                assert _watch(memory, 0, 2, 9, True) == [1]

        in_child(child).check()


def test_regions_that_come_and_go_meanwhile():
    """Another thread tracks and untracks beside it: what stays tracked is answered exactly."""
    memory = Raw(64)
    with Session() as session:
        session.track(memory.piece(0, 8))
        stop, errors = threading.Event(), []

        def churn():
            try:
                while not stop.is_set():
                    regions = [session.track(memory.piece(at, at + 4)) for at in range(6, 60, 4)]
                    for region in regions:
                        session.untrack(region)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=churn)
        thread.start()
        try:
            for turn in range(300):
                memory.write(turn % 6)
                assert _watch(memory, 0, 6, 9, True) == [turn % 6]
        finally:
            stop.set()
            thread.join()
        assert errors == []


@traced
def test_an_interrupt_forgets_no_page(session):
    """At every point: what the call had taken, the next one lists."""
    memory = Raw(20)
    session.track(memory.pair)

    def act(count):
        session.reset()
        memory.write(3, 9)
        with interrupted_at(count):
            _watch(memory, 0, 20, 30, True)

    def check():
        assert _watch(memory, 0, 20, 30, True) == [3, 9]

    at_every_point(act, check)


def test_an_error_leaves_no_exported_view(session):
    """A garbage cycle of a traceback with a memoryview that is exported crashes CPython 3.11."""
    view = memoryview(array.array("Q", bytes(80)))
    with pytest.raises(ValueError, match="is not tracked") as caught:
        get_write_watch(*Raw(1).pair, view, reset=True)
    view.release()
    assert caught.value
