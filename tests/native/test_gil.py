"""The GIL in native calls: a short one keeps it, a long one and one that waits give it up."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest

import dirtytrack
from _lib.support import PAGE_SIZE
from dirtytrack import Mirror, Session
from dirtytrack.barrier import CardTable
from dirtytrack.checkpoint import Checkpointer
from dirtytrack.kernel import pagemap
from dirtytrack.snapshot import History, Snapshot

SMALL = 4 * PAGE_SIZE
LARGE = 96 << 20
ATTEMPTS = 2000  # how often a thread that could run may fail to be given a processor in time


class _Other:
    """A thread that runs whenever the GIL is given up, and never takes it away."""

    def __enter__(self) -> Self:
        self.turns = 0
        self._stop = False
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(1000)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        sys.setswitchinterval(self._interval)
        self._stop = True
        self._thread.join()

    def _run(self) -> None:
        while not self._stop:
            self.turns += 1
            time.sleep(0)

    def runs_during(self, call: Callable[[], object]) -> bool:
        before = self.turns
        call()
        return self.turns != before


@pytest.fixture
def other() -> Iterator[_Other]:
    with _Other() as thread:
        yield thread


class _Tracked:
    """Memory with everything that the package makes of it, and calls by name."""

    def __init__(self, nbytes: int, closing: ExitStack) -> None:
        self.memory = dirtytrack.alloc(nbytes, huge=False)
        self.nbytes = nbytes
        self.write(1)
        self.session = closing.enter_context(Session())
        self.region = self.session.track(self.memory)
        self.snapshot = closing.enter_context(Snapshot(self.session, self.region))
        self.history = closing.enter_context(History(self.session, self.region))
        self.states = [self.history.save()]
        self.write(2)
        self.states.append(self.history.save())
        self.turn = itertools.cycle(self.states)
        self.cards = closing.enter_context(CardTable(self.session, self.region, card_size=PAGE_SIZE))
        self.map = bytearray(self.cards.nbytes)
        self.mirror = closing.enter_context(Mirror(self.session, self.region))
        self.pages = self.session.collect()[self.region]

    def write(self, value: int) -> None:
        """Stores to every page."""
        for at in range(0, self.nbytes, PAGE_SIZE):
            self.memory[at] = value


def _scan(on: _Tracked) -> None:
    start = on.region.address
    pagemap.scan(start, start + on.nbytes, category_mask=pagemap.Category.WRITTEN)


CALLS: dict[str, Callable[[_Tracked], object]] = {
    "collect": lambda on: on.session.collect().abort(),
    "collect of a part": lambda on: on.session.collect(on.region[: on.nbytes - 1]),
    "peek": lambda on: on.session.peek(),
    "reset": lambda on: on.session.reset(),
    "diff": lambda on: on.snapshot.diff(),
    "advance": lambda on: on.snapshot.advance(),
    "rollback": lambda on: on.snapshot.rollback(),
    "diff and advance": lambda on: on.snapshot.diff(advance=True),
    "save": lambda on: on.history.drop(on.history.save()),
    "restore": lambda on: on.history.restore(next(on.turn)),
    "diff of states": lambda on: on.history.diff(*on.states),
    "take": lambda on: on.cards.take(on.map),
    "peek at cards": lambda on: on.cards.peek(on.map),
    "update": lambda on: on.mirror.update(),
}
SCAN = {"scan": _scan}  # opens a file, which gives the GIL up
BOOKKEEPING: dict[str, Callable[[_Tracked], object]] = {
    "mark": lambda on: on.session.mark(on.region, 0, on.nbytes),
    "mark a card": lambda on: on.cards.mark(on.region.address, 1),
    "mask": lambda on: on.pages.mask(),
    "union": lambda on: on.pages | on.pages,
}


@pytest.mark.parametrize("name", [*CALLS, *BOOKKEEPING])
def test_a_short_call_keeps_the_gil(name: str, other: _Other):
    """A call about a few pages of which one is written lets no other thread run, ever."""
    call = (CALLS | BOOKKEEPING)[name]
    with ExitStack() as closing:
        on = _Tracked(SMALL, closing)
        call(on)  # makes buffers

        def often() -> None:
            for value in range(500):
                on.memory[PAGE_SIZE] = value & 127
                call(on)

        assert not other.runs_during(often)


@pytest.mark.parametrize("name", [*CALLS, *SCAN])
def test_a_long_call_gives_the_gil_up(name: str, other: _Other):
    """A call about many pages lets other threads run meanwhile."""
    with ExitStack() as closing:
        on = _Tracked(LARGE, closing)
        for attempt in range(ATTEMPTS):
            for at in range(0, 64 * PAGE_SIZE, PAGE_SIZE):
                on.memory[at] = attempt & 127
            if other.runs_during(lambda: (CALLS | SCAN)[name](on)):
                return
    pytest.fail(f"{name} let nobody else run in {ATTEMPTS} calls")


def test_untracking_gives_the_gil_up(other: _Other):
    """So does the call that lets go of much memory."""
    memory = dirtytrack.alloc(LARGE, huge=False)
    with Session() as session:

        def untrack_gives_it_up() -> bool:
            region = session.track(memory)
            return other.runs_during(lambda: session.untrack(region))

        assert any(untrack_gives_it_up() for _ in range(ATTEMPTS))


def test_what_a_save_waits_for_keeps_the_gil(other: _Other, tmp_path: Path):
    """The scan, the copy and the proof of 1 % of 256 MiB: to get the GIL back would take longer."""
    memory, ran = dirtytrack.alloc(256 << 20, huge=False), []
    with Checkpointer(tmp_path / "chain", {"memory": memory}, compression="none", fsync=False) as checkpoints:
        checkpoints.save(wait=True)
        capturer = checkpoints._pipeline.capturer
        scan_and_copy = capturer._scan_and_copy

        def watched(*arguments: Any) -> None:
            ran.append(other.runs_during(lambda: scan_and_copy(*arguments)))

        capturer._scan_and_copy = watched
        for value in range(1, 4):
            for at in range(0, len(memory), 100 * PAGE_SIZE):
                memory[at] = value
            checkpoints.save(wait=True)
    assert ran == [False] * 3


def test_who_waits_for_another_thread_gives_the_gil_up(other: _Other):
    """A short call that finds the session in use waits without the GIL."""
    with Session(backend="compare") as session:
        small, large = (session.track(dirtytrack.alloc(nbytes)) for nbytes in (SMALL, LARGE))
        stop = False

        def occupy() -> None:
            while not stop:
                session.peek(large)

        def finds_it_in_use() -> bool:
            time.sleep(0)  # the GIL, which the other thread needs to begin a look
            return other.runs_during(lambda: session.peek(small))

        thread = threading.Thread(target=occupy)
        thread.start()
        try:
            found = any(finds_it_in_use() for _ in range(ATTEMPTS))
        finally:
            stop = True
            thread.join()
        assert found


def test_no_two_calls_wait_for_each_other():
    """Every pair of calls, in two threads on the same memory, ends: none holds what the other needs."""
    with ExitStack() as closing:
        on = _Tracked(1 << 20, closing)
        calls = {**CALLS, **BOOKKEEPING}

        def repeat(call: Callable[[_Tracked], object], errors: list[Exception]) -> None:
            try:
                for value in range(20):
                    on.memory[value * PAGE_SIZE] = value
                    call(on)
            except Exception as error:
                errors.append(error)

        for one, two in itertools.combinations_with_replacement(calls.values(), 2):
            errors: list[Any] = []
            threads = [threading.Thread(target=repeat, args=(call, errors)) for call in (one, two)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert errors == []
