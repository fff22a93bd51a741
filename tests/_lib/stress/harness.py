"""Writers in C against a shadow copy that is kept up to date by copying only what was reported."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from _lib.support import PAGE_SIZE, PMD_SIZE, Memory, address_of, require
from _lib.syscalls import Advice
from dirtytrack import Epoch, alloc

CHAOS = ("none", "fork", "mprotect", "pageout", "drop", "free", "populate", "collapse", "process_vm_writev")

# Seconds for each configuration: short in CI, given by `make stress`.
SECONDS = float(os.environ.get("DIRTYTRACK_STRESS_SECONDS") or 0.2)


@cache
def _library() -> ctypes.CDLL:
    require(_runs("gcc", "--version"), "gcc, to compile the writers")
    with tempfile.TemporaryDirectory() as folder:
        built = f"{folder}/writers.so"
        source = Path(__file__).with_name("writers.c")
        flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
        subprocess.run(["gcc", *flags, "-o", built, source], check=True)
        library = ctypes.CDLL(built)
    library.stress_start.restype = ctypes.c_void_p
    library.stress_start.argtypes = [
        ctypes.c_void_p,
        *[ctypes.c_size_t] * 2,
        *[ctypes.c_int] * 2,
        *[ctypes.c_uint] * 2,
        ctypes.c_uint64,
        ctypes.c_void_p,
    ]
    library.stress_stop.argtypes = [ctypes.c_void_p, *[ctypes.POINTER(ctypes.c_uint64)] * 2]
    return library


class Writers:
    """Threads that write into *memory* from the start of a ``with`` block to its end; there may be several.

    Attributes:
        stores: how many stores they made, in all the blocks that have ended.
        rounds: how often the chaos thread acted in these.
        touched: a byte for each page: whether a writer has stored to it; to be cleared by who reads it.
    """

    def __init__(
        self,
        memory: mmap.mmap,
        *,
        chaos: str,
        shared: bool,
        page_size: int = PAGE_SIZE,
        threads: int = 2,
        rest: int = 0,
    ) -> None:
        self._arguments = (
            *(address_of(memory), len(memory), page_size),
            *(shared, CHAOS.index(chaos), threads, rest),
        )
        self.stores = self.rounds = 0
        self.touched = bytearray(len(memory) // page_size)

    def __enter__(self) -> Writers:
        touched = (ctypes.c_char * len(self.touched)).from_buffer(self.touched)
        self._handle = _library().stress_start(*self._arguments, self.stores, touched)
        assert self._handle
        return self

    def __exit__(self, *exc: object) -> None:
        stores, rounds = ctypes.c_uint64(), ctypes.c_uint64()
        _library().stress_stop(self._handle, ctypes.byref(stores), ctypes.byref(rounds))
        self.stores += stores.value
        self.rounds += rounds.value


class Follower:
    """A consumer that keeps a shadow of a region by copying what its cursor reports, and nothing else."""

    def __init__(self, cursor: Any, region: Any, seed: int) -> None:
        self.cursor = cursor
        self.region = region
        self._random = random.Random(seed)
        self._shadow = bytearray(region.view)

    def follow(self) -> int:
        """Collect, and copy; now and then abort the epoch before or after that, or narrow it. Its pages."""
        choice = self._random.randrange(8)
        start = self._random.randrange(self.region.nbytes)
        request = self.region[start:] if choice == 0 else self.region
        epoch = self.cursor.collect(request)
        if choice != 1:
            self.copy(epoch)
        if choice in (1, 2):
            epoch.abort()
        return len(epoch[self.region])

    def copy(self, epoch: Epoch, *, all_but: int = -1) -> None:
        """Copy the reported pages, but for the page *all_but*."""
        pages = epoch[self.region]
        if all_but >= 0:
            assert all_but in pages
            pages -= self.region.page_set([(all_but, all_but + 1)])
        view = self.region.view
        for piece in pages.slices():
            self._shadow[piece] = view[piece]

    def mismatches(self) -> list[int]:
        """Pages on which the shadow differs from the memory."""
        size = self.region.page_size
        memory = bytes(self.region.view)
        starts = range(0, len(memory) if memory != self._shadow else 0, size)
        return [at // size for at in starts if memory[at : at + size] != self._shadow[at : at + size]]


@contextmanager
def memory_of(kind: str, hugepages: Any) -> Iterator[mmap.mmap]:
    """Memory to be written to: four page tables' worth, or two huge pages."""
    nbytes = 4 * PMD_SIZE
    if kind == "hugetlb":
        nbytes = 2 * hugepages(6)  # a fork may need a copy of each
        memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)  # MAP_HUGETLB
    elif kind in ("memfd", "memfd on huge pages"):
        with os.fdopen(os.memfd_create("stress"), "w+b", buffering=0) as file:
            file.truncate(nbytes)
            flags = mmap.MAP_SHARED
            aligned = Memory(nbytes // PAGE_SIZE, flags=flags, fd=file.fileno(), aligned=True)
        with aligned:
            if kind == "memfd on huge pages":
                aligned.fill(1)
                with suppress(OSError):  # the kernel refuses: they are small ones then
                    aligned.advise(Advice.COLLAPSE)
            yield aligned.map
        return
    elif kind == "private file":
        with tempfile.TemporaryFile() as content:
            content.write(os.urandom(nbytes))
            content.flush()
            memory = mmap.mmap(content.fileno(), nbytes, flags=mmap.MAP_PRIVATE)
    else:
        memory = alloc(nbytes, huge=True)
        if kind == "small pages":
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    try:
        yield memory
    finally:
        memory.close()


@contextmanager
def swap() -> Iterator[bool]:
    """Somewhere to page out to while the block runs: what the system has, or a file of our own if root."""
    lines = Path("/proc/swaps").read_text().splitlines()
    if len(lines) > 1:
        yield True
        return
    if os.geteuid() != 0:
        yield False
        return
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        os.posix_fallocate(file.fileno(), 0, 16 * PMD_SIZE)
        made = _runs("mkswap", file.name) and _runs("swapon", file.name)
        try:
            yield made
        finally:
            if made:
                subprocess.run(["swapoff", file.name], check=True)


def _runs(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
