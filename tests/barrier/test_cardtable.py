"""Which cards are set: those of the pages that were written, no other; and what is refused."""

from __future__ import annotations

import array
import errno
import functools
import gc
import mmap
import threading
import tracemalloc
import warnings

import numpy as np
import pytest

import dirtytrack
from _lib.interrupts import at_every_point, interrupted_at, traced
from _lib.raw import Raw
from _lib.seccomp import PAGEMAP_SCAN, install, refuse_ioctl
from _lib.support import PAGE_SIZE, in_child
from _lib.syscalls import MAP_ANONYMOUS, MAP_HUGETLB, MAP_PRIVATE
from _lib.tracked import open_cursors
from dirtytrack import ClosedError, ForkedError, KernelError, Session
from dirtytrack.barrier import CardTable

PAGES = 32
_ALIGNMENT = 16 * PAGE_SIZE
PageCards = functools.partial(CardTable, card_size=PAGE_SIZE)


def _aligned(pages=PAGES, alignment=_ALIGNMENT):
    """Memory that begins at a multiple of the alignment, in bytes."""
    whole = np.frombuffer(dirtytrack.alloc(pages * PAGE_SIZE + alignment), np.uint8)
    start = -whole.ctypes.data % alignment
    return whole[start : start + pages * PAGE_SIZE]


def _set(cards, out):
    """The numbers of the cards set in a map."""
    if cards.layout == "bytes":
        assert set(out) <= {0, 1}
        return {card for card, value in enumerate(out) if value}
    bits = np.unpackbits(np.frombuffer(out, np.uint8), bitorder="little")
    return set(np.flatnonzero(bits).tolist())


def _look(verb, cards):
    """What a take or a peek sets in a map that held something else."""
    out = bytearray(b"\xaa" * cards.nbytes)
    count = verb(cards, out)
    found = _set(cards, out)
    assert count == len(found)
    return found


_take = functools.partial(_look, CardTable.take)
_peek = functools.partial(_look, CardTable.peek)


