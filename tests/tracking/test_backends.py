"""Which backend a session has, and why; the shared promises are in the tests that take a ``backend``."""

from __future__ import annotations

import errno
import os

import pytest

import dirtytrack
from _lib import seccomp
from _lib.raw import Raw
from _lib.support import in_child, optional, require
from dirtytrack import RegionLostError, Session, UnsupportedError


def forbid_userfaultfd() -> None:
    """As containers do: the system call and the device's."""
    seccomp.install(seccomp.Refuse("userfaultfd", errno.EPERM), seccomp.refuse_ioctl(0xAA00, errno.EPERM))


def test_page_tables_where_they_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both the default and "auto"; the object says so."""
    monkeypatch.delenv("DIRTYTRACK_BACKEND", raising=False)
    require(dirtytrack.support().works, "this system cannot track")
    with Session() as plain, Session(backend="auto") as chosen:
        assert (plain.backend, chosen.backend) == ("wp-async", "wp-async")
        assert (plain.backend_reason, chosen.backend_reason) == ("asked for", "works here")
        assert "wp-async" in repr(chosen)


def test_comparing_where_they_do_not() -> None:
    """The reason names the cause and the remedy; an explicit wish for page tables is refused with both."""

    def child() -> tuple[str, str, list[int], str]:
        forbid_userfaultfd()
        with Session(backend="auto") as session, Raw(16) as memory:
            region = session.track(memory.pair)
            memory.write(3)
            with pytest.raises(UnsupportedError) as caught:
                Session(backend="wp-async")
            return session.backend, session.backend_reason, list(session.collect()[region]), str(caught.value)

    require(dirtytrack.support().works, "this system cannot track")
    name, reason, pages, refusal = in_child(child).check()
    assert (name, pages) == ("compare", [3])
    assert "seccomp" in reason
    assert "wp-async can't work here" in reason
    assert 'Session(backend="compare")' in refusal


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS])
def test_a_session_opens_the_device_instead(code: int) -> None:
    """Where a filter refuses the system call, as containers do, and /dev/userfaultfd was passed in."""
    optional(os.access("/dev/userfaultfd", os.R_OK | os.W_OK), "needs access to /dev/userfaultfd")

    def child() -> tuple[str, list[int]]:
        seccomp.install(seccomp.Refuse("userfaultfd", code))
        with Session(backend="auto") as session, Raw(16) as memory:
            region = session.track(memory.pair)
            memory.write(3, 9)
            return session.backend, list(session.collect()[region])

    require(dirtytrack.support().works, "this system cannot track")
    assert in_child(child).check() == ("wp-async", [3, 9])


def test_a_limit_that_was_hit_is_no_reason_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    """What passes must not make a session slow for ever: then "auto" fails as page tables do."""
    found = dirtytrack.support()._replace(works=False, cause="resources", remedy="Close some files.")
    monkeypatch.setattr("dirtytrack.tracking.backends.support", lambda: found)
    require(dirtytrack.support().works, "this system cannot track")
    with Session(backend="auto") as session:
        assert session.backend == "wp-async"


@pytest.mark.anywhere
def test_the_environment_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked for; what it names must exist."""
    monkeypatch.setenv("DIRTYTRACK_BACKEND", "compare")
    for asked in ("wp-async", "auto", "compare"):
        with Session(backend=asked) as session:
            assert session.backend == "compare"
            assert session.backend_reason == "DIRTYTRACK_BACKEND asks for it"
    monkeypatch.setenv("DIRTYTRACK_BACKEND", "soft-dirty")
    with pytest.raises(ValueError, match=r"'soft-dirty' \(DIRTYTRACK_BACKEND\): choose one of auto, compare"):
        Session()


@pytest.mark.parametrize("verb", ["collect", "peek", "reset"])
def test_unmapped_memory_is_lost(session: Session, memory: Raw, verb: str) -> None:
    """By every backend: never "clean"; the others' pages stay theirs."""
    region, other = session.track(memory.piece(0, 8)), session.track(memory.piece(8, 16))
    memory.write(1, 9)
    memory.unmap(2, 4)
    for _ in range(2):
        with pytest.raises(RegionLostError) as caught:
            getattr(session, verb)()
        ((lost, ranges),) = caught.value.losses
        assert (lost, ranges) == (region, (memory.at(2, 4),))
    session.untrack(region)
    assert set(session.collect()[other]) == {1}


def test_memory_that_was_never_there(session: Session, memory: Raw) -> None:
    """What is not mapped can't be tracked, by any backend."""
    memory.unmap(3, 4)
    with pytest.raises(ValueError, match="is not mapped, or not all of it"):
        session.track(memory.pair)
    assert session.regions == ()


@pytest.mark.anywhere
def test_comparing_on_a_kernel_that_is_too_old() -> None:
    """There "auto" compares, and names the kernel; asked for page tables it says what works instead."""
    optional(dirtytrack.support().cause == "kernel", "only for kernels that can't track; this one can")
    with Session(backend="auto") as session, Raw(16) as memory:
        region = session.track(memory.pair)
        memory.write(3)
        assert (session.backend, list(session.collect()[region])) == ("compare", [3])
        assert "(kernel)" in session.backend_reason
    with pytest.raises(UnsupportedError, match=r'Session\(backend="compare"\)'):
        Session()
