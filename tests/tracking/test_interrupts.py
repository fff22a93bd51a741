"""Ctrl-C anywhere: at every point of the library in turn, and thousands of times from a timer."""

from __future__ import annotations

import gc
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

import dirtytrack
from _lib.interrupts import Storm, at_every_point, interrupted_at, is_interrupted, traced
from _lib.raw import Raw, is_free, open_descriptors
from _lib.support import PAGE_SIZE, Memory, in_child
from dirtytrack import Region, Session


@pytest.fixture
def memory() -> Iterator[Raw]:
    with Raw(8) as memory:
        yield memory


def copy_out(session: Session, shadow: bytearray) -> None:
    """The loop of a user: copy what was written."""
    with session.collect() as epoch:
        for region, pages in epoch.items():
            for piece in pages.slices():
                shadow[piece] = region.view[piece]


@traced
@pytest.mark.parametrize("cursors", [0, 1])
@pytest.mark.parametrize("regions", [1, 2])
def test_an_interrupted_collect_loses_nothing(session: Session, cursors: int, regions: int) -> None:
    """Interrupted anywhere in collect, the block or its end: the next round brings the copy up to date."""
    with Memory(8) as memory:
        shadow = bytearray(memory.nbytes)
        tracked = [session.track(memory.map) for _ in range(regions)]
        others = [session.cursor(f"cursor {i}") for i in range(cursors)]
        page = 0

        def act(count: int) -> None:
            nonlocal page
            page = (page + 1) % 8
            memory.touch(page)
            with interrupted_at(count):
                copy_out(session, shadow)

        def check() -> None:
            copy_out(session, shadow)
            assert shadow == memory.map[:]

        at_every_point(act, check)
        check()
        for other in others:
            assert set(other.collect()[tracked[0]]) == set(range(8))
        for region in tracked:
            session.untrack(region)


@pytest.mark.parametrize("narrow", [False, True])
def test_the_handler_of_an_interrupted_collect_sees_every_page(
    session: Session, memory: Raw, narrow: bool
) -> None:
    """``except KeyboardInterrupt: collect()`` holds what the interrupted call had found."""
    region = session.track(memory.pair)
    what = [region[: 4 * PAGE_SIZE]] if narrow else []
    for count in range(1, 1000):
        memory.write(1)
        try:
            with interrupted_at(count):
                epoch = session.collect(*what)
        except KeyboardInterrupt:
            assert set(session.collect()[region]) == {1}
            continue
        assert set(epoch[region]) == {1}
        return


@traced
def test_an_interrupted_abort_is_done_or_not(session: Session, memory: Raw) -> None:
    """Either way it can be repeated, and the pages come back once."""
    region = session.track(memory.pair)
    epoch = session.collect()

    def act(count: int) -> None:
        nonlocal epoch
        memory.write(2)
        epoch = session.collect()
        assert set(epoch[region]) == {2}
        with interrupted_at(count):
            epoch.abort()

    def check() -> None:
        epoch.abort()
        assert set(session.collect()[region]) == {2}
        assert session.collect().pages == 0

    for count in range(1, 200):
        struck = is_interrupted(act, count)
        check()
        if not struck:
            return


@pytest.mark.registration
@traced
def test_an_interrupted_track_leaves_nothing(session: Session, memory: Raw) -> None:
    """Not a region, not a registration; a neighbour on the same page keeps its writes."""
    neighbour = session.track(memory.piece(0, 2))

    def act(count: int) -> None:
        memory.write(1)
        with interrupted_at(count):
            session.track(memory.piece(1, 8))

    def check() -> None:
        assert session.regions == (neighbour,)
        assert is_free(*memory.at(2, 8))
        assert {region: set(pages) for region, pages in session.collect().items()} == {neighbour: {1}}

    at_every_point(act, check)


@pytest.mark.registration
@traced
def test_an_interrupted_untrack_can_be_repeated(session: Session, memory: Raw) -> None:
    """Afterwards the region is tracked or it is not; in each state collecting works, and untrack ends it."""
    other = session.track(memory.piece(0, 2))
    region = other

    def act(count: int) -> None:
        nonlocal region
        region = session.track(memory.piece(2, 8))
        memory.write(1)
        with interrupted_at(count):
            session.untrack(region)

    def check() -> None:
        epoch = session.collect()
        assert {one: set(pages) for one, pages in epoch.items()} in (
            {other: {1}},
            {other: {1}, region: set()},
        )
        with suppress(dirtytrack.ClosedError):
            session.untrack(region)
        assert not region.tracked
        assert session.regions == (other,)
        assert is_free(*memory.at(2, 8))

    at_every_point(act, check)


