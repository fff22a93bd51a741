"""Sessions of every backend. That of page tables needs a kernel that can track; see works.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from _lib.iouring import Ring
from _lib.raw import Raw
from _lib.support import PAGE_SIZE, require
from _lib.works import tracking_works
from dirtytrack import Session

__all__ = ["tracking_works"]


BACKENDS = ["wp-async", pytest.param("compare", marks=pytest.mark.anywhere)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Whoever asks for the backend, or for a session, is run with each that the test is about."""
    if "backend" in metafunc.fixturenames:
        only_one = metafunc.definition.get_closest_marker("registration")
        metafunc.parametrize("backend", BACKENDS[:1] if only_one else BACKENDS)


@pytest.fixture
def session(backend: str) -> Iterator[Session]:
    """A session of the backend, on the kernel as it is."""
    with Session(backend=backend) as session:
        yield session


@pytest.fixture
def memory() -> Iterator[Raw]:
    """Sixteen pages."""
    with Raw(16) as memory:
        yield memory


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """A file of four pages, each byte 0xEE, open for O_DIRECT."""
    path = tmp_path / "data"
    path.write_bytes(b"\xee" * 4 * PAGE_SIZE)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        require(False, "the file system of the temporary directory has no O_DIRECT")
    with open(fd, "rb", buffering=0):
        yield fd


@pytest.fixture
def ring() -> Iterator[Ring]:
    """An io_uring."""
    try:
        ring = Ring()
    except OSError as error:
        require(False, f"no io_uring here: {error}")
    with ring:
        yield ring
