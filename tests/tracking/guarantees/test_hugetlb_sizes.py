"""Huge pages from the pool of every size that the kernel has: each is tracked as those of the usual size are.

Kernels before mid-2026 neither report nor arm a page that is not as large as what a page table maps, in a
scan that is to arm. What makes up for it is tried on every kernel, with pages of any size: see `session_on`.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import dirtytrack
from _lib import seccomp
from _lib.support import address_of, optional, reserve_hugepages
from _lib.syscalls import MAP_ANONYMOUS, MAP_HUGETLB, MAP_PRIVATE
from _lib.tracked import KERNELS, session_on
from dirtytrack.checkpoint import Checkpointer, load
from dirtytrack.kernel.pagemap import Category, ScanFlags, scan
from dirtytrack.kernel.userfaultfd import Userfaultfd

_POOLS = Path("/sys/kernel/mm/hugepages")
_LARGEST = 1 << 30
_SHIFT = 26  # MAP_HUGE_SHIFT, and MFD_HUGE_SHIFT: the size's logarithm lies there in the flags


def _sizes() -> list[int]:
    """Bytes of each kind of huge page, ascending."""
    names = [path.name for path in _POOLS.glob("hugepages-*kB")]
    sizes = sorted(int(name.removeprefix("hugepages-").removesuffix("kB")) << 10 for name in names)
    return [size for size in sizes if size <= _LARGEST]


@pytest.fixture(params=_sizes(), ids=lambda size: f"{size >> 10}KiB")
def size(request: pytest.FixtureRequest) -> Iterator[int]:
    """Bytes of a huge page; enough of them are free for `mapped`."""
    with reserve_hugepages(count_of(request.param), request.param) as size:
        yield size


def count_of(size: int) -> int:
    """How many pages the tests take: few systems have two of the largest."""
    return 3 if size < _LARGEST else 1


@contextmanager
def mapped(size: int, *, shared: bool = False, populate: bool = True) -> Iterator[mmap.mmap]:
    """Huge pages of a size, private or a memfd's."""
    flag, nbytes = (size.bit_length() - 1) << _SHIFT, count_of(size) * size
    if shared:
        with open(os.memfd_create("dirtytrack", os.MFD_HUGETLB | flag), "w+b", buffering=0) as file:
            file.truncate(nbytes)
            memory = mmap.mmap(file.fileno(), nbytes)
    else:
        memory = mmap.mmap(-1, nbytes, flags=MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | flag)
    with memory:
        for page in range(count_of(size) if populate else 0):
            memory[page * size] = 1
        yield memory


@contextmanager
def tracked(session: dirtytrack.Session, memory: object) -> Iterator[dirtytrack.Region]:
    """Memory that is untracked in the end, so that it can be unmapped."""
    region = session.track(memory)
    try:
        yield region
    finally:
        session.untrack(region)


def store(memory: mmap.mmap, size: int, *pages: int) -> None:
    """Change a byte within each of the pages."""
    for page in pages:
        at = page * size + 12345
        memory[at] = (memory[at] + 1) % 256


def taken(session: dirtytrack.Session, region: dirtytrack.Region) -> set[int]:
    """The pages of the next epoch."""
    return set(session.collect(region)[region])


@pytest.mark.parametrize("shared", [False, True], ids=["private", "shared"])
def test_huge_pages_of_every_size(session: dirtytrack.Session, size: int, shared: bool) -> None:
    """A byte stored reports the one page that holds it, once, and again after the next store."""
    with mapped(size, shared=shared) as memory, tracked(session, memory) as region:
        assert region.page_size == size
        assert taken(session, region) == set()
        for page in (count_of(size) - 1, 0, 0):
            store(memory, size, page)
            assert set(session.peek(region)[region]) == {page}
            assert taken(session, region) == {page}
            assert taken(session, region) == set()


def test_huge_pages_of_every_size_never_populated(session: dirtytrack.Session, size: int) -> None:
    """The first read is no write, the first store is one."""
    with mapped(size, populate=False) as memory, tracked(session, memory) as region:
        assert memory[5] == 0
        assert taken(session, region) == set()
        store(memory, size, count_of(size) - 1)
        assert taken(session, region) == {count_of(size) - 1}
        assert taken(session, region) == set()


