"""Threads without Python: each does one kind of thing again and again (``native_threads.c``)."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from _lib.support import PAGE_SIZE, address_of, require


@cache
def _library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        built = f"{folder}/threads.so"
        flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
        source = Path(__file__).with_name("native_threads.c")
        try:
            subprocess.run(["gcc", *flags, "-o", built, source, "-ldl"], check=True)
        except FileNotFoundError:
            require(False, "gcc, to compile the threads")
        library = ctypes.CDLL(built)
    library.thread_begin.restype = ctypes.c_void_p
    library.thread_begin.argtypes = [ctypes.c_char_p, ctypes.c_void_p, *[ctypes.c_uint64] * 2]
    for name, result in (("id", ctypes.c_int32), ("done", ctypes.c_uint64), ("interrupted", ctypes.c_uint64)):
        function = getattr(library, f"thread_{name}")
        function.restype, function.argtypes = result, [ctypes.c_void_p]
    for name in ("wake", "end"):
        function = getattr(library, f"thread_{name}")
        function.restype, function.argtypes = None, [ctypes.c_void_p]
    return library


class NativeThread:
    """A thread of a kind, from the start of a ``with`` block to its end.

    Args:
        kind: a name in ``native_threads.c``.
        memory: a writable buffer, for the kinds that write.
    """

    def __init__(self, kind: str, memory: Any = None) -> None:
        self._library = _library()  # or the test is skipped: not in a child, which can only fail
        self._kind = kind
        self._memory = memory

    def __enter__(self) -> NativeThread:
        address, nbytes = (0, 0) if self._memory is None else (address_of(self._memory), len(self._memory))
        self._handle = self._library.thread_begin(self._kind.encode(), address, nbytes, PAGE_SIZE)
        assert self._handle, self._kind
        return self

    def __exit__(self, *exc: object) -> None:
        self._library.thread_end(self._handle)

    @property
    def id(self) -> int:
        """Its identifier, as of ``threading.get_native_id``."""
        return int(self._library.thread_id(self._handle))

    @property
    def done(self) -> int:
        """How often it has done its thing."""
        return int(self._library.thread_done(self._handle))

    @property
    def interrupted(self) -> int:
        """How often a call of its failed with EINTR."""
        return int(self._library.thread_interrupted(self._handle))

    def wake(self) -> None:
        """Wakes it from what it waits for, once."""
        self._library.thread_wake(self._handle)

    def go_on(self, times: int = 1) -> None:
        """Waits until it has done its thing so many times more."""
        end = self.done + times
        wait_until(lambda: self.done >= end)


def wait_until(condition: Callable[[], object]) -> None:
    """Waits for something that another thread or process is about to do."""
    while not condition():
        os.sched_yield()