@pytest.mark.parametrize("layout", ["bits", "bytes"])
@pytest.mark.parametrize("card_size", [1, 64, PAGE_SIZE // 2, PAGE_SIZE, 2 * PAGE_SIZE, 16 * PAGE_SIZE])
def test_the_cards_of_written_pages_are_set(session, layout, card_size):
    """By any number of stores on them; a peek changes nothing, a take begins anew."""
    heap = _aligned()
    heap[:] = 1
    with CardTable(session, heap, card_size=card_size, layout=layout) as cards:
        assert len(cards) == len(heap) // card_size
        assert cards.nbytes == (len(cards) if layout == "bytes" else -(-len(cards) // 8))
        assert _take(cards) == set()
        for written in ([], [0], [PAGES - 1], [3, 4, 5, 9], range(PAGES), range(0, PAGES, 2)):
            for page in written:
                heap[page * PAGE_SIZE + 77] = 2
            expected = {
                card
                for page in written
                for card in range(page * PAGE_SIZE // card_size, -(-(page + 1) * PAGE_SIZE // card_size))
            }
            assert _peek(cards) == _peek(cards) == expected
            assert _take(cards) == expected
            assert _take(cards) == set()


def test_a_heap_within_pages(session):
    """It begins and ends in the middle of pages: a neighbour's store sets its cards, and none beyond."""
    memory = _aligned(4)
    heap = memory[PAGE_SIZE // 2 : 2 * PAGE_SIZE + PAGE_SIZE // 4]
    with CardTable(session, heap, card_size=PAGE_SIZE // 4) as cards:
        assert len(cards) == 7
        memory[0] = 1
        assert _take(cards) == {0, 1}
        memory[3 * PAGE_SIZE - 1] = 1
        assert _take(cards) == {6}
        memory[3 * PAGE_SIZE] = 1
        assert _take(cards) == set()


def test_dropped_pages_are_set(session):
    """Their contents have changed without a store."""
    heap = dirtytrack.alloc(8 * PAGE_SIZE)
    heap[:] = b"x" * len(heap)
    with PageCards(session, heap) as cards:
        heap.madvise(4, 3 * PAGE_SIZE, 2 * PAGE_SIZE)  # MADV_DONTNEED
        assert _take(cards) == {3, 4}


def test_segments_come_and_go(session):
    """Each begins with a byte of the map; the others keep their numbers, and gaps are filled."""
    pieces = [dirtytrack.alloc(pages * PAGE_SIZE) for pages in (3, 10, 5, 9, 2)]
    with PageCards(session, pieces[0]) as cards:
        segments = [cards.segments[0], *(cards.grow(piece) for piece in pieces[1:4])]
        assert [one.cards for one in segments] == [range(3), range(8, 18), range(24, 29), range(32, 41)]
        assert (len(cards), cards.nbytes, cards.segments) == (41, 6, tuple(segments))
        for piece in pieces[:4]:
            piece[-1] = 1
        assert _peek(cards) == {2, 17, 28, 40}
        cards.shrink(segments[1])
        assert _take(cards) == {2, 28, 40}
        pieces[1][0] = 1
        again = cards.grow(pieces[4])
        assert (again.cards, again.region.nbytes) == (range(8, 10), 2 * PAGE_SIZE)
        pieces[4][PAGE_SIZE] = 1
        assert _take(cards) == {9}
        cards.shrink(pieces[3])
        cards.shrink(segments[2].region)
        assert (len(cards), cards.nbytes) == (10, 2)
        cards.shrink(pieces[0])
        cards.shrink(pieces[4])
        assert (len(cards), cards.nbytes, _take(cards), cards.segments) == (0, 0, set(), ())
        assert session.regions == ()
        assert cards.grow(pieces[0]).cards == range(3)


def test_addresses_and_cards():
    """A segment knows both; others are refused."""
    heap = _aligned(4)
    with Session() as session, PageCards(session, _aligned(3)) as cards:
        segment = cards.grow(heap)
        start = heap.ctypes.data
        assert [segment.card_of(start + at) for at in (0, PAGE_SIZE - 1, PAGE_SIZE, len(heap) - 1)] == [
            8,
            8,
            9,
            11,
        ]
        assert [segment.address_of(card) - start for card in segment.cards] == [
            0,
            PAGE_SIZE,
            2 * PAGE_SIZE,
            3 * PAGE_SIZE,
        ]
        for bad in (start - 1, start + len(heap)):
            with pytest.raises(ValueError, match="is not in <Segment"):
                segment.card_of(bad)
        for bad in (7, 12, -1):
            with pytest.raises(ValueError, match="is not in <Segment"):
                segment.address_of(bad)


def test_bytes_are_marked(session):
    """Also across two segments that touch; every cursor hears of it; where some are outside none is."""
    heap = _aligned(8)
    start = heap.ctypes.data
    with PageCards(session, heap[: 4 * PAGE_SIZE]) as cards, session.cursor("other") as other:
        second = cards.grow(heap[4 * PAGE_SIZE :])
        cards.mark(start + PAGE_SIZE + 5, 1)
        cards.mark(start + 4 * PAGE_SIZE - 1, 2)
        cards.mark(start, 0)
        assert _peek(cards) == {1, 3, second.cards.start}
        assert other.collect().pages == 3
        for address, nbytes in ((start - 1, 2), (start + 8 * PAGE_SIZE - 1, 2), (0, 1), (start, 1 << 62)):
            with pytest.raises(ValueError, match="is not within the segments"):
                cards.mark(address, nbytes)
        for address, nbytes in ((start, -1), (-1, 1), (1 << 63, 1 << 63)):
            with pytest.raises(ValueError, match="no range of addresses"):
                cards.mark(address, nbytes)
        assert _take(cards) == {1, 3, second.cards.start}


def test_other_users_of_the_session_are_not_disturbed(session):
    """Nor do they disturb the table, which takes the region of others as it is."""
    heap = dirtytrack.alloc(8 * PAGE_SIZE)
    region = session.track(heap)
    heap[0] = 1
    with PageCards(session, region) as cards:
        heap[PAGE_SIZE] = 1
        assert set(session.collect()[region]) == {0, 1}
        assert _take(cards) == {1}
        heap[2 * PAGE_SIZE] = 1
        assert _take(cards) == {2}
        assert set(session.collect()[region]) == {2}
    assert session.regions == (region,)
    assert open_cursors(session) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("torn")
def test_segments_come_and_go_beside_takes():
    """Another thread grows and shrinks: what stays is listed, and just the cards stored to are set in it."""
    heap, more = _aligned(8), _aligned(8)
    with Session() as session, PageCards(session, heap) as cards:
        stop, errors = threading.Event(), []

        def churn():
            try:
                while not stop.is_set():
                    cards.shrink(cards.grow(more))
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=churn)
        thread.start()
        try:
            taken = 0
            while taken < 100:
                heap[taken % 8 * PAGE_SIZE] = taken % 256
                out = bytearray(1 + taken % 2)
                try:
                    cards.take(out)
                except ValueError:  # it has grown or shrunk just now, and nothing was taken
                    continue
                assert out[0] == 1 << taken % 8
                assert cards.segments[0].cards == range(8)
                taken += 1
        finally:
            stop.set()
            thread.join()
        assert errors == []


@pytest.mark.parametrize("how", ["unmap", "map over", "untrack"])
def test_a_lost_segment_has_all_its_cards_set(session, how):
    """Nothing is raised; the others are as exact as ever; what is there later can be added anew."""
    memory, other = Raw(6), dirtytrack.alloc(4 * PAGE_SIZE)
    with PageCards(session, memory.pair) as cards:
        segment = cards.segments[0]
        second = cards.grow(other)
        assert cards.lost == ()
        other[PAGE_SIZE] = 1
        if how == "unmap":
            memory.unmap(2, 3)
        elif how == "map over":
            memory.map_over(2, 3)
        else:
            session.untrack(segment.region)
        lost = set(segment.cards)
        assert _peek(cards) == lost | {second.cards.start + 1}
        assert cards.lost == (segment,)
        assert _take(cards) == lost | {second.cards.start + 1}
        assert _take(cards) == lost
        cards.mark(memory.start, 1)
        cards.mark(segment.region.address + 5 * PAGE_SIZE, 1)
        cards.shrink(segment)
        assert (cards.lost, _take(cards)) == ((), set())
        cards.grow((memory.start, 2 * PAGE_SIZE))
        memory.write(1)
        assert _take(cards) == {1}


def test_a_scan_without_memory_sets_all():
    """The kernel's ENOMEM: a collector that goes on has missed nothing."""
    heap, other = dirtytrack.alloc(3 * PAGE_SIZE), dirtytrack.alloc(2 * PAGE_SIZE)
    with Session() as session, PageCards(session, heap) as cards:
        cards.grow(other)
        heap[0] = 1

        def child():
            with Session() as mine, PageCards(mine, heap) as table:
                table.grow(other)
                install(refuse_ioctl(PAGEMAP_SCAN, errno.ENOMEM))
                for look in (table.peek, table.take):
                    out = bytearray(2)
                    with pytest.raises(KernelError, match="All cards are set"):
                        look(out)
                    assert _set(table, out) == {0, 1, 2, 8, 9}

        in_child(child).check()
        assert _take(cards) == {0}


def test_a_take_allocates_nothing():
    """In Python nothing is left of thousands of them; runtime.c counts the calls of C."""
    heap = _aligned()
    with Session() as session, PageCards(session, heap) as cards:
        out = bytearray(cards.nbytes)
        address = heap.ctypes.data

        def cycle():
            for _ in range(1000):
                heap[5] = 1
                cards.peek(out)
                cards.take(out)
                cards.mark(address, 1)

        cycle()
        gc.collect()
        tracemalloc.start()
        try:
            cycle()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(3):
                cycle()
            after = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert after - before < 500


@pytest.mark.parametrize("out", [bytearray(4), np.zeros(4, np.uint8), array.array("B", bytes(4))])
def test_any_writable_buffer_will_do(out):
    """Of the right size; a memoryview or an array of larger items, too."""
    heap = dirtytrack.alloc(PAGES * PAGE_SIZE)
    with Session() as session, PageCards(session, heap) as cards:
        heap[PAGE_SIZE] = 1
        assert cards.peek(out) == 1
        assert bytes(out) == b"\2\0\0\0"
        wide = np.zeros(1, np.uint32)
        assert cards.take(memoryview(wide)) == 1
        assert wide[0] == 2


@pytest.mark.parametrize(
    ("out", "error"),
    [
        (bytearray(3), ValueError),
        (bytearray(5), ValueError),
        (bytearray(), ValueError),
        (b"abcd", (TypeError, ValueError, BufferError)),
        (memoryview(b"abcd"), (TypeError, ValueError, BufferError)),
        (np.zeros(8, np.uint8)[::2], (TypeError, ValueError, BufferError)),
        ("abcd", TypeError),
        (None, TypeError),
        (4, TypeError),
    ],
)
def test_maps_that_are_refused(out, error):
    """Of another size, read-only, no buffers: it says so, and nothing was taken."""
    heap = dirtytrack.alloc(PAGES * PAGE_SIZE)
    with Session() as session, PageCards(session, heap) as cards:
        heap[PAGE_SIZE] = 1
        for look in (cards.take, cards.peek):
            with pytest.raises(error, match=r"^out "):
                look(out)
        assert _take(cards) == {1}


def test_a_heap_of_huge_pages_is_seen_by_huge_page(session, hugepages):
    """All cards of a written huge page are set, and no other: what the hardware knows is that page."""
    size = hugepages(2)
    heap = mmap.mmap(-1, 2 * size, flags=MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB)
    heap[0] = heap[size] = 1
    with CardTable(session, heap, card_size=size // 4) as cards:
        assert _take(cards) == set()
        heap[2 * size - 1] = 2
        assert _peek(cards) == _take(cards) == {4, 5, 6, 7}
        assert _take(cards) == set()
    heap.close()


_HEAP = _aligned(2)


@pytest.mark.parametrize(
    ("heap", "options", "error", "message"),
    [
        (_HEAP, {"card_size": 0}, ValueError, "power of two"),
        (_HEAP, {"card_size": -4096}, ValueError, "power of two"),
        (_HEAP, {"card_size": 3000}, ValueError, "power of two"),
        (_HEAP, {"card_size": 1 << 60}, ValueError, "power of two"),
        (_HEAP, {"card_size": 512.0}, TypeError, "float"),
        (_HEAP, {"layout": "nibbles"}, ValueError, "bits, bytes"),
        (_HEAP, {"layout": None}, ValueError, "bits, bytes"),
        (_HEAP, {"layout": ["bits"]}, ValueError, "bits, bytes"),
        (_HEAP[1:], {}, ValueError, "begin and end on a card of 4096 bytes"),
        (_HEAP[: PAGE_SIZE + 512], {"card_size": 1024}, ValueError, "begin and end on a card"),
        (_HEAP, {"card_size": 4 * PAGE_SIZE}, ValueError, "begin and end on a card"),
        (b"read-only", {}, ValueError, "read-only"),
        ("text", {}, TypeError, "no memory"),
        (None, {}, TypeError, "no memory"),
        ((16 * PAGE_SIZE, PAGE_SIZE), {}, ValueError, "not mapped"),
    ],
)
def test_what_is_no_heap(heap, options, error, message):
    """It is refused, and nothing stays tracked."""
    with Session() as session:
        with pytest.raises(error, match=message):
            CardTable(session, heap, **options)
        assert (session.regions, open_cursors(session)) == ((), 1)


def test_what_is_no_segment():
    """Overlapping, tracked by another session, unknown: refused, and the table is as it was."""
    heap = _aligned(8)
    with Session() as session, Session() as other, PageCards(session, heap[: 4 * PAGE_SIZE]) as cards:
        for bad in (heap[: 4 * PAGE_SIZE], heap[3 * PAGE_SIZE : 5 * PAGE_SIZE], cards.segments[0].region):
            with pytest.raises(ValueError, match="overlaps"):
                cards.grow(bad)
        with pytest.raises(ValueError, match="begin and end on a card"):
            cards.grow(heap[4 * PAGE_SIZE + 1 :])
        region = other.track(_aligned(1))
        with pytest.raises(ValueError, match="another session"):
            cards.grow(region)
        for bad in (heap[4 * PAGE_SIZE :], region, cards.segments[0].region.view[PAGE_SIZE:]):
            with pytest.raises(ValueError, match="no segment begins at"):
                cards.shrink(bad)
        with pytest.raises(TypeError, match="Session or None"):
            CardTable("session", heap)
        assert len(cards.segments) == len(session.regions) == 1
        heap[0] = 1
        assert _take(cards) == {0}


def test_without_a_session_it_is_the_regions_or_the_default():
    """As everywhere else."""
    with Session() as session, PageCards(None, session.track(_aligned(1))) as cards:
        assert cards.session is session
    with PageCards(None, _aligned(1)) as cards:
        assert cards.session is dirtytrack.default_session()
    dirtytrack.default_session().close()


def test_after_close():
    """Every call but close says so; nothing stays tracked. One of a closed session is closed, too."""
    heap = _aligned(2)
    with Session() as session:
        cards = PageCards(session, heap)
        cards.close()
        cards.close()
        assert cards.closed
        assert (session.regions, open_cursors(session)) == ((), 1)
        for call in (
            lambda: cards.take(bytearray(1)),
            lambda: cards.peek(bytearray()),
            lambda: cards.mark(1, 1),
            lambda: cards.grow(heap),
            lambda: cards.shrink(heap),
            lambda: cards.nbytes,
            lambda: len(cards),
            lambda: cards.lost,
            cards.__enter__,
        ):
            with pytest.raises(ClosedError, match="is closed"):
                call()
        cards = PageCards(session, heap)
    with pytest.raises(ClosedError, match="is closed"):
        cards.take(bytearray(1))
    cards.close()


def test_in_a_forked_child():
    """Every call but close says so; the parent's table works on."""
    heap = _aligned(2)
    with Session() as session, PageCards(session, heap) as cards:

        def child():
            for call in (
                lambda: cards.take(bytearray(1)),
                lambda: cards.mark(1, 1),
                lambda: cards.grow(heap),
                lambda: cards.shrink(heap),
                lambda: cards.nbytes,
                lambda: cards.lost,
            ):
                with pytest.raises(ForkedError):
                    call()
            cards.close()
            assert cards.closed

        in_child(child).check()
        heap[0] = 1
        assert _take(cards) == {0}


def test_one_that_nobody_closed_warns():
    """And is closed."""
    with Session() as session:
        cards = PageCards(session, _aligned(1))
        with pytest.warns(ResourceWarning, match="never closed"):
            del cards
            gc.collect()
        assert session.regions == ()


def test_it_can_not_be_pickled_and_says_what_it_is():
    """It stands for memory of this process."""
    with Session() as session, CardTable(session, _aligned(1), card_size=512) as cards:
        with pytest.raises(TypeError, match="can't be copied"):
            cards.__reduce__()
        assert repr(cards) == "<dirtytrack.barrier.CardTable: 1 segments, cards of 512 bytes>"
        assert (cards.card_size, cards.layout, cards.closed) == (512, "bits", False)


@traced
@pytest.mark.parametrize("verb", ["open", "grow", "shrink", "close"])
def test_an_interrupt_leaves_no_half(verb):
    """At every point: what was not there is not tracked, what was is gone when that is said again."""
    heap, more = _aligned(2), _aligned(2)
    tables = []
    with Session() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)

        def act(count):
            tables.clear()
            if verb != "open":
                tables.append(PageCards(session, heap))
            if verb == "shrink":
                tables[0].grow(more)
            with interrupted_at(count):
                if verb == "open":
                    tables.append(PageCards(session, heap))
                elif verb == "grow":
                    tables[0].grow(more)
                elif verb == "shrink":
                    tables[0].shrink(more)
                else:
                    tables[0].close()

        def check():
            if verb == "grow" and len(tables[0].segments) == 2:
                tables[0].shrink(more)
            if verb == "shrink" and len(tables[0].segments) == 2:
                tables[0].shrink(more)
            if verb in ("grow", "shrink"):
                assert len(session.regions) == len(tables[0].segments) == 1
                tables[0].grow(more)
                more[0] = heap[0] = heap[0] ^ 1
                assert _take(tables[0]) == {0, 8}
            for table in tables:
                table.close()
            assert (session.regions, open_cursors(session)) == ((), 1)

        at_every_point(act, check)


@traced
def test_an_interrupted_take_forgets_no_card():
    """At every point: what it had taken, the next one has, or a peek before it; and nothing twice."""
    heap = _aligned(12)
    with Session() as session, PageCards(session, heap) as cards:

        def act(count):
            heap[3 * PAGE_SIZE] ^= 1
            heap[9 * PAGE_SIZE] ^= 1
            with interrupted_at(count):
                cards.take(bytearray(cards.nbytes))

        def check():
            peeked = bytearray(cards.nbytes)
            assert cards.peek(peeked) == 2
            assert _take(cards) == {3, 9}
            assert _take(cards) == set()

        at_every_point(act, check)
        assert _take(cards) == set()


@pytest.mark.parametrize("verb", ["take", "peek"])
def test_an_error_leaves_no_exported_view(verb):
    """A garbage cycle of a traceback with a memoryview that is exported crashes CPython 3.11."""
    view = memoryview(bytearray(100))
    with Session() as session, PageCards(session, _aligned(4)) as cards:
        with pytest.raises(ValueError, match="100 bytes") as caught:
            getattr(cards, verb)(view)
        view.release()
    assert caught.value
