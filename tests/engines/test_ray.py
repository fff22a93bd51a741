"""A driver of a real Ray, and workers of which one dies."""

from __future__ import annotations

import sys
from pathlib import Path

from _lib import limits
from _lib.support import library

_EXAMPLE = Path(__file__).parents[2] / "examples" / "group_ray.py"


def test_workers_go_on_with_what_all_have(tmp_path):
    """The example."""
    library("ray", "engines")
    done = limits.run([sys.executable, _EXAMPLE], cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for told in ("a worker died in step 4", "3 workers went on with step 4", "the state is whole"):
        assert f"holds: {told}\n" in done.stdout
