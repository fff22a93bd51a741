"""Every way to lose a registration: raised, named, remembered, and nobody else's loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from _lib.raw import Raw, is_free, is_registered, taken, unmap, unregister_behind_the_back
from _lib.support import PAGE_SIZE
from dirtytrack import BusyError, ClosedError, Cursor, Region, RegionLostError, Session
from dirtytrack.kernel.userfaultfd import Userfaultfd

pytestmark = pytest.mark.registration

Ranges = tuple[tuple[int, int], ...]


def lose_all(memory: Raw) -> Ranges:
    memory.unmap(0, 16)
    return (memory.at(0, 16),)


def lose_first(memory: Raw) -> Ranges:
    memory.unmap(0, 1)
    return (memory.at(0),)


def lose_middle(memory: Raw) -> Ranges:
    memory.unmap(5, 7)
    return (memory.at(5, 7),)


def lose_last(memory: Raw) -> Ranges:
    memory.unmap(15, 16)
    return (memory.at(15),)


def lose_two(memory: Raw) -> Ranges:
    memory.unmap(2, 4)
    memory.map_over(9, 10)
    return memory.at(2, 4), memory.at(9)


def lose_to_a_mapping(memory: Raw) -> Ranges:
    memory.map_over(5, 7)
    return (memory.at(5, 7),)


def lose_to_a_mapping_of_all(memory: Raw) -> Ranges:
    memory.map_over(0, 16)
    return (memory.at(0, 16),)


def lose_by_moving(memory: Raw) -> Ranges:
    unmap(memory.move_away(8, 16), 8)
    return (memory.at(8, 16),)


def lose_registration(memory: Raw) -> Ranges:
    unregister_behind_the_back(*memory.at(3, 9))
    return (memory.at(3, 9),)


def lose_all_registrations(memory: Raw) -> Ranges:
    unregister_behind_the_back(*memory.at(0, 16))
    return (memory.at(0, 16),)


def lose_adjacent(memory: Raw) -> Ranges:
    memory.unmap(4, 6)
    memory.map_over(6, 8)
    return (memory.at(4, 8),)


LOSSES = [
    lose_all,
    lose_first,
    lose_middle,
    lose_last,
    lose_two,
    lose_adjacent,
    lose_to_a_mapping,
    lose_to_a_mapping_of_all,
    lose_by_moving,
    lose_registration,
    lose_all_registrations,
]
VERBS: dict[str, Callable[[Session], object]] = {
    "collect": lambda session: session.collect(),
    "peek": lambda session: session.peek(),
    "reset": lambda session: session.reset(),
}


def lost(session: Session | Cursor, *regions: Region) -> dict[object, Ranges]:
    """The losses that a collect raises."""
    with pytest.raises(RegionLostError) as caught:
        session.collect(*regions)
    return {loss.region: loss.ranges for loss in caught.value.losses}


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("verb", VERBS)
def test_a_loss_is_raised_with_its_ranges(
    session: Session, memory: Raw, lose: Callable[[Raw], Ranges], verb: str
) -> None:
    """Every verb raises, with exactly what was lost, and goes on raising the same."""
    region = session.track(memory.pair, name="heap")
    ranges = lose(memory)
    for _ in range(2):
        with pytest.raises(RegionLostError, match="heap") as caught:
            VERBS[verb](session)
        assert [(loss.region, loss.ranges) for loss in caught.value.losses] == [(region, ranges)]
        for start, stop in ranges:
            assert f"[{start:#x}, {stop:#x})" in str(caught.value)
    assert region.lost
    assert "lost" in repr(region)


@pytest.mark.parametrize("lose", LOSSES)
def test_a_loss_leaves_nothing_registered_once_untracked(
    session: Session, memory: Raw, lose: Callable[[Raw], Ranges]
) -> None:
    """Untracking a lost region releases what of it is still ours, and the session is well again."""
    region = session.track(memory.pair)
    lose(memory)
    lost(session)
    session.untrack(region)
    memory.map_over(0, 1)  # so that there is something to register
    assert is_free(memory.start, memory.stop)
    assert dict(session.collect()) == {}


@pytest.mark.parametrize("lose", LOSSES)
def test_an_unnoticed_loss_leaves_nothing_registered_either(
    session: Session, memory: Raw, lose: Callable[[Raw], Ranges]
) -> None:
    """Untracking a region that was lost without a collect in between releases all the same."""
    region = session.track(memory.pair)
    lose(memory)
    session.untrack(region)
    memory.map_over(0, 1)
    assert is_free(memory.start, memory.stop)


def test_a_single_page_is_missed(session: Session) -> None:
    """The smallest region, unmapped, is lost."""
    with Raw(1) as memory:
        region = session.track(memory.pair)
        memory.unmap(0, 1)
        assert lost(session) == {region: (memory.at(0),)}


def test_a_page_that_came_back_is_still_lost(session: Session, memory: Raw) -> None:
    """Unmapped and mapped again at the same place: not what was registered."""
    region = session.track(memory.pair)
    memory.unmap(5, 7)
    memory.map_over(5, 7)
    assert lost(session) == {region: (memory.at(5, 7),)}


def test_all_losses_come_at_once(session: Session) -> None:
    """One error lists every lost region, and the healthy ones not."""
    with Raw(4) as a, Raw(4) as b, Raw(4) as c:
        first, healthy, last = (session.track(one.pair) for one in (a, b, c))
        a.unmap(0, 2)
        c.map_over(3, 4)
        assert lost(session) == {first: (a.at(0, 2),), last: (c.at(3),)}
        assert lost(session, last, healthy) == {last: (c.at(3),)}
        assert not healthy.lost


def test_memory_taken_by_another_userfaultfd_is_lost(session: Session, memory: Raw) -> None:
    """Replaced, and registered by somebody else with the same features: only a second look tells."""
    region = session.track(memory.pair)
    memory.map_over(4, 6)
    with taken(*memory.at(4, 6)):
        assert lost(session) == {region: (memory.at(4, 6),)}


def test_memory_taken_by_another_session_is_lost(session: Session, memory: Raw) -> None:
    """The other session's pages are its own; ours are lost, and named to the page."""
    region = session.track(memory.pair)
    memory.map_over(4, 6)
    with Session() as other:
        theirs = other.track(memory.piece(4, 6))
        memory.write(4)
        assert lost(session) == {region: (memory.at(4, 6),)}
        assert set(other.collect()[theirs]) == {0}
    assert lost(session) == {region: (memory.at(4, 6),)}


