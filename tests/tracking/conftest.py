"""Sessions need a kernel that can track."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dirtytrack import Session
from raw import Raw
from works import tracking_works

__all__ = ["tracking_works"]


@pytest.fixture
def session() -> Iterator[Session]:
    """A session on the kernel as it is."""
    with Session() as session:
        yield session


@pytest.fixture
def memory() -> Iterator[Raw]:
    """Sixteen pages."""
    with Raw(16) as memory:
        yield memory
