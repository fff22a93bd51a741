"""``Session(keep_huge_pages=True)``: cold memory goes back to huge pages, and nothing else is seen of it."""

from __future__ import annotations

import ctypes
import errno
import gc
import mmap
import os
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import dirtytrack
from _lib import seccomp
from _lib.interrupts import Storm, at_every_point, interrupted_at
from _lib.native_threads import wait_until
from _lib.support import PAGE_SIZE, PMD_SIZE, in_child, require
from _lib.syscalls import (
    MAP_ANONYMOUS,
    MAP_HUGETLB,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    Advice,
    mprotect,
)
from _lib.tracked import Tracked
from _lib.tracking.cooling import (
    PER_HUGE,
    WAIT,
    collect_quietly,
    come_back,
    eager,
    huge_bytes,
    huge_memory,
    rest,
)
from dirtytrack import Session
from dirtytrack.checkpoint import Checkpointer, load
from dirtytrack.kernel.pagemap import Category, scan_all
from dirtytrack.snapshot import History, Snapshot

_KINDS = {"plain": {}, "adaptive": {"adaptive": True}, "double check": {"double_check": 1.0}}


@pytest.fixture(params=["as found", "blind"])
def session(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A session that keeps huge pages, on both kinds of kernel."""
    if request.param == "blind":
        monkeypatch.setenv("DIRTYTRACK_HOLE_REPORTING", "blind")
    with Session(keep_huge_pages=True) as session:
        require(session.keep_huge_pages, session.huge_pages_reason)
        yield session


@pytest.fixture
def eager_session() -> Iterator[Session]:
    """One that puts back what one collect has found unwritten."""
    with eager(), Session(keep_huge_pages=True) as session:
        require(session.keep_huge_pages, session.huge_pages_reason)
        yield session


def is_huge(memory: Tracked, number: int = 0) -> bool:
    """Whether one of its huge pages is whole."""
    return huge_bytes(memory.address + number * PMD_SIZE, PMD_SIZE) == PMD_SIZE


def put_back(memory: Tracked, collects: int = WAIT) -> None:
    """Let it become cold, and wait."""
    collect_quietly(memory.session, collects)
    rest(memory.session)


def test_cold_memory_goes_back(session: Session) -> None:
    """With its contents, to the huge page that was split alone; a store to it is one small page again."""
    with huge_memory(session) as memory:
        memory.touch(PER_HUGE + 7)
        assert memory.reported() == {PER_HUGE + 7}
        assert (is_huge(memory, 0), is_huge(memory, 1)) == (True, False)
        come_back(memory)
        assert memory.region.huge_pages == dirtytrack.HugePages(2, 0, 0, 1, "")
        memory.copy({PER_HUGE + 7})
        assert not memory.changed()
        memory.expect()
        memory.touch(PER_HUGE + 8)
        memory.expect({PER_HUGE + 8})
        assert memory.region.huge_pages.split == 1


def test_it_takes_longer_after_each_split(session: Session) -> None:
    """8 collects, then 16, then 32."""
    with huge_memory(session, 1) as memory:
        for wait in (WAIT, 2 * WAIT, 4 * WAIT):
            memory.touch(7)
            assert memory.reported() == {7}
            collect_quietly(session, wait - 1)
            assert memory.region.huge_pages.cold == 0
            assert not is_huge(memory)
            come_back(memory, 1)
        assert memory.region.huge_pages.returned == 3


def test_a_hot_page_keeps_its_huge_page_split(session: Session) -> None:
    """However many collects there are, and its neighbour comes back."""
    with huge_memory(session) as memory:
        memory.touch(PER_HUGE)
        for _ in range(20):  # what the kernel refuses waits for twice as many collects
            for _ in range(4 * WAIT):
                memory.touch(7)
                assert 7 in memory.reported()
            rest(memory.session)
            assert not is_huge(memory)
            if is_huge(memory, 1):
                return
    require(False, "the kernel had no huge page to put memory back on")


def test_what_was_written_since_the_last_collect_is_not_cold(eager_session: Session) -> None:
    """Although collects of other pages of its huge page find nothing: it stays as it is, and is reported."""
    with huge_memory(eager_session, 1) as memory, eager_session.cursor("other") as other:
        memory.touch(7)
        assert memory.reported() == {7}
        memory.touch(8)
        assert eager_session.collect(memory.region[:PAGE_SIZE]).pages == 0
        rest(memory.session)
        assert memory.region.huge_pages.returned == 0
        assert memory.reported() == {8}
        assert set(other.collect()[memory.region]) == {7, 8}


@pytest.mark.parametrize("kind", _KINDS)
def test_every_kind_of_session(kind: str) -> None:
    """Also one that leaves hot pages open, and one that compares what it calls clean."""
    with Session(keep_huge_pages=True, **_KINDS[kind]) as session, huge_memory(session) as memory:  # type: ignore[arg-type]
        require(session.keep_huge_pages, session.huge_pages_reason)
        memory.touch(7)
        memory.touch(PER_HUGE)
        assert memory.reported() == {7, PER_HUGE}
        come_back(memory)
        memory.copy({7, PER_HUGE})
        memory.touch(9)
        memory.expect({9})


def test_sparse_memory_goes_back(eager_session: Session) -> None:
    """What is populated: huge pages that formed while it was tracked, too."""
    with Tracked(
        eager_session, 2 * PER_HUGE, populate=False, sparse=True, advice=Advice.HUGEPAGE, aligned=True
    ) as memory:
        memory.touch(3)
        assert memory.reported() == set(range(PER_HUGE))
        require(is_huge(memory), "the kernel gave no huge page")
        memory.touch(4)
        assert memory.reported() == {4}
        assert not is_huge(memory)
        come_back(memory, 1, number=0)
        assert not huge_bytes(memory.address + PMD_SIZE, PMD_SIZE)


def test_small_pages_stay_small(eager_session: Session) -> None:
    """Memory that never lay on huge pages is not put on any."""
    with Tracked(eager_session, PER_HUGE, advice=Advice.NOHUGEPAGE, aligned=True) as memory:
        memory.advise(Advice.HUGEPAGE)  # from here on it might
        memory.touch(7)
        assert memory.reported() == {7}
        put_back(memory, 3)
        assert not is_huge(memory)
        assert memory.region.huge_pages == dirtytrack.HugePages(0, 0, 0, 0, "")


def test_holes_are_not_filled(eager_session: Session) -> None:
    """A chunk of which a page was dropped waits until it is there again."""
    with huge_memory(eager_session, 1) as memory:
        memory.advise(Advice.DONTNEED, 7, 8)
        assert memory.reported() == {7}
        put_back(memory, 3)
        found = scan_all(
            *(memory.at(0), memory.at(0) + memory.nbytes),
            category_mask=Category.PRESENT,
        )
        assert sum(one.end - one.start for one in found) == memory.nbytes - PAGE_SIZE
        memory.touch(7)
        assert memory.reported() == {7}
        come_back(memory, 3)


def test_what_can_not_be_read_stays(eager_session: Session) -> None:
    """It is given up until it was quiet anew, and not tried without end."""
    with huge_memory(eager_session, 1) as memory:
        memory.touch(7)
        assert memory.reported() == {7}
        mprotect(memory.address, memory.nbytes, PROT_NONE)
        put_back(memory, 3)
        assert memory.region.huge_pages.returned == 0
        mprotect(memory.address, memory.nbytes, PROT_READ | PROT_WRITE)
        come_back(memory, 1)
        memory.copy({7})
        memory.expect()


def test_only_what_is_tracked_whole(eager_session: Session) -> None:
    """A huge page of which a part is tracked stays split; regions that have it together keep it."""
    with huge_memory(eager_session, 1) as memory:
        eager_session.untrack(memory.region)
        half = memory.nbytes // 2 + 100
        first = eager_session.track(memory.map[:half])
        memory.touch(7)
        eager_session.reset()
        collect_quietly(eager_session, 3)
        assert not is_huge(memory)
        second = eager_session.track(memory.map[half:])
        memory.touch(8)
        memory.touch(PER_HUGE - 1)
        with eager_session.collect() as epoch:
            assert set(epoch[first]) == {8}
            assert set(epoch[second]) == {PER_HUGE // 2 - 1}
        come_back(memory, 1)
        eager_session.untrack(first)
        eager_session.untrack(second)


def test_a_page_that_a_child_shares_stays(eager_session: Session) -> None:
    """Putting it back would take a copy of everything; it goes back once the child is gone."""
    with huge_memory(eager_session, 1) as memory:
        memory.touch(7)
        assert memory.reported() == {7}
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        put_back(memory, 3)
        shared = memory.region.huge_pages.returned
        os.close(writer)
        os.close(reader)
        assert os.waitpid(child, 0)[1] == 0
        assert shared == 0
        come_back(memory, 3)
        memory.copy({7})
        memory.expect()


def test_every_cursor_is_told(eager_session: Session) -> None:
    """What is written while huge pages come back, and others look on."""
    with huge_memory(eager_session) as memory, eager_session.cursor("second") as second:
        written: set[int] = set()
        for page in range(0, 2 * PER_HUGE, 37):
            memory.touch(page)
            written.add(page)
            assert memory.reported() == {page}
            assert set(second.peek()[memory.region]) == written
            collect_quietly(eager_session, 1)
            if page % 5 == 0:
                rest(memory.session)
        assert set(second.collect()[memory.region]) == written
        require(memory.region.huge_pages.returned > 0, "the kernel had no huge pages")
        memory.copy(written)
        memory.expect()


def test_untracked_and_lost_memory_is_left_alone(eager_session: Session) -> None:
    """Whatever instant that is at; what is tracked there anew starts clean."""
    for _ in range(20):
        with huge_memory(eager_session, 1) as memory:
            memory.touch(7)
            assert memory.reported() == {7}
            collect_quietly(eager_session, 1)
            memory.touch(8)
            eager_session.untrack(memory.region)
            memory.region = eager_session.track(memory.map)
            memory.copy({7, 8})
            memory.expect()
    memory = huge_memory(eager_session, 1)
    memory.touch(7)
    assert memory.reported() == {7}
    memory.advise(Advice.DONTNEED, 9, 10)
    ctypes.CDLL(None).munmap(ctypes.c_void_p(memory.address), ctypes.c_size_t(PMD_SIZE // 2))
    with pytest.raises(dirtytrack.RegionLostError):
        eager_session.collect()
    eager_session.untrack(memory.region)


def test_closing_ends_the_thread() -> None:
    """Also in the middle of its work, and with many sessions at once."""

    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    before = threads()
    with eager(), ExitStack() as stack:
        for _ in range(8):
            session = stack.enter_context(Session(keep_huge_pages=True))
            require(session.keep_huge_pages, session.huge_pages_reason)
            memory = stack.enter_context(huge_memory(session, 4))
            for page in range(0, 4 * PER_HUGE, PER_HUGE):
                memory.touch(page)
            session.reset()
            collect_quietly(session, 1)
        assert threads() == before + 8
    assert threads() == before


def test_a_forked_child_has_none_of_it(eager_session: Session) -> None:
    """Its parent goes on; the child can have a session of its own that keeps huge pages."""
    with huge_memory(eager_session, 1) as memory:
        memory.touch(7)
        assert memory.reported() == {7}

        def child() -> bool:
            with pytest.raises(dirtytrack.ForkedError):
                memory.region.huge_pages  # noqa: B018
            eager_session.close()
            with Session(keep_huge_pages=True) as own, huge_memory(own, 1) as other:
                other.touch(3)
                assert other.reported() == {3}
                come_back(other)
                return is_huge(other)

        collect_quietly(eager_session, 1)
        assert in_child(child).check()
        memory.copy({7})
        put_back(memory, 2)
        memory.touch(8)
        memory.expect({8})


def test_a_storm_of_interrupts_loses_nothing() -> None:
    """Beside memory that goes back: in the end the copy is the memory, and nothing was invented."""

    def child() -> tuple[int, int]:
        generator = random.Random(1)
        storm = Storm(2, 1)
        written: set[int] = set()
        reported: set[int] = set()
        with eager(), Session(keep_huge_pages=True) as session, huge_memory(session) as memory:
            shadow = bytearray(memory.map)

            def act() -> None:
                page = generator.randrange(memory.pages)
                written.add(page)
                memory.map[page * PAGE_SIZE + 5] = (memory.map[page * PAGE_SIZE + 5] + 1) % 256
                with session.collect() as epoch:
                    for piece in epoch[memory.region].slices():
                        shadow[piece] = memory.map[piece]
                    reported.update(epoch[memory.region])

            while storm.struck < 100:
                storm.round(act)
                session.peek()
                rest(session)
            gc.collect()
            act()
            assert shadow == memory.map[:]
            assert reported <= written
            return storm.struck, memory.region.huge_pages.returned

    struck, returned = in_child(child).check()
    assert struck >= 100
    require(returned > 0, "the kernel had no huge pages")


def test_an_interrupted_close_ends_the_thread() -> None:
    """It can be repeated, and an opening that is interrupted leaves no thread either."""

    def act(count: int) -> None:
        session = None
        try:
            with interrupted_at(count):
                session = Session(keep_huge_pages=True)
                session.close()
        finally:
            if session is not None:
                session.close()

    def check() -> None:
        gc.collect()
        wait_until(
            lambda: len(os.listdir("/proc/self/task")) == before
        )  # the kernel lists an ended one a while

    before = len(os.listdir("/proc/self/task"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        at_every_point(act, check)


def test_threads_collect_beside_it(eager_session: Session) -> None:
    """Several, with cursors of their own, while regions come and go and memory goes back."""
    with huge_memory(eager_session) as memory, ExitStack() as stack:
        cursors = [stack.enter_context(eager_session.cursor(f"{number}")) for number in range(3)]
        found: list[set[int]] = [set() for _ in cursors]
        written: set[int] = set()
        stop = threading.Event()

        def look(number: int) -> None:
            while not stop.is_set():
                found[number].update(cursors[number].collect()[memory.region])
                stop.wait(0.001)

        def come_and_go() -> None:
            while not stop.is_set():
                region = eager_session.track(memory.map[PMD_SIZE - 5000 : PMD_SIZE + 5000])
                eager_session.peek(region)
                eager_session.untrack(region)
                stop.wait(0.001)

        threads = [threading.Thread(target=look, args=(number,)) for number in range(3)]
        threads.append(threading.Thread(target=come_and_go))
        for thread in threads:
            thread.start()
        try:
            generator = random.Random(3)
            for _ in range(300):
                page = generator.randrange(memory.pages)
                memory.touch(page)
                written.add(page)
                stop.wait(0.001)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        for number, cursor in enumerate(cursors):
            found[number].update(cursor.collect()[memory.region])
        assert found == [written] * 3


# What a copy may hold


def test_copies_hold_nothing_that_is_undone_unseen(eager_session: Session, tmp_path: Path) -> None:
    """A writer undoes each store, beside checkpoints, snapshots and histories: they are as the memory."""
    array = dirtytrack.empty(2 * PMD_SIZE, np.uint8, huge=True)
    array[:] = 1
    stop = threading.Event()

    def write() -> None:
        random = np.random.default_rng(1)
        while not stop.is_set():
            pages = random.integers(0, 2 * PER_HUGE, 3) * PAGE_SIZE
            array[pages] += 1
            array[pages] -= 1
            stop.wait(0.0005)

    writer = threading.Thread(target=write)
    with (
        Checkpointer(tmp_path / "chain", {"a": array}, session=eager_session) as checkpoints,
        Snapshot(eager_session, array) as snapshot,
        History(eager_session, array) as history,
    ):
        writer.start()
        try:
            for _ in range(30):
                checkpoints.save()
                snapshot.advance()
                state = history.save()
        finally:
            stop.set()
            writer.join()
        checkpoints.save(wait=True)
        assert (load(tmp_path / "chain")["a"] == array).all()
        snapshot.advance()
        assert not list(snapshot.verify())
        state = history.save()
        array[:] = 9
        history.restore(state)
        assert (array == 1).all()


# Where it does not work, it says so


def test_it_is_off_unless_asked_for() -> None:
    """The session says how to ask."""
    with Session() as session, Tracked(session, 4) as memory:
        assert not session.keep_huge_pages
        assert "keep_huge_pages=True" in session.huge_pages_reason
        assert memory.region.huge_pages == dirtytrack.HugePages(0, 0, 0, 0, session.huge_pages_reason)


@pytest.mark.anywhere
def test_comparing_splits_nothing() -> None:
    """So there is nothing to put back."""
    with Session(backend="compare", keep_huge_pages=True) as session, Tracked(session, 4) as memory:
        assert not session.keep_huge_pages
        assert "compare" in session.huge_pages_reason
        assert memory.region.huge_pages.reason == session.huge_pages_reason


@pytest.mark.parametrize(
    ("flags", "reason"),
    [(MAP_SHARED | MAP_ANONYMOUS, "shared memory"), (MAP_PRIVATE | MAP_ANONYMOUS, "2 MiB")],
)
def test_memory_that_can_not_go_back(session: Session, flags: int, reason: str) -> None:
    """Shared memory, and a region without a whole huge page."""
    require(PMD_SIZE == 2 << 20, "huge pages of 2 MiB")
    with Tracked(session, 16, flags=flags) as memory:
        assert reason in memory.region.huge_pages.reason


def test_hugetlb_memory_is_left_alone(session: Session, hugepages: Callable[[int], int]) -> None:
    """It is never split; it is tracked as ever."""
    size = hugepages(2)
    with Tracked(session, 2, flags=MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, page_size=size) as memory:
        memory.touch(1)
        memory.expect({1})
        assert "hugetlb" in memory.region.huge_pages.reason
        assert memory.region.huge_pages.whole == 0


def test_a_process_without_huge_pages() -> None:
    """The session works, and says what forbids them."""

    def child() -> str:
        set_thp_disable = 41
        assert ctypes.CDLL(None).prctl(set_thp_disable, 1, 0, 0, 0) == 0
        with Session(keep_huge_pages=True) as session, Tracked(session, 16) as memory:
            memory.touch(3)
            memory.expect({3})
            assert not session.keep_huge_pages
            return session.huge_pages_reason

    assert "PR_SET_THP_DISABLE" in in_child(child).check()


def test_a_kernel_without_huge_pages() -> None:
    """The same, where it has no MADV_COLLAPSE."""

    def child() -> str:
        seccomp.install(seccomp.Refuse("madvise", errno.EINVAL))
        with Session(keep_huge_pages=True) as session, Tracked(session, 16) as memory:
            memory.touch(3)
            memory.expect({3})
            return session.huge_pages_reason

    assert "CONFIG_TRANSPARENT_HUGEPAGE" in in_child(child).check()


def test_a_kernel_that_refuses_each() -> None:
    """It waits longer each time; nothing is reported but what is written."""

    def child() -> tuple[int, int]:
        with eager(), Session(keep_huge_pages=True) as session, huge_memory(session, 1) as memory:
            seccomp.install(seccomp.Refuse("process_vm_readv", errno.EPERM))
            memory.touch(7)
            assert memory.reported() == {7}
            memory.copy({7})
            memory.advise(Advice.NOHUGEPAGE)
            for page in range(8, 40):
                put_back(memory, 1)
                memory.touch(page)
                memory.expect({page})
            return memory.region.huge_pages.split, memory.region.huge_pages.returned

    assert in_child(child).check() == (1, 0)


@pytest.mark.parametrize("value", [1, "yes", None])
def test_a_wrong_wish(value: object) -> None:
    """It is True or False."""
    with pytest.raises(TypeError, match="keep_huge_pages is True or False"):
        Session(keep_huge_pages=value)  # type: ignore[arg-type]


def test_a_session_without_a_thread() -> None:
    """The error says so, and nothing stays open."""

    def child() -> tuple[str, int]:
        import resource

        before = len(os.listdir("/proc/self/fd"))
        said = "nothing"
        resource.setrlimit(resource.RLIMIT_AS, (mmap.PAGESIZE * 10, resource.RLIM_INFINITY))
        try:
            Session(keep_huge_pages=True)
        except dirtytrack.KernelError as error:
            said = error.remedy
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return said, len(os.listdir("/proc/self/fd")) - before

    said, left = in_child(child).check()
    assert "RLIMIT_AS" in said
    assert left == 0
