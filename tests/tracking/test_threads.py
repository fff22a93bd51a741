"""Threads: any method from any of them, at the same time, with writers beside them; nothing is lost."""

from __future__ import annotations

import ctypes
import os
import random
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

import dirtytrack
from _lib.raw import Raw, is_free, open_descriptors
from _lib.support import PAGE_SIZE
from dirtytrack import ClosedError, Cursor, Region, Session
from dirtytrack.tracking import Tracker

PAGES = 256


class Copy:
    """A copy of a region, brought up to date by whoever collects."""

    def __init__(self, region: Region) -> None:
        self._bytes = bytearray(region.nbytes)
        self._lock = threading.Lock()

    def update(self, region: Region, pages: dirtytrack.PageSet) -> None:
        """Copy the pages, each read and stored in one step: a slow thread must not put old contents back."""
        for piece in pages.slices():
            with self._lock:
                self._bytes[piece] = region.view[piece]

    def matches(self, region: Region) -> bool:
        """Whether it is the memory, byte by byte."""
        return self._bytes == region.view


def together(*jobs: Callable[[threading.Event], None]) -> None:
    """Run the jobs in threads until the first of them is done, which stops the others; raise what one did."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def run(job: Callable[[threading.Event], None]) -> None:
        try:
            job(stop)
        except BaseException as error:
            errors.append(error)
            stop.set()

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    threads[0].join()
    stop.set()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def rounds(count: int, act: Callable[[random.Random], None]) -> Callable[[threading.Event], None]:
    """A job that ends after *count* rounds."""

    def job(stop: threading.Event) -> None:
        rng = random.Random(count)
        for _ in range(count):
            if stop.is_set():
                return
            act(rng)

    return job


def forever(seed: int, act: Callable[[random.Random], None]) -> Callable[[threading.Event], None]:
    """A job that goes on until it is stopped."""

    def job(stop: threading.Event) -> None:
        rng = random.Random(seed)
        while not stop.is_set():
            act(rng)

    return job


def writer(memory: Raw) -> Callable[[random.Random], None]:
    """Stores to random pages; the call to C lets go of the GIL."""

    def act(rng: random.Random) -> None:
        ctypes.memset(memory.start + rng.randrange(PAGES * PAGE_SIZE - 64), rng.randrange(256), 64)

    return act


def collector(consumer: Session | Cursor, region: Region, copy: Copy) -> Callable[[random.Random], None]:
    """Collects, narrowed at times, and copies what it is given; aborts at times."""

    def act(rng: random.Random) -> None:
        half = region.nbytes // 2
        what = rng.choice([(), (region,), (region[:half],), (region[half:],)])
        if rng.random() < 0.2:
            consumer.collect(*what).abort()
        with consumer.collect(*what) as epoch:
            copy.update(region, epoch[region])

    return act


@pytest.mark.parametrize("collectors", [1, 3])
def test_collectors_and_writers_lose_nothing(collectors: int) -> None:
    """Writers beside collectors, peeks and aborts on one cursor, and a second one: both copies are whole."""
    with Session() as session, Raw(PAGES) as memory:
        region = session.track(memory.pair)
        second = session.cursor("second")
        first_copy, second_copy = Copy(region), Copy(region)
        together(
            rounds(1500, collector(session, region, first_copy)),
            *(forever(i, collector(session, region, first_copy)) for i in range(collectors - 1)),
            forever(10, collector(second, region, second_copy)),
            forever(11, lambda _: dict(session.peek()).clear()),
            forever(12, writer(memory)),
            forever(13, writer(memory)),
        )
        for consumer, copy in ((session, first_copy), (second, second_copy)):
            copy.update(region, consumer.collect()[region])
            assert copy.matches(region)
            assert consumer.collect().pages == 0


def test_regions_and_cursors_come_and_go_beside_a_collector() -> None:
    """Tracking and untracking on the same pages, and other cursors, take no page from whoever stays."""
    with Session() as session, Raw(PAGES) as memory:
        region = session.track(memory.pair)
        copy = Copy(region)

        def track(rng: random.Random) -> None:
            first = rng.randrange(PAGES - 8)
            neighbour = session.track((memory.start + first * PAGE_SIZE + 17, 5 * PAGE_SIZE))
            memory.write(first + 1)
            assert neighbour in session.regions
            with session.collect(neighbour) as epoch:
                assert list(epoch) == [neighbour]
            session.untrack(neighbour)

        def consume(rng: random.Random) -> None:
            with session.cursor(f"cursor {rng.random()}") as cursor:
                memory.write(rng.randrange(PAGES))
                assert cursor.collect()[region] is not None

        def mark(rng: random.Random) -> None:
            session.mark(region, rng.randrange(region.nbytes))

        together(
            rounds(1000, collector(session, region, copy)),
            forever(1, track),
            forever(2, track),
            forever(3, consume),
            forever(4, mark),
            forever(5, writer(memory)),
        )
        assert session.regions == (region,)
        copy.update(region, session.collect()[region])
        assert copy.matches(region)
        session.untrack(region)
        assert is_free(memory.start, memory.stop)


def test_closing_beside_everything_ends_everything() -> None:
    """A session closed while threads use it: they are told, nothing stays registered, nothing crashes."""
    before = open_descriptors()
    for seed in range(20):
        session = Session()
        with Raw(PAGES) as memory:
            region = session.track(memory.pair)

            def use(act: Callable[[], object]) -> Callable[[threading.Event], None]:
                def job(stop: threading.Event) -> None:
                    with suppress(ClosedError):
                        while True:
                            act()

                return job

            def close(stop: threading.Event, session: Session = session, seed: int = seed) -> None:
                for _ in range(seed * 5):
                    session.peek().pages  # noqa: B018
                session.close()

            together(
                close,
                use(lambda session=session: session.collect().abort()),
                use(lambda session=session, region=region: session.peek(region)),
                use(
                    lambda session=session, memory=memory: session.untrack(session.track(memory.piece(1, 3)))
                ),
                use(lambda session=session: session.cursor(f"{threading.get_ident()}").close()),
            )
            assert not region.tracked
            assert session.regions == ()
            assert is_free(memory.start, memory.stop)
    assert open_descriptors() == before


@pytest.mark.slow
@pytest.mark.usefixtures("torn")
def test_lists_are_whole_while_they_change() -> None:
    """Regions, and sessions, are listed as they were at one moment, whoever adds or takes away."""
    with Session() as session, Raw(PAGES) as memory:
        region = session.track(memory.piece(0, 1))

        def track(_: random.Random) -> None:
            many = [session.track(memory.piece(page, page + 1)) for page in range(1, 9)]
            for one in many:
                session.untrack(one)

        def look(_: random.Random) -> None:
            assert session.regions[0] is region

        def watch(_: random.Random) -> None:
            assert session._tracker in Tracker.all_open()

        together(
            rounds(300, track),
            forever(1, track),
            forever(2, look),
            forever(3, look),
            forever(4, watch),
            forever(5, lambda _: Session().close()),
        )
        assert session.regions == (region,)


@pytest.mark.slow
@pytest.mark.usefixtures("torn")
def test_no_region_outlives_its_session() -> None:
    """What is tracked while the session closes is not tracked afterwards, or was refused."""
    for _ in range(200):
        session = Session()
        with Raw(PAGES) as memory:
            given: list[Region] = []

            def track(
                stop: threading.Event,
                session: Session = session,
                memory: Raw = memory,
                given: list[Region] = given,
            ) -> None:
                with suppress(ClosedError):
                    while True:
                        given.append(session.track(memory.piece(1, 3)))

            def close(stop: threading.Event, session: Session = session, given: list[Region] = given) -> None:
                while not given:
                    session.peek().abort()
                session.close()

            together(close, track, track)
            assert not any(region.tracked for region in given)
            assert session.regions == ()
            assert is_free(memory.start, memory.stop)


def test_the_gil_is_let_go_during_a_scan() -> None:
    """Another thread gets to run Python while a collect is under way, though nothing else would let it."""
    array = dirtytrack.alloc(256 << 20, huge=False)
    with Session() as session:
        session.track(array)
        counts = [0]
        begun = threading.Event()

        def count(stop: threading.Event) -> None:
            while not stop.is_set():
                counts[0] += 1
                begun.set()
                os.stat("/")  # lets go of the GIL, in turn

        def collect(stop: threading.Event) -> None:
            begun.wait(30)
            before = counts[0]
            for _ in range(300):
                session.reset()
            counts.append(counts[0] - before)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1000)  # seconds: nobody is made to let go
        try:
            together(collect, count)
        finally:
            sys.setswitchinterval(interval)
        assert counts[1] > 10


def test_default_sessions_of_many_threads_are_one() -> None:
    """Threads that ask at the same time get the same session, and no descriptor is left over."""
    dirtytrack.default_session().close()
    before = open_descriptors()
    found = []
    barrier = threading.Barrier(8)

    def ask(stop: threading.Event) -> None:
        barrier.wait(30)
        found.append(dirtytrack.default_session())

    together(*[ask] * 8)
    assert len(found) == 8
    assert len(set(map(id, found))) == 1
    assert open_descriptors() == before + 2
    found[0].close()
