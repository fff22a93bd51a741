"""Epochs: mappings of regions to pages, numbers, abort in every order, and what dies unread."""

from __future__ import annotations

import gc
import itertools
import mmap
from collections.abc import Callable, Iterator

import pytest

from _lib.raw import Raw
from _lib.support import PAGE_SIZE, Memory
from _lib.syscalls import MAP_HUGETLB
from dirtytrack import Epoch, Region, Session


def test_an_epoch_is_a_mapping_of_every_region(session: Session, memory: Raw) -> None:
    """Regions without a write are in it with an empty set, in the order of tracking."""
    left, right = session.track(memory.piece(0, 8)), session.track(memory.piece(8, 16))
    memory.write(9, 10)
    epoch = session.collect()
    assert list(epoch) == [left, right]
    assert len(epoch) == 2
    assert {region: set(pages) for region, pages in epoch.items()} == {left: set(), right: {1, 2}}
    assert left in epoch
    assert epoch.get(left) == left.page_set([])
    assert epoch.pages == 2
    assert epoch.nbytes == 2 * PAGE_SIZE


def test_nbytes_are_clipped(session: Session, memory: Raw) -> None:
    """Bytes counted are the regions' own."""
    session.track((memory.start + 100, 50))
    session.track((memory.start + PAGE_SIZE, 2 * PAGE_SIZE))
    memory.write(0, 1)
    epoch = session.collect()
    assert (epoch.pages, epoch.nbytes) == (2, 50 + PAGE_SIZE)


def test_what_was_not_collected_is_a_key_error(session: Session, memory: Raw) -> None:
    """A region left out, one tracked later, one of another session, and what is no region."""
    left, right = session.track(memory.piece(0, 4)), session.track(memory.piece(4, 8))
    epoch = session.collect(left)
    later = session.track(memory.piece(8, 12))
    with Session(backend=session.backend) as other:
        foreign = other.track(memory.piece(12, 16))
        for key in (right, later, foreign, right[:1], "left", 0, None):
            with pytest.raises(KeyError):
                epoch[key]  # type: ignore[index]
            assert key not in epoch


def test_regions_are_found_by_name(session: Session, memory: Raw) -> None:
    """What was not collected, and a name that two regions have, is a KeyError that says so."""
    left = session.track(memory.piece(0, 4), name="left")
    right = session.track(memory.piece(4, 8), name="right")
    memory.write(1, 6)
    epoch = session.collect()
    assert epoch["left"] == {1}
    assert epoch["right"] == epoch[right] == {2}
    assert "left" in epoch
    assert "middle" not in epoch
    with pytest.raises(KeyError, match="no region is called 'middle': there are 'left', 'right'"):
        epoch["middle"]
    with pytest.raises(KeyError, match="no region is called 'right': there are 'left'"):
        session.collect(left)["right"]
    again = session.track(memory.piece(8, 12), name="left")
    with pytest.raises(
        KeyError, match=f"2 regions are called 'left', at {left.address:#x} and {again.address:#x}"
    ):
        session.collect()["left"]
    session.untrack(left)
    assert epoch["left"] == {1}
    assert session.collect()["left"] == set()


def test_an_epoch_is_true_if_something_was_written(session: Session, memory: Raw) -> None:
    """Asking that takes nothing over: what dies unread is in the next one."""
    region = session.track(memory.pair)
    assert not session.collect()
    memory.write(3)
    assert session.peek()
    assert session.collect()
    gc.collect()
    epoch = session.collect()
    assert epoch
    assert epoch[region] == {3}
    assert not session.collect()


def test_numbers_count_the_collects_of_a_cursor(session: Session, memory: Raw) -> None:
    """From 1; a peek has the number of the next collect; each cursor counts for itself; a reset does not."""
    session.track(memory.pair)
    second = session.cursor("second")
    assert [session.collect().number for _ in range(3)] == [1, 2, 3]
    assert session.peek().number == 4
    session.reset()
    assert session.collect().number == 4
    assert second.peek().number == 1
    assert second.collect().number == 1


def test_a_peek_takes_nothing(session: Session, memory: Raw) -> None:
    """Any number of peeks report what the collect then does, and arm nothing for it."""
    region = session.track(memory.pair)
    second = session.cursor("second")
    memory.write(1)
    for _ in range(3):
        assert set(session.peek()[region]) == {1}
    memory.write(2)
    assert set(session.peek()[region]) == {1, 2}
    assert set(second.peek()[region]) == {1, 2}
    assert set(session.collect()[region]) == {1, 2}
    assert session.peek().pages == 0
    assert set(second.collect()[region]) == {1, 2}