@traced
def test_an_interrupted_cursor_leaves_its_name_free(session: Session, memory: Raw) -> None:
    """It can be opened at once, and the older cursor has every write."""
    region = session.track(memory.pair)

    def act(count: int) -> None:
        memory.write(1)
        with interrupted_at(count):
            session.cursor("second").close()

    def check() -> None:
        for cursor in tuple(session._cursors.values()):
            if cursor.name == "second":  # opened, and its close was interrupted
                cursor.close()
        with session.cursor("second") as second:
            assert set(session.collect()[region]) == {1}
            memory.write(2)
            assert set(second.collect()[region]) == {2}
            session.reset()

    at_every_point(act, check)


@traced
def test_an_interrupted_cursor_is_not_left_open(session: Session, memory: Raw) -> None:
    """Nobody has a handle of it: its name is free."""
    session.track(memory.pair)
    for count in range(1, 1000):
        try:
            with interrupted_at(count):
                cursor = session.cursor("second")
        except KeyboardInterrupt:
            assert list(session._cursors) == ["default"]
            continue
        cursor.close()
        return


@traced
def test_an_interrupted_close_can_be_repeated(memory: Raw) -> None:
    """After another close nothing is registered and no descriptor is open."""
    before = open_descriptors()
    session = Session()
    session.close()

    def act(count: int) -> None:
        nonlocal session
        session = Session()
        session.track(memory.pair)
        session.track(memory.piece(0, 2))
        with interrupted_at(count):
            session.close()

    def check() -> None:
        session.close()
        assert is_free(memory.start, memory.stop)
        assert open_descriptors() == before

    at_every_point(act, check)
    check()


PATTERNS: dict[str, Callable[[random.Random, int], list[int]]] = {
    "one page": lambda rng, pages: [rng.randrange(pages)],
    "every other page": lambda rng, pages: list(range(rng.randrange(2), pages, 2)),
    "a random tenth": lambda rng, pages: rng.sample(range(pages), pages // 10),
    "a block": lambda _, pages: list(range(pages // 3, pages // 2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("bursts", [1, 2])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_storm_of_interrupts_loses_nothing(pattern: str, bursts: int) -> None:
    """A thousand interrupts over a tight collect loop: in the end the copy is the memory."""

    def child() -> int:
        rng = random.Random(1)
        storm = Storm(2, bursts)
        with Session() as session, Memory(600) as memory:
            region = session.track(memory.map)
            shadow = bytearray(memory.nbytes)

            def act() -> None:
                for page in PATTERNS[pattern](rng, memory.pages):
                    memory.map[page * PAGE_SIZE + rng.randrange(PAGE_SIZE)] = rng.randrange(256)
                copy_out(session, shadow)

            while storm.struck < 1000:
                storm.round(act)
            gc.collect()
            copy_out(session, shadow)
            assert shadow == memory.map[:]
            assert session.collect().pages == 0
            session.untrack(region)
        return storm.struck

    assert in_child(child).check() >= 1000


@pytest.mark.slow
def test_a_storm_over_everything_leaves_nothing_registered() -> None:
    """Track, untrack, cursors, aborts and peeks under interrupts: afterwards all can be released."""

    def child() -> None:
        rng = random.Random(3)
        storm = Storm(4, 2)
        before = open_descriptors()
        with Session() as session, Raw(64) as memory:

            def act() -> None:
                first = rng.randrange(60)
                region: Region = session.track(memory.piece(first, first + rng.randint(1, 4)))
                memory.write(first)
                with session.cursor(f"cursor {rng.random()}") as cursor, session.peek() as epoch:
                    assert epoch[region]
                    cursor.collect().abort()
                session.untrack(region)

            while storm.struck < 1000:
                storm.round(act)
            gc.collect()
            for region in session.regions:
                session.untrack(region)
            assert dict(session.collect()) == {}
            whole = session.track(memory.pair)
            memory.write(5)
            assert set(session.collect()[whole]) == {5}
            session.close()
            assert is_free(memory.start, memory.stop)
        assert open_descriptors() == before

    in_child(child).check()


@traced
@pytest.mark.parametrize("name", ["wp-async", "compare"])
def test_an_interrupted_opening_leaves_no_descriptor(name: str) -> None:
    """At every point: what is open is closed with what nobody has."""
    dirtytrack.Session(backend=name).close()
    before = open_descriptors()

    def act(count: int) -> None:
        with interrupted_at(count), warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            dirtytrack.Session(backend=name).close()

    def check() -> None:
        gc.collect()
        assert open_descriptors() == before

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        at_every_point(act, check)
