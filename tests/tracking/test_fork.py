"""Fork: the child is told, the parent loses nothing, whatever becomes of the child."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import signal
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest

import dirtytrack
from _lib import seccomp
from _lib.raw import Raw, is_free, userfaultfds
from _lib.support import in_child
from dirtytrack import ForkedError, Session


@pytest.fixture
def memory() -> Iterator[Raw]:
    with Raw(8) as memory:
        yield memory


def test_every_call_in_a_child_raises(session: Session, memory: Raw) -> None:
    """Each verb of the session, of a cursor and of an epoch: ForkedError, which says what to do."""
    region = session.track(memory.pair)
    cursor = session.cursor("second")
    memory.write(1)
    epoch = session.collect()
    calls: dict[str, Callable[[], object]] = {
        "collect": session.collect,
        "collect a region": lambda: session.collect(region),
        "collect a slice": lambda: session.collect(region[:1]),
        "peek": session.peek,
        "reset": session.reset,
        "track": lambda: session.track(memory.pair),
        "untrack": lambda: session.untrack(region),
        "mark": lambda: session.mark(region),
        "cursor": lambda: session.cursor("third"),
        "collect of a cursor": cursor.collect,
        "peek of a cursor": cursor.peek,
        "reset of a cursor": lambda: cursor.reset(region),
        "abort": epoch.abort,
        "blind spots": lambda: region.blind_spots,
    }

    def child() -> dict[str, str]:
        # Any ioctl of the tracker's on the inherited descriptors would be killed off here.
        refused = [seccomp.UFFDIO_REGISTER, seccomp.UFFDIO_UNREGISTER, seccomp.UFFDIO_WRITEPROTECT]
        seccomp.install(*(seccomp.refuse_ioctl(request, 90) for request in [*refused, seccomp.PAGEMAP_SCAN]))
        raised = {}
        for name, call in calls.items():
            try:
                call()
            except ForkedError as error:
                raised[name] = str(error)
        return raised

    raised = in_child(child).check()
    assert list(raised) == list(calls)
    assert "open a session here" in raised["collect"]
    epoch.abort()
    assert set(session.collect()[region]) == {1}


def test_a_child_does_not_wait_for_the_parents_threads(session: Session, memory: Raw) -> None:
    """Forked while a thread of the parent holds every lock of the session: the child raises all the same."""
    region = session.track(memory.pair)
    session._tracker.listing = None  # so that collect has to list the regions
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with session._tracker._membership:
            held.set()
            done.wait(30)

    def child() -> int:
        raised = 0
        calls = (lambda: session.untrack(region), session.collect, lambda: session.cursor("x"))
        for call in calls:
            with pytest.raises(ForkedError):
                call()
            raised += 1
        session.close()
        return raised

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(30)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork in a process with threads
            assert in_child(child).check() == 3
    finally:
        done.set()
        thread.join()


def close(session: Session, region: dirtytrack.Region) -> None:
    session.close()
    session.close()
    assert session.closed


def leave(session: Session, region: dirtytrack.Region) -> None:
    session.__exit__(None, None, None)


def drop(session: Session, region: dirtytrack.Region) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session.__del__()
    gc.collect()


def write(session: Session, region: dirtytrack.Region) -> None:
    ctypes.memset(region.address, 9, region.nbytes)


def kill(session: Session, region: dirtytrack.Region) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave_at_once(session: Session, region: dirtytrack.Region) -> None:
    os._exit(0)


def try_everything(session: Session, region: dirtytrack.Region) -> None:
    for call in (session.collect, session.reset, lambda: session.untrack(region)):
        with pytest.raises(ForkedError):
            call()
    session.close()


def use_another(session: Session, region: dirtytrack.Region) -> None:
    with Session(backend=session.backend) as own:
        mine = own.track((region.address, region.nbytes))
        write(session, region)
        assert set(own.collect()[mine]) == set(range(8))


ENDS = [close, leave, drop, write, kill, leave_at_once, try_everything, use_another]


@pytest.mark.parametrize("end", ENDS)
def test_the_parent_goes_on_tracking(
    session: Session, memory: Raw, end: Callable[[Session, dirtytrack.Region], None]
) -> None:
    """Writes before the fork, during the child's life and after it: the parent's own, and all of them."""
    region = session.track(memory.pair)
    memory.write(*range(8))
    session.reset()
    memory.write(1)
    child = in_child(lambda: end(session, region))
    assert child.status in (0, -signal.SIGKILL), child.error
    memory.write(2)
    assert set(session.collect()[region]) == {1, 2}
    memory.write(3)
    assert set(session.collect()[region]) == {3}


def test_a_child_that_lives_on_disturbs_nobody(session: Session, memory: Raw) -> None:
    """The parent tracks on beside a child that writes the same pages, and that is killed in the end."""
    region = session.track(memory.pair)
    memory.write(*range(8))
    session.reset()
    pid, _ = living_child(lambda: write(session, region))
    try:
        for page in (1, 2, 2, 3):
            memory.write(page)
            assert set(session.collect()[region]) == {page}
    finally:
        finish(pid)
    memory.write(4)
    assert set(session.collect()[region]) == {4}


def test_close_disarms_although_a_child_holds_the_descriptor(memory: Raw) -> None:
    """The descriptor lives on in the child: the parent's memory is free for others all the same."""
    gc.collect()  # what tests before this one have left
    others = userfaultfds()
    session = Session()
    session.track(memory.pair)
    session.track(memory.piece(2, 4))
    pid, descriptors = living_child(userfaultfds)
    try:
        assert len(descriptors.split(",")) == len(others) + 1
        session.close()
        assert is_free(memory.start, memory.stop)
    finally:
        finish(pid)


