"""Memory that can't be touched: an error names the region and the range, and nothing is lost."""

from __future__ import annotations

import errno

import pytest

import dirtytrack
from _lib import seccomp
from _lib.support import PAGE_SIZE
from _lib.untouchable import (
    BAD,
    KINDS,
    PAGES,
    Guarded,
    Inaccessible,
    ReadOnly,
    Truncated,
    byte,
    can_be_read,
    is_protected,
    write,
)
from dirtytrack.errors import KernelError, KernelPermissionError
from dirtytrack.snapshot import Diff, History, Snapshot, watch

pytestmark = pytest.mark.forked


def refused(memory: object, act, *, permission: bool = False) -> None:
    """Raises, and says where."""
    with pytest.raises(KernelError, match="'arena'") as caught:
        act()
    bad = memory.address + BAD * PAGE_SIZE
    assert caught.value.start <= bad < caught.value.stop <= memory.address + PAGES * PAGE_SIZE
    assert isinstance(caught.value, KernelPermissionError) == permission


@pytest.fixture(params=["wp-async", "compare"])
def session(request):
    """A session on either backend."""
    with dirtytrack.Session(backend=request.param) as session:
        yield session


@pytest.fixture(params=KINDS)
def memory(request):
    """Memory to be spoiled."""
    return request.param()


def sees(session, memory) -> bool:
    """Whether it is asked for: a session that compares leaves for later what it can't read."""
    return not can_be_read(memory) and session.backend == "wp-async"


