"""Regions: what they say of themselves, narrowing, views, and mark."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from _lib.raw import Raw
from _lib.support import PAGE_SIZE
from dirtytrack import BlindSpot, ClosedError, Region, Session


@pytest.fixture
def memory() -> Iterator[Raw]:
    with Raw(8) as memory:
        yield memory


def test_a_region_describes_itself(session: Session, memory: Raw) -> None:
    """Address, length, pages, name and session."""
    region = session.track((memory.start + 10, 3 * PAGE_SIZE), name="heap")
    assert (region.address, region.nbytes) == (memory.start + 10, 3 * PAGE_SIZE)
    assert region.page_size == PAGE_SIZE
    assert region.page_range == memory.at(0, 4)
    assert region.geometry == (3 * PAGE_SIZE, 10, PAGE_SIZE)
    assert (region.name, region.session, region.sparse) == ("heap", session, False)
    assert region.tracked
    assert not region.lost
    assert "'heap'" in repr(region)
    assert session.track(memory.pair).name is None


def test_a_region_says_what_its_elements_are(session: Session, memory: Raw) -> None:
    """Of an array; plain bytes have none, and what is untracked has none any more."""
    array = np.zeros((3, 5), np.int16)
    region = session.track(array)
    assert region.elements is not None
    assert (region.elements.dtype, region.elements.shape) == ("<i2", (3, 5))
    assert session.track(memory.pair).elements is None
    session.untrack(region)
    assert region.elements is None


@pytest.mark.registration
def test_private_memory_is_blind_to_dma_only(session: Session, memory: Raw) -> None:
    """The blind spots follow from what is mapped."""
    region = session.track(memory.pair)
    assert region.blind_spots == {BlindSpot.DMA}
    sparse = Raw(4)
    with sparse:
        assert session.track(sparse.pair, sparse=True).blind_spots == {BlindSpot.DMA, BlindSpot.DROPPED_PAGES}


def test_a_view_is_the_memory(session: Session, memory: Raw) -> None:
    """Stores through the view are stores to the region, and reported."""
    region = session.track((memory.start + 100, PAGE_SIZE))
    assert len(region.view) == PAGE_SIZE
    region.view[PAGE_SIZE - 1] = 7
    assert set(session.collect()[region]) == {1}
    with Session(backend=session.backend) as other:
        again = other.track(memory.piece(4, 8)).view
        assert again.tobytes() == bytes(4 * PAGE_SIZE)


def test_a_view_that_is_released_is_the_callers_own(session: Session, memory: Raw) -> None:
    """Somebody who releases a view, as a ``with`` does, leaves the region's next one whole."""
    region = session.track(memory.piece(0, 1))
    with region.view as view:
        view[0] = 7
    assert region.view[0] == 7


@pytest.mark.parametrize(
    ("piece", "start", "stop"),
    [
        (slice(None), 0, 1000),
        (slice(10, 20), 10, 20),
        (slice(-10, None), 990, 1000),
        (slice(5, 10**9), 5, 1000),
        (slice(0, 1, 1), 0, 1),
    ],
)
def test_narrowing_is_slicing(session: Session, memory: Raw, piece: slice, start: int, stop: int) -> None:
    """``region[start:stop]`` counts bytes as any sequence does."""
    narrow = session.track((memory.start, 1000))[piece]
    assert (narrow.start, narrow.stop) == (start, stop)
    assert f"[{start}, {stop})" in repr(narrow)


@pytest.mark.parametrize("piece", [slice(5, 5), slice(7, 3), slice(1000, None)])
def test_narrowing_to_nothing_is_refused(session: Session, memory: Raw, piece: slice) -> None:
    """A slice without a byte is a ValueError, not a collect of nothing."""
    with pytest.raises(ValueError, match="no byte"):
        session.track((memory.start, 1000))[piece]


@pytest.mark.parametrize("piece", [3, slice(0, 10, 2), "a", (slice(1), slice(2)), None])
def test_only_slices_narrow(session: Session, memory: Raw, piece: object) -> None:
    """An index, a stride or anything else is a TypeError."""
    with pytest.raises(TypeError, match="slice"):
        session.track((memory.start, 1000))[piece]  # type: ignore[index]


