"""An object that has other storage than when it was tracked: whatever looks at its memory says so.

The memory that it had may still be mapped and tracked, so that only the object can tell. Nothing may be
answered for it, read from it or written to it: it may be another object's by now.
"""

from __future__ import annotations

import array
import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dirtytrack
from _lib.support import PAGE_SIZE
from _lib.torch_like import Storage, Tensor
from dirtytrack import Region, RegionLostError, Session
from dirtytrack.barrier import CardTable, get_write_watch, reset_write_watch
from dirtytrack.checkpoint import Checkpointer
from dirtytrack.snapshot import History, Snapshot

NBYTES = 8 * PAGE_SIZE


class Moving:
    """A tensor that is tracked, and whose storage can be replaced."""

    def __init__(self, session: Session) -> None:
        self.storage = Storage(dirtytrack.alloc(NBYTES))
        self.first = self.storage.memory
        self.tensor = Tensor(self.storage)
        self.region: Region = session.track(self.tensor, name="weights")

    def move(self) -> None:
        """Give it other storage; the old one stays mapped, and is written to by whoever has it now."""
        self.storage.memory = dirtytrack.alloc(NBYTES)
        self.first[PAGE_SIZE] = 5


@pytest.fixture
def moving(session: Session) -> Moving:
    return Moving(session)


VERBS: dict[str, Callable[[Session, Region], object]] = {
    "collect": lambda session, region: session.collect(),
    "collect a region": lambda session, region: session.collect(region),
    "collect a slice": lambda session, region: session.collect(region[:10]),
    "peek": lambda session, region: session.peek(),
    "reset": lambda session, region: session.reset(region),
    "mark": lambda session, region: session.mark(region),
    "mark a slice": lambda session, region: session.mark(region[:10]),
}


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_of_a_session_raises(session: Session, moving: Moving, verb: str, again: bool) -> None:
    """The first that looks, and each after it; it names the region and all of its memory."""
    moving.move()
    if again:
        with pytest.raises(RegionLostError):
            session.peek()
    with pytest.raises(RegionLostError, match="'weights'") as caught:
        VERBS[verb](session, moving.region)
    assert [tuple(loss) for loss in caught.value.losses] == [(moving.region, (moving.region.page_range,))]
    assert moving.region.lost


def test_every_verb_of_a_cursor_raises(session: Session, moving: Moving) -> None:
    """A cursor that did not see the first look, too; what moved back stays lost."""
    other = session.cursor("other")
    moving.move()
    with pytest.raises(RegionLostError):
        session.collect()
    moving.storage.memory = moving.first
    for verb in (other.collect, other.peek, other.reset):
        with pytest.raises(RegionLostError):
            verb()


@pytest.mark.parametrize("verb", ["diff", "rollback", "advance", "verify"])
def test_every_verb_of_a_snapshot_raises(session: Session, moving: Moving, verb: str) -> None:
    """And writes nothing to where the object was."""
    with Snapshot(session, moving.region) as snapshot:
        moving.move()
        before = bytes(moving.first)
        with pytest.raises(RegionLostError, match="'weights'"):
            getattr(snapshot, verb)()
        assert bytes(moving.first) == before


@pytest.mark.parametrize("verb", ["save", "restore"])
def test_every_verb_of_a_history_raises(session: Session, moving: Moving, verb: str) -> None:
    """And writes nothing to where the object was."""
    with History(session, moving.region) as history:
        state = history.save()
        moving.move()
        before = bytes(moving.first)
        with pytest.raises(RegionLostError, match="'weights'"):
            history.save() if verb == "save" else history.restore(state)
        assert bytes(moving.first) == before


def test_a_save_raises(session: Session, moving: Moving, tmp_path: Path) -> None:
    """A delta of other memory would be no state of the object."""
    with Checkpointer(tmp_path / "chain", {"weights": moving.region}, session=session) as checkpoints:
        checkpoints.save(wait=True)
        moving.move()
        with pytest.raises(RegionLostError, match="'weights'"):
            checkpoints.save()


def cards_of(session: Session, moving: Moving) -> CardTable:
    return CardTable(session, moving.region, card_size=PAGE_SIZE)