@pytest.mark.parametrize("noticed", [True, False])
def test_untracking_takes_nothing_from_the_new_owner(session: Session, memory: Raw, noticed: bool) -> None:
    """What somebody else has registered meanwhile stays registered and armed; the rest is released."""
    region = session.track(memory.pair)
    memory.map_over(4, 6)
    with taken(*memory.at(4, 6)) as other:
        if noticed:
            lost(session)
        session.untrack(region)
        assert is_registered(*memory.at(4, 6))
        other.register(*memory.at(4, 6))
        assert is_free(*memory.at(0, 4))
        assert is_free(*memory.at(6, 16))


@pytest.mark.parametrize("noticed", [True, False])
def test_closing_takes_nothing_from_the_new_owner(memory: Raw, noticed: bool) -> None:
    """Neither does closing the session."""
    with Session() as session:
        session.track(memory.pair)
        memory.map_over(4, 6)
        with taken(*memory.at(4, 6)):
            if noticed:
                lost(session)
            session.close()
            assert is_registered(*memory.at(4, 6))
            assert is_free(*memory.at(0, 4))
            assert is_free(*memory.at(6, 16))


def test_a_small_piece_in_a_large_region_is_released_around(session: Session) -> None:
    """One page of another's in the middle of 64 MiB: all the other pages are free after untrack."""
    pages = (64 << 20) // PAGE_SIZE
    with Raw(pages) as memory:
        region = session.track(memory.pair)
        memory.map_over(1001, 1002)
        with taken(*memory.at(1001)):
            session.untrack(region)
            assert is_free(*memory.at(0, 1001))
            assert is_free(*memory.at(1002, pages))


