"""Mirror: a copy that is kept up to date, by every backend and beside writers."""

from __future__ import annotations

import ctypes
import errno
import gc
import itertools
import mmap
import os
import pickle
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import dirtytrack
from _lib import seccomp
from _lib.interrupts import at_every_point, interrupted_at, traced
from _lib.raw import Raw
from _lib.stress.harness import Writers
from _lib.support import PAGE_SIZE, address_of, in_child, require
from _lib.syscalls import Advice
from dirtytrack import ClosedError, ForkedError, KernelError, Mirror, RegionLostError, Session
from dirtytrack.tracking import mirror as module


def store(memory: mmap.mmap, *pages: int) -> None:
    """Change one byte on each page."""
    for page in pages:
        memory[page * PAGE_SIZE + 7] ^= 0x5A


def test_an_update_copies_what_was_written(session: Session) -> None:
    """And says how much that was; what was there before is in the copy from the start."""
    memory = dirtytrack.alloc(100 * PAGE_SIZE)
    store(memory, 50)
    with Mirror(session, memory) as mirror:
        assert mirror.view == memory[:]
        assert mirror.update() == 0
        store(memory, 3, 4, 99)
        assert mirror.view != memory[:]
        assert mirror.update() == 3 * PAGE_SIZE
        assert mirror.view == memory[:]
        assert mirror.update() == 0
        assert (mirror.view.readonly, mirror.view.format, len(mirror.view)) == (True, "B", 100 * PAGE_SIZE)


def test_random_stores(session: Session) -> None:
    """Every byte is right after every update, for memory that begins and ends within pages."""
    draw = random.Random(1)
    buffer = bytearray(40 * PAGE_SIZE)
    view = memoryview(buffer)[123 : 30 * PAGE_SIZE + 77]
    with Mirror(session, view) as mirror:
        for _ in range(200):
            for _ in range(draw.randrange(6)):
                start = draw.randrange(len(buffer))
                data = draw.randbytes(draw.choice([1, 100, 2 * PAGE_SIZE]))[: len(buffer) - start]
                buffer[start : start + len(data)] = data
            copied = mirror.update()
            assert mirror.view == view
            assert copied <= len(view)


@pytest.mark.parametrize(("start", "stop"), [(0, PAGE_SIZE), (100, 200), (PAGE_SIZE - 1, 3 * PAGE_SIZE + 1)])
def test_only_its_own_bytes_are_copied(session: Session, start: int, stop: int) -> None:
    """Neighbours on a page are not, and are not counted."""
    memory = dirtytrack.alloc(5 * PAGE_SIZE)
    memory[:] = b"\1" * len(memory)
    with Mirror(session, memoryview(memory)[start:stop]) as mirror:
        memory[:] = b"\2" * len(memory)
        assert mirror.update() == stop - start
        assert mirror.view == memory[start:stop]


def test_a_region_stays_tracked_and_other_memory_does_not(session: Session) -> None:
    """What the mirror has begun it ends, also its cursor, which nobody else is disturbed by."""
    memory, own = dirtytrack.alloc(4 * PAGE_SIZE), bytearray(10)
    region = session.track(memory, name="mine")
    mirror, second, third = Mirror(None, region), Mirror(session, region), Mirror(session, own)
    assert (mirror.region, second.region) == (region, region)
    assert session.regions == (region, third.region)
    store(memory, 1)
    assert mirror.update() == PAGE_SIZE
    assert session.collect()[region] == {1}
    store(memory, 2)
    assert (mirror.update(), second.update()) == (PAGE_SIZE, 2 * PAGE_SIZE)
    assert session.collect()[region] == {2}
    for one in (mirror, second, third):
        one.close()
        one.close()
        assert one.closed
    assert session.regions == (region,)
    own.clear()


@pytest.mark.registration
def test_without_a_session_it_is_the_default_one(session: Session) -> None:
    """As everywhere."""
    array = np.zeros((100, 1000))
    with Mirror(None, array) as mirror:
        assert mirror.region.session is dirtytrack.default_session()
        array[7] = 1.0
        mirror.update()
        assert (np.frombuffer(mirror.view).reshape(array.shape) == array).all()
    dirtytrack.default_session().close()


