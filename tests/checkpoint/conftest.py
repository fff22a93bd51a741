"""Writing a chain needs a kernel that can track; tests that only read one are marked ``anywhere``."""

import pytest

from _lib.checkpoint.places import KINDS, place_of
from _lib.works import own_default_session, tracking_works

__all__ = ["own_default_session", "tracking_works"]


@pytest.fixture(params=KINDS)
def place(request, tmp_path):
    """Where a chain may be, once in a directory and once in memory."""
    return place_of(request.param, tmp_path / "chain")