@pytest.mark.parametrize("verb", ["diff", "advance", "diff and advance", "verify"])
def test_reading_verbs_of_a_snapshot(session, memory, verb):
    """The next call, once it can be read again, has all of it."""
    region = session.track(memory.given, name="arena")
    with Snapshot(session, region) as snapshot:
        acts = {
            "diff": snapshot.diff,
            "advance": snapshot.advance,
            "diff and advance": lambda: snapshot.diff(advance=True),
            "verify": snapshot.verify,
        }
        write(memory, 2, 1)
        if verb != "verify":
            write(memory, BAD, 1)
        memory.spoil()
        if verb == "verify" and not is_protected(memory):
            session.collect()  # what spoils it is reported as a write, and verify leaves that out
            snapshot._consumer.collect().settle()
        if sees(session, memory):
            refused(memory, acts[verb], permission=is_protected(memory))
        memory.mend()
        write(memory, BAD, 1)
        found = snapshot.diff()
        assert {one.start // PAGE_SIZE for one in found} >= {BAD}
        snapshot.rollback()
        assert byte(memory, BAD) == 0


def test_rollback(session, memory):
    """What can't be written back is, once it can."""
    region = session.track(memory.given, name="arena")
    with Snapshot(session, region) as snapshot:
        write(memory, 2, 1)
        write(memory, BAD, 1)
        memory.spoil()
        if sees(session, memory) or can_be_read(memory):
            refused(memory, snapshot.rollback, permission=is_protected(memory))
        memory.mend()
        write(memory, BAD, 1)
        assert snapshot.rollback() >= 1
        assert (byte(memory, 2), byte(memory, BAD)) == (0, 0)


def test_history(session, memory):
    """The first save, a later one, and a restore."""
    region = session.track(memory.given, name="arena")
    with History(session, region) as history:
        write(memory, 2, 1)
        write(memory, BAD, 1)
        if sees(session, memory):
            memory.spoil()
            refused(memory, history.save, permission=is_protected(memory))
            memory.mend()
            write(memory, BAD, 1)
        first = history.save()
        write(memory, BAD, 2)
        if sees(session, memory):
            memory.spoil()
            refused(memory, history.save, permission=is_protected(memory))
            memory.mend()
            write(memory, BAD, 2)
        second = history.save()
        write(memory, 2, 7)
        memory.spoil()
        refused(memory, lambda: history.restore(first), permission=is_protected(memory))
        assert history.current is second
        memory.mend()
        history.restore(first)
        assert (byte(memory, 2), byte(memory, BAD)) == (1, 1)
        history.restore(second)
        assert (byte(memory, 2), byte(memory, BAD)) == (1, 2)


def test_a_first_look(memory):
    """At memory that can't be read from the start."""
    if can_be_read(memory):
        return
    with dirtytrack.Session() as session:
        region = session.track(memory.given, name="arena")
        write(memory, BAD, 1)
        memory.spoil()
        refused(memory, lambda: Snapshot(session, region), permission=is_protected(memory))
        refused(memory, watch(region).__enter__, permission=is_protected(memory))
        memory.mend()
        with Snapshot(session, region) as snapshot:
            assert not snapshot.diff()


def test_watch(memory):
    """What the block leaves behind."""
    if can_be_read(memory):
        return
    with dirtytrack.Session() as session:
        region = session.track(memory.given, name="arena")
        watched = watch(region)
        watched.__enter__()
        write(memory, BAD, 1)
        memory.spoil()
        refused(memory, lambda: watched.__exit__(None, None, None), permission=is_protected(memory))


@pytest.mark.parametrize("check", [False, True])
def test_apply(memory, check):
    """Nothing is written, also of what comes before it."""
    source = bytearray(PAGES * PAGE_SIZE)
    with dirtytrack.Session() as session, Snapshot(session, session.track(source, name="arena")) as snapshot:
        source[2 * PAGE_SIZE + 9] = source[BAD * PAGE_SIZE + 9] = 1
        diff = snapshot.diff()
    memory.spoil()
    refused(memory, lambda: diff.apply(memory.given, check=check), permission=is_protected(memory))
    assert byte(memory, 2) == 0
    memory.mend()
    diff.apply({"arena": memory.given}, check=check)
    assert (byte(memory, 2), byte(memory, BAD)) == (1, 1)
    assert isinstance(diff, Diff)


def test_a_page_between_those_that_were_written(memory):
    """Nobody touches it, and nobody minds it."""
    with dirtytrack.Session() as session:
        region = session.track(memory.given, name="arena")
        with Snapshot(session, region) as snapshot:
            memory.spoil()
            snapshot._consumer.collect().settle()
            last = BAD - 1 if isinstance(memory, Truncated) else BAD + 1
            write(memory, 2, 1)
            write(memory, last, 1)
            assert [one.start // PAGE_SIZE for one in snapshot.diff()] == [2, last]
            assert snapshot.rollback() == 2
            assert (byte(memory, 2), byte(memory, last)) == (0, 0)


@pytest.mark.parametrize("kind", [Guarded, Inaccessible, ReadOnly])
@pytest.mark.parametrize("is_forbidden", [False, True])
def test_few_pages_far_apart(kind, is_forbidden):
    """A byte of each is read, unless a filter forbids it: what lies between does not matter."""
    memory = kind(9000, 6000)
    few = [page for page in range(0, 9000, 40) if page != 6000]
    with dirtytrack.Session() as session:
        region = session.track(memory.given, name="arena")
        with Snapshot(session, region) as snapshot:
            if is_forbidden:
                seccomp.install(seccomp.Refuse("process_vm_writev", errno.EPERM))
            memory.spoil()
            snapshot._consumer.collect().settle()
            for page in few:
                write(memory, page, 1)
            assert [one.start // PAGE_SIZE for one in snapshot.diff()] == few
            assert snapshot.rollback() == len(few)
            memory.mend()
            for page in [0, 6000, 8960]:
                write(memory, page, 1)
            memory.spoil()
            with pytest.raises(KernelError, match="'arena'") as caught:
                snapshot.rollback()
            bad = memory.address + 6000 * PAGE_SIZE
            assert caught.value.start == bad
            assert caught.value.stop == bad + PAGE_SIZE
            assert (byte(memory, 0), byte(memory, 8960)) == (1, 1)
            memory.mend()
            write(memory, 6000, 1)
            assert snapshot.rollback() >= 3
            assert [byte(memory, page) for page in [0, 6000, 8960]] == [0, 0, 0]


def test_where_a_filter_forbids_the_calls(memory):
    """Then a pipe does it."""
    with dirtytrack.Session() as session:
        region = session.track(memory.given, name="arena")
        with Snapshot(session, region) as snapshot:
            seccomp.install(
                seccomp.Refuse("process_vm_readv", errno.EPERM),
                seccomp.Refuse("process_vm_writev", errno.ENOSYS),
            )
            write(memory, 2, 1)
            assert [one.start // PAGE_SIZE for one in snapshot.diff()] == [2]
            assert snapshot.rollback() == 1
            assert byte(memory, 2) == 0
            write(memory, 2, 1)
            write(memory, BAD, 1)
            memory.spoil()
            refused(memory, snapshot.rollback, permission=is_protected(memory))