def test_pieces_of_huge_pages_of_every_size(session: dirtytrack.Session, size: int) -> None:
    """A take of a part arms that part alone; other cursors and regions miss nothing by it."""
    count = count_of(size)
    whole, last = set(range(count)), count - 1
    with (
        mapped(size) as memory,
        tracked(session, memory) as region,
        tracked(session, (address_of(memory) + last * size + 5, size - 10)) as neighbour,
    ):
        cursor = session.cursor("other")
        store(memory, size, *whole)
        piece = region[last * size + 5 : count * size - 5]
        assert set(session.collect(piece)[region]) == {last}
        assert taken(session, region) == whole - {last}
        assert taken(session, neighbour) == {0}
        with cursor.collect() as epoch:
            assert set(epoch[region]) == whole
        assert taken(session, region) == taken(session, neighbour) == set()
        with pytest.raises(RuntimeError), session.collect(region):
            store(memory, size, 0)
            raise RuntimeError
        assert taken(session, region) == {0}


def test_hot_huge_pages_of_every_size(size: int) -> None:
    """An adaptive session leaves none of them open."""
    with (
        mapped(size) as memory,
        dirtytrack.Session(adaptive=True) as session,
        tracked(session, memory) as region,
    ):
        for _ in range(20):
            store(memory, size, 0)
            assert taken(session, region) == {0}
        assert taken(session, region) == set()


def test_saving_huge_pages_of_every_size(session: dirtytrack.Session, size: int, tmp_path: Path) -> None:
    """A checkpoint has what was stored since the one before it."""
    optional(size < _LARGEST, "a file of a GiB takes long")
    with mapped(size) as memory, Checkpointer(tmp_path, {"memory": memory}, session=session) as checkpoints:
        for page in (0, count_of(size) - 1, 0):
            store(memory, size, page)
            checkpoints.save(wait=True)
            assert bytes(load(tmp_path)["memory"]) == memory[:]


@pytest.mark.forked
@pytest.mark.parametrize("kernel", KERNELS)
def test_what_arms_huge_pages_is_found_by_trying(kernel: str, size: int) -> None:
    """Where a scan arms pages of a size, it does; elsewhere, or on a kernel said to be old, another call."""

    def needs_the_other_call(
        session: dirtytrack.Session, region: dirtytrack.Region, memory: mmap.mmap
    ) -> bool:
        store(memory, size, 0)
        assert taken(session, region) == {0}  # by now it has been tried
        seccomp.install(seccomp.refuse_ioctl(seccomp.UFFDIO_WRITEPROTECT, errno.EIO))
        store(memory, size, 0)
        try:
            found = taken(session, region)
        except dirtytrack.KernelError as error:
            found = {error.errno}
        if found == {errno.EIO}:
            assert 0 in session.peek(region)[region]  # nothing is lost by its failure
            return True
        assert found == {0}
        assert taken(session, region) == set()
        return False

    with mapped(size) as memory:
        # A kernel that is blind to holes can't be taken for another one: there it is what it is.
        pretends = kernel != "as found" and dirtytrack.support().hole_reporting != "blind"
        expected = pretends or not a_scan_arms(memory, size)
        with session_on(kernel) as session, tracked(session, memory) as region:
            assert needs_the_other_call(session, region, memory) is expected


def a_scan_arms(memory: mmap.mmap, size: int) -> bool:
    """Whether PAGEMAP_SCAN reports and arms a written page of this size."""
    start = address_of(memory)
    with Userfaultfd() as userfaultfd:
        userfaultfd.register(start, start + size)

        def written(flags: ScanFlags) -> list[tuple[int, int]]:
            both = {"category_mask": Category.WRITTEN, "return_mask": Category.WRITTEN}
            found = scan(start, start + size, flags=flags | ScanFlags.CHECK_WPASYNC, **both)
            return [(one.start - start, one.end - start) for one in found.regions]

        taken, left = written(ScanFlags.WP_MATCHING), written(ScanFlags(0))
    assert sorted([taken, left]) == [[], [(0, size)]]
    return taken != []
