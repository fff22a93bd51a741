"""``Session(double_check=...)``: what the tracker calls clean is clean, or somebody is told."""

from __future__ import annotations

import itertools
import mmap
import os
import pickle
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import dirtytrack
from _lib import limits
from _lib.iouring import Ring
from _lib.raw import Raw
from _lib.support import PAGE_SIZE
from _lib.tracked import Tracked
from dirtytrack import MissedWriteError, Session
from dirtytrack.barrier import CardTable
from dirtytrack.checkpoint import Checkpointer
from dirtytrack.snapshot import Snapshot


@contextmanager
def two_mappings(session: Session) -> Iterator[tuple[Tracked, mmap.mmap]]:
    """A tracked mapping of a memfd, and another one, through which it changes unseen."""
    fd = os.memfd_create("shadow", os.MFD_CLOEXEC)
    os.ftruncate(fd, 16 * PAGE_SIZE)
    with Tracked(session, flags=mmap.MAP_SHARED, fd=fd) as memory, mmap.mmap(fd, 16 * PAGE_SIZE) as other:
        yield memory, other
    os.close(fd)


def test_another_mapping_is_caught() -> None:
    """The error names the region and the pages; they and the others are in the next epoch."""
    with Session(double_check=1) as session, two_mappings(session) as (memory, other):
        memory.expect()
        memory.touch(2)
        other[5 * PAGE_SIZE] ^= 1
        with pytest.raises(MissedWriteError, match=r"called clean: region at .*blind_spots.*mark") as caught:
            session.collect()
        ((region, ranges),) = caught.value.missed
        assert (region, ranges) == (memory.region, ((memory.at(5), memory.at(6)),))
        assert memory.reported() == {2, 5}
        assert memory.reported() == set()
        assert isinstance(pickle.loads(pickle.dumps(caught.value)), MissedWriteError)


def test_registered_buffers_are_caught(ring: Ring, file: int) -> None:
    """DMA of io_uring into pinned pages, which no page table shows."""
    with Session(double_check=1) as session, Tracked(session) as memory:
        ring.register(memory.at(4), 4 * PAGE_SIZE)
        memory.expect({4, 5, 6, 7})
        ring.submit_read(file, memory.at(5), PAGE_SIZE)
        assert ring.wait() == PAGE_SIZE
        with pytest.raises(MissedWriteError):
            session.collect()
        assert memory.reported() == {5}


def test_a_mark_is_the_remedy(ring: Ring, file: int) -> None:
    """What is declared written was not missed."""
    with Session(double_check=1) as session, Tracked(session) as memory:
        ring.register(memory.at(4), 4 * PAGE_SIZE)
        memory.expect({4, 5, 6, 7})
        ring.submit_read(file, memory.at(5), PAGE_SIZE)
        ring.wait()
        session.mark(memory.region, 5 * PAGE_SIZE, 6 * PAGE_SIZE)
        memory.expect({5})


def test_a_warning_instead() -> None:
    """The epoch is what it would have been, and the page is in the next one."""
    with Session(double_check=1, on_missed="warn") as session, two_mappings(session) as (memory, other):
        memory.expect()
        other[5 * PAGE_SIZE] ^= 1
        memory.touch(2)
        with pytest.warns(MissedWriteError, match="called clean") as caught:
            assert memory.reported() == {2}
        assert caught[0].filename.endswith("tracked.py")
        assert memory.reported() == {5}


_SCRIPT = """
import mmap, os, dirtytrack

def main():
    fd = os.memfd_create("memory")
    os.ftruncate(fd, mmap.PAGESIZE)
    memory, other = mmap.mmap(fd, mmap.PAGESIZE), mmap.mmap(fd, mmap.PAGESIZE)
    with dirtytrack.Session(double_check=1, on_missed="warn") as session:
        session.track(memory)
        session.collect().pages
        session.collect().pages
        other[0] = 1
        try:
            session.collect()
        except dirtytrack.MissedWriteError as warning:
            print(type(warning).__name__)

main()
"""


def test_the_warning_comes_in_a_script_too() -> None:
    """Whose module has no package: ``__package__`` is there, and None."""
    done = limits.run([sys.executable, "-W", "error", "-c", _SCRIPT])
    assert (done.returncode, done.stdout) == (0, "MissedWriteError\n"), done.stderr


@pytest.mark.parametrize("verb", ["collect", "advance"])
def test_the_warning_is_at_the_line_that_called_the_library(verb: str) -> None:
    """However deep below it the look is; and the pages of the call are not lost when warnings are errors."""
    with (
        Session(double_check=1, on_missed="warn") as session,
        two_mappings(session) as (memory, other),
        Snapshot(session, memory.region) as snapshot,
    ):
        call = snapshot.advance if verb == "advance" else lambda: session.collect().pages
        call()
        call()
        other[5 * PAGE_SIZE] ^= 1
        memory.touch(2)
        with pytest.raises(MissedWriteError):
            call()
        assert call() == 2
        other[6 * PAGE_SIZE] ^= 1
        with pytest.warns(MissedWriteError) as caught:
            assert call() == 0
        assert [warning.filename for warning in caught] == [__file__]


def test_every_cursor_has_its_own_sample() -> None:
    """A page that one cursor was told of is not missed by it, whatever another one has seen."""
    with Session(double_check=1) as session, two_mappings(session) as (memory, other):
        second = session.cursor("second")
        memory.expect()
        assert second.collect().pages == 0
        memory.touch(3)
        assert memory.reported() == {3}
        assert set(second.collect()[memory.region]) == {3}
        other[7 * PAGE_SIZE] ^= 1
        with pytest.raises(MissedWriteError):
            second.collect()
        assert memory.reported() == {7}
        assert set(second.collect()[memory.region]) == {7}