def test_page_sets_of_a_region(session: Session, memory: Raw) -> None:
    """Made by hand they combine with those of epochs."""
    region = session.track(memory.pair)
    assert set(region.page_set()) == set(range(8))
    memory.write(1, 2)
    found = session.collect()[region]
    assert set(found & region.page_set([(2, 8)])) == {2}
    assert set(region.page_set() - found) == {0, 3, 4, 5, 6, 7}
    with pytest.raises(ValueError, match="not within"):
        region.page_set([(7, 9)])


def test_mark_declares_bytes_written(session: Session, memory: Raw) -> None:
    """Exactly the pages of the bytes, for every cursor, once."""
    region = session.track(memory.pair)
    second = session.cursor("second")
    session.mark(region, PAGE_SIZE - 1, PAGE_SIZE + 1)
    session.mark(region[4 * PAGE_SIZE :], PAGE_SIZE, PAGE_SIZE + 1)
    for consumer in (session, second):
        assert set(consumer.peek()[region]) == {0, 1, 5}
        assert set(consumer.collect()[region]) == {0, 1, 5}
        assert consumer.collect().pages == 0


def test_mark_takes_all_by_default(session: Session, memory: Raw) -> None:
    """Without a range it is the whole region, or slice."""
    region = session.track(memory.pair)
    session.mark(region[PAGE_SIZE : 2 * PAGE_SIZE])
    assert set(session.collect()[region]) == {1}
    session.mark(region)
    assert set(session.collect()[region]) == set(range(8))
    session.mark(region, 6 * PAGE_SIZE)
    assert set(session.collect()[region]) == {6, 7}


def test_mark_of_no_bytes_marks_nothing(session: Session, memory: Raw) -> None:
    """An empty range is allowed, and is empty."""
    region = session.track(memory.pair)
    for at in (0, 5, PAGE_SIZE, region.nbytes):
        session.mark(region, at, at)
    assert session.collect().pages == 0


def test_mark_reaches_the_regions_that_share_the_page(session: Session, memory: Raw) -> None:
    """Another region on the same page has it too, as with a store."""
    left, right = session.track((memory.start, 100)), session.track((memory.start + 100, 2 * PAGE_SIZE))
    session.mark(left, 5, 6)
    epoch = session.collect()
    assert (set(epoch[left]), set(epoch[right])) == ({0}, {0})


@pytest.mark.parametrize(
    "span", [(-1, 5), (5, 4), (0, 8 * PAGE_SIZE + 1), (8 * PAGE_SIZE + 1, None), (-5, -1)]
)
def test_mark_outside_is_refused(session: Session, memory: Raw, span: tuple[int, int | None]) -> None:
    """Bytes that the region does not have are a ValueError."""
    region = session.track(memory.pair)
    with pytest.raises(ValueError, match="not a range within"):
        session.mark(region, *span)
    assert session.collect().pages == 0


def test_mark_in_a_slice_stays_in_it(session: Session, memory: Raw) -> None:
    """Bytes are counted in the slice, and end with it."""
    region = session.track(memory.pair)
    with pytest.raises(ValueError, match="not a range within"):
        session.mark(region[:10], 5, 11)


@pytest.mark.parametrize("what", [(1.0, 2), ("a", 2), (0, 2.5)])
def test_mark_takes_integers(session: Session, memory: Raw, what: tuple[object, object]) -> None:
    """Anything else is a TypeError."""
    region: Region = session.track(memory.pair)
    with pytest.raises(TypeError):
        session.mark(region, *what)  # type: ignore[arg-type]


def test_a_marked_page_may_be_aborted(session: Session, memory: Raw) -> None:
    """What was declared written comes back like what was written."""
    region = session.track(memory.pair)
    session.mark(region, 0, 1)
    session.collect().abort()
    assert set(session.collect()[region]) == {0}


def test_slices_are_values(session: Session, memory: Raw) -> None:
    """Equal if they are the same bytes of the same region; a slice can be narrowed further."""
    region = session.track(memory.pair)
    assert region[10:20] == region[10:20]
    assert hash(region[10:20]) == hash(region[10:20])
    assert region[10:20] != region[10:21]
    assert region[10:20][2:5] == region[12:15]
    with pytest.raises(ValueError, match="no byte"):
        region[10:20][10:]


def test_blind_spots_of_memory_that_is_not_tracked(session: Session, memory: Raw) -> None:
    """What is mapped there now may be anything: no answer is better than a wrong one."""
    region = session.track(memory.pair)
    assert region.blind_spots
    session.untrack(region)
    with pytest.raises(ClosedError, match="not tracked"):
        region.blind_spots  # noqa: B018
