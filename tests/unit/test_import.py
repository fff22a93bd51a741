"""Importing costs little and does nothing."""

from __future__ import annotations

import subprocess
import sys

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
    assert not loaded & {"numpy", "cffi", "torch", "json", "dataclasses", "inspect", "platform", "argparse"}


def _path() -> str:
    # Without the site module, which may have loaded anything for an editable install.
    from pathlib import Path

    import _cffi_backend

    import dirtytrack

    folders = {str(Path(module.__file__ or "").parent) for module in (_cffi_backend,)}
    folders.add(str(Path(dirtytrack.__file__).parent.parent))
    return f"import sys; sys.path += {sorted(folders)!r}\n"