def test_a_narrowed_collect_checks_what_it_was_asked_for() -> None:
    """The rest keeps its sample, and is checked when it is asked for."""
    with Session(double_check=1) as session, two_mappings(session) as (memory, other):
        memory.expect()
        other[12 * PAGE_SIZE] ^= 1
        assert session.collect(memory.region[: 8 * PAGE_SIZE]).pages == 0
        with pytest.raises(MissedWriteError):
            session.collect(memory.region[8 * PAGE_SIZE :])
        assert memory.reported() == {12}


def test_peek_looks_at_nothing_more() -> None:
    """It takes nothing, so it has nothing to answer for."""
    with Session(double_check=1) as session, two_mappings(session) as (memory, other):
        memory.expect()
        other[5 * PAGE_SIZE] ^= 1
        assert session.peek().pages == 0
        with pytest.raises(MissedWriteError):
            session.reset()


@pytest.mark.slow
def test_a_share_finds_it_in_time() -> None:
    """A tenth of the pages at every collect: what changes again and again is caught, and nothing else."""
    with Session(double_check=0.1) as session, two_mappings(session) as (memory, other):
        memory.expect()
        caught = 0
        for _ in range(2000):
            other[5 * PAGE_SIZE] ^= 1
            try:
                assert session.collect().pages == 0
            except MissedWriteError as error:
                ((_, ranges),) = error.missed
                assert ranges == ((memory.at(5), memory.at(6)),)
                caught += 1
                assert session.collect().pages == 1
        assert 40 < caught < 400


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["", "blind"])
def test_writers_beside_it_are_no_false_alarm(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that races with the check is found by the scan after it."""
    if kernel:
        monkeypatch.setenv("DIRTYTRACK_HOLE_REPORTING", kernel)
    pages = 4096
    with Session(double_check=1) as session:
        array = dirtytrack.empty(pages * PAGE_SIZE, np.uint8)
        array[:] = 0
        session.track(array)
        stop = threading.Event()

        def write() -> None:
            for first in itertools.cycle(range(7)):  # so that there are pages that a scan does not report
                if stop.is_set():
                    return
                array[first * PAGE_SIZE :: 7 * PAGE_SIZE] += 1  # without the GIL

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(200):
                assert session.collect().pages >= 0  # read, so that it takes its pages
        finally:
            stop.set()
            writer.join()


def test_whatever_happens_to_a_region(memory: Raw) -> None:
    """Untracked, tracked anew, lost, sparse: samples of it are dropped, or never taken."""
    with Session(double_check=1) as session, Raw(16) as reserve:
        region, sparse = session.track(memory.pair), session.track(reserve.pair, sparse=True)
        session.collect()
        session.untrack(region)
        memory.write(1)
        session.collect()
        session.track(memory.pair)
        assert session.collect().pages == 0
        assert session.collect(sparse).pages == 0  # nothing was populated by reading
        cursor = session.cursor("second")
        cursor.collect()
        cursor.close()


def test_a_checkpoint_is_checked_too(tmp_path: Path) -> None:
    """Every native consumer collects by the same call."""
    with (
        Session(double_check=1) as session,
        two_mappings(session) as (memory, other),
        Checkpointer(tmp_path / "chain", {"m": memory.region}, session=session) as checkpoints,
    ):
        checkpoints.save(wait=True)
        other[5 * PAGE_SIZE] ^= 1
        with pytest.raises(MissedWriteError):
            checkpoints.save(wait=True)
        assert checkpoints.save(wait=True).blocks_stored == 1


def test_cards_are_checked_too() -> None:
    """A take fails closed: every card is set, and the next one has the one that was missed."""
    with (
        Session(double_check=1) as session,
        two_mappings(session) as (memory, other),
        CardTable(session, memory.region, card_size=PAGE_SIZE) as cards,
    ):
        out = bytearray(2)
        cards.take(out)
        other[5 * PAGE_SIZE] ^= 1
        with pytest.raises(MissedWriteError):
            cards.take(out)
        assert out == b"\xff\xff"
        assert (cards.take(out), out) == (1, b"\x20\0")


def test_comparing_needs_no_check() -> None:
    """It reports what page tables miss, and a store that is undone is nothing to raise."""
    with Session(backend="compare", double_check=1) as session, two_mappings(session) as (memory, other):
        memory.expect()
        other[5 * PAGE_SIZE] ^= 1
        memory.expect({5})


@pytest.mark.parametrize("share", [np.float32(0.5), np.int64(1), Fraction(1, 2), Decimal("0.5"), 1, 0])
def test_numbers_of_every_type_are_fractions(share: object) -> None:
    """What can be made a float."""
    with Session(double_check=share) as session:  # type: ignore[arg-type]
        assert session.double_check == float(share)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan"), True, "0.1", None, b"1", [0.5], 1j])
def test_what_is_no_fraction_is_refused(share: object) -> None:
    """Before anything is opened."""
    with pytest.raises(ValueError, match=r"fraction of the pages, from 0\.0 to 1\.0"):
        Session(double_check=share)


def test_what_else_to_do_is_refused() -> None:
    """A typo must not switch it off."""
    with pytest.raises(ValueError, match='"raise" or "warn"'):
        Session(double_check=0.5, on_missed="ignore")