def test_a_peek_holds_what_another_cursor_has_armed(session: Session, memory: Raw) -> None:
    """What is pending and what is found come together, each page once."""
    region = session.track(memory.pair)
    second = session.cursor("second")
    memory.write(1, 2)
    session.reset()
    memory.write(2, 3)
    assert set(second.peek()[region]) == {1, 2, 3}
    assert set(second.collect()[region]) == {1, 2, 3}
    assert set(session.collect()[region]) == {2, 3}


def test_a_reset_forgets(session: Session, memory: Raw) -> None:
    """What was written before a reset never comes; what is written after it does."""
    region = session.track(memory.pair)
    memory.write(1)
    session.mark(region, 2 * PAGE_SIZE, 2 * PAGE_SIZE + 1)
    assert session.reset() is None
    memory.write(3)
    assert set(session.collect()[region]) == {3}


def test_aborting_a_peek_does_nothing(session: Session, memory: Raw) -> None:
    """It has taken nothing, so it gives nothing back."""
    region = session.track(memory.pair)
    memory.write(1)
    peeked = session.peek()
    assert set(session.collect()[region]) == {1}
    peeked.abort()
    with pytest.raises(KeyError), session.peek():
        raise KeyError
    assert session.collect().pages == 0


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_epochs_abort_in_any_order(session: Session, memory: Raw, order: tuple[int, ...]) -> None:
    """Three epochs, aborted in every order: the next one has the union, once."""
    region = session.track(memory.pair)
    epochs = []
    for page in range(3):
        memory.write(page, page + 4)
        epochs.append(session.collect())
    given: set[int] = set()
    for which in order:
        epochs[which].abort()
        given |= {which, which + 4}
        assert set(session.peek()[region]) == given
    assert set(session.collect()[region]) == {0, 1, 2, 4, 5, 6}
    assert session.collect().pages == 0


@pytest.mark.parametrize("kept", list(itertools.product([False, True], repeat=3)))
def test_only_what_is_aborted_comes_back(session: Session, memory: Raw, kept: tuple[bool, ...]) -> None:
    """Of three epochs any may be aborted: only those pages are in the next."""
    region = session.track(memory.pair)
    epochs = []
    for page in range(3):
        memory.write(page)
        epochs.append(session.collect())
    for epoch, keep in zip(epochs, kept, strict=True):
        if keep:
            assert epoch.pages == 1
        else:
            epoch.abort()
    assert set(session.collect()[region]) == {page for page in range(3) if not kept[page]}


def test_abort_is_idempotent(session: Session, memory: Raw) -> None:
    """A second abort, also after the pages were collected again, gives nothing back twice."""
    region = session.track(memory.pair)
    memory.write(1)
    epoch = session.collect()
    epoch.abort()
    epoch.abort()
    assert set(session.collect()[region]) == {1}
    epoch.abort()
    assert session.collect().pages == 0
    assert set(epoch[region]) == {1}


def test_abort_after_newer_epochs(session: Session, memory: Raw) -> None:
    """An old epoch's pages come back although newer ones had some of them again."""
    region = session.track(memory.pair)
    memory.write(1, 2)
    old = session.collect()
    memory.write(2, 3)
    assert set(session.collect()[region]) == {2, 3}
    old.abort()
    assert set(session.collect()[region]) == {1, 2}


def test_abort_gives_back_to_its_own_cursor_only(session: Session, memory: Raw) -> None:
    """The other cursors, which had the pages, do not get them again."""
    region = session.track(memory.pair)
    second = session.cursor("second")
    memory.write(1)
    epoch = session.collect()
    assert set(second.collect()[region]) == {1}
    epoch.abort()
    assert second.collect().pages == 0
    assert set(session.collect()[region]) == {1}


def test_abort_skips_what_was_untracked(session: Session, memory: Raw) -> None:
    """The other regions' pages come back; one tracked anew at the same place gets nothing from before."""
    left, right = session.track(memory.piece(0, 8)), session.track(memory.piece(8, 16))
    memory.write(1, 9)
    epoch = session.collect()
    session.untrack(left)
    again = session.track(memory.piece(0, 8))
    epoch.abort()
    found = session.collect()
    assert (set(found[again]), set(found[right])) == (set(), {1})
    assert set(epoch[left]) == {1}


