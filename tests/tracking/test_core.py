"""The seam to the native session: who has the pages at every instant, and what native results become."""

from __future__ import annotations

import errno
import gc
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

import dirtytrack
from _lib.interrupts import at_every_point, interrupted_at, traced
from _lib.raw import Raw
from _lib.support import PAGE_SIZE, in_child
from _lib.tracked import open_cursors
from dirtytrack import ClosedError, ForkedError, KernelError, RegionLostError, Session
from dirtytrack._lifetime.undo import Undo
from dirtytrack.native import lib
from dirtytrack.tracking import Consumer, NativeEpoch, Region, Tracker, open_consumer


class Rig:
    """Memory of two regions, not adjacent, with a consumer of their own beside the session's cursor."""

    def __init__(self, session: Session, memory: Raw, undo: Undo) -> None:
        self.session = session
        self.memory = memory
        self.regions = session.track(memory.piece(0, 4)), session.track(memory.piece(8, 12), name="high")
        self.consumer = open_consumer(session, "the consumer", self.regions, undo)

    def pages(self, epoch: NativeEpoch) -> list[set[int]]:
        """The pages of each region that an epoch has."""
        return [set(epoch.page_set(place, region.geometry)) for place, region in enumerate(self.regions)]

    def collect(self, epoch: NativeEpoch) -> None:
        """Run a native call that takes pages, as `Consumer.collect` does."""
        consumer = self.consumer
        consumer.run(epoch, lib.dt_collect, lib.DT_COLLECT, consumer.slices, 2, epoch.native)


@pytest.fixture
def rig(session: Session, memory: Raw) -> Iterator[Rig]:
    with closing(Undo()) as undo:
        yield Rig(session, memory, undo)


def test_a_consumer_looks_at_its_regions_alone(rig: Rig) -> None:
    """In their order, whatever else is tracked, and whatever the session's own cursor takes."""
    other = rig.session.track(dirtytrack.alloc(PAGE_SIZE))
    rig.memory.write(1, 9, 11)
    other.view[0] = 1
    assert rig.session.collect().pages == 4
    assert rig.pages(rig.consumer.peek()) == [{1}, {1, 3}]
    with rig.consumer.collect() as epoch:
        assert rig.pages(epoch) == [{1}, {1, 3}]
        assert epoch.pages == 3
        assert epoch.places() == {rig.regions[0].id: 0, rig.regions[1].id: 1}
    assert rig.consumer.collect().pages == 0


def test_an_epoch_is_settled_by_its_block_or_aborted(rig: Rig) -> None:
    """Left as it should be, the pages are gone; left by an exception, they come back."""
    rig.memory.write(2)
    with pytest.raises(KeyError), rig.consumer.collect():
        raise KeyError
    with rig.consumer.collect() as epoch:
        assert rig.pages(epoch) == [{2}, set()]
    assert rig.consumer.collect().pages == 0


def test_an_epoch_that_nobody_settles_gives_back(rig: Rig) -> None:
    """At its end, or at once when told to; what is settled it keeps, until it is aborted."""
    rig.memory.write(2)
    epoch = rig.consumer.collect()
    del epoch
    gc.collect()
    epoch = rig.consumer.collect()
    assert rig.pages(epoch) == [{2}, set()]
    epoch.give_back()
    epoch = rig.consumer.collect()
    assert rig.pages(epoch) == [{2}, set()]
    epoch.settle()
    epoch.give_back()
    assert rig.consumer.collect().pages == 0
    epoch.abort()
    epoch.abort()
    assert rig.pages(rig.consumer.collect()) == [{2}, set()]


@pytest.mark.registration
def test_a_call_that_fails_takes_nothing(rig: Rig) -> None:
    """Whatever it had taken by then, and by whichever error."""
    rig.memory.write(1, 9)
    epoch = NativeEpoch()

    def fail(*arguments: Any) -> int:
        assert lib.dt_collect(*arguments) == 0
        return -errno.ENOMEM

    consumer = rig.consumer
    with pytest.raises(KernelError) as caught:
        consumer.run(epoch, fail, lib.DT_COLLECT, consumer.slices, 2, epoch.native)
    assert caught.value.errno == errno.ENOMEM
    with consumer.collect() as again:
        assert rig.pages(again) == [{1}, {1}]
    epoch.abort()
    assert consumer.collect().pages == 0


@traced
def test_an_interrupted_run_takes_nothing(rig: Rig) -> None:
    """At every point: whoever catches the interrupt finds all pages in the next epoch."""

    def act(count: int) -> None:
        rig.memory.write(1, 9)
        epoch = NativeEpoch()
        with interrupted_at(count):
            rig.collect(epoch)

    for count in range(1, 100):
        try:
            act(count)
        except KeyboardInterrupt:
            assert rig.pages(rig.consumer.collect()) == [{1}, {1}]
            continue
        assert count > 3
        return


