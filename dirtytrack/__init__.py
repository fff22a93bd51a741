"""Which pages of my memory were written since I last asked?

The public names, and nothing else. But for the errors each is imported when it is first asked for, so that
importing this costs next to nothing. Behind them stand the packages, each built on those above it here:

    errors       every exception
    native       the C core, private
    c_interface  the core in C: what a native runtime builds into itself
    kernel       what the kernel offers: userfaultfd, PAGEMAP_SCAN, mappings, and what of it works here
    objects      what an object means beyond its bytes: where these lie, what they are, whether they moved
    tracking     sessions, regions, cursors, epochs, page sets
    snapshot     copies of memory, diffs to the byte, and the way back
    checkpoint   incremental checkpoints on disk
    barrier      card tables and write watch for garbage collectors
    group        one state of many processes
    torch        checkpoints of torch trainings
    profile      which part of a program writes which memory
    cli          the command line

The wheel has a plugin of pytest, which therefore would rewrite the library's assertions: PYTEST_DONT_REWRITE.
"""

TYPE_CHECKING = False  # type checkers know the name
if TYPE_CHECKING:
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
        GroupError,
        KernelError,
        MissedWriteError,
        RecordingError,
        RegionLostError,
        StoreError,
        UnsupportedError,
    )
    from dirtytrack.kernel.support import support
    from dirtytrack.snapshot import watch
    from dirtytrack.tracking import (
        BlindSpot,
        Cursor,
        Epoch,
        HugePages,
        Mirror,
        PageSet,
        Region,
        Session,
        WorkingSet,
        alloc,
        default_session,
        empty,
    )
else:
    import errno as _errno
    from importlib import import_module as _import_module

    from dirtytrack import errors as _errors  # what has to be said where no file can be opened any more

    # The lowest first: those above import them anyway.
    _HOMES = ("errors", "c_interface", "kernel.support", "tracking", "snapshot")

    def __getattr__(name):
        """A public name, when it is first asked for."""
        names = globals()
        for home in _HOMES if name in __all__ else ():
            module = _import(f"{__name__}.{home}")
            if name not in names and hasattr(module, name):
                names[name] = getattr(module, name)
            if name in names:  # also a package, which its import has put there
                return names[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def _import(module):
        try:
            return _import_module(module)
        except OSError as error:
            if error.errno not in (_errno.EMFILE, _errno.ENFILE):
                raise
            raise _errors.kernel_error(error.errno, f"import of {module}") from error

    def __dir__():
        return sorted({*globals(), *__all__})


__version__ = "0.2.0"

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
    "GroupError",
    "HugePages",
    "KernelError",
    "Mirror",
    "MissedWriteError",
    "PageSet",
    "RecordingError",
    "Region",
    "RegionLostError",
    "Session",
    "StoreError",
    "UnsupportedError",
    "WorkingSet",
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
