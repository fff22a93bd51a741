"""Which pages of my memory were written since I last asked?

The public names, and nothing else. Behind them stand the packages, each built on those above it in this list:

    errors       every exception
    native       the C core, private
    c_interface  the core in C: what a native runtime builds into itself
    kernel       what the kernel offers: userfaultfd, PAGEMAP_SCAN, mappings, and what of it works here
    objects      what an object means beyond its bytes: where these lie, what they are, whether they moved
    tracking     sessions, regions, cursors, epochs, page sets
    snapshot     copies of memory, diffs to the byte, and the way back; imported by whoever uses it
    checkpoint   incremental checkpoints on disk; imported by whoever uses it
    barrier      card tables and write watch for garbage collectors; imported by whoever uses it
    cli          the command line

The wheel has a plugin of pytest, which therefore would rewrite the library's assertions: PYTEST_DONT_REWRITE.
"""

from typing import TYPE_CHECKING

from dirtytrack import kernel
from dirtytrack.c_interface import get_include, get_sources
from dirtytrack.errors import (
    BusyError,
    ChainError,
    CheckpointError,
    ClosedError,
    DiffError,
    DirtyTrackError,
    ForkedError,
    KernelError,
    MissedWriteError,
    RegionLostError,
    UnsupportedError,
)
from dirtytrack.kernel.support import support
from dirtytrack.tracking import (
    BlindSpot,
    Cursor,
    Epoch,
    Mirror,
    PageSet,
    Region,
    Session,
    alloc,
    default_session,
    empty,
)

if TYPE_CHECKING:
    from dirtytrack.snapshot import watch
else:

    def __getattr__(name):
        """`watch`, when it is first asked for: what it needs takes a third of the time of the rest."""
        if name != "watch":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from dirtytrack.snapshot import watch

        return watch


__version__ = "0.1.0"

__all__ = [
    "BlindSpot",
    "BusyError",
    "ChainError",
    "CheckpointError",
    "ClosedError",
    "Cursor",
    "DiffError",
    "DirtyTrackError",
    "Epoch",
    "ForkedError",
    "KernelError",
    "Mirror",
    "MissedWriteError",
    "PageSet",
    "Region",
    "RegionLostError",
    "Session",
    "UnsupportedError",
    "__version__",
    "alloc",
    "default_session",
    "empty",
    "get_include",
    "get_sources",
    "kernel",
    "support",
    "watch",
]