@pytest.mark.parametrize("verb", ["take", "peek"])
def test_a_card_table_sets_all_cards(session: Session, moving: Moving, verb: str) -> None:
    """Nothing is raised in a collector's pause."""
    with cards_of(session, moving) as cards:
        (segment,) = cards.segments
        moving.move()
        out = bytearray(cards.nbytes)
        for _ in range(2):
            assert getattr(cards, verb)(out) == 8
            assert out == b"\xff"
            assert cards.lost == (segment,)


@pytest.mark.parametrize("known", [False, True])
def test_a_mark_of_lost_memory_needs_nothing(session: Session, moving: Moving, known: bool) -> None:
    """All of its cards are set from here on; the cards of another segment in the same range are marked."""
    with cards_of(session, moving) as cards:
        moving.move()
        if known:
            with pytest.raises(RegionLostError):
                session.peek()
        cards.mark(moving.region.address, NBYTES)
        assert cards.take(bytearray(1)) == 8


@pytest.mark.registration
@pytest.mark.parametrize("known", [False, True])
def test_a_mark_goes_on_behind_lost_memory(session: Session, known: bool) -> None:
    """A range over two segments of which the first is lost: the second one's cards are marked."""
    memory = dirtytrack.alloc(2 * NBYTES)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    low = Moving.__new__(Moving)
    low.storage = Storage(memory)
    low.tensor = Tensor(low.storage)
    low.tensor.numel = lambda: NBYTES // 4  # type: ignore[method-assign]
    high = session.track((start + NBYTES, NBYTES))
    with CardTable(session, low.tensor, card_size=PAGE_SIZE) as cards:
        cards.grow(high)
        cards.take(bytearray(cards.nbytes))
        low.storage.memory = dirtytrack.alloc(2 * NBYTES)
        if known:
            with pytest.raises(RegionLostError):
                session.peek()
        cards.mark(start, NBYTES + 1)
        out = bytearray(cards.nbytes)
        assert cards.take(out) == 9
        assert out == b"\xff\x01"


WATCHES: dict[str, Callable[[int, int, Any], object]] = {
    "get": lambda start, nbytes, out: get_write_watch(start, nbytes, out, reset=False),
    "get and reset": lambda start, nbytes, out: get_write_watch(start, nbytes, out, reset=True),
    "reset": lambda start, nbytes, out: reset_write_watch(start, nbytes),
}


@pytest.mark.parametrize("watch", WATCHES)
@pytest.mark.parametrize("known", [False, True])
def test_a_write_watch_says_that_it_is_lost(
    session: Session, moving: Moving, watch: str, known: bool
) -> None:
    """Never "no page", whether another call has found the loss before or none has."""
    moving.move()
    if known:
        with pytest.raises(RegionLostError):
            session.peek()
    out = array.array("Q", bytes(8 * 20))
    with pytest.raises(RegionLostError, match="'weights'"):
        WATCHES[watch](moving.region.address, moving.region.nbytes, out)
    assert not any(out)


@pytest.mark.parametrize("nbytes", [100, 1 << 20])
def test_an_object_of_ctypes_that_was_resized(session: Session, nbytes: int) -> None:
    """Which ctypes does although the object is exported; it can be tracked anew where it is."""
    thing = (ctypes.c_ubyte * nbytes)()
    region = session.track(thing)
    ctypes.resize(thing, 4 << 20)
    with pytest.raises(RegionLostError):
        session.collect()
    session.untrack(region)
    anew = session.track(thing)
    assert anew.address == ctypes.addressof(thing)
    thing[0] = 1
    assert 0 in session.collect()[anew]  # and a page that it shares with a neighbour may be there, too


def test_the_other_regions_are_as_they_were(session: Session, moving: Moving) -> None:
    """What was written to them is in their next epoch."""
    memory = dirtytrack.alloc(NBYTES)
    other = session.track(memory)
    moving.move()
    memory[3 * PAGE_SIZE] = 1
    with pytest.raises(RegionLostError):
        session.collect()
    assert session.collect(other)[other] == {3}
    session.untrack(moving.region)
    assert dict(session.collect()) == {other: other.page_set([])}
