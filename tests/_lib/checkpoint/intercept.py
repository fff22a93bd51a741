"""Every system call on the files of a chain, through a hook: to record it, to hold it up, to make it fail.

The package has no code for this: the modules that it calls the system by are exchanged for ones that ask the
hook first.
"""

from __future__ import annotations

import fcntl
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

from dirtytrack.checkpoint.store import descriptors, directory, lock, new_file, system
from dirtytrack.native import ffi, lib

COMMITTER, COMPACTION = "dirtytrack checkpoint", "dirtytrack compaction"  # the names of the writer's threads

SYNCS = ("fsync", "dt_sync_directory")  # of a file, and of a directory

_CALLS = (
    (descriptors, "os", os, ("open", "close")),
    (system, "os", os, ("fsync", "unlink", "listdir")),
    (system, "lib", lib, ("dt_sync_directory",)),
    (directory, "os", os, ("fstat", "stat", "lseek")),
    (directory, "lib", lib, ("dt_map_file", "dt_read_file")),
    (new_file, "lib", lib, ("dt_file_calls",)),
    (lock, "os", os, ("fstat", "stat", "ftruncate", "pread", "pwrite")),
    (lock, "fcntl", fcntl, ("lockf",)),
)


class _Unobserved(threading.local):
    depth = 0


_unobserved = _Unobserved()


