"""A collector in C on a Session that checkpoints and snapshots in Python use: they have the same heap."""

from __future__ import annotations

import ctypes
import errno
import random
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

import dirtytrack
from _lib import limits
from _lib.native_threads import NativeThread
from _lib.support import PAGE_SIZE, address_of, in_child, require
from dirtytrack import ClosedError, ForkedError, Session
from dirtytrack.barrier import CardTable
from dirtytrack.checkpoint import Checkpointer, load
from dirtytrack.native import lib
from dirtytrack.snapshot import Snapshot

PAGES = 64
NBYTES = PAGES * PAGE_SIZE
EVERSION = 1011  # DT_EVERSION: Python never sees it


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A library in C, with a copy of dirtytrack of its own."""
    built = tmp_path_factory.mktemp("on_session") / "collector.so"
    command = [
        "gcc",
        "-std=gnu11",
        "-O1",
        "-g",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pthread",
        "-shared",
        "-fPIC",
    ]
    command += [f"-I{dirtytrack.get_include()}", str(Path(__file__).with_name("on_session.c"))]
    try:
        subprocess.run([*command, *dirtytrack.get_sources(), "-o", str(built)], check=True)
    except FileNotFoundError:
        require(False, "gcc, to build a collector")
    return ctypes.CDLL(str(built))


class Collector:
    """A tracker of the library's on a table, over the pages of a heap."""

    def __init__(self, library, api):
        self.library, self._tracker = library, ctypes.c_void_p()
        self.error = library.dt_tracker_open_on(
            ctypes.c_void_p(api), ctypes.c_size_t(PAGE_SIZE), 1, ctypes.byref(self._tracker)
        )
        self.map = (ctypes.c_uint8 * PAGES)()

    def call(self, name, *arguments):
        """A function of the tracker's."""
        return getattr(self.library, f"dt_tracker_{name}")(self._tracker, *arguments)

    def range(self, name, heap, start=0, stop=PAGES, *arguments):
        """One that is about some of the heap's pages."""
        at = ctypes.c_void_p(address_of(heap) + start * PAGE_SIZE)
        return self.call(name, at, ctypes.c_size_t((stop - start) * PAGE_SIZE), *arguments)

    def dirty(self, name="take"):
        """The cards of a take, or a peek."""
        error = self.call(name, self.map, ctypes.c_size_t(PAGES), None)
        assert error == 0, error
        return {card for card in range(PAGES) if self.map[card]}

    def close(self):
        self.library.dt_tracker_close(self._tracker)


@contextmanager
def collector_on(library, session, *heaps):
    """A collector whose heap is tracked."""
    collector = Collector(library, session.c_api())
    assert collector.error == 0
    for heap in heaps:
        assert collector.range("add", heap, 0, PAGES, 0, None) == 0
    yield collector
    collector.close()


@pytest.fixture
def heap():
    return dirtytrack.alloc(NBYTES)


