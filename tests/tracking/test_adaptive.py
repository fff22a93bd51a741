"""Hot pages left open: what is reported beyond what was written, for how long, and that nothing is missed."""

from __future__ import annotations

import mmap
import random
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dirtytrack
from _lib.support import PAGE_SIZE
from _lib.tracked import Tracked
from dirtytrack import Session
from dirtytrack.checkpoint import Checkpointer, load
from dirtytrack.snapshot import Snapshot

_IDLE = 64  # epochs in which nobody wrote, after which a page must be reported no more
_PAGES = 4096


def heat(memory: Tracked, pages: list[int], epochs: int = 4) -> None:
    """Write the pages in so many epochs, and in some more until they were tested: they are open then."""
    proven = False
    while epochs > 0 or not proven:
        for page in pages:
            memory.touch(page)
        with memory.session.collect(memory.region) as epoch:
            assert set(epoch[memory.region]) >= set(pages)
            proven = not epoch.assumed[memory.region]
        epochs -= 1
    memory.sync()


def test_a_hot_page_is_assumed_until_it_has_cooled() -> None:
    """It is reported without a store; after at most 64 idle epochs no more; then exactly when written."""
    with Session(adaptive=True) as session, Tracked(session, _PAGES) as memory:
        assert session.adaptive
        heat(memory, [5, 7])
        idle = 0
        while True:
            with session.collect() as epoch:
                assert epoch.assumed[memory.region] == epoch[memory.region]
                if not epoch.pages:
                    break
                assert set(epoch[memory.region]) <= {5, 7}
            idle += 1
            assert idle <= _IDLE
        assert idle > 0  # it was left open at all
        memory.expect()
        memory.touch(5)
        memory.expect({5})


def test_ever_longer_rests_end_as_soon() -> None:
    """A page that stayed hot for long is tested seldom, and still cools within 64 idle epochs."""
    with Session(adaptive=True) as session, Tracked(session, _PAGES) as memory:
        heat(memory, [5], 300)
        idle = 0
        while memory.reported():
            idle += 1
        assert 2 < idle <= _IDLE


def test_a_test_proves_it() -> None:
    """Now and then a hot page is armed, so that its next report is no assumption."""
    with Session(adaptive=True) as session, Tracked(session, _PAGES) as memory:
        heat(memory, [5])
        assumed = proven = 0
        for _ in range(200):
            memory.touch(5)
            with session.collect() as epoch:
                assert set(epoch[memory.region]) == {5}
                assumed += len(epoch.assumed[memory.region])
                proven += len(epoch[memory.region] - epoch.assumed[memory.region])
        assert assumed > 100
        assert 2 < proven < 100


@pytest.mark.slow
def test_what_is_not_hot_is_exact() -> None:
    """Beside open pages, and on the same page tables; cold pages are never assumed."""
    with Session(adaptive=True) as session, Tracked(session, _PAGES) as memory:
        hot = set(range(0, 1024, 3))
        heat(memory, sorted(hot))
        generator = random.Random(1)
        for _ in range(100):
            cold = {generator.randrange(_PAGES) for _ in range(20)} - hot
            for page in hot | cold:
                memory.touch(page)
            with session.collect() as epoch:
                assert set(epoch[memory.region]) == hot | cold
                assert set(epoch.assumed[memory.region]) <= hot


def test_a_plain_session_assumes_nothing(session: Session) -> None:
    """Its sets are empty, for every region."""
    with Tracked(session, 16) as memory:
        heat(memory, [5], 10)
        memory.touch(5)
        with session.collect() as epoch:
            assert not session.adaptive
            assert {region: len(pages) for region, pages in epoch.assumed.items()} == {memory.region: 0}


@pytest.mark.slow
def test_no_write_is_missed_while_the_heat_moves() -> None:
    """A copy kept by reported pages alone equals the memory after every epoch, and idle pages go."""
    pages = 1100  # two page tables, and a bit
    with Session(adaptive=True) as session, Tracked(session, pages) as memory:
        generator = random.Random(2)
        hot: list[int] = []
        idle = dict.fromkeys(range(pages), _IDLE)
        for epoch_number in range(600):
            if epoch_number % 50 == 0:
                hot = generator.sample(range(pages), generator.choice([0, 10, 100, 400]))
            written = {page for page in hot if generator.random() < 0.9}
            written |= {generator.randrange(pages) for _ in range(generator.choice([0, 1, 30]))}
            for page in range(pages):
                idle[page] += 1
            for page in written:
                memory.touch(page)
                idle[page] = 0
            with session.collect() as epoch:
                found = set(epoch[memory.region])
                assert found >= written
                assert found - written <= set(epoch.assumed[memory.region])
                assert all(idle[page] <= _IDLE for page in found)
            memory.copy(found)
            assert not memory.changed()


def test_every_cursor_is_told_what_is_assumed() -> None:
    """Also a cursor that collects seldom; an abort gives the assumption back with the page."""
    with Session(adaptive=True) as session, Tracked(session, _PAGES) as memory:
        second = session.cursor("second")
        heat(memory, [5])
        second.collect().abort()
        with second.collect() as epoch:
            assert set(epoch[memory.region]) == {5}
            assert set(epoch.assumed[memory.region]) == {5}
        peek = second.peek()
        assert set(peek.assumed[memory.region]) == set(peek[memory.region]) == {5}
        third = session.cursor("third")  # begins with everything armed: nothing is its own
        assert third.collect().pages == 0