def test_losses_are_of_what_the_call_was_about(rig: Rig) -> None:
    """Not of other regions that are lost, too; and the consumer's others are told of no loss."""
    gone = rig.session.track(dirtytrack.alloc(PAGE_SIZE))
    lib.dt_session_lose_region(rig.session._tracker._native, gone.id)
    rig.memory.write(1)
    assert rig.consumer.collect().pages == 1
    lib.dt_session_lose_region(rig.session._tracker._native, rig.regions[1].id)
    with pytest.raises(RegionLostError, match="'high'") as caught:
        rig.consumer.collect()
    assert [loss.region for loss in caught.value.losses] == [rig.regions[1]]


def test_what_is_closed_says_which(rig: Rig) -> None:
    """The region, the consumer or the session."""
    rig.consumer.check()
    rig.session.untrack(rig.regions[1])
    with pytest.raises(ClosedError, match="'high'"):
        rig.consumer.collect()
    other = Consumer(rig.session._tracker, "other", rig.regions[:1])
    for not_open in (lambda: None, other.close):
        not_open()
        with pytest.raises(ClosedError, match="'other'"):
            other.collect()
        with pytest.raises(ClosedError, match="'other'"):
            other.check()
    rig.session.close()
    with pytest.raises(ClosedError, match="open another one"):
        rig.consumer.collect()
    with pytest.raises(ClosedError, match="open another one"):
        other.open()
    other.close()


def test_a_consumer_is_closed_once(rig: Rig) -> None:
    """It can be closed again, and before it was opened; the session's own cursor is not counted."""
    session = rig.session
    before = open_cursors(session)
    one = Consumer(session._tracker, "one")
    one.close()
    one.open()
    assert open_cursors(session) == before + 1
    one.close()
    one.close()
    assert open_cursors(session) == before


@traced
def test_an_interrupted_opening_can_be_closed(session: Session) -> None:
    """Undo knows of a consumer before it has a cursor."""

    def act(count: int) -> None:
        with closing(Undo()) as undo, interrupted_at(count):
            open_consumer(session, "one", (), undo)

    at_every_point(act, lambda: None)
    assert open_cursors(session) == 1


@traced
@pytest.mark.registration
def test_an_interrupted_add_can_be_discarded(session: Session, memory: Raw) -> None:
    """Then nothing is registered any more, also when it is discarded again."""
    made: list[Region] = []

    def act(count: int) -> None:
        made[:] = [session._prepare(memory.pair, None)]
        with interrupted_at(count):
            session._tracker.add(made[0])
        session._tracker.discard(made[0])

    def check() -> None:
        for _ in range(2):
            session._tracker.discard(made[0])
        assert session.regions == ()
        session.untrack(session.track(memory.pair))

    at_every_point(act, check)


def test_a_list_that_went_stale_is_made_anew(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A region is tracked between the listing and the scan: the epoch has it."""
    tracker, found = rig.session._tracker, dirtytrack.alloc(PAGE_SIZE)
    late: list[Region] = []

    def list_regions() -> tuple[int, tuple[Region, ...]]:
        result = Tracker.list_regions(tracker)
        if not late:
            late.append(rig.session.track(found))
            found[0] = 1
        return result

    rig.memory.write(1)
    monkeypatch.setattr(tracker, "list_regions", list_regions)
    epoch = rig.session.collect()
    assert {region: set(pages) for region, pages in epoch.items()} == {
        rig.regions[0]: {1},
        rig.regions[1]: set(),
        late[0]: {0},
    }


def test_a_child_is_told(rig: Rig) -> None:
    """By each way to the native session, before any lock."""
    epoch = rig.consumer.collect()

    def child() -> int:
        raised = 0
        for call in (
            rig.consumer.collect,
            rig.consumer.peek,
            rig.consumer.check,
            Consumer(rig.session._tracker, "mine").open,
            rig.session._tracker.list_regions,
            lambda: rig.session._tracker.add(rig.regions[0]),
            lambda: rig.session._tracker.remove(rig.regions[0]),
            lambda: rig.session._tracker.mark(rig.regions[0], 0, 1),
        ):
            with pytest.raises(ForkedError):
                call()
            raised += 1
        assert not epoch.abort()
        epoch.give_back()
        rig.consumer.close()
        assert Tracker.all_open() == []
        return raised

    assert in_child(child).check() == 8
    assert rig.session._tracker in Tracker.all_open()
