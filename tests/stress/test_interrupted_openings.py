"""Ctrl-C while something is opened, once at every point and in a storm: nothing is left of it."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Protocol

import pytest

import dirtytrack
from _lib.interrupts import STRIDE, interrupted_at, traced
from _lib.raw import is_registered
from _lib.support import PAGE_SIZE, in_child
from dirtytrack import Mirror, Session
from dirtytrack.barrier import CardTable
from dirtytrack.checkpoint import Chain, Checkpointer
from dirtytrack.snapshot import History, Snapshot

_PAGES = 4
_STORM = 100  # interrupts
_ROOM = 64  # mappings: arenas of Python's and libc's allocators, and spare memory of ours


class _Closable(Protocol):
    def close(self) -> None: ...


class Held(NamedTuple):
    """What a process has of the system."""

    descriptors: list[str]
    threads: int


def held() -> Held:
    """What this one has now, once what nobody has is gone."""
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("dirtytrack"):
            thread.join()  # one that was started halfway ends by itself, soon
    links = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing
            links.append(str(Path(f"/proc/self/fd/{name}").readlink()))
    while (threads := len(os.listdir("/proc/self/task"))) > threading.active_count():
        os.sched_yield()  # one that is about to end
    return Held(sorted(links), threads)


def mappings() -> int:
    """How many there are."""
    return Path("/proc/self/maps").read_text().count("\n")


class Place:
    """Memory, a chain that is there, and what can be opened over them."""

    def __init__(self, folder: Path) -> None:
        self.memory = dirtytrack.alloc(_PAGES * PAGE_SIZE)
        self.session = Session()
        with self.session, Session() as session:
            region = session.track(self.memory)
            self.address = region.address
            chain = folder / "chain"
            with Checkpointer(chain, {"memory": region}) as checkpoints:
                checkpoints.save()
        self.session = Session()
        numbers = itertools.count()
        self.openings: dict[str, Callable[[], _Closable]] = {
            "session": lambda: Session(),
            "session that compares": lambda: Session(backend="compare"),
            "card table": lambda: CardTable(self.session, self.memory, card_size=PAGE_SIZE),
            "snapshot": lambda: Snapshot(self.session, self.memory),
            "history": lambda: History(self.session, self.memory),
            "mirror": lambda: Mirror(self.session, self.memory),
            "checkpointer": lambda: Checkpointer(
                folder / f"new {next(numbers)}", {"memory": self.memory}, session=self.session, fsync=False
            ),
            "checkpointer that resumes": lambda: Checkpointer.open(
                chain, {"memory": self.memory}, session=self.session, fsync=False
            ),
            "chain": lambda: Chain(chain),
        }

    def check(self, opening: Callable[[], _Closable] | None) -> None:
        """Nothing is tracked; and it can be opened: no lock stayed."""
        assert self.session.regions == ()
        assert not is_registered(self.address, self.address + PAGE_SIZE)
        if opening is not None:
            opening().close()


@contextmanager
def quiet() -> Iterator[None]:
    """Warnings of files that destructors close are no failures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


_NAMES = [
    "session",
    "session that compares",
    "card table",
    "snapshot",
    "history",
    "mirror",
    "checkpointer",
    "checkpointer that resumes",
    "chain",
]


def _anywhere(frame: FrameType) -> bool:
    # Python 3.11 leaks the frame of an __exit__ whose tracing raises at its first instruction.
    return frame.f_code.co_filename not in (__file__, contextlib.__file__)


def _each_point(folder: Path, name: str) -> int:
    place = Place(folder)
    opening = place.openings[name]
    place.check(opening)
    before, mapped, count, struck = held(), mappings(), 1 - STRIDE, [True]

    def strike() -> None:
        struck.append(True)
        raise KeyboardInterrupt

    while struck:
        struck.clear()
        count += STRIDE
        opened = None
        with suppress(KeyboardInterrupt), interrupted_at(count, among=_anywhere, by=strike):
            opened = opening()
        if opened is not None:  # it came after that, or in a destructor, where Python drops it
            opened.close()
            opened = None
        assert held() == before, count
        place.check(opening if count // STRIDE % 8 == 0 else None)
    assert mappings() <= mapped + _ROOM
    return count


@pytest.mark.slow
@traced
@pytest.mark.parametrize("name", _NAMES)
def test_an_interrupted_opening_leaves_nothing(tmp_path: Path, name: str) -> None:
    """At every point in turn; by default at each thirty-first."""

    def child() -> int:
        with quiet():
            return _each_point(tmp_path, name)

    assert in_child(child).check() > 5


def _seconds(opening: Callable[[], _Closable]) -> float:
    begin = time.perf_counter()
    opened = opening()
    end = time.perf_counter()
    opened.close()
    return end - begin


def _storm(folder: Path, name: str) -> None:
    place, draw, struck, left = Place(folder), random.Random(19), 0, 0
    opening = place.openings[name]
    place.check(opening)
    long = max(_seconds(opening) for _ in range(3))
    before, mapped = held(), mappings()

    def strike(_number: int, _frame: FrameType | None) -> None:
        nonlocal struck, left
        if left:
            left -= 1
            struck += 1
            raise KeyboardInterrupt

    def open_in_storm() -> None:
        nonlocal left
        signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-6, long), 2e-4)
        opened = opening()
        left = 0
        opened.close()

    signal.signal(signal.SIGALRM, strike)
    while struck < _STORM:
        left = draw.randint(1, 4)
        try:
            try:
                open_in_storm()
            except KeyboardInterrupt:
                left = 0
        except KeyboardInterrupt:
            left = 0
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.collect()
        place.check(opening)
    assert held() == before
    assert mappings() <= mapped + _ROOM


@pytest.mark.slow
@pytest.mark.parametrize("name", _NAMES)
def test_a_storm_of_interrupts_leaves_nothing(tmp_path: Path, name: str) -> None:
    """Up to four in a row, also in the undoing of what the first one has interrupted.

    They are 200 us apart. An interrupt at the first instruction of a destructor takes the destructor with it,
    and nothing in Python can prevent that. It takes a second one within microseconds of the first.
    """

    def child() -> None:
        with quiet():
            _storm(tmp_path, name)

    in_child(child).check()