def test_a_collector_beside_checkpoints_snapshots_and_cards(library, heap, tmp_path):
    """Each has every store, whatever the others take; what the snapshot puts back is a store, too."""
    draw = random.Random(20)
    due: dict[str, set[int]] = {"collector": set(), "session": set(), "cards": set()}
    out = bytearray(PAGES // 8)

    def store(page, value):
        heap[page * PAGE_SIZE + draw.randrange(PAGE_SIZE)] = value
        for pages in due.values():
            pages.add(page)

    with Session(double_check=0.3) as session:
        region = session.track(heap)
        with (
            collector_on(library, session, heap) as collector,
            CardTable(session, region, card_size=PAGE_SIZE) as cards,
            Snapshot(session, region) as snapshot,
            Checkpointer(tmp_path / "chain", {"heap": region}, session=session) as checkpoints,
        ):
            assert session.regions == (region,)
            kept = bytes(heap)
            for _ in range(300):
                for _ in range(draw.randrange(6)):
                    store(draw.randrange(PAGES), draw.randrange(256))
                match draw.randrange(8):
                    case 0 | 1:
                        assert collector.dirty() == due["collector"]
                        due["collector"].clear()
                    case 2:
                        assert collector.dirty("peek") == due["collector"]
                    case 3:
                        with session.collect() as epoch:
                            assert list(epoch) == [region]
                            assert set(epoch[region]) == due["session"]
                        due["session"].clear()
                    case 4:
                        cards.take(out)
                        assert {n for n in range(PAGES) if out[n // 8] >> n % 8 & 1} == due["cards"]
                        due["cards"].clear()
                    case 5:
                        checkpoints.save(wait=True)
                        assert bytes(load(tmp_path / "chain")["heap"]) == bytes(heap)
                    case 6:
                        for pages in due.values():  # it stores to what was stored to, and perhaps not again
                            pages |= {change.start // PAGE_SIZE for change in snapshot.diff()}
                        snapshot.rollback()
                        assert bytes(heap) == kept
                    case 7:
                        snapshot.advance()
                        kept = bytes(heap)


def test_its_ranges_are_its_own(library, heap):
    """They come and go without the session's regions, overlap them or do not, and are nobody else's."""
    other = dirtytrack.alloc(NBYTES)
    with Session() as session, collector_on(library, session, heap) as collector:
        with session.collect() as epoch:
            assert not epoch
        region = session.track(other)
        assert collector.range("add", other, 0, PAGES, 0, None) == 0
        assert collector.call("cards") == 2 * PAGES
        other[0] = heap[PAGE_SIZE] = 1
        session.untrack(region)
        collector.map = (ctypes.c_uint8 * (2 * PAGES))()
        assert collector.call("take", collector.map, ctypes.c_size_t(2 * PAGES), None) == 0
        assert [card for card in range(2 * PAGES) if collector.map[card]] == [1, PAGES]
        region = session.track(heap)
        assert collector.range("remove", heap) == 0
        heap[3 * PAGE_SIZE] = 1
        with session.collect() as epoch:
            assert {one: set(pages) for one, pages in epoch.items()} == {region: {3}}


def test_other_options_of_the_session_are_the_collectors(library, heap):
    """Compared memory, stopped threads, which it can't choose otherwise."""
    with Session(backend="compare") as session, collector_on(library, session, heap) as collector:
        heap[5 * PAGE_SIZE] = 1
        assert collector.dirty() == {5}
    with (
        NativeThread("block signals") as thread,
        Session(stop_threads=True, stop_timeout=0.05) as session,
        collector_on(library, session, heap) as collector,
    ):
        threads = (ctypes.c_int32 * 1)()
        thread.go_on(0 if thread.done else 1)
        heap[PAGE_SIZE] = 1
        assert collector.dirty() == {1}
        assert collector.call("unstopped", threads, ctypes.c_size_t(1)) >= 1
        assert threads[0] == thread.id
        assert collector.call("stop_threads", 12, ctypes.c_uint64(1000)) == -errno.EPERM


def test_the_session_is_closed_first(library, heap):
    """Also when its object is gone: each call of the collector says so, and closing it does nothing else."""
    session = Session()
    with collector_on(library, session, heap) as collector:
        table = session.c_api()
        assert table == session.c_api()
        heap[0] = 1
        session.close()
        with pytest.raises(ClosedError):
            session.c_api()
        assert Collector(library, table).error == -lib.DT_ECLOSED
        for _ in range(2):
            assert collector.call("take", collector.map, ctypes.c_size_t(PAGES), None) == -lib.DT_ECLOSED
            assert collector.range("add", heap, 0, 1, 0, None) == -lib.DT_ECLOSED
            assert collector.range("mark", heap) == -lib.DT_ECLOSED
            assert collector.call("cards") == 0
            session = None
    with Session() as other:
        other.track(heap)


def test_the_collector_is_closed_first(library, heap):
    """The session goes on, with the memory that both have had."""
    with Session() as session:
        region = session.track(heap)
        for _ in range(3):
            with collector_on(library, session, heap) as collector:
                heap[PAGE_SIZE] = 2
                assert collector.dirty() == {1}
            heap[2 * PAGE_SIZE] = 2
            with session.collect() as epoch:
                assert set(epoch[region]) == {1, 2}


def test_a_child_has_none_of_it(library, heap):
    """It opens what it needs itself; the parent goes on."""
    with Session() as session, collector_on(library, session, heap) as collector:
        table = session.c_api()

        def child():
            with pytest.raises(ForkedError):
                session.c_api()
            assert Collector(library, table).error == -lib.DT_EFORKED
            assert collector.call("take", collector.map, ctypes.c_size_t(PAGES), None) == -lib.DT_EFORKED
            collector.close()
            with Session() as own, collector_on(library, own, heap) as other:
                heap[4 * PAGE_SIZE] = 1
                assert other.dirty() == {4}

        in_child(child).check()
        heap[0] = 3
        assert collector.dirty() == {0}


def test_what_is_no_table_of_this_version(library, heap):
    """It is refused before anything is called through it."""
    with Session() as session:
        table = session.c_api()
        version, size = (ctypes.c_uint32 * 2).from_address(table)
        for changed in (
            (version + 1, size),
            (version - 1, size),
            (0, size),
            (version, size - 8),
            (version, 0),
        ):
            other = (ctypes.c_uint32 * 64)(*changed)
            assert Collector(library, ctypes.addressof(other)).error == -EVERSION
        assert Collector(library, 0).error == -errno.EINVAL


def test_the_collector_stops_threads_anywhere_in_calls_of_the_session(library, heap):
    """Also those that wait for its lock, or have it: a take never waits for a thread that is stopped."""

    def child():
        over = threading.Event()

        def use(session, region):
            library.on_session_may_be_stopped()
            while not over.is_set():
                heap[PAGE_SIZE] = 1
                with session.collect(region):
                    pass
                session.untrack(session.track(heap))

        with Session() as session:
            region = session.track(heap)
            threads = [threading.Thread(target=use, args=(session, region)) for _ in range(3)]
            for thread in threads:
                thread.start()
            with collector_on(library, session, heap) as collector:
                error = library.on_session_stop_and_take(
                    collector._tracker, collector.map, ctypes.c_size_t(PAGES), 300
                )
            over.set()
            for thread in threads:
                thread.join()
        return error

    limits.begin()
    assert in_child(child).check() == 0