def test_abort_after_close_does_nothing(memory: Raw) -> None:
    """The session is gone, the epoch is not."""
    with Session() as session:
        region = session.track(memory.pair)
        memory.write(1)
        epoch = session.collect()
    epoch.abort()
    assert set(epoch[region]) == {1}
    assert "Epoch 1" in repr(epoch)


def use_and_raise(session: Session, region: Region, kind: type[BaseException]) -> None:
    with session.collect() as epoch:
        assert set(epoch[region]) == {1}
        raise kind


def test_an_exception_in_the_block_aborts(session: Session, memory: Raw) -> None:
    """Whatever was read before, whatever the exception: the pages come back; it is not swallowed."""
    region = session.track(memory.pair)
    for kind in (ValueError, KeyboardInterrupt, SystemExit, GeneratorExit):
        memory.write(1)
        with pytest.raises(kind):
            use_and_raise(session, region, kind)
        assert set(session.peek()[region]) == {1}
    assert set(session.collect()[region]) == {1}
    assert session.collect().pages == 0


def test_a_block_that_ends_well_takes_the_pages(session: Session, memory: Raw) -> None:
    """Even if nobody has read the epoch in it."""
    session.track(memory.pair)
    memory.write(1)
    with session.collect():
        pass
    assert session.collect().pages == 0


def test_an_abort_in_the_block_holds(session: Session, memory: Raw) -> None:
    """A block that aborts and then ends well has aborted."""
    region = session.track(memory.pair)
    memory.write(1)
    with session.collect() as epoch:
        epoch.abort()
    assert set(session.collect()[region]) == {1}


def test_an_epoch_that_dies_unread_gives_back(session: Session, memory: Raw) -> None:
    """Dropped at once, or looked at only for what is not its pages."""
    region = session.track(memory.pair)
    memory.write(1)
    session.collect()
    epoch = session.collect()
    assert epoch.number == 2
    assert "1 pages" in repr(epoch)
    assert len(epoch) == 1
    del epoch
    assert set(session.collect()[region]) == {1}


READS = {
    "pages": lambda epoch: epoch.pages,
    "nbytes": lambda epoch: epoch.nbytes,
    "lookup": lambda epoch: epoch[epoch.cursor.session.regions[0]],
    "iteration": list,
    "get": lambda epoch: epoch.get(epoch.cursor.session.regions[0]),
}


@pytest.mark.parametrize("read", READS)
def test_reading_takes_the_pages_over(session: Session, memory: Raw, read: str) -> None:
    """An epoch read outside of a with block is the reader's: it dies without giving back."""
    session.track(memory.pair)
    memory.write(1)
    READS[read](session.collect())
    assert session.collect().pages == 0


def test_an_epoch_read_in_a_dying_block_gives_back(session: Session, memory: Raw) -> None:
    """A generator that is dropped in the middle of its block has not done its work."""
    region = session.track(memory.pair)

    def work() -> Iterator[Epoch]:
        with session.collect() as epoch:
            yield epoch

    memory.write(1)
    worker = work()
    assert set(next(worker)[region]) == {1}
    worker.close()
    del worker
    gc.collect()
    assert set(session.collect()[region]) == {1}


def test_a_narrowed_collect_leaves_the_rest(session: Session, memory: Raw) -> None:
    """Only the slice's pages are taken; everything else is in the next epoch."""
    left, right = session.track(memory.piece(0, 8)), session.track(memory.piece(8, 16))
    memory.write(1, 2, 3, 9)
    epoch = session.collect(left[2 * PAGE_SIZE : 3 * PAGE_SIZE])
    assert {region: set(pages) for region, pages in epoch.items()} == {left: {2}}
    epoch = session.collect()
    assert {region: set(pages) for region, pages in epoch.items()} == {left: {1, 3}, right: {1}}


def test_a_narrowed_collect_takes_whole_pages(session: Session, memory: Raw) -> None:
    """A slice of a few bytes means the pages that they lie on."""
    region = session.track(memory.pair)
    memory.write(*range(16))
    assert set(session.collect(region[PAGE_SIZE - 1 : PAGE_SIZE + 1])[region]) == {0, 1}
    assert set(session.collect(region[-1:])[region]) == {15}
    assert set(session.collect()[region]) == set(range(2, 15))


