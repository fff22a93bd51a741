"""At the limits of a process: the error names the limit, and a repr is no error at all."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import dirtytrack
from _lib.support import address_of
from dirtytrack import KernelError, Mirror, Session, UnsupportedError
from dirtytrack.barrier import CardTable
from dirtytrack.checkpoint import Chain, Checkpointer, load, restore
from dirtytrack.group import GroupChain, GroupCheckpointer
from dirtytrack.kernel import mappings
from dirtytrack.profile import Profile
from dirtytrack.snapshot import History, Snapshot

pytestmark = pytest.mark.registration

_serial = itertools.count()


@contextmanager
def no_descriptor_left(left: int = 0) -> Iterator[None]:
    """Every one, or all but *left*, is in use in the block."""
    taken = []
    most = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], len(os.listdir("/proc/self/fd")) + 64)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with suppress(OSError):
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    for _ in range(left):
        os.close(taken.pop())
    try:
        yield
    finally:
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
@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("is_warm", [False, True], ids=["first", "later"])
def test_a_file_is_asked_about_without_a_descriptor(tmp_path: Path, is_warm: bool, left: int) -> None:
    """To tell one on tmpfs from others takes its mapping, the kernel's own device, and the list of mounts."""
    path = tmp_path / "file"
    path.write_bytes(bytes(9000))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 9000) as memory:
        address = address_of(memory)
        if is_warm:
            mappings.overlapping(address, address + 1)
        else:
            mappings._shmem_device.cache_clear()
        with no_descriptor_left(left), pytest.raises(KernelError, match="RLIMIT_NOFILE"):
            mappings.overlapping(address, address + 1)
        (found,) = mappings.overlapping(address, address + 1)
    assert found.name == str(path)


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


_OPENINGS: dict[str, Callable[[Session, mmap.mmap, Path], object]] = {
    "session": lambda session, memory, path: Session().close(),
    "track": lambda session, memory, path: session.untrack(session.track(memory)),
    "snapshot": lambda session, memory, path: Snapshot(session, memory).close(),
    "history": lambda session, memory, path: History(session, memory).close(),
    "mirror": lambda session, memory, path: Mirror(session, memory).close(),
    "card table": lambda session, memory, path: CardTable(session, memory).close(),
    "new chain": lambda session, memory, path: Checkpointer(
        path / str(next(_serial)), {"a": memory}, session=session, fsync=False
    ).close(),
    "resumed chain": lambda session, memory, path: Checkpointer.open(
        path / "chain", {"a": memory}, session=session, fsync=False
    ).close(),
    "save": lambda session, memory, path: _save_twice(session, memory, path),
    "chain": lambda session, memory, path: Chain(path / "chain").close(),
    "restore": lambda session, memory, path: restore(path / "chain", into={"a": bytearray(len(memory))}),
    "load": lambda session, memory, path: load(path / "chain", lazy=True),
}


_MORE_FILES: dict[str, Callable[[Session, mmap.mmap, Path], object]] = {
    "new group": lambda session, memory, path: GroupCheckpointer.open(
        path / str(next(_serial)), {"a": memory}, session=session, fsync=False
    ).close(),
    "group": lambda session, memory, path: len(GroupChain(path / "group")),
    "huge pages": lambda session, memory, path: dirtytrack.alloc(1 << 21, huge=True),
}


_OF_CHAINS = {
    "new chain",
    "resumed chain",
    "save",
    "chain",
    "restore",
    "load",
}  # their errors name a file as well


def _save_twice(session: Session, memory: mmap.mmap, path: Path) -> None:
    """A new chain, with a base and a delta."""
    with Checkpointer(path / str(next(_serial)), {"a": memory}, session=session, fsync=False) as checkpoints:
        checkpoints.save(wait=True)
        checkpoints.save(wait=True)


def _error_of(
    opening: Callable[[Session, mmap.mmap, Path], object], session: Session, memory: mmap.mmap, path: Path
) -> Exception | None:
    try:
        opening(session, memory, path)
    except Exception as error:
        return error.with_traceback(None)  # which would hold what was opened so far
    return None


@contextmanager
def _ready(path: Path) -> Iterator[tuple[Session, mmap.mmap]]:
    """A session, and memory that a chain has been made of; all is imported, and has worked once."""
    memory = dirtytrack.alloc(16 * mmap.PAGESIZE)
    with Session() as session:
        with Checkpointer(path / "chain", {"a": memory}, session=session, fsync=False) as checkpoints:
            checkpoints.save(wait=True)
        for opening in _OPENINGS.values():
            opening(session, memory, path)
        yield session, memory


@pytest.mark.forked
@pytest.mark.parametrize("name", [*_OPENINGS, *_MORE_FILES])
def test_at_the_limit_of_descriptors(tmp_path: Path, name: str) -> None:
    """However few are left: an error names the limit, and is no lack of support; with enough it works."""
    opening = (_OPENINGS | _MORE_FILES)[name]
    with _ready(tmp_path) as (session, memory):
        with GroupCheckpointer.open(tmp_path / "group", {"a": memory}, session=session, fsync=False) as group:
            group.save()
        for left in range(30):
            with no_descriptor_left(left):
                error = _error_of(opening, session, memory, tmp_path)
            if error is None:
                return
            assert isinstance(error, OSError)
            assert not isinstance(error, UnsupportedError)
            assert error.errno == errno.EMFILE
            assert "RLIMIT_NOFILE" in str(error)
        pytest.fail(f"it never worked: {error}")


@pytest.mark.forked
@pytest.mark.parametrize("name", _OPENINGS)
def test_at_the_limit_of_address_space(tmp_path: Path, name: str) -> None:
    """However little is left: an error names the limit, or it is Python's own; with enough it works."""
    with _ready(tmp_path) as (session, memory):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
        for left in (*range(0, 1 << 20, 1 << 16), *range(1 << 20, 1 << 28, 1 << 23)):
            resource.setrlimit(resource.RLIMIT_AS, (used + left, resource.RLIM_INFINITY))
            error = _error_of(_OPENINGS[name], session, memory, tmp_path)
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            if error is None:
                return
            assert not isinstance(error, UnsupportedError)
            if isinstance(error, OSError):
                assert error.errno == errno.ENOMEM
                assert "RLIMIT_AS" in str(error)
            else:
                assert isinstance(error, MemoryError | RuntimeError)
                assert isinstance(error, MemoryError) or "thread" in str(error)
        pytest.fail(f"it never worked: {error}")


@pytest.mark.anywhere
@pytest.mark.parametrize(
    "kind",
    [
        *(Session, Mirror, CardTable, Snapshot, History, Chain, Checkpointer, GroupChain, GroupCheckpointer),
        *(Profile, dirtytrack.WorkingSet, dirtytrack.watch),
    ],
)
def test_a_repr_of_what_was_never_made(kind: type) -> None:
    """As a debugger takes it of an object whose constructor has failed."""
    assert repr(kind.__new__(kind)).startswith("<")
