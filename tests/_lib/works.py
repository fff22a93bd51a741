"""What the tests of tracking need of a kernel: that it can track.

A conftest.py that imports `tracking_works` skips every test below it elsewhere, except those marked
``anywhere``. One that imports `own_default_session` has the default session closed after every test.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest

import dirtytrack
from _lib.support import require

_FOUND = dirtytrack.support()  # here, not in each forked test


@pytest.fixture(autouse=True)
def tracking_works(request: pytest.FixtureRequest) -> None:
    """Skip a test where tracking can't work."""
    if request.node.get_closest_marker("anywhere") is None:
        require(_FOUND.works, f"this system cannot track: {_FOUND.cause}")


@pytest.fixture(autouse=True)
def own_default_session() -> Iterator[None]:
    """What a test tracks with the default session is not in the next test."""
    yield
    with suppress(dirtytrack.UnsupportedError):
        dirtytrack.default_session().close()
