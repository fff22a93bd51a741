"""Snapshots and histories need a kernel that can track; what a diff does by itself is marked ``anywhere``."""

import pytest

from _lib.works import own_default_session, tracking_works
from dirtytrack import Session

__all__ = ["own_default_session", "tracking_works"]


@pytest.fixture
def session():
    """A session."""
    with Session() as session:
        yield session
