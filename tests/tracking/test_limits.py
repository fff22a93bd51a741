"""At the limits of a process: the error names the limit, and a repr is no error at all."""

from __future__ import annotations

import errno
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

import dirtytrack
from dirtytrack import KernelError, Mirror, Session, UnsupportedError
from dirtytrack.barrier import CardTable
from dirtytrack.snapshot import History, Snapshot

pytestmark = pytest.mark.registration


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Every one is in use in the block."""
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 2, 4096))
    with suppress(OSError):
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    yield
    for descriptor in taken:
        os.close(descriptor)


@pytest.mark.forked
@pytest.mark.parametrize("is_warm", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("name", ["wp-async", "auto"])
def test_a_session_without_a_descriptor(name: str, is_warm: bool) -> None:
    """A KernelError that names RLIMIT_NOFILE; it is no lack of support, whatever was imported before."""
    if is_warm:
        dirtytrack.support()
        Session().close()
    else:
        sys.modules.pop("dirtytrack.kernel._diagnosis", None)
    with no_descriptor_left(), pytest.raises(KernelError, match="RLIMIT_NOFILE") as caught:
        Session(backend=name)
    assert caught.value.errno == errno.EMFILE
    assert not isinstance(caught.value, UnsupportedError)
    Session(backend=name).close()


@pytest.mark.forked
@pytest.mark.parametrize("kind", [Snapshot, History], ids=["snapshot", "history"])
def test_a_copy_without_a_descriptor(kind: Callable[[Session, object], object]) -> None:
    """The same."""
    with Session() as session, no_descriptor_left(), pytest.raises(KernelError, match="RLIMIT_NOFILE"):
        kind(session, bytearray(9000))


@pytest.mark.forked
def test_a_repr_needs_no_descriptor() -> None:
    """Nor do the errors that quote one."""
    memory, other = dirtytrack.alloc(9000), Session()
    with Session() as session, Snapshot(session, bytearray(9000)) as snapshot, other:
        region = session.track(memory, name="a")
        things = [session, region, region[5:10], snapshot, session.cursor("x"), session.collect()]
        with no_descriptor_left():
            assert all(repr(thing).startswith("<") for thing in things)
            with pytest.raises(ValueError, match="not a range within"):
                session.mark(region, 5, 10**9)
            with pytest.raises(ValueError, match="another session"):
                other.collect(region)
            with pytest.raises(TypeError, match="no region"):
                session.collect([region])  # type: ignore[arg-type]


@pytest.mark.anywhere
@pytest.mark.parametrize("kind", [Session, Mirror, CardTable, Snapshot, History])
def test_a_repr_of_what_was_never_made(kind: type) -> None:
    """As a debugger takes it of an object whose constructor has failed."""
    assert repr(kind.__new__(kind)).startswith("<")
