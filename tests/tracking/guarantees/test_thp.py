"""Transparent huge pages: tracked to the small page, at the price of the huge one."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

import dirtytrack
from _lib.support import PAGE_SIZE, PMD_SIZE, require
from _lib.syscalls import Advice
from _lib.tracked import Tracked

PER_HUGE = PMD_SIZE // PAGE_SIZE


def huge_bytes(memory: Tracked) -> int:
    """Bytes of the memory that are mapped by huge pages, by /proc/self/smaps."""
    inside, total = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(match[1], 16) < memory.address + memory.nbytes and memory.address < int(match[2], 16)
        elif inside and line.startswith("AnonHugePages:"):
            total += int(line.split()[1]) * 1024
    return total


def huge_memory(session: dirtytrack.Session, huge_pages: int = 2) -> Tracked:
    """Populated memory on huge pages, tracked: the kernel aligns mappings of such a size."""
    memory = Tracked(session, huge_pages * PER_HUGE, advice=Advice.HUGEPAGE)
    require(memory.address % PMD_SIZE == 0, "the kernel does not align large mappings to huge pages")
    require(huge_bytes(memory) == memory.nbytes, "the kernel gave no huge pages")
    return memory


def test_one_byte_reports_one_small_page(session: dirtytrack.Session) -> None:
    """A byte written to a huge page reports the one small page that holds it."""
    with huge_memory(session) as memory:
        assert memory.region.page_size == PAGE_SIZE
        memory.touch(PER_HUGE + 7)
        memory.expect({PER_HUGE + 7})


def test_tracking_and_collecting_keep_huge_pages(session: dirtytrack.Session) -> None:
    """Huge pages survive track, reads and collects; the first store splits the one it hits, and no other."""
    with huge_memory(session) as memory:
        memory.expect()
        assert huge_bytes(memory) == 2 * PMD_SIZE
        memory.touch(7)
        memory.expect({7})
        assert huge_bytes(memory) == PMD_SIZE
        assert memory.region.page_size == PAGE_SIZE


def test_split_pages_stay_split_while_one_is_armed(session: dirtytrack.Session) -> None:
    """MADV_COLLAPSE refuses them, and gets the huge page back once they are no longer tracked."""
    with huge_memory(session, 1) as memory:
        memory.touch(7)
        memory.expect({7})
        with pytest.raises(OSError) as refusal:
            memory.advise(Advice.COLLAPSE)
        assert refusal.value.errno == errno.EINVAL
        session.untrack(memory.region)
        memory.advise(Advice.COLLAPSE)
        assert huge_bytes(memory) == PMD_SIZE


def test_split_pages_form_again_when_all_were_written(session: dirtytrack.Session) -> None:
    """Before they are collected the kernel may put them together: all are reported, then each as before."""
    with huge_memory(session) as memory:
        memory.touch(7)
        memory.expect({7})
        assert huge_bytes(memory) == PMD_SIZE
        memory.fill(5)
        memory.advise(Advice.COLLAPSE)
        assert huge_bytes(memory) == 2 * PMD_SIZE
        memory.expect(range(2 * PER_HUGE))
        assert huge_bytes(memory) == 2 * PMD_SIZE
        memory.touch(PER_HUGE - 1)
        memory.expect({PER_HUGE - 1})
        memory.advise(Advice.PAGEOUT)
        memory.expect()


def test_memory_tracked_before_it_is_populated_gets_no_huge_pages(session: dirtytrack.Session) -> None:
    """Tracking memory before its first write forgoes huge pages; every write is reported all the same."""
    with Tracked(session, 2 * PER_HUGE, advice=Advice.HUGEPAGE, populate=False) as memory:
        memory.touch(3)
        memory.expect({3})
        memory.fill(5)
        memory.expect(range(2 * PER_HUGE))
        assert huge_bytes(memory) == 0


def test_a_piece_of_a_huge_page(session: dirtytrack.Session) -> None:
    """Tracking a piece of a huge page reports the writes to this piece, and nothing beside it."""
    with huge_memory(session) as memory:
        session.untrack(memory.region)
        start, stop = memory.slice(10).start, memory.slice(20).stop
        piece = session.track(memoryview(memory.map)[start:stop])
        memory.touch(9)
        memory.touch(12)
        memory.touch(21)
        assert set(session.collect(piece)[piece]) == {2}
        session.untrack(piece)


def test_a_dropped_huge_page(session: dirtytrack.Session) -> None:
    """A whole huge page dropped with MADV_DONTNEED is reported, page by page."""
    with huge_memory(session, 3) as memory:
        memory.advise(Advice.DONTNEED, PER_HUGE, 2 * PER_HUGE)
        memory.expect(range(PER_HUGE, 2 * PER_HUGE))
        memory.touch(PER_HUGE)
        memory.expect({PER_HUGE})


def test_a_dropped_piece_of_a_huge_page(session: dirtytrack.Session) -> None:
    """Part of a huge page dropped with MADV_DONTNEED is reported to the page."""
    with huge_memory(session) as memory:
        memory.advise(Advice.DONTNEED, 5, 10)
        memory.expect(range(5, 10))


def test_the_huge_zero_page(session: dirtytrack.Session) -> None:
    """Memory that was only read lies on the huge zero page: a write to it reports its small page."""
    with Tracked(session, 2 * PER_HUGE, advice=Advice.HUGEPAGE, populate=False) as memory:
        session.untrack(memory.region)
        memory.read(0)
        memory.region = session.track(memory.map)
        memory.expect()
        memory.touch(3)
        memory.expect({3})


def test_all_of_a_huge_page_written(session: dirtytrack.Session) -> None:
    """A huge page written from end to end is reported whole, and no neighbour with it."""
    with huge_memory(session) as memory:
        for page in range(PER_HUGE):
            memory.touch(page)
        memory.expect(range(PER_HUGE))