def living_child(act: Callable[[], object]) -> tuple[int, str]:
    """A child that has done *act* and goes on living; its pid, and what *act* gave, as text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, ("," if (given := act()) is None else str(given).strip("[]")).encode())
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader, "rb", buffering=0) as pipe:
        said = pipe.read(1000)
    assert said, "the child has failed"
    return pid, said.decode()


def finish(pid: int) -> None:
    """Kill a child of ours and wait for its end."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


_FORK = {"x86_64": (56, signal.SIGCHLD, 0, 0, 0, 0), "aarch64": (220, signal.SIGCHLD, 0, 0, 0, 0)}


@pytest.mark.registration
def test_a_child_of_a_bare_clone_is_a_child(session: Session, memory: Raw) -> None:
    """Made without libc's fork, so that nobody is told: the child knows, and harms nothing."""
    region = session.track(memory.pair)
    memory.write(1)
    libc = ctypes.PyDLL(None)  # keeps the GIL: the child is this thread alone, and goes on with it
    number, *arguments = _FORK[platform.machine()]
    libc.syscall.restype = ctypes.c_long
    pid = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments))
    if pid == 0:
        status = 1
        try:
            for call in (session.collect, lambda: session.untrack(region), lambda: session.cursor("x")):
                with pytest.raises(ForkedError):
                    call()
            session.close()
            assert dirtytrack.default_session() is dirtytrack.default_session()
            use_another(session, region)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    memory.write(2)
    assert set(session.collect()[region]) == {1, 2}


@pytest.mark.registration
def test_a_grandchild_is_no_owner_either(session: Session, memory: Raw) -> None:
    """Two forks away, and with a session in between: each process has its own."""
    region = session.track(memory.pair)

    def child() -> None:
        own = Session()
        mine = own.track(memory.pair)

        def grandchild() -> None:
            for stranger, what in ((session, region), (own, mine)):
                with pytest.raises(ForkedError):
                    stranger.collect(what)
            use_another(own, mine)

        memory.write(3)
        in_child(grandchild).check()
        assert set(own.collect()[mine]) == {3}
        own.close()

    memory.write(1)
    in_child(child).check()
    assert set(session.collect()[region]) == {1}


def test_the_default_session_is_the_childs_own(memory: Raw) -> None:
    """A child gets a new one, the parent keeps its own."""

    def parent() -> None:
        mine = dirtytrack.default_session()
        region = mine.track(memory.pair)

        def child() -> None:
            own = dirtytrack.default_session()
            assert own is not mine
            assert dirtytrack.default_session() is own
            use = own.track(memory.pair)
            memory.write(5)
            assert set(own.collect()[use]) == {5}

        in_child(child).check()
        assert dirtytrack.default_session() is mine
        memory.write(1)
        assert set(mine.collect()[region]) == {1}

    in_child(parent).check()


def test_inherited_epochs_are_readable(session: Session, memory: Raw) -> None:
    """Epochs and page sets read in the child as in the parent; dropped there they give nothing back here."""
    region = session.track(memory.pair)
    memory.write(1, 2)
    epochs = [session.collect()]
    memory.write(3)
    epochs.append(session.collect())

    def child() -> tuple[set[int], int]:
        pages = epochs[0][region]
        for epoch in epochs:
            with pytest.raises(ForkedError):
                epoch.abort()
        assert region.view[0] == 0
        result = set(pages) | set(pages & region.page_set()), epochs[0].pages
        epochs.clear()
        gc.collect()
        return result

    assert in_child(child).check() == ({1, 2}, 2)
    epochs.pop().abort()
    assert set(session.collect()[region]) == {3}


def test_an_unread_epoch_dies_in_each_process_for_itself(session: Session, memory: Raw) -> None:
    """The child's copy of an unread epoch can't give back; the parent's does."""
    region = session.track(memory.pair)
    memory.write(1)
    held = [session.collect()]

    def child() -> None:
        held.clear()
        gc.collect()

    in_child(child).check()
    held.clear()
    assert set(session.collect()[region]) == {1}


def test_only_the_owner_is_warned_of_a_leak(memory: Raw) -> None:
    """A child that lets an inherited session go has not leaked it."""
    session = Session()
    session.track(memory.pair)

    def child() -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            session.__del__()
            gc.collect()
        assert not [warning for warning in caught if warning.category is ResourceWarning]

    in_child(child).check()
    with pytest.warns(ResourceWarning, match="never closed"):
        session.__del__()


def test_repr_and_names_work_in_a_child(session: Session, memory: Raw) -> None:
    """What is said about an inherited object needs none of its descriptors."""
    region = session.track(memory.pair, name="heap")
    epoch = session.collect()

    def child() -> str:
        return f"{session!r} {region!r} {epoch!r} {session.regions!r}"

    assert "'heap'" in in_child(child).check()
