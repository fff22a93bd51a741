"""What the tests of tracking need of a kernel: that it can track.

A conftest.py that imports `tracking_works` skips every test below it elsewhere, except those marked
``anywhere``.
"""

from __future__ import annotations

import pytest

import dirtytrack
from support import require

_FOUND = dirtytrack.support()  # here, not in each forked test


@pytest.fixture(autouse=True)
def tracking_works(request: pytest.FixtureRequest) -> None:
    """Skip a test where tracking can't work."""
    if request.node.get_closest_marker("anywhere") is None:
        require(_FOUND.works, f"this system cannot track: {_FOUND.cause}")
