"""A thread in C that writes to pages at full speed."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from _lib.support import PAGE_SIZE, require

_SOURCE = Path(__file__).with_name("hammer.c")


@cache
def _library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        built = f"{folder}/hammer.so"
        try:
            subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", built, _SOURCE], check=True)
        except FileNotFoundError:
            require(False, "gcc, to compile the writer")
        library = ctypes.CDLL(built)
    library.hammer.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_long]
    return library


@contextmanager
def hammering(address: int, pages: int) -> Iterator[None]:
    """Writes to byte 7 of each page while the block runs."""
    library = _library()
    library.halt(0)
    thread = threading.Thread(target=library.hammer, args=(address, pages, PAGE_SIZE))
    thread.start()
    try:
        yield
    finally:
        library.halt(1)
        thread.join()
