"""Threads are stopped time and again, wherever they are: no deadlock, no page lost, and true instants."""

from __future__ import annotations

import os
import random
import threading
from contextlib import ExitStack
from pathlib import Path

import dirtytrack
from _lib import limits
from _lib.native_threads import NativeThread
from _lib.support import PAGE_SIZE
from dirtytrack import Session
from dirtytrack.barrier import CardTable
from dirtytrack.checkpoint import Chain, Checkpointer
from dirtytrack.snapshot import Snapshot

LONG = bool(os.environ.get("DIRTYTRACK_STRESS_SECONDS"))
CYCLES = 10_000 if LONG else 100
CYCLES_OF_ALL = 300 if LONG else 10
_PAGES = 64
_KINDS = (
    *("compute", "allocate", "map", "load", "read", "receive for a time", "poll", "epoll", "select", "sleep"),
    *("condition", "spawn", "fork", "vfork", "block signals"),
)
_WAKES = 20  # cycles


class _Pages:
    """Pages of a session that this thread alone writes, and which of them are due."""

    def __init__(self, session: Session, seed: int) -> None:
        self.memory = dirtytrack.alloc(_PAGES * PAGE_SIZE)
        self.region = session.track(self.memory)
        self.due: set[int] = set()
        self._random = random.Random(seed)

    def write(self) -> None:
        for _ in range(self._random.randrange(4)):
            page = self._random.randrange(_PAGES)
            self.memory[page * PAGE_SIZE] ^= 1
            self.due.add(page)


def _is_one_stretch(pages: set[int]) -> bool:
    return sum((page + 1) % _PAGES not in pages for page in pages) <= 1


def _save(chain: Checkpointer, folder: Path, nbytes: int) -> bool:
    """Saves memory that a thread writes a pair to; whether it was stopped for that."""
    save = chain.save(wait=True)
    if save.consistency == "stopped":
        with Chain(folder) as readers:
            first = readers.read("pair", 0, 8, at=save.number)
            last = readers.read("pair", nbytes - PAGE_SIZE, nbytes - PAGE_SIZE + 8, at=save.number)
        assert int.from_bytes(last, "little") - int.from_bytes(first, "little") in (0, 1)
    return save.consistency == "stopped"


def test_threads_of_every_kind_are_stopped(tmp_path: Path) -> None:
    """Epochs and saves are exact, and of one instant where they say so. In make stress 10,000 times."""
    with ExitStack() as closing:
        turns, pair = (dirtytrack.alloc(_PAGES * PAGE_SIZE) for _ in range(2))
        threads = {kind: closing.enter_context(NativeThread(kind)) for kind in _KINDS}
        closing.enter_context(NativeThread("write in turn", turns))
        closing.enter_context(NativeThread("write a pair", pair))
        session = closing.enter_context(Session(stop_threads=True))
        chain = closing.enter_context(
            Checkpointer(tmp_path, {"pair": pair}, session=session, keep=2, fsync=False)
        )
        chain.save()
        in_turn, pages = session.track(turns), _Pages(session, 1)
        session.collect()
        for cycle in range(CYCLES):
            pages.write()
            with session.collect() as epoch:
                assert set(epoch[pages.region]) == pages.due
                pages.due.clear()
                assert epoch.unstopped or _is_one_stretch(set(epoch[in_turn]))
            if cycle % _WAKES == 0:
                limits.begin()
                _save(chain, tmp_path, len(pair))
                for thread in threads.values():
                    thread.wake()
        for kind in ("block signals", "vfork"):
            assert threads[kind].done > 0


def test_many_threads_stop_each_other(tmp_path: Path) -> None:
    """Sessions, a card table, a snapshot and a chain, in several threads of Python at once."""
    failures: list[BaseException] = []
    done = threading.Event()

    def until_done(act: object, *arguments: object) -> threading.Thread:
        def run() -> None:
            try:
                while not done.is_set():
                    act(*arguments)  # type: ignore[operator]
            except BaseException as error:
                failures.append(error)

        return threading.Thread(target=run)

    def collect(session: Session, pages: _Pages) -> None:
        pages.write()
        epoch = session.collect(pages.region)
        assert set(epoch[pages.region]) == pages.due
        pages.due.clear()

    def take(cards: CardTable, pages: _Pages, out: bytearray) -> None:
        pages.write()
        cards.take(out)
        assert {card for card in range(_PAGES) if out[card // 8] >> card % 8 & 1} == pages.due
        pages.due.clear()

    def diff(snapshot: Snapshot, pages: _Pages) -> None:
        pages.write()
        snapshot.rollback()
        assert not any(pages.memory[page * PAGE_SIZE] for page in pages.due)
        pages.due.clear()

    with ExitStack() as closing:
        pair = dirtytrack.alloc(_PAGES * PAGE_SIZE)
        for kind in ("allocate", "sleep", "fork"):
            closing.enter_context(NativeThread(kind))
        closing.enter_context(NativeThread("write a pair", pair))
        session = closing.enter_context(Session(stop_threads=True))
        other = closing.enter_context(Session(stop_threads=True))
        pages = [_Pages(one, seed) for seed, one in enumerate([session, other, session, other])]
        cards = closing.enter_context(CardTable(session, pages[2].region, card_size=PAGE_SIZE))
        snapshot = closing.enter_context(Snapshot(other, pages[3].region))
        chain = closing.enter_context(
            Checkpointer(tmp_path, {"pair": pair}, session=session, keep=2, fsync=False)
        )
        chain.save()
        session.collect(pages[0].region)
        pythons = [
            until_done(collect, other, pages[1]),
            until_done(take, cards, pages[2], bytearray(_PAGES // 8)),
            until_done(diff, snapshot, pages[3]),
            until_done(lambda: sum(range(1000))),
        ]
        for thread in pythons:
            thread.start()
        for _ in range(CYCLES_OF_ALL):
            limits.begin()
            collect(session, pages[0])
            _save(chain, tmp_path, len(pair))
        done.set()
        for thread in pythons:
            thread.join()
        assert failures == []
