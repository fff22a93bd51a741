"""The documents and examples show tracking: they need a kernel that can track."""

from __future__ import annotations

import pytest

import dirtytrack
from support import require


@pytest.fixture(autouse=True)
def tracking_works():
    found = dirtytrack.support()
    require(found.works, f"this system cannot track: {found.cause}")
