"""Cursors: where they begin, that each sees every write once, and how they end."""

from __future__ import annotations

import random

import pytest

from _lib.raw import Raw
from _lib.support import PAGE_SIZE
from dirtytrack import ClosedError, Cursor, Session


def test_a_cursor_begins_at_its_creation(session: Session, memory: Raw) -> None:
    """Writes before that are not its own, and still the others'."""
    region = session.track(memory.pair)
    memory.write(1, 2)
    second = session.cursor("second")
    memory.write(2, 3)
    third = session.cursor("third")
    assert set(third.collect()[region]) == set()
    assert set(second.collect()[region]) == {2, 3}
    assert set(session.collect()[region]) == {1, 2, 3}


def test_the_sessions_own_cursor_is_there_from_the_start(session: Session, memory: Raw) -> None:
    """It is called "default", and has what was written before anybody asked."""
    region = session.track(memory.pair)
    memory.write(1)
    epoch = session.collect()
    assert set(epoch[region]) == {1}
    assert epoch.cursor.name == "default"
    assert epoch.cursor.session is session


def test_cursors_feed_each_other(session: Session, memory: Raw) -> None:
    """What one cursor's scan re-arms is in the others' next epochs, exactly once."""
    region = session.track(memory.pair)
    second = session.cursor("second")
    memory.write(1)
    assert set(session.collect()[region]) == {1}
    memory.write(2)
    assert set(session.collect()[region]) == {2}
    assert set(second.collect()[region]) == {1, 2}
    for consumer in (session, second):
        assert consumer.collect().pages == 0


def test_a_reset_is_its_own_cursors_affair(session: Session, memory: Raw) -> None:
    """What one forgets the others still get."""
    region = session.track(memory.pair)
    second = session.cursor("second")
    memory.write(1)
    session.reset()
    memory.write(2)
    assert set(session.collect()[region]) == {2}
    assert set(second.collect()[region]) == {1, 2}


def test_a_new_region_is_everybodys(session: Session, memory: Raw) -> None:
    """Cursors that are older than a region see its writes from the start, on top of its neighbours'."""
    second = session.cursor("second")
    old = session.track(memory.piece(0, 8))
    memory.write(7)
    new = session.track(memory.piece(6, 16))
    memory.write(8)
    for consumer in (session, second):
        epoch = consumer.collect()
        assert (set(epoch[old]), set(epoch[new])) == ({7}, {2})


def test_names_are_unique_while_open(session: Session) -> None:
    """A name that is taken is a ValueError; closing sets it free."""
    cursor = session.cursor("one")
    for name in ("one", "default"):
        with pytest.raises(ValueError, match=name):
            session.cursor(name)
    cursor.close()
    cursor.close()
    with session.cursor("one") as again:
        assert again is not cursor
        cursor.close()  # which is not the new one's end
        assert again.collect().number == 1
    session.cursor("one")


@pytest.mark.parametrize(("name", "error"), [("", ValueError), (None, TypeError), (3, TypeError)])
def test_a_name_is_a_string(session: Session, name: object, error: type[Exception]) -> None:
    """And not an empty one."""
    with pytest.raises(error, match="name"):
        session.cursor(name)  # type: ignore[arg-type]


def test_the_sessions_own_cursor_is_not_closed_by_itself(session: Session, memory: Raw) -> None:
    """It is at hand through an epoch; to close it would leave the session without."""
    session.track(memory.pair)
    with pytest.raises(ValueError, match="closed with the session"):
        session.collect().cursor.close()
    memory.write(3)
    assert session.collect().pages == 1


def test_a_closed_cursor_is_closed(session: Session, memory: Raw) -> None:
    """Every verb says so; its epochs stay readable, and an abort does nothing to the others."""
    region = session.track(memory.pair)
    cursor = session.cursor("second")
    memory.write(1)
    epoch = cursor.collect()
    cursor.close()
    for verb in (cursor.collect, cursor.peek, cursor.reset):
        with pytest.raises(ClosedError, match="second"):
            verb()
    assert set(epoch[region]) == {1}
    session.cursor("third")
    epoch.abort()
    assert set(session.collect()[region]) == {1}


def test_the_slot_of_a_closed_cursor_starts_empty(session: Session, memory: Raw) -> None:
    """A cursor that takes an old one's place inherits nothing of it."""
    region = session.track(memory.pair)
    for page in range(5):
        cursor = session.cursor("second")
        memory.write(page)
        session.peek()
        assert set(cursor.peek()[region]) == {page}
        cursor.close()


def test_repr_names_it(session: Session) -> None:
    """A cursor says whose it is."""
    assert "'second'" in repr(session.cursor("second"))


def test_verbs_of_a_cursor_are_those_of_the_session(session: Session, memory: Raw) -> None:
    """Narrowing, peeking and resetting by region work on every cursor."""
    left, right = session.track(memory.piece(0, 8)), session.track(memory.piece(8, 16))
    second = session.cursor("second")
    memory.write(1, 9)
    assert list(second.peek(right)) == [right]
    second.reset(left)
    assert {region: set(pages) for region, pages in second.collect().items()} == {left: set(), right: {1}}
    assert {region: set(pages) for region, pages in session.collect().items()} == {left: {1}, right: {1}}


@pytest.mark.parametrize("seed", range(10))
def test_every_cursor_sees_every_write_once(seed: int) -> None:
    """Random writes, verbs, cursors and regions, against a model of what is pending for each cursor."""
    rng = random.Random(seed)
    pages = 24
    ranges = [(0, 10), (6, 16), (16, 24), (12, 14)]
    with Session() as session, Raw(pages) as memory:
        regions = [session.track(memory.piece(*span)) for span in ranges]
        cursors: dict[str, Session | Cursor] = {"default": session}
        coming: dict[str, list[set[int]]] = {"default": [set() for _ in ranges]}
        for step in range(600):
            action = rng.random()
            name = rng.choice(list(cursors))
            chosen = rng.sample(range(len(ranges)), rng.randint(1, len(ranges)))
            if action < 0.5:
                page = rng.randrange(pages)
                memory.write(page)
                add(coming, ranges, page)
            elif action < 0.6:
                page = rng.randrange(pages)
                for which, (first, last) in enumerate(ranges):
                    if first <= page < last:
                        session.mark(
                            regions[which], (page - first) * PAGE_SIZE, (page - first) * PAGE_SIZE + 1
                        )
                        add(coming, ranges, page)
                        break
            elif action < 0.65 and len(cursors) < 4:
                new = f"cursor {step}"
                cursors[new] = session.cursor(new)
                coming[new] = [set() for _ in ranges]
            elif action < 0.68 and name != "default":
                cursors.pop(name).close()  # type: ignore[union-attr]
                del coming[name]
            elif action < 0.73:
                cursors[name].reset(*(regions[i] for i in chosen))
                for i in chosen:
                    coming[name][i] = set()
            else:
                collects = action < 0.9
                epoch = (cursors[name].collect if collects else cursors[name].peek)(
                    *(regions[i] for i in chosen)
                )
                assert {i: set(epoch[regions[i]]) for i in chosen} == {i: coming[name][i] for i in chosen}
                if collects and rng.random() < 0.2:
                    epoch.abort()
                elif collects:
                    for i in chosen:
                        coming[name][i] = set()


def add(coming: dict[str, list[set[int]]], ranges: list[tuple[int, int]], page: int) -> None:
    """A write to a page is coming to every cursor, for every region that has the page."""
    for pending in coming.values():
        for which, (first, last) in enumerate(ranges):
            if first <= page < last:
                pending[which].add(page - first)
