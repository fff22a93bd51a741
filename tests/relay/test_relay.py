"""A chain is the same on every kernel, processor and page size: each reads what others wrote, and goes on.

`make kernels` hands one from guest to guest in DIRTYTRACK_RELAY. Elsewhere this machine hands it to itself.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from _lib.support import optional
from matrix import baton


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(os.environ.get("DIRTYTRACK_RELAY", tmp_path / "chain"))


@pytest.mark.anywhere
def test_what_others_wrote(path: Path) -> None:
    """Every checkpoint is there, to the byte, also where nothing can be tracked."""
    optional(path.exists(), "nobody has handed on a chain")
    assert baton.check(path)


def test_it_goes_on(path: Path) -> None:
    """Once for another machine, and once more on what is then our own."""
    before = baton.check(path) if path.exists() else []
    for count in (1, 2):
        baton.hand_on(path)
        assert baton.check(path) == before + [baton.whoami()] * count


def test_a_wrong_byte_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison does compare."""
    baton.hand_on(tmp_path)
    monkeypatch.setattr(baton, "advance", lambda memories, number: memories["bytes"].fill(np.uint8(1)))
    with pytest.raises(AssertionError, match=r"\(0, 'numbers'\)|\(0, 'bytes'\)"):
        baton.check(tmp_path)
