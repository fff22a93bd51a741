"""Profiles need a kernel that can track; what they track with the default session is gone after the test."""

from collections.abc import Iterator

import pytest

import dirtytrack
from _lib.works import own_default_session, tracking_works

__all__ = ["own_default_session", "tracking_works"]


@pytest.fixture
def session() -> Iterator[dirtytrack.Session]:
    """A session of the test's own."""
    with dirtytrack.Session() as session:
        yield session
