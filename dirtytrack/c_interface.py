"""What a native runtime builds into itself to track its heap without Python."""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers know the name; `typing` is slow to import
if TYPE_CHECKING:
    from pathlib import Path

_FOLDERS = ("base", "kernel", "core", "backends", "snapshot", "barrier")  # trackers, snapshots, what is below


def get_include() -> str:
    """The directory of ``dirtytrack.h``, the interface in C; it holds nothing else. For the option -I."""
    return str(_native() / "include")


def get_sources() -> list[str]:
    """The C files that implement ``dirtytrack.h``: absolute paths, to be compiled as GNU C11 with -pthread.

    They are those that the Python package is built from.
    """
    return [str(path) for folder in _FOLDERS for path in sorted((_native() / folder).glob("*.c"))]


def _native() -> Path:
    from pathlib import Path  # slow to import, and needed by few programs

    return Path(__file__).parent / "native"