def test_slices_of_a_region_may_overlap_and_repeat(session: Session, memory: Raw) -> None:
    """Any slices, in any order: each page once, one entry a region."""
    left, right = session.track(memory.piece(0, 8)), session.track(memory.piece(8, 16))
    memory.write(*range(16))
    pieces = [left[4 * PAGE_SIZE :], right, left[: 2 * PAGE_SIZE], left[PAGE_SIZE : 3 * PAGE_SIZE], left[5:6]]
    epoch = session.collect(*pieces)
    assert {region: set(pages) for region, pages in epoch.items()} == {
        left: {0, 1, 2, 4, 5, 6, 7},
        right: set(range(8)),
    }
    assert epoch.pages == 15
    assert set(session.collect()[left]) == {3}


def test_a_slice_of_an_epoch_is_narrowed(session: Session, memory: Raw) -> None:
    """``epoch[region[start:stop]]`` are the pages of that slice."""
    region = session.track(memory.pair)
    memory.write(1, 2, 3)
    epoch = session.collect()
    assert set(epoch[region[2 * PAGE_SIZE :]]) == {2, 3}
    assert epoch[region[2 * PAGE_SIZE :]].geometry == region.geometry


def test_a_narrowed_collect_aborts(session: Session, memory: Raw) -> None:
    """Its pages, and only those, come back."""
    region = session.track(memory.pair)
    memory.write(1, 2, 3)
    narrowed = session.collect(region[2 * PAGE_SIZE : 3 * PAGE_SIZE])
    rest = session.collect()
    assert set(rest[region]) == {1, 3}
    narrowed.abort()
    assert set(session.collect()[region]) == {2}


def test_overlapping_regions_keep_their_own_accounts(session: Session, memory: Raw) -> None:
    """Collecting one of two regions on the same pages leaves the other's pages coming."""
    left, right = session.track(memory.piece(0, 10)), session.track(memory.piece(6, 16))
    memory.write(7, 12)
    assert set(session.collect(left)[left]) == {7}
    assert set(session.collect(left)[left]) == set()
    assert set(session.collect(right[:PAGE_SIZE])[right]) == set()
    assert set(session.collect()[right]) == {1, 6}


@pytest.mark.registration
def test_overlapping_regions_on_huge_pages(session: Session, hugepages: Callable[[int], int]) -> None:
    """The same for pages of the pool, one of which the regions share."""
    size = hugepages(3)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB
    with Memory(3, flags=flags, page_size=size) as memory:
        left = session.track((memory.address, 2 * size))
        right = session.track((memory.address + size + 5, 2 * size - 5))
        memory.touch(1)
        memory.touch(2)
        assert set(session.collect(left)[left]) == {1}
        assert set(session.collect(left)[left]) == set()
        assert set(session.collect(right)[right]) == {0, 1}
        session.untrack(left)
        session.untrack(right)


def test_epochs_outlive_everything(memory: Raw) -> None:
    """Page sets of an epoch stay what they were while later epochs come and go, and after the session."""
    kept: list[tuple[Region, Epoch, set[int]]] = []
    with Session() as session:
        region = session.track(memory.pair)
        for page in range(12):
            memory.write(page, page + 2)
            kept.append((region, session.collect(), {page, page + 2}))
    gc.collect()
    for region, epoch, wanted in kept:
        assert set(epoch[region]) == wanted
        assert epoch.pages == len(wanted)


def test_page_sets_outlive_their_epoch(session: Session, memory: Raw) -> None:
    """A set keeps the memory that it lies in."""
    region = session.track(memory.pair)
    sets = []
    for page in range(12):
        memory.write(page)
        sets.append(session.collect()[region])
    gc.collect()
    assert [set(pages) for pages in sets] == [{page} for page in range(12)]


def test_an_epoch_of_a_slice_knows_nothing_of_the_rest(session: Session, memory: Raw) -> None:
    """It never says "clean" of pages that were not looked at."""
    region = session.track(memory.pair)
    memory.write(0, 4)
    epoch = session.collect(region[: 2 * PAGE_SIZE])
    assert set(epoch[region]) == {0}
    assert set(epoch[region[:PAGE_SIZE]]) == {0}
    for piece in (region[4 * PAGE_SIZE :], region[PAGE_SIZE : 5 * PAGE_SIZE]):
        with pytest.raises(KeyError):
            epoch[piece]
    assert set(session.collect()[region]) == {4}
