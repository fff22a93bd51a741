"""Memory that goes back to huge pages beside C writers: no write is lost, and none invented.

Every store has a value of its own, so that none leaves the bytes as they were.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from itertools import count

import pytest

from _lib.stress.harness import SECONDS, Follower, Writers, memory_of
from _lib.support import require
from _lib.tracking.cooling import eager, huge_bytes, rest
from dirtytrack import Cursor, Epoch, Region, Session

# Beside these a page is reported if, and only if, somebody wrote to it.
_EXACT = ("none", "fork", "pageout", "process_vm_writev")
_STORES = 100_000_000 if os.environ.get("DIRTYTRACK_STRESS_SECONDS") else 3_000_000


class _Watched(Follower):
    """One that remembers what it was told."""

    def __init__(self, cursor: Session | Cursor, region: Region, seed: int) -> None:
        super().__init__(cursor, region, seed)
        self.reported: set[int] = set()

    def copy(self, epoch: Epoch, **options: int) -> None:
        self.reported |= set(epoch[self.region])
        super().copy(epoch, **options)


def _follow(session: Session, followers: list[_Watched], generator: random.Random, seconds: float) -> None:
    """Looks of all kinds, at instants that have nothing to do with what comes back."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        followers[0].follow()
        if generator.random() < 0.3:
            followers[1].follow()
        if generator.random() < 0.2:
            session.peek()
        time.sleep(generator.random() * 0.002)


def _settle(followers: list[_Watched]) -> None:
    for follower in followers:
        with follower.cursor.collect() as epoch:
            follower.copy(epoch)


_CONFIGURATIONS = [
    *[("plain", chaos) for chaos in (*_EXACT, "drop", "mprotect", "collapse")],
    *[("adaptive", chaos) for chaos in ("none", "collapse")],
    *[("blind", chaos) for chaos in ("none", "fork", "drop")],
]


@pytest.mark.parametrize(("kind", "chaos"), _CONFIGURATIONS)
def test_no_write_is_lost_and_none_invented(
    kind: str, chaos: str, hugepages: Callable[[int], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two cursors beside two writers that write in bursts, and rest in between so that memory gets cold."""
    if kind == "blind":
        monkeypatch.setenv("DIRTYTRACK_HOLE_REPORTING", "blind")
    adaptive = kind == "adaptive"
    exact = chaos in _EXACT and not adaptive
    generator = random.Random(1)
    with (
        memory_of("huge pages", hugepages) as memory,
        eager(),
        Session(keep_huge_pages=True, adaptive=adaptive) as session,
    ):
        require(session.keep_huge_pages, session.huge_pages_reason)
        memory[:] = b"\1" * len(memory)
        region = session.track(memory)
        require(region.huge_pages.whole == 4, "the kernel gave no huge pages")
        followers = [
            _Watched(session, region, 1),
            _Watched(session.cursor("second"), region, 2),
        ]
        writers = Writers(memory, chaos=chaos, shared=False, rest=1000)
        end = time.monotonic() + SECONDS
        for rounds in count():
            if time.monotonic() >= end and (region.huge_pages.returned > 1 or rounds > 10):
                break
            with writers:
                _follow(session, followers, generator, 0.05)
            _settle(followers)
            written = {page for page, touched in enumerate(writers.touched) if touched}
            writers.touched[:] = bytes(len(writers.touched))
            for follower in followers:
                assert follower.mismatches() == []
                assert not exact or follower.reported == written
                follower.reported.clear()
            rest(session)
        _settle(followers)
        for follower in followers:
            assert adaptive or not follower.reported, "huge pages that came back are no writes"
            assert follower.mismatches() == []


def test_a_hundred_million_stores(hugepages: Callable[[int], int]) -> None:
    """So many in `make stress`: checked one by one, in value and place, beside memory that comes back."""
    generator = random.Random(2)
    with memory_of("huge pages", hugepages) as memory, eager(), Session(keep_huge_pages=True) as session:
        require(session.keep_huge_pages, session.huge_pages_reason)
        memory[:] = b"\1" * len(memory)
        region = session.track(memory)
        follower = _Watched(session, region, 1)
        writers = Writers(memory, chaos="none", shared=False, rest=1000)
        while writers.stores < _STORES:
            with writers:
                _follow(session, [follower, follower], generator, 0.1)
            _settle([follower])
            assert follower.mismatches() == []
            assert follower.reported == {page for page, one in enumerate(writers.touched) if one}
            follower.reported.clear()
            writers.touched[:] = bytes(len(writers.touched))
        returned = region.huge_pages.returned
        print(f"{writers.stores} stores, {returned} returns to huge pages")
        require(returned > 0, "the kernel had no huge pages to put memory back on")
        session.reset()
        session.reset()
        rest(session)
        assert huge_bytes(*region.page_range[:1], region.nbytes) == region.nbytes
