"""Importing costs little and does nothing."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

_HEAVY = {
    *("numpy", "cffi", "torch", "json", "dataclasses", "inspect", "platform", "argparse", "hashlib"),
    *("dirtytrack.snapshot", "dirtytrack.checkpoint", "dirtytrack.barrier", "dirtytrack.cli"),
}

_PROGRAM = """
import os, sys
descriptors = set(os.listdir("/proc/self/fd"))
import dirtytrack
assert set(os.listdir("/proc/self/fd")) == descriptors, "the import opened something"
print(*sys.modules)
"""


def test_the_import_is_light_and_opens_nothing() -> None:
    """No third-party package but cffi's backend, nothing slow of the standard library, no descriptor."""
    done = subprocess.run([sys.executable, "-S", "-c", _path() + _PROGRAM], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    loaded = set(done.stdout.split())
    assert "dirtytrack.tracking.session" in loaded
    assert not loaded & _HEAVY


def test_watch_is_loaded_when_it_is_asked_for() -> None:
    """It is a public name like the others, and the only one that is not there yet."""
    import dirtytrack
    from dirtytrack.snapshot.watching import watch

    assert dirtytrack.watch is watch
    assert all(hasattr(dirtytrack, name) for name in dirtytrack.__all__)
    with pytest.raises(AttributeError, match="no attribute 'wach'"):
        dirtytrack.wach  # noqa: B018


def test_the_version_is_that_of_the_package() -> None:
    """It stands in one place."""
    import dirtytrack

    assert dirtytrack.__version__ == metadata.version("dirtytrack")


def _path() -> str:
    # Without the site module, which may have loaded anything for an editable install.
    from pathlib import Path

    import _cffi_backend

    import dirtytrack

    folders = {str(Path(module.__file__ or "").parent) for module in (_cffi_backend,)}
    folders.add(str(Path(dirtytrack.__file__).parent.parent))
    return f"import sys; sys.path += {sorted(folders)!r}\n"
