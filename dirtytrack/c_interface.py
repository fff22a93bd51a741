"""What a native runtime builds into itself to track its heap without Python."""

from __future__ import annotations

from pathlib import Path

_NATIVE = Path(__file__).parent / "native"
_FOLDERS = ("base", "kernel", "core", "backends", "barrier")  # the tracker and what it stands on


def get_include() -> str:
    """The directory of ``dirtytrack.h``, the interface in C; it holds nothing else. For the option -I."""
    return str(_NATIVE / "include")


def get_sources() -> list[str]:
    """The C files that implement ``dirtytrack.h``: absolute paths, to be compiled as GNU C11 with -pthread.

    They are those that the Python package is built from.
    """
    return [str(path) for folder in _FOLDERS for path in sorted((_NATIVE / folder).glob("*.c"))]