@pytest.mark.parametrize("lose", [lose_to_a_mapping, lose_registration, lose_by_moving])
def test_a_region_stays_lost_when_its_range_is_tracked_again(
    session: Session, memory: Raw, lose: Callable[[Raw], Ranges]
) -> None:
    """A new region over the same range works; the old one raises until it is untracked, noticed or not."""
    old = session.track(memory.pair, name="old")
    lose(memory)
    memory.map_over(0, 16)
    new = session.track(memory.pair, name="new")
    memory.write(3)
    assert set(lost(session)) == {old}
    assert set(session.collect(new)[new]) == {3}
    session.untrack(old)
    memory.write(4)
    assert set(session.collect()[new]) == {4}


def test_a_region_stays_lost_when_another_session_tracked_its_range(session: Session, memory: Raw) -> None:
    """Also when that session has gone again before anybody looked."""
    old = session.track(memory.pair)
    memory.map_over(0, 16)
    with Session() as other:
        other.track(memory.pair)
    assert set(lost(session)) == {old}
    session.untrack(old)
    new = session.track(memory.pair)
    memory.write(1)
    assert set(session.collect()[new]) == {1}


def test_the_other_regions_lose_nothing(session: Session, memory: Raw) -> None:
    """Their pages come in the next epoch, once the lost region is untracked, and nothing beside them."""
    with Raw(8) as other:
        region, healthy = session.track(memory.pair), session.track(other.pair)
        other.write(1, 5)
        memory.unmap(0, 1)
        for _ in range(3):
            lost(session)
            other.write(6)
        session.untrack(region)
        assert set(session.collect()[healthy]) == {1, 5, 6}
        assert session.collect().pages == 0


def test_a_neighbour_on_a_shared_page_loses_nothing(session: Session, memory: Raw) -> None:
    """Two regions meet in a page; one loses its end, the other has its writes in the next epoch."""
    half = PAGE_SIZE // 2
    left = session.track((memory.start, 4 * PAGE_SIZE + half))
    right = session.track((memory.start + 4 * PAGE_SIZE + half, 4 * PAGE_SIZE))
    memory.write(0, 2, 4)
    memory.unmap(7, 9)
    assert lost(session) == {right: (memory.at(7, 9),)}
    session.untrack(right)
    assert {0, 2, 4} <= set(session.collect()[left])
    memory.write(1, 4)
    assert set(session.collect()[left]) == {1, 4}


def test_narrowing_to_the_healthy_works(session: Session, memory: Raw) -> None:
    """A collect of healthy regions does not raise, and misses nothing."""
    with Raw(8) as other:
        region, healthy = session.track(memory.pair), session.track(other.pair)
        memory.unmap(0, 1)
        other.write(3)
        lost(session)
        assert set(session.collect(healthy)[healthy]) == {3}
        other.write(4)
        assert set(session.peek(healthy[4 * PAGE_SIZE :])[healthy]) == {4}
        session.reset(healthy)
        assert session.collect(healthy).pages == 0
        assert set(lost(session)) == {region}


def test_every_cursor_learns_of_the_loss(session: Session, memory: Raw) -> None:
    """All of them raise, and all of them have the healthy pages afterwards, each once."""
    with Raw(8) as other, session.cursor("second") as second:
        region, healthy = session.track(memory.pair), session.track(other.pair)
        other.write(2)
        memory.map_over(3, 4)
        for consumer in (second, session, second):
            assert lost(consumer) == {region: (memory.at(3),)}
        session.untrack(region)
        for consumer in (second, session):
            assert set(consumer.collect()[healthy]) == {2}
            assert consumer.collect().pages == 0


def test_a_failed_peek_loses_nothing(session: Session, memory: Raw) -> None:
    """A peek that raises leaves everything to the next collect."""
    with Raw(8) as other:
        region, healthy = session.track(memory.pair), session.track(other.pair)
        other.write(2)
        memory.unmap(3, 4)
        with pytest.raises(RegionLostError):
            session.peek()
        session.untrack(region)
        assert set(session.collect()[healthy]) == {2}


def test_a_failed_reset_forgets_nothing(session: Session, memory: Raw) -> None:
    """A reset that raises has not been."""
    with Raw(8) as other:
        region, healthy = session.track(memory.pair), session.track(other.pair)
        other.write(2)
        memory.unmap(3, 4)
        with pytest.raises(RegionLostError):
            session.reset()
        session.untrack(region)
        assert set(session.collect()[healthy]) == {2}