class Call(NamedTuple):
    """One call that is about to be made.

    Attributes:
        module: the short name of the module that makes it, as ``directory``.
        name: of the function, as ``dt_write_all``.
        arguments, keywords: for it.
        run: makes it, and returns what it returns.
    """

    module: str
    name: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    run: Callable[[], Any]

    def fail(self, errno: int) -> int:
        """What the call does if it fails. Closing gives the descriptor up all the same."""
        if self.name == "close":
            self.run()
        if self.name.startswith("dt_"):
            return -errno
        raise OSError(errno, os.strerror(errno))

    def writes(self) -> list[tuple[int, bytes]]:
        """For dt_write_all: the offsets and the bytes."""
        _, pieces, count = self.arguments
        return [(one.offset, bytes(ffi.buffer(one.data, one.bytes))) for one in pieces[0:count]]

    def write_some(self) -> None:
        """For dt_write_all: write half of the bytes."""
        left = max(1, sum(len(data) for _, data in self.writes()) // 2)
        for offset, data in self.writes():
            os.pwrite(self.arguments[0], data[:left], offset)
            left = max(0, left - len(data))


Hook = Callable[[Call], Any]


class _Through:
    """A module of which some functions go through a hook."""

    def __init__(self, module: Any, owner: str, names: tuple[str, ...], hook: Hook) -> None:
        self._module, self._owner, self._names, self._hook = module, owner, names, hook

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        return functools.partial(self._call, name, found) if name in self._names else found

    def _call(self, name: str, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        run = functools.partial(function, *arguments, **keywords)
        return run() if _unobserved.depth else self._hook(Call(self._owner, name, arguments, keywords, run))


_ACTS = {
    lib.DT_CREATE: "dt_create",
    lib.DT_WRITE_PACKED: "dt_write_all",
    lib.DT_WRITE: "dt_write_all",
    lib.DT_WRITEBACK: "dt_start_writeback",
    lib.DT_FSYNC: "fsync",
    lib.DT_CLOSE: "close",
    lib.DT_RENAME: "dt_rename_new",
    lib.DT_SYNC_DIRECTORY: "dt_sync_directory",
}


class _OneByOne(_Through):
    """The library, of which the calls that are made in one go through the hook one by one."""

    def dt_file_calls(self, calls: Any, count: int, done: Any) -> int:
        for at in range(count):
            if calls[at].act == lib.DT_PACK:  # so that all that is written comes through the hook
                calls[at].file = ffi.NULL
            run = functools.partial(self._module.dt_file_calls, calls + at, 1, ffi.new("size_t *"))
            call = self._call_of(calls[at], run)
            try:
                error = (run() if call is None or _unobserved.depth else self._hook(call)) or 0
            except OSError as failure:
                error = -(failure.errno or 0)
            if error:
                return error
            done[0] = at + 1
        return 0

    def _call_of(self, one: Any, run: Callable[[], Any]) -> Call | None:
        # None: it is none that a system can refuse.
        if one.act in (lib.DT_PACK, lib.DT_PACK_PLACE, lib.DT_PACK_END):
            return None
        name = _ACTS[one.act]
        of_directory = name in ("dt_rename_new", "dt_sync_directory")
        arguments: tuple[Any, ...] = (one.directory if of_directory else one.file[0],)
        if one.act == lib.DT_CREATE:
            arguments = one.directory, ffi.string(one.name).decode(), one.file
        if one.act == lib.DT_WRITE_PACKED:
            arguments += one.pack.writes, one.pack.write_count
        if one.act == lib.DT_WRITE:
            arguments += one.pieces, one.count
        if name == "dt_rename_new":
            arguments += ffi.string(one.name), ffi.string(one.new_name)
        return Call(self._owner, name, arguments, {}, run)


@contextmanager
def intercepted(hook: Hook) -> Iterator[None]:
    """While the block runs, every call goes through the hook; it has to make it, or what it likes instead."""
    with ExitStack() as patches:
        # What one call finds in order is not looked at by others, which are those that the hook is for.
        patches.enter_context(mock.patch.object(lock.WriterLock, "holds", return_value=False))
        patches.enter_context(mock.patch.object(lock.WriterLock, "native", return_value=None))
        for owner, attribute, module, names in _CALLS:
            name = owner.__name__.rpartition(".")[2]
            through = _OneByOne if owner is new_file else _Through
            patches.enter_context(mock.patch.object(owner, attribute, through(module, name, names, hook)))
        mkdir = _Through(os, "os", ("mkdir",), hook).mkdir  # pathlib's
        patches.enter_context(mock.patch.object(os, "mkdir", mkdir))
        yield


@contextmanager
def unobserved() -> Iterator[None]:
    """In the block this thread's calls pass by the hook: for a test that looks at what a writer has done."""
    _unobserved.depth += 1
    try:
        yield
    finally:
        _unobserved.depth -= 1


def stacked(*hooks: Hook) -> Hook:
    """One hook of several; each makes the call by asking the next one."""

    def hook(call: Call) -> Any:
        run = call.run
        for inner in reversed(hooks):
            run = functools.partial(inner, call._replace(run=run))
        return run()

    return hook


def without_disk(call: Call) -> Any:
    """A hook that leaves out what waits for the disk: for tests that make many files, and pull no plug."""
    return 0 if call.name in SYNCS else call.run()


def by(thread: str) -> Callable[[Call], bool]:
    """Whether it is the thread of that name that calls."""
    return lambda call: threading.current_thread().name == thread


class Gate:
    """A hook that stops calls until it is opened, once it is armed.

    Attributes:
        reached: an event: somebody stands before it.
    """

    def __init__(self, stops: Callable[[Call], bool]) -> None:
        self._stops = stops
        self._armed = threading.Event()
        self._opened = threading.Event()
        self.reached = threading.Event()

    def arm(self) -> None:
        """The next call that it stops stands before it."""
        self._armed.set()

    def open(self) -> None:
        """It goes on."""
        self._opened.set()

    def __call__(self, call: Call) -> Any:
        if self._armed.is_set() and self._stops(call):
            self.reached.set()
            self._opened.wait()
        return call.run()


class Fault:
    """A hook that makes one call fail.

    Attributes:
        struck: the call that failed; None so far.
        count: how many calls it has seen.
    """

    def __init__(
        self,
        at: int,
        errno: int,
        *,
        lasting: bool = False,
        torn: bool = False,
        counts: Callable[[Call], bool] = lambda call: True,
    ) -> None:
        """Makes call number *at* fail, counted from 1.

        Args:
            at: which one.
            errno: how.
            lasting: also all after it, until `mend`.
            torn: if it is a write, half of it succeeds.
            counts: only calls of which it is true count, and fail.
        """
        self.at, self.errno = at, errno
        self.struck: Call | None = None
        self.count = 0
        self._lasting, self._torn, self._counts = lasting, torn, counts
        self._mended = False
        self._mutex = threading.Lock()

    def mend(self) -> None:
        """No call fails any more."""
        self._mended = True

    def __call__(self, call: Call) -> Any:
        if not self._counts(call):
            return call.run()
        with self._mutex:
            self.count += 1
            if self._torn and self.count == self.at and call.name == "dt_write_all":
                call.write_some()
            due = self.count == self.at or (self._lasting and self.count > self.at)
            if not due or self._mended:
                return call.run()
            self.struck = call
        return call.fail(self.errno)
