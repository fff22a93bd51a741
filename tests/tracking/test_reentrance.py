"""Calls within calls, as a signal handler or a destructor makes them: no deadlock, and both are right."""

from __future__ import annotations

import array
import gc
import itertools
from collections.abc import Callable, Iterator

import pytest

import dirtytrack
from _lib.interrupts import interrupted_at, traced
from dirtytrack import Mirror, Session
from dirtytrack.barrier import CardTable, get_write_watch, reset_write_watch
from dirtytrack.snapshot import History, Snapshot

pytestmark = traced

_PAGE = 4096
_PAGES = 8
_serial = itertools.count()
_NAMES = [
    "collect",
    "collect of one",
    "peek",
    "reset",
    "mark",
    "track",
    "cursor",
    "open",
    "default",
    "repr",
    "write watch",
    "reset write watch",
    "diff",
    "diff that advances",
    "advance",
    "rollback",
    "verify",
    "snapshot",
    "save",
    "restore",
    "states",
    "history",
    "mirror update",
    "mirror",
    "peek of cards",
    "take of cards",
    "mark of cards",
    "grow",
]


class World:
    """One object of each kind, and its verbs."""

    def __init__(self) -> None:
        self.memory = dirtytrack.alloc(_PAGES * _PAGE)
        self.session = Session()
        self.region = self.session.track(self.memory, name="memory")
        self.cursor = self.session.cursor("mine")
        self.snapshot = Snapshot(self.session, self.region)
        self.history = History(self.session, self.region)
        self.state = self.history.save()
        self.mirror = Mirror(self.session, self.region)
        self.cards = CardTable(self.session, dirtytrack.alloc(_PAGES * _PAGE))

    def close(self) -> None:
        """Close all of them."""
        for one in (self.cards, self.mirror, self.history, self.snapshot, self.session):
            one.close()

    def verbs(self) -> dict[str, Callable[[], object]]:
        """What can be called; each leaves the contents of memory as they were, and no object closed."""
        session, region, addresses = self.session, self.region, array.array("Q", bytes(800))
        place = region.address, region.nbytes
        acts: list[Callable[[], object]] = [
            lambda: session.collect().pages,
            lambda: session.collect(region)[region],
            lambda: self.cursor.peek(region).pages,
            session.reset,
            lambda: session.mark(region, 0, 10),
            lambda: session.untrack(session.track(bytearray(9000))),
            lambda: session.cursor(f"cursor {next(_serial)}").close(),
            lambda: Session().close(),
            lambda: dirtytrack.default_session().regions,
            lambda: repr([session, region, self.cursor, self.state, self.cards, self.mirror]),
            lambda: get_write_watch(*place, addresses, reset=True),
            lambda: reset_write_watch(*place),
            self.snapshot.diff,
            lambda: self.snapshot.diff(advance=True),
            self.snapshot.advance,
            self.snapshot.rollback,
            self.snapshot.verify,
            lambda: Snapshot(session, bytearray(9000)).close(),
            lambda: self.history.drop(self.history.save()),
            lambda: self.history.restore(self.state),
            lambda: (self.history.states, self.history.current, self.history.nbytes),
            lambda: History(session, bytearray(9000)).close(),
            self.mirror.update,
            lambda: Mirror(session, bytearray(9000)).close(),
            lambda: self.cards.peek(bytearray(self.cards.nbytes)),
            lambda: self.cards.take(bytearray(self.cards.nbytes)),
            lambda: self.cards.mark(self.cards.segments[0].region.address, 1),
            self._grow,
        ]
        return dict(zip(_NAMES, acts, strict=True))

    def _grow(self) -> None:
        heap = dirtytrack.alloc(_PAGE)
        self.cards.grow(heap)
        self.cards.shrink(heap)

    def check(self) -> None:
        """Nothing was lost, and what is kept is right."""
        self.cursor.reset()
        assert self.snapshot.verify().nbytes == 0
        self.memory[3 * _PAGE] ^= 1
        assert [change.start for change in self.snapshot.diff()] == [3 * _PAGE]
        assert set(self.cursor.collect(self.region)[self.region]) == {3}
        self.mirror.update()
        assert self.mirror.view == self.memory[:]
        self.snapshot.rollback()
        self.mirror.update()
        assert self.mirror.view == self.memory[:]
        numbers = [state.number for state in self.history.states]
        assert numbers == sorted(set(numbers))


@pytest.fixture
def world() -> Iterator[World]:
    """Closed in the end."""
    made = World()
    yield made
    made.close()


@pytest.mark.forked
@pytest.mark.parametrize("name", _NAMES)
def test_a_handler_calls_everything_in_the_middle_of(world: World, name: str) -> None:
    """At every point of one verb a handler calls all verbs."""
    verbs = world.verbs()
    dirtytrack.default_session()
    handled, count = True, 0

    def handle() -> None:
        nonlocal handled
        handled = True
        for act in verbs.values():
            act()

    while handled:
        handled = False
        count += 1
        with interrupted_at(count, by=handle):
            verbs[name]()
        if count % 7 == 0:
            world.check()
    assert count > 2
    world.check()


@pytest.mark.forked
def test_a_destructor_calls_everything_in_the_middle_of_everything(world: World) -> None:
    """Garbage is collected all the time."""
    verbs, calls = world.verbs(), 0

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            nonlocal calls
            if calls < 60:
                calls += 1
                for act in verbs.values():
                    act()

    threshold = gc.get_threshold()
    gc.set_threshold(5, 1, 1)
    try:
        for act in verbs.values():
            Cycle()
            act()
    finally:
        gc.set_threshold(*threshold)
    assert calls >= len(verbs) // 2
    world.check()


@pytest.mark.forked
def test_a_close_within_a_call_waits_for_its_end() -> None:
    """The call is done as if nothing was; then the snapshot is closed."""
    for count in range(1, 1000):
        memory, handled = dirtytrack.alloc(_PAGES * _PAGE), []
        with Session() as session, Snapshot(session, memory) as snapshot:
            memory[5 * _PAGE] = 1
            with interrupted_at(count, by=lambda one=snapshot, told=handled: (told.append(1), one.close())):
                try:
                    found = snapshot.diff()
                except dirtytrack.ClosedError:
                    found = None  # it came before the call had its turn
            assert found is None or [change.start for change in found] == [5 * _PAGE]
            assert snapshot.closed == bool(handled)
        if not handled:
            break
    assert count > 5
