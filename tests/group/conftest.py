"""Saving needs a kernel that can track; tests of records and votes alone are marked ``anywhere``."""

from __future__ import annotations

import pytest

from _lib.works import own_default_session, tracking_works

__all__ = ["own_default_session", "tracking_works"]


@pytest.fixture(params=["directory", "memory", "mirror"])
def place(request, tmp_path):
    """Where a group is, and the keywords that say so to a rank."""
    url = f"memory://{tmp_path.name}-{request.param}"
    if request.param == "mirror":
        return url, lambda rank: (tmp_path / f"node-{rank}", {"mirror": url})
    found = tmp_path / "group" if request.param == "directory" else url
    return found, lambda _: (found, {})