def test_regions_that_share_a_hot_page() -> None:
    """Both are told; a region that is new there starts clean."""
    with Session(adaptive=True) as session, Tracked(session, 16) as memory:
        heat(memory, [5])
        piece = session.track(memoryview(memory.map)[4 * PAGE_SIZE : 8 * PAGE_SIZE])
        assert session.collect(piece).pages == 0
        memory.touch(5)
        epoch = session.collect()
        assert set(epoch[memory.region]) == {5}
        assert set(epoch[piece]) == {1}
        session.untrack(piece)


@pytest.mark.slow
def test_uniform_writes_turn_it_off() -> None:
    """Pages at random are nobody's hot pages: hardly any is assumed."""
    with Session(adaptive=True) as session, Tracked(session, _PAGES) as memory:
        generator = random.Random(3)
        assumed = reported = 0
        for _ in range(200):
            for page in generator.sample(range(_PAGES), _PAGES // 10):
                memory.touch(page)
            with session.collect() as epoch:
                assumed += len(epoch.assumed[memory.region])
                reported += epoch.pages
        assert assumed < reported / 50


@pytest.mark.parametrize("kernel", ["", "blind"])
@pytest.mark.parametrize("sparse", [False, True])
def test_dropped_hot_pages(kernel: str, sparse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hot page whose contents are dropped is reported, as any is; in a sparse region when it is touched."""
    if kernel:
        monkeypatch.setenv("DIRTYTRACK_HOLE_REPORTING", kernel)
    with Session(adaptive=True) as session, Tracked(session, 1024, sparse=sparse) as memory:
        heat(memory, [5, 6, 7])
        memory.advise(mmap.MADV_DONTNEED, 5, 7)
        reported = memory.reported()
        assert reported >= ({7} if sparse else {5, 6, 7})
        memory.touch(6)
        assert 6 in memory.reported()


def test_huge_pages_are_left_alone(hugepages: Callable[[int], int]) -> None:
    """Pages of the pool are few: each is armed as ever."""
    size = hugepages(2)
    with (
        Session(adaptive=True) as session,
        Tracked(session, 2, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000, page_size=size) as memory,
    ):
        heat(memory, [1], 6)
        memory.expect()


def test_a_checkpoint_proves_what_it_saves(tmp_path: Path) -> None:
    """It arms every page first, so that its proof holds; assumed pages with old contents are not stored."""
    with Session(adaptive=True) as session, Tracked(session, 64) as memory:
        with Checkpointer(tmp_path / "chain", {"m": memory.region}, session=session) as checkpoints:
            checkpoints.save(wait=True)
            heat(memory, [5, 6])
            memory.touch(5)
            save = checkpoints.save(wait=True)
            assert (save.consistency, save.rounds) == ("proven", 1)
            save = checkpoints.save(wait=True)
            assert (save.consistency, save.rounds, save.blocks_stored) == ("proven", 1, 0)
        assert bytes(load(tmp_path / "chain")["m"]) == memory.map[:]


def test_a_snapshot_compares_what_is_assumed() -> None:
    """The diff holds what changed, and nothing that was only open."""
    with Session(adaptive=True) as session, Tracked(session, 64) as memory:
        heat(memory, [5, 6])
        with Snapshot(session, memory.region) as snapshot:
            assert not list(snapshot.diff())
            memory.touch(5)
            (change,) = snapshot.diff()
            assert change.start // PAGE_SIZE == 5
            snapshot.rollback()
            assert not memory.changed()
            assert not list(snapshot.verify())


@pytest.mark.slow
def test_writers_beside_it_lose_nothing() -> None:
    """Threads that write hot and cold pages while others collect: the copy is right in the end."""
    with Session(adaptive=True) as session:
        array = dirtytrack.empty(_PAGES * PAGE_SIZE // 8, np.uint64)
        array[:] = 0
        region = session.track(array)
        copy = array.copy()
        stop = threading.Event()

        def write(seed: int) -> None:
            generator = np.random.default_rng(seed)
            while not stop.is_set():
                array[seed :: PAGE_SIZE // 8 * 7] += 1  # hot, scattered
                array[generator.integers(0, len(array), 20)] = generator.integers(1 << 60)

        writers = [threading.Thread(target=write, args=(seed,)) for seed in (1, 2)]
        for writer in writers:
            writer.start()
        try:
            for _ in range(500):
                _update(session, region, copy, array)
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        _update(session, region, copy, array)
        assert np.array_equal(copy, array)


def _update(session: Session, region: dirtytrack.Region, copy: np.ndarray, array: np.ndarray) -> None:
    with session.collect() as epoch:
        for piece in epoch[region].elements(np.uint64):
            copy[piece] = array[piece]


def test_comparing_has_nothing_to_leave_open() -> None:
    """There are no faults to be spared."""
    with Session(backend="compare", adaptive=True) as session:
        assert not session.adaptive
