"""Card tables that stop the other threads for each scan, from Python and from C."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import dirtytrack
from _lib import limits
from _lib.c_program import build
from _lib.native_threads import NativeThread
from _lib.support import PAGE_SIZE, in_child
from dirtytrack import BusyError, Session
from dirtytrack.barrier import CardTable, get_write_watch

PAGES = 64
PATIENT = 30.0  # seconds in which every thread stops, however busy the machine is


def dirty(cards):
    """The numbers of the cards that are set."""
    return {card for card in range(PAGES) if cards[card // 8] >> card % 8 & 1}


@pytest.fixture
def heap():
    return dirtytrack.alloc(PAGES * PAGE_SIZE)


def test_a_map_is_of_one_instant(heap):
    """A thread writes page after page, round and round: each map is one stretch."""
    out = bytearray(PAGES // 8)
    with (
        NativeThread("write in turn", heap),
        Session(stop_threads=True, stop_timeout=PATIENT) as session,
        CardTable(session, heap, card_size=PAGE_SIZE) as cards,
    ):
        for number in range(200):
            (cards.take if number % 4 else cards.peek)(out)
            assert cards.unstopped == ()
            found = dirty(out)
            assert sum((card + 1) % PAGES not in found for card in found) <= 1


def test_who_was_not_stopped_is_named(heap):
    out = bytearray(PAGES // 8)
    with (
        NativeThread("block signals") as thread,
        Session(stop_threads=True, stop_timeout=0.05) as session,
        CardTable(session, heap, card_size=PAGE_SIZE) as cards,
    ):
        thread.go_on(0 if thread.done else 1)
        assert cards.unstopped == ()
        heap[PAGE_SIZE] = 1
        assert cards.take(out) == 1
        assert thread.id in cards.unstopped
        assert dirty(out) == {1}


def test_a_signal_that_gets_another_handler(heap):
    """All cards are set in that map, and what was written is in the next one."""

    def child():
        out = bytearray(PAGES // 8)
        with (
            Session(stop_threads=signal.SIGUSR1) as session,
            CardTable(session, heap, card_size=PAGE_SIZE) as cards,
        ):
            heap[PAGE_SIZE] = 1
            signal.signal(signal.SIGUSR1, lambda *_: None)
            with pytest.raises(BusyError, match="handler"):
                cards.take(out)
            assert dirty(out) == set(range(PAGES))
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
            assert cards.take(out) == 1
            assert dirty(out) == {1}

    in_child(child).check()


def test_a_write_watch_inherits_it(heap):
    """It is exact as well."""
    with Session(stop_threads=True, stop_timeout=PATIENT) as session, NativeThread("compute"):
        region = session.track(heap)
        heap[3 * PAGE_SIZE] = 1
        out = memoryview(bytearray(8 * PAGES)).cast("Q")
        assert get_write_watch(region.address, region.nbytes, out, reset=True) == (1, PAGE_SIZE)
        assert out[0] == region.address + 3 * PAGE_SIZE


def test_a_runtime_without_python(tmp_path):
    """DT_STOP_THREADS: instants, several trackers at once, threads that can't be stopped, refusals, fork."""
    done = limits.run([build(tmp_path, Path(__file__).with_name("stop_threads.c"))])
    assert (done.returncode, done.stdout, done.stderr) == (0, "all so\n", "")