def test_what_is_no_session_or_no_memory_is_refused(session: Session) -> None:
    """Before anything is tracked."""
    with pytest.raises(TypeError, match="Session or None"):
        Mirror(bytearray(10), None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no memory to track"):
        Mirror(session, [bytearray(10)])
    with Session(backend=session.backend) as other, pytest.raises(ValueError, match="another session"):
        Mirror(session, other.track(dirtytrack.alloc(10)))
    assert session.regions == ()
    assert session.cursor("the only one")


def test_a_store_that_is_undone_is_not_in_the_copy_for_ever(session: Session) -> None:
    """One made between the beginning of the cursor and the first copy, undone before the next look."""
    memory = dirtytrack.alloc(4 * PAGE_SIZE)
    memory[0] = 1

    def possibly_nonzero(region: dirtytrack.Region) -> Iterator[tuple[int, int]]:
        memory[0] = 2
        yield 0, region.nbytes

    with mock.patch.object(module, "possibly_nonzero", possibly_nonzero), Mirror(session, memory) as mirror:
        memory[0] = 1
        mirror.update()
        assert mirror.view == memory[:]


def test_beside_a_writer_that_undoes_its_stores(session: Session) -> None:
    """Whenever it has stopped, one update makes the copy right: no page keeps a store that is gone."""
    memory = dirtytrack.alloc(64 * PAGE_SIZE)
    address = address_of(memory)
    with Mirror(session, memory) as mirror:
        for _ in range(30):
            stop = threading.Event()
            thread = threading.Thread(target=_flip, args=(address, stop))
            thread.start()
            for _ in range(20):
                mirror.update()
            stop.set()
            thread.join()
            mirror.update()
            assert mirror.view == memory[:]


def _flip(address: int, stop: threading.Event) -> None:
    # Always leaves zeros: what looks at contents alone sees no store at all.
    while not stop.is_set():
        ctypes.memset(address, 1, 64 * PAGE_SIZE)
        ctypes.memset(address, 0, 64 * PAGE_SIZE)


@pytest.mark.parametrize("options", [{}, {"adaptive": True}, {"double_check": 0.2}])
@pytest.mark.parametrize("threads", [1, 2])
def test_beside_writers_no_store_is_missed(backend: str, options: dict[str, float], threads: int) -> None:
    """C threads at full speed; whenever they have stopped, one update makes the copy right."""
    memory = dirtytrack.alloc(256 * PAGE_SIZE, huge=False)
    with Session(backend=backend, **options) as session, Mirror(session, memory) as mirror:  # type: ignore[arg-type]
        writers = Writers(memory, chaos="none", shared=False, threads=threads)
        rounds = itertools.count(1)
        while next(rounds) <= 20 or not writers.stores:  # on a busy machine they may come late
            with writers:
                for _ in range(20):
                    mirror.update()
            mirror.update()
            assert mirror.view == memory[:]


def test_threads_that_update_at_once(session: Session) -> None:
    """No copy is overwritten by an older one."""
    memory = dirtytrack.alloc(64 * PAGE_SIZE)
    with Mirror(session, memory) as mirror:
        stop = threading.Event()

        def update() -> None:
            while not stop.is_set():
                mirror.update()

        writers = Writers(memory, chaos="none", shared=False)
        threads = [threading.Thread(target=update) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(20):
                with writers:
                    mirror.update()
                mirror.update()
                assert mirror.view == memory[:]
        finally:
            stop.set()
            for thread in threads:
                thread.join()


@traced
def test_an_interrupted_update_loses_nothing(session: Session) -> None:
    """Wherever Ctrl-C strikes, the next one has those pages, also in the handler of the interrupt."""
    memory = dirtytrack.alloc(16 * PAGE_SIZE)
    with Mirror(session, memory) as mirror:

        def act(count: int) -> None:
            store(memory, count % 16)
            try:
                with interrupted_at(count):
                    mirror.update()
            except KeyboardInterrupt:
                mirror.update()
                assert mirror.view == memory[:]
                raise

        at_every_point(act, lambda: None)


@traced
def test_an_interrupted_beginning_leaves_nothing(session: Session) -> None:
    """No region, no cursor, no export."""
    memory = bytearray(100)
    made: list[Mirror] = []

    def act(count: int) -> None:
        with interrupted_at(count):
            made.append(Mirror(session, memory))

    def check() -> None:
        while made:
            made.pop().close()
        assert (session.regions, list(session._cursors)) == ((), ["default"])
        memory.clear()
        memory.extend(bytes(100))

    at_every_point(act, check)
    check()


@traced
def test_an_interrupted_close_is_finished_by_another(session: Session) -> None:
    """Nothing stays tracked."""
    memory, made = bytearray(100), []

    def act(count: int) -> None:
        made[:] = [Mirror(session, memory)]
        with interrupted_at(count):
            made[0].close()

    def check() -> None:
        made[0].close()
        assert (session.regions, list(session._cursors)) == ((), ["default"])

    at_every_point(act, check)
    check()


@traced
def test_a_signal_handler_may_update_too(session: Session) -> None:
    """In the middle of an update of the same thread, and of anything else of the session."""
    memory = dirtytrack.alloc(16 * PAGE_SIZE)
    with Mirror(session, memory) as mirror:
        seen = []

        def handler() -> None:
            store(memory, 9)
            mirror.update()
            seen.append(mirror.view == memory[:])

        for act in (mirror.update, session.collect, lambda: session.untrack(session.track(bytearray(10)))):
            for count in range(1, 1000):
                seen.clear()
                store(memory, count % 8)
                with interrupted_at(count, by=handler):
                    act()
                mirror.update()
                assert mirror.view == memory[:]
                if not seen:
                    break
                assert seen == [True]
            assert 5 < count < 999


UNREADABLE = ["protected", "guard page", "truncated"]


def _spoil(kind: str, memory: mmap.mmap, fd: int) -> Callable[[], None]:
    # Makes page 5 unreadable; what undoes that, its contents kept if the kernel keeps them.
    page = address_of(memory) + 5 * PAGE_SIZE
    libc = ctypes.CDLL(None, use_errno=True)
    if kind == "protected":
        protect = libc.mprotect
        assert protect(ctypes.c_void_p(page), PAGE_SIZE, 0) == 0
        return lambda: protect(ctypes.c_void_p(page), PAGE_SIZE, mmap.PROT_READ | mmap.PROT_WRITE)
    if kind == "guard page":
        done = libc.madvise(ctypes.c_void_p(page), PAGE_SIZE, int(Advice.GUARD_INSTALL)) == 0
        require(done, "guard pages, Linux 6.13")
        return lambda: libc.madvise(ctypes.c_void_p(page), PAGE_SIZE, int(Advice.GUARD_REMOVE))
    os.ftruncate(fd, 5 * PAGE_SIZE)
    return lambda: os.ftruncate(fd, 16 * PAGE_SIZE)


def _memory_of(kind: str) -> tuple[mmap.mmap, int]:
    if kind != "truncated":
        return dirtytrack.alloc(16 * PAGE_SIZE), -1
    fd = os.memfd_create("mirrored", os.MFD_CLOEXEC)
    os.ftruncate(fd, 16 * PAGE_SIZE)
    return mmap.mmap(fd, 16 * PAGE_SIZE), fd


@pytest.mark.forked
@pytest.mark.registration
@pytest.mark.parametrize("kind", UNREADABLE)
def test_memory_that_can_not_be_read_is_an_error(session: Session, kind: str) -> None:
    """And no signal: it names the region and the page, and an update after it is right."""
    memory, fd = _memory_of(kind)
    memory[:] = b"\1" * len(memory)
    region = session.track(memory, name="brittle")
    with Mirror(session, region) as mirror:
        store(memory, 2, 5, 9)
        undo = _spoil(kind, memory, fd)
        session.mark(region, 5 * PAGE_SIZE, 6 * PAGE_SIZE)  # truncation is a blind spot
        code = errno.EACCES if kind == "protected" else errno.EFAULT
        for _ in range(2):
            with pytest.raises(KernelError, match=r"read region 'brittle' on \[") as caught:
                mirror.update()
            assert (caught.value.errno, caught.value.start) == (code, region.address + 5 * PAGE_SIZE)
        undo()
        session.mark(region)
        mirror.update()
        assert mirror.view == memory[:]
    os.close(fd) if fd >= 0 else None


@pytest.mark.forked
@pytest.mark.registration
@pytest.mark.parametrize("kind", UNREADABLE)
def test_memory_that_can_not_be_read_from_the_start(session: Session, kind: str) -> None:
    """Nothing stays tracked for it."""
    memory, fd = _memory_of(kind)
    undo = _spoil(kind, memory, fd)
    with pytest.raises(KernelError, match="read region 'mirror'") as caught:
        Mirror(session, memory)
    assert caught.value.start == address_of(memory) + 5 * PAGE_SIZE
    assert session.regions == ()
    undo()
    with Mirror(session, memory) as mirror:
        assert mirror.view == memory[:]


@pytest.mark.forked
@pytest.mark.registration
def test_where_a_filter_refuses_to_read_for_us(session: Session) -> None:
    """Memory is copied all the same."""
    memory = dirtytrack.alloc(16 * PAGE_SIZE)
    seccomp.install(
        seccomp.Refuse("process_vm_readv", errno.EPERM), seccomp.Refuse("process_vm_writev", errno.EPERM)
    )
    store(memory, 3)
    with Mirror(session, memory) as mirror:
        assert mirror.view == memory[:]
        store(memory, 5, 15)
        assert mirror.update() == 2 * PAGE_SIZE
        assert mirror.view == memory[:]


def test_more_pieces_than_one_call_takes(session: Session) -> None:
    """A thousand runs of pages."""
    memory = dirtytrack.alloc(2000 * PAGE_SIZE)
    with Mirror(session, memory) as mirror:
        store(memory, *range(0, 2000, 2))
        assert mirror.update() == 1000 * PAGE_SIZE
        assert mirror.view == memory[:]


@pytest.mark.registration
def test_a_sparse_reservation_stays_sparse(session: Session) -> None:
    """Neither it nor its copy takes memory where nothing is, and no look at it counts as a write."""

    def child() -> None:
        memory = dirtytrack.alloc(1 << 30, huge=False)
        memory[5], memory[700 * PAGE_SIZE] = 1, 2
        with Session() as session:
            region = session.track(memory, sparse=True)
            before = _resident()
            with Mirror(session, region) as mirror:
                assert session.peek().pages == 0
                memory[1 << 29] = 3
                assert mirror.update() == PAGE_SIZE
                assert [mirror.view[at] for at in (5, 700 * PAGE_SIZE, 1 << 29)] == [1, 2, 3]
                assert _resident() - before < 8 << 20

    in_child(child).check()


def test_zeros_take_no_room_in_the_copy(backend: str) -> None:
    """Also of dense memory."""

    def child() -> None:
        memory = dirtytrack.alloc(64 << 20, huge=False)
        memory[1 << 20] = 1
        with Session(backend=backend) as session:
            region = session.track(memory)
            session.collect()
            before = _resident()
            with Mirror(session, region) as mirror:
                assert _resident() - before < 8 << 20
                assert mirror.view[1 << 20] == 1

    in_child(child).check()


def _resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no RssAnon")


def test_pages_that_were_dropped_are_zeros(session: Session) -> None:
    """And what is declared written is copied."""
    memory = dirtytrack.alloc(16 * PAGE_SIZE)
    memory[:] = b"\1" * len(memory)
    with Mirror(session, memory) as mirror:
        memory.madvise(mmap.MADV_DONTNEED, 4 * PAGE_SIZE, 2 * PAGE_SIZE)
        assert mirror.update() == 2 * PAGE_SIZE
        assert mirror.view == memory[:]
        session.mark(mirror.region, 0, 1)
        assert mirror.update() == PAGE_SIZE


@pytest.mark.forked
def test_memory_that_is_gone(session: Session) -> None:
    """It is lost, and nothing is read from where it was."""
    with Raw(8) as memory, Mirror(session, memory.pair) as mirror:
        memory.write(1, 5)
        memory.unmap(5, 6)
        with pytest.raises(RegionLostError, match="'mirror'"):
            mirror.update()


@pytest.mark.parametrize("end", ["mirror", "region", "session"])
def test_what_is_closed_says_so(session: Session, end: str) -> None:
    """Views that were taken before stay."""
    memory = dirtytrack.alloc(2 * PAGE_SIZE)
    memory[0] = 1
    mirror = Mirror(session, memory)
    view = mirror.view
    {"mirror": mirror.close, "region": lambda: session.untrack(mirror.region), "session": session.close}[
        end
    ]()
    with pytest.raises(ClosedError):
        mirror.update()
    assert view[0] == 1
    assert "region 'mirror'" in repr(mirror)
    if end == "mirror":
        with pytest.raises(ClosedError, match="make another"):
            _ = mirror.view
        with pytest.raises(ClosedError, match="make another"), mirror:
            pass
    mirror.close()
    memory.close()


def test_a_forked_child_is_refused(session: Session) -> None:
    """It can read what the parent had copied, and close."""
    memory = dirtytrack.alloc(2 * PAGE_SIZE)
    memory[0] = 1
    with Mirror(session, memory) as mirror:

        def child() -> None:
            with pytest.raises(ForkedError, match="another process"):
                mirror.update()
            assert mirror.view[0] == 1
            assert "Mirror" in repr(mirror)
            mirror.close()
            assert mirror.closed

        in_child(child).check()
        memory[0] = 2
        assert mirror.update() == PAGE_SIZE
        assert mirror.view == memory[:]


def test_a_leaked_mirror_warns_and_lets_go(session: Session) -> None:
    """As sessions do."""
    memory = bytearray(100)
    mirror = Mirror(session, memory)
    with pytest.warns(ResourceWarning, match="never closed"):
        del mirror
        gc.collect()
    assert session.regions == ()
    memory.clear()


def test_it_is_a_handle(session: Session) -> None:
    """Which can't be pickled."""
    with (
        Mirror(session, bytearray(10)) as mirror,
        pytest.raises(TypeError, match="Mirror objects stand for memory"),
    ):
        pickle.dumps(mirror)


@pytest.mark.registration
def test_a_missed_write_is_told_of(session: Session) -> None:
    """A mirror looks like any consumer of a session that checks itself."""
    fd = os.memfd_create("mirrored", os.MFD_CLOEXEC)
    os.ftruncate(fd, PAGE_SIZE)
    memory = mmap.mmap(fd, PAGE_SIZE)
    for told in ("raise", "warn"):
        with Session(double_check=1, on_missed=told) as checking, Mirror(checking, memory) as mirror:
            mirror.update()
            os.pwrite(fd, told.encode(), 0)
            if told == "raise":
                with pytest.raises(dirtytrack.MissedWriteError):
                    mirror.update()
            else:
                with pytest.warns(dirtytrack.MissedWriteError) as caught:
                    mirror.update()
                assert caught[0].filename == __file__
            assert mirror.update() == PAGE_SIZE
            assert mirror.view == memory[:]
    os.close(fd)


def test_the_session_is_not_kept_busy(session: Session) -> None:
    """Anybody else may collect while a mirror is there, and after it."""
    memory = dirtytrack.alloc(4 * PAGE_SIZE)
    with Mirror(session, memory):
        store(memory, 1)
        assert session.collect().pages == 1
    assert len(session.collect()) == 0
    assert sys.getrefcount(memory) < 5
