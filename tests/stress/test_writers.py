"""C writers at full speed, chaos beside them: what was copied because it was reported equals the memory."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from threading import Event, Thread

import pytest

from _lib.stress.harness import CHAOS, SECONDS, Follower, Writers, memory_of, swap
from _lib.support import PAGE_SIZE, require
from dirtytrack import Session

_ANONYMOUS = ("small pages", "huge pages")

# Dropped pages of a private file revert to it unseen, those of hugetlb memory to zeros (docs/guarantees.md).
_NOT_FOR = {
    "memfd": {"free"},
    "memfd on huge pages": {"free"},
    "private file": {"drop", "free", "collapse"},
    "hugetlb": {"drop", "free", "pageout", "collapse"},
}
_KINDS = (*_ANONYMOUS, *_NOT_FOR)

_MADV_PAGEOUT = 21
_BETWEEN_CHECKS = 0.025  # seconds: what was lost must be seen before it is written again


@pytest.fixture(scope="module")
def swap_space() -> Iterator[bool]:
    with swap() as there:
        yield there


def _follow(followers: list[Follower], seconds: float) -> None:
    """Until the time is over the first one collects in every round, the second one in every third."""
    end = time.monotonic() + seconds
    for rounds in count():
        followers[0].follow()
        if rounds % 3 == 0:
            followers[1].follow()
        if time.monotonic() >= end:
            return


def _check(followers: list[Follower]) -> None:
    """Without writers, one more epoch makes every shadow equal to the memory."""
    for follower in followers:
        with follower.cursor.collect() as epoch:
            follower.copy(epoch)
    for follower in followers:
        assert follower.mismatches() == []


def _configurations() -> Iterator[tuple[str, str, str | None]]:
    for kind in _KINDS:
        for chaos in CHAOS:
            if chaos in _NOT_FOR.get(kind, ()):
                continue
            yield kind, chaos, None
            if (kind in _ANONYMOUS and chaos in ("drop", "free")) or kind == "hugetlb":  # another way to scan
                yield kind, chaos, "blind"
        yield kind, "none", "stops"
    yield "small pages", "fork", "stops"


@pytest.mark.parametrize(("kind", "chaos", "how"), list(_configurations()))
def test_no_write_is_lost(
    kind: str,
    chaos: str,
    how: str | None,
    swap_space: bool,
    hugepages: Callable[[int], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two cursors, each with a shadow, hold every byte of the memory whenever the writers have stopped."""
    if chaos == "pageout" and kind != "private file":
        require(swap_space, "swap, or the right to add some")
    monkeypatch.delenv("DIRTYTRACK_HOLE_REPORTING", raising=False)
    if how == "blind":
        monkeypatch.setenv("DIRTYTRACK_HOLE_REPORTING", how)
    with memory_of(kind, hugepages) as memory, Session(stop_threads=how == "stops") as session:
        region = session.track(memory)
        followers = [Follower(session, region, 1), Follower(session.cursor("second"), region, 2)]
        writers = Writers(memory, chaos=chaos, shared=kind.startswith("memfd"), page_size=region.page_size)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or not min(writers.stores, writers.rounds):  # on a busy machine
            with writers:
                _follow(followers, _BETWEEN_CHECKS)
            if chaos == "free":  # what is freed but not reclaimed yet could still vanish after the last look
                memory.madvise(_MADV_PAGEOUT)
            _check(followers)
        for follower in followers:
            assert follower.cursor.collect().pages == 0, "comparing has written nothing"


def test_a_page_that_is_not_copied_is_found(hugepages: Callable[[int], int]) -> None:
    """The comparison names the one page that a faulty consumer leaves out."""
    with memory_of("small pages", hugepages) as memory, Session() as session:
        region = session.track(memory)
        follower = Follower(session, region, 1)
        with Writers(memory, chaos="none", shared=False):
            _follow([follower, follower], 0.05)
        follower.copy(session.collect())
        memory[5 * PAGE_SIZE : 9 * PAGE_SIZE] = b"\xff" * (4 * PAGE_SIZE)
        follower.copy(session.collect(), all_but=7)
        assert follower.mismatches() == [7]


def test_a_drop_that_is_not_reported_is_found(hugepages: Callable[[int], int]) -> None:
    """Sparse regions do not report dropped pages, and the comparison shows it."""
    with memory_of("small pages", hugepages) as memory, Session() as session:
        memory[:] = b"\xff" * len(memory)
        region = session.track(memory, sparse=True)
        follower = Follower(session, region, 1)
        memory.madvise(mmap.MADV_DONTNEED, 3 * PAGE_SIZE, PAGE_SIZE)
        follower.copy(session.collect())
        assert follower.mismatches() == [3]


@pytest.mark.parametrize("kind", _ANONYMOUS)
def test_threads_collect_while_others_write_track_and_open_cursors(
    kind: str, hugepages: Callable[[int], int]
) -> None:
    """Every thread's own cursor gets every write, whatever the other threads do to the session."""
    failures: list[BaseException] = []
    stop = Event()

    def until_stopped(act: Callable[[], object]) -> Thread:
        def run() -> None:
            try:
                while not stop.is_set():
                    act()
            except BaseException as error:
                failures.append(error)

        return Thread(target=run)

    with memory_of(kind, hugepages) as memory, Session() as session, ExitStack() as cursors:
        region = session.track(memory)
        opened = [cursors.enter_context(session.cursor(f"thread {number}")) for number in range(3)]
        followers = [Follower(cursor, region, seed) for seed, cursor in enumerate(opened)]

        def come_and_go() -> None:
            with session.cursor("passing by") as cursor:
                inner = session.track(memoryview(memory)[len(memory) // 4 + 5 : len(memory) // 2])
                cursor.collect()
                session.reset()
                session.untrack(inner)

        threads = [until_stopped(follower.follow) for follower in followers] + [until_stopped(come_and_go)]
        with Writers(memory, chaos="drop", shared=False) as writers:
            for thread in threads:
                thread.start()
            time.sleep(max(SECONDS, 0.5))  # the run itself: nothing is awaited
            stop.set()
            for thread in threads:
                thread.join()
        assert failures == []
        assert writers.stores > 0
        _check(followers)
