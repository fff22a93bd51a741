"""Room for an answer that can't be stored to: an error says where, and nothing is taken."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest

import dirtytrack
from _lib.support import PAGE_SIZE, address_of
from _lib.untouchable import BAD, KINDS, PAGES, Untouchable
from dirtytrack import KernelError, Session
from dirtytrack.barrier import CardTable, get_write_watch

pytestmark = pytest.mark.forked

_CARD = 16  # of the heap's bytes: so many cards that the bytes of the map fill all pages of the room
_CARDS = PAGES * PAGE_SIZE


@pytest.fixture(params=KINDS)
def room(request: pytest.FixtureRequest) -> Untouchable:
    """Memory to be spoiled."""
    kind: type[Untouchable] = request.param
    return kind()


@pytest.fixture
def session() -> Iterator[Session]:
    """A session."""
    with Session() as session:
        yield session


def _view(room: Untouchable, dtype: str) -> np.ndarray:
    held = (ctypes.c_char * (room.pages * PAGE_SIZE)).from_address(room.address)
    return np.frombuffer(held, dtype)


def _check(error: KernelError, room: Untouchable) -> None:
    assert "write to out" in str(error)
    assert error.start is not None
    assert error.stop is not None
    bad = room.address + BAD * PAGE_SIZE
    assert error.start <= bad < error.stop <= room.address + PAGES * PAGE_SIZE


@pytest.mark.parametrize("verb", ["take", "peek"])
def test_of_cards(session: Session, room: Untouchable, verb: str) -> None:
    """The next take has what this one would have had."""
    heap = dirtytrack.alloc(_CARDS * _CARD)
    with CardTable(session, heap, card_size=_CARD, layout="bytes") as cards:
        out = _view(room, "uint8")
        cards.take(out)
        heap[3 * PAGE_SIZE] = 1
        room.spoil()
        with pytest.raises(KernelError) as caught:
            getattr(cards, verb)(out)
        _check(caught.value, room)
        room.mend()
        assert cards.take(out) == PAGE_SIZE // _CARD
        assert np.flatnonzero(out)[0] == 3 * PAGE_SIZE // _CARD


def test_of_a_write_watch(session: Session, room: Untouchable) -> None:
    """The same."""
    heap = dirtytrack.alloc(8 * PAGE_SIZE)
    session.track(heap)
    address = address_of(heap)
    out = _view(room, "uint64")
    get_write_watch(address, len(heap), out, reset=True)
    heap[3 * PAGE_SIZE] = 1
    room.spoil()
    with pytest.raises(KernelError) as caught:
        get_write_watch(address, len(heap), out, reset=True)
    _check(caught.value, room)
    room.mend()
    assert get_write_watch(address, len(heap), out, reset=True).pages == 1
    assert out[0] == address + 3 * PAGE_SIZE
