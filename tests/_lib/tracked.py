"""Tracked memory with two oracles: the test knows what it touched, the shadow which contents changed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

import dirtytrack
from _lib.support import Memory
from dirtytrack.tracking import Consumer

# Kernels before mid-2026 are blind to dropped memory and the library makes up for it: both ways are tested.
KERNELS = ["as found", "blind to holes"]


@contextmanager
def session_on(kernel: str) -> Iterator[dirtytrack.Session]:
    """A session on the kernel as it is, or as if it were one of those that are blind to holes."""
    variables = {"DIRTYTRACK_HOLE_REPORTING": "blind"} if kernel == "blind to holes" else {}
    with mock.patch.dict(os.environ, variables):
        session = dirtytrack.Session()
    with session:
        yield session


@pytest.fixture(params=KERNELS)
def session(request: pytest.FixtureRequest) -> Iterator[dirtytrack.Session]:
    """A session on either kind of kernel; for a conftest.py to import."""
    with session_on(request.param) as session:
        yield session


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """Stay on one CPU: pages populated on another may sit in its batch of new ones, out of reach of reclaim.

    Source: lru_add_drain() in mm/swap.c, which MADV_PAGEOUT calls, empties the calling CPU's batches only.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def open_cursors(session: dirtytrack.Session) -> int:
    """How many cursors the native session has, those that Python has forgotten included.

    A new cursor takes the first free slot, and its identifier tells which: the slots that many new ones leave
    out are taken.
    """
    probes = [Consumer(session._tracker, "probe").open() for _ in range(16)]
    slots = {probe._natives[1] & 0xFFFFFFFF for probe in probes}
    for probe in probes:
        probe.close()
    return max(slots) + 1 - len(slots)


class Tracked(Memory):
    """Memory that a session tracks from the start.

    Args:
        session: who tracks it.
        pages: its size.
        populate: write every page before it is tracked; otherwise it is not even read.
        advice: madvise for all of it before that.
        sparse: as for ``Session.track``.
        **mapping: as for Memory.
    """

    def __init__(
        self,
        session: dirtytrack.Session,
        pages: int = 16,
        *,
        populate: bool = True,
        advice: int | None = None,
        sparse: bool = False,
        **mapping: Any,
    ) -> None:
        super().__init__(pages, **mapping)
        if advice is not None:
            self.advise(advice)
        if populate:
            self.fill(1)
            self.sync()
        self.session = session
        self.region = session.track(self.map, sparse=sparse)

    def at(self, page: int) -> int:
        """The address of a page."""
        return self.address + self.slice(page).start

    def view(self, page: int) -> memoryview:
        """The bytes of a page, writable."""
        return self.region.view[self.slice(page)]

    def reported(self) -> set[int]:
        """The pages of the next epoch."""
        return set(self.session.collect(self.region)[self.region])

    def expect(self, pages: Iterable[int] = ()) -> None:
        """Assert that the next epoch holds exactly *pages*, that only they changed, and that this was all.

        Comparing reads all of the memory, so the last step also shows that reading is no write.
        """
        wanted = set(pages)
        reported = self.reported()
        assert reported == wanted, f"reported {sorted(reported)}, not {sorted(wanted)}"
        missed = self.changed() - wanted
        assert not missed, f"changed and not reported: {sorted(missed)}"
        again = self.reported()
        assert not again, f"reported again: {sorted(again)}"
        self.copy(wanted)

    def expect_unseen(self, pages: Iterable[int], spot: dirtytrack.BlindSpot) -> None:
        """Assert that exactly *pages* changed unreported, the region warns of it, and mark() mends it."""
        unseen = set(pages)
        reported, changed = self.reported(), self.changed()
        assert not reported, f"reported after all: {sorted(reported)}"
        assert changed == unseen, f"changed {sorted(changed)}, not {sorted(unseen)}"
        assert spot in self.region.blind_spots
        for page in unseen:
            start = self.slice(page).start
            self.session.mark(self.region, start, start + 1)
        self.expect(unseen)

    def close(self) -> None:
        """Untrack and unmap."""
        if self.region.tracked:
            self.session.untrack(self.region)
        super().close()
