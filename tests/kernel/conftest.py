"""A userfaultfd and memory for the tests of `dirtytrack.kernel`, which need a kernel that can track."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from _lib.kernel.area import Lab
from _lib.kernel.area import lab as make_lab
from _lib.works import tracking_works

__all__ = ["lab", "tracking_works"]


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A userfaultfd, and memory that is unmapped after the test."""
    with make_lab() as made:
        yield made
