"""Memory that is no longer what was tracked: an error that says where, never silence."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

import dirtytrack
from _lib.support import PAGE_SIZE
from _lib.syscalls import MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE, map_anonymous, mremap, munmap
from _lib.tracked import Tracked

PAGES = 8
NBYTES = PAGES * PAGE_SIZE


class Raw:
    """Bare memory, tracked by its address: nothing keeps it there. Behind it lies as much again, untracked.

    Attributes:
        address: of its first byte.
        mapped: what of it there is to unmap in the end. Not its holes: something else may lie there by then.
    """

    def __init__(self, session: dirtytrack.Session) -> None:
        self.session = session
        self.address = map_anonymous(2 * NBYTES)
        self.mapped = [(self.address, 2 * NBYTES)]
        ctypes.memset(self.address, 1, NBYTES)
        self.region = session.track((self.address, NBYTES), name="raw")

    def touch(self, page: int) -> None:
        """Write to a page of the region."""
        self.region.view[page * PAGE_SIZE] = 9

    def reported(self) -> set[int]:
        """The pages of the next epoch."""
        return set(self.session.collect(self.region)[self.region])

    def lost(self) -> set[tuple[int, int]]:
        """Assert that the region is lost, and return the runs of pages that the error names."""
        for verb in (self.session.collect, self.session.peek, self.session.reset, self.session.collect):
            with pytest.raises(dirtytrack.RegionLostError, match="raw") as error:
                verb(self.region)
        assert self.region.lost
        ((region, ranges),) = error.value.losses
        assert region is self.region
        return {
            ((start - self.address) // PAGE_SIZE, (stop - self.address) // PAGE_SIZE)
            for start, stop in ranges
        }

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *exc: object) -> None:
        self.session.untrack(self.region)
        for piece in self.mapped:
            munmap(*piece)


@pytest.fixture
def raw(session: dirtytrack.Session) -> Iterator[Raw]:
    """Bare memory, tracked."""
    with Raw(session) as raw:
        yield raw


def test_unmapped_memory_is_lost(raw: Raw) -> None:
    """A hole in the memory raises RegionLostError and names it, until the region is untracked."""
    munmap(raw.address + 2 * PAGE_SIZE, 3 * PAGE_SIZE)
    raw.mapped = [(raw.address, 2 * PAGE_SIZE), (raw.address + 5 * PAGE_SIZE, 2 * NBYTES - 5 * PAGE_SIZE)]
    assert raw.lost() == {(2, 5)}


def test_memory_mapped_over_is_lost(raw: Raw) -> None:
    """Other memory in the place of ours is not tracked: RegionLostError, whatever was written there."""
    map_anonymous(2 * PAGE_SIZE, at=raw.address + 4 * PAGE_SIZE)
    assert raw.lost() == {(4, 6)}


def test_moved_memory_is_lost(raw: Raw) -> None:
    """Memory that mremap moved away is lost; where it is now, it can be tracked anew."""
    target = map_anonymous(NBYTES)
    raw.touch(1)
    assert mremap(raw.address, NBYTES, NBYTES, MREMAP_MAYMOVE | MREMAP_FIXED, to=target) == target
    raw.mapped = [(target, NBYTES), (raw.address + NBYTES, NBYTES)]
    assert raw.lost() == {(0, PAGES)}
    anew = raw.session.track((target, NBYTES))
    anew.view[3 * PAGE_SIZE] = 9
    assert set(raw.session.collect(anew)[anew]) == {3}
    raw.session.untrack(anew)


def test_shrunk_memory_is_lost(raw: Raw) -> None:
    """A mapping cut short by mremap is lost; the error names the part that is gone."""
    mremap(raw.address, NBYTES, 3 * PAGE_SIZE)
    raw.mapped = [(raw.address, 3 * PAGE_SIZE), (raw.address + NBYTES, NBYTES)]
    assert raw.lost() == {(3, PAGES)}


def test_memory_grown_in_place(raw: Raw) -> None:
    """A mapping that mremap grows stays tracked as far as it was; the new part belongs to no region."""
    munmap(raw.address + NBYTES, NBYTES)
    assert mremap(raw.address, NBYTES, 2 * NBYTES) == raw.address
    assert raw.reported() == set()
    growth = raw.session.track((raw.address + NBYTES, NBYTES))
    growth.view[0] = 9
    raw.touch(PAGES - 1)
    epoch = raw.session.collect()
    assert {region: set(pages) for region, pages in epoch.items()} == {raw.region: {PAGES - 1}, growth: {0}}
    raw.session.untrack(growth)


def test_memory_moved_out_of_its_mapping(raw: Raw) -> None:
    """MREMAP_DONTUNMAP takes the pages and leaves the mapping: every page was emptied, and is reported."""
    moved = mremap(raw.address, NBYTES, NBYTES, MREMAP_MAYMOVE | MREMAP_DONTUNMAP)
    assert raw.reported() == set(range(PAGES))
    assert not any(raw.region.view)
    assert raw.reported() == set()
    raw.touch(2)
    assert raw.reported() == {2}
    munmap(moved, NBYTES)


def test_the_other_regions_survive_a_loss(session: dirtytrack.Session) -> None:
    """The pages of healthy regions are in the epoch after the error, none lost and none extra."""
    with Tracked(session) as healthy, Raw(session) as raw:
        healthy.touch(3)
        munmap(raw.address, PAGE_SIZE)
        with pytest.raises(dirtytrack.RegionLostError):
            session.collect()
        healthy.touch(5)
        healthy.expect({3, 5})


def test_lost_memory_can_be_tracked_anew(raw: Raw) -> None:
    """After untrack the memory that is there now is tracked as any; the old region stays lost until then."""
    map_anonymous(NBYTES, at=raw.address)
    assert raw.lost() == {(0, PAGES)}
    anew = raw.session.track((raw.address, NBYTES))
    assert raw.lost()
    raw.session.untrack(raw.region)
    raw.region = anew
    raw.touch(6)
    assert raw.reported() == {6}