def test_an_epoch_of_a_lost_region_may_be_aborted(session: Session, memory: Raw) -> None:
    """Abort after the loss gives the healthy pages back and raises nothing."""
    with Raw(8) as other:
        region, healthy = session.track(memory.pair), session.track(other.pair)
        memory.write(1)
        other.write(2)
        epoch = session.collect()
        memory.unmap(3, 4)
        lost(session)
        epoch.abort()
        session.untrack(region)
        assert set(session.collect()[healthy]) == {2}


def test_mark_on_a_lost_region_raises(session: Session, memory: Raw) -> None:
    """Nobody can say of lost memory what was written."""
    region = session.track(memory.pair)
    memory.unmap(3, 4)
    lost(session)
    with pytest.raises(RegionLostError):
        session.mark(region)


def test_an_error_does_not_count_as_an_epoch(session: Session, memory: Raw) -> None:
    """Epoch numbers count what was delivered."""
    region = session.track(memory.pair)
    assert session.collect().number == 1
    memory.map_over(3, 4)
    lost(session)
    session.untrack(region)
    assert session.collect().number == 2


def test_mprotect_is_no_loss(session: Session, memory: Raw) -> None:
    """Splitting the mapping by permissions keeps every registration."""
    import ctypes

    region = session.track(memory.pair)
    libc = ctypes.CDLL(None)
    for protection in (0, 1, 3):
        assert libc.mprotect(ctypes.c_void_p(memory.at(3)[0]), PAGE_SIZE, protection) == 0
        assert session.collect().pages == 0
    memory.write(3)
    assert set(session.collect()[region]) == {3}


def test_untracked_twice_is_closed(session: Session, memory: Raw) -> None:
    """A lost region is untracked once, as any other."""
    region = session.track(memory.pair)
    memory.unmap(3, 4)
    session.untrack(region)
    with pytest.raises(ClosedError):
        session.untrack(region)


def test_a_second_session_is_refused_and_told_what_to_do(session: Session, memory: Raw) -> None:
    """Two sessions on one page: BusyError with the range and the way out; the first one has all writes."""
    region = session.track(memory.piece(0, 8))
    with Session() as other:
        with pytest.raises(BusyError, match="Share a session") as caught:
            other.track(memory.piece(4, 12))
        assert (caught.value.start, caught.value.stop) == memory.at(4, 12)
        assert f"region at {memory.start:#x} of {session!r}" in str(caught.value)
        assert "alloc" not in str(caught.value)  # which would not help
        memory.write(2, 5)
        assert other.regions == ()
        assert is_free(*memory.at(8, 12))
    assert set(session.collect()[region]) == {2, 5}


def test_neighbours_of_two_sessions_on_one_page(session: Session, memory: Raw) -> None:
    """The error names the other one, and memory that has its pages for itself."""
    session.track((memory.start + 100, 50), name="mine")
    with Session() as other, pytest.raises(BusyError, match=r"region 'mine' of .* same page") as caught:
        other.track((memory.start + 150, 2 * PAGE_SIZE), name="theirs")
    assert repr(session) in str(caught.value)
    assert "dirtytrack.alloc()" in str(caught.value)
    assert "dirtytrack.default_session()" in str(caught.value)


def test_a_userfaultfd_of_somebody_else_is_not_ours(session: Session, memory: Raw) -> None:
    """Sessions that track other memory, or compare, have nothing to do with it."""
    with Userfaultfd() as foreign, Session() as other, Session(backend="compare") as comparing:
        foreign.register(*memory.at(8, 16))
        other.track(memory.piece(0, 4))
        comparing.track(memory.pair)
        with pytest.raises(BusyError, match="Another userfaultfd") as caught:
            session.track(memory.piece(8, 12))
        assert "region" not in str(caught.value)


def test_a_refused_track_does_not_unregister_the_owner(session: Session, memory: Raw) -> None:
    """The range of a userfaultfd outside of dirtytrack is still its own after BusyError."""
    with Userfaultfd() as other:
        other.register(*memory.at(8, 16))
        with pytest.raises(BusyError):
            session.track(memory.pair)
        assert is_registered(*memory.at(8, 16))
        assert is_free(*memory.at(0, 8))
