"""Memory under a session of its own, the bare system call on it, and C without an interpreter in between."""

from __future__ import annotations

import functools
import itertools
import mmap
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from cffi import FFI

import dirtytrack
from dirtytrack.kernel import pagemap
from dirtytrack.native import ffi, lib

from .harness import Unavailable, require_memory

PAGE = os.sysconf("SC_PAGESIZE")
PMD = PAGE * (PAGE // 8)  # what one page table maps: the size of a transparent huge page
VEC = 512  # walk_end is exact up to so many regions a call


class BareScan:
    """PAGEMAP_SCAN with WP_MATCHING and CHECK_WPASYNC over a range, to its end; what it finds is dropped.

    The yardstick, called from Python as the library is: the struct and the touched vector are made once.
    """

    def __init__(self, start: int, nbytes: int, *, vec_len: int = VEC) -> None:
        self.fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        self.start = start
        self.vec = ffi.new("struct dt_page_region[]", vec_len)
        self.arg: Any = ffi.new("struct dt_pm_scan_arg *")
        fill(self.arg, start, nbytes, self.vec, vec_len)

    def __call__(self) -> None:
        """Scans and re-arms all of the range."""
        arg, scan, fd = self.arg, lib.dt_pagemap_scan, self.fd
        arg.start = self.start
        while True:
            found = scan(fd, arg)
            if found < 0:
                raise OSError(-found, f"PAGEMAP_SCAN: {os.strerror(-found)}")
            if found < arg.vec_len or arg.walk_end >= arg.end:
                return
            arg.start = arg.walk_end

    def close(self) -> None:
        """Closes its descriptor."""
        os.close(self.fd)


def memory_folder() -> Path:
    """A directory on a tmpfs.

    Raises:
        Unavailable: there is none.
    """
    folder = Path("/dev/shm")
    if not os.access(folder, os.W_OK):
        raise Unavailable(f"{folder} is not there, or can't be written")
    return folder


def fill(arg: Any, start: int, nbytes: int, vec: Any, vec_len: int) -> None:
    """Fills a native ``struct dt_pm_scan_arg`` for a scan that collects."""
    arg.size = ffi.sizeof("struct dt_pm_scan_arg")
    arg.flags = int(pagemap.ScanFlags.WP_MATCHING | pagemap.ScanFlags.CHECK_WPASYNC)
    arg.start, arg.end = start, start + nbytes
    arg.vec, arg.vec_len = int(ffi.cast("uintptr_t", vec)), vec_len
    arg.category_mask = arg.return_mask = int(pagemap.Category.WRITTEN)


class Tracked:
    """Touched memory of base pages, tracked by a session of its own.

    Attributes:
        array: the memory, as bytes.
        pages: its length in pages.
        session: has nothing else to track.
        region: the memory.
        scan: the bare scan of the same pages.
    """

    def __init__(
        self,
        nbytes: int,
        *,
        huge: bool = False,
        sparse: bool = False,
        keep_huge_pages: bool = False,
        stop_threads: bool = False,
    ) -> None:
        require_memory(nbytes)
        self.array = touched(nbytes, huge=huge)
        self.pages = nbytes // PAGE
        self.session = dirtytrack.Session(keep_huge_pages=keep_huge_pages, stop_threads=stop_threads)
        self.region = self.session.track(self.array, sparse=sparse)
        self.scan = BareScan(self.region.address, nbytes)

    def dirty(self, fraction: float, seed: int) -> None:
        """Stores to a fraction of the pages, at random, the same for the same seed and size."""
        store(self.array, some_pages(self.pages, fraction, seed))

    def collect(self) -> None:
        """What a user does: the runs of the one region, as an array."""
        with self.session.collect() as epoch:
            np.asarray(epoch[self.region].runs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.scan.close()
        self.session.close()
        del self.array


def touched(nbytes: int, *, huge: bool = False) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Page-aligned memory, every page of it populated; huge pages asked for, or forbidden."""
    array = dirtytrack.empty(nbytes, np.uint8, huge=huge)
    array[::PAGE] = 0
    return array


def warm(nbytes: int) -> None:
    """Touches so much memory and frees it, before files are written to memory or to the page cache.

    A virtual machine gets back from its host what was free for seconds ten times as slowly.
    """
    mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def huge_bytes(start: int) -> int:
    """Bytes of the mapping that holds an address which lie on huge pages."""
    within = False
    with Path("/proc/self/smaps").open() as smaps:
        for line in smaps:
            head, _, rest = line.partition(" ")
            if "-" in head and not head.endswith(":"):
                first, _, last = head.partition("-")
                within = int(first, 16) <= start < int(last, 16)
            elif within and head == "AnonHugePages:":
                return int(rest.split()[0]) * 1024
    return 0


def some_pages(pages: int, fraction: float, seed: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """A fraction of the page numbers below *pages*, at random and in random order."""
    generator = np.random.default_rng(seed)
    chosen = generator.choice(pages, size=max(1, round(pages * fraction)), replace=False)
    return chosen.astype(np.uint64)


def store(array: np.ndarray[Any, np.dtype[np.uint8]], pages: np.ndarray[Any, np.dtype[np.uint64]]) -> None:
    """Stores a byte to each of the pages: the one that is there, so the contents stay as they are."""
    array[pages * np.uint64(PAGE)] = 0


def address(array: np.ndarray[Any, Any]) -> int:
    """The address of its first byte."""
    return int(array.ctypes.data)


@contextmanager
def blind_to_holes() -> Iterator[None]:
    """Sessions opened in the block take the kernel for one that is blind to holes (`HoleReporting.BLIND`)."""
    before = os.environ.get("DIRTYTRACK_HOLE_REPORTING")
    os.environ["DIRTYTRACK_HOLE_REPORTING"] = "blind"
    try:
        yield
    finally:
        if before is None:
            del os.environ["DIRTYTRACK_HOLE_REPORTING"]
        else:
            os.environ["DIRTYTRACK_HOLE_REPORTING"] = before


@contextmanager
def busy_thread() -> Iterator[None]:
    """Another thread of this process runs in the block without the GIL; both keep to a CPU of their own."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        raise Unavailable("needs a second CPU for the other thread")
    native, (here, there) = c_library(), sorted(allowed)[:2]
    flags = np.zeros(2, np.int32)  # running, stop

    def spin() -> None:
        os.sched_setaffinity(0, {there})  # of this thread alone
        native.bench_spin(address(flags))

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        os.sched_setaffinity(0, {here})
        while not flags[0]:
            pass
        yield
    finally:
        os.sched_setaffinity(0, allowed)
        flags[1] = 1
        thread.join()


@contextmanager
def computing_threads(count: int, progress: list[int] | None = None) -> Iterator[None]:
    """Threads of Python that compute in the block; what they have done goes into progress[0] now and then."""
    stop = False
    progress = [0] if progress is None else progress

    def compute() -> None:
        while not stop:
            for _ in itertools.repeat(None, 1000):
                pass
            progress[0] += 1

    threads = [threading.Thread(target=compute) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop = True
        for thread in threads:
            thread.join()


_CDEF = """
int bench_scan_each(int fd, uintptr_t args, size_t count);
void bench_store(uintptr_t base, uintptr_t pages, size_t count, size_t page_size);
uint64_t bench_load(uintptr_t base, size_t bytes, size_t count);
void bench_copy(uintptr_t to, uintptr_t from, uintptr_t runs, size_t count, size_t page_size);
int bench_gather_and_write(int fd, uintptr_t to, uintptr_t from, uintptr_t runs, size_t count,
                           size_t page_size);
void bench_gather(uintptr_t to, uintptr_t from, uintptr_t runs, size_t count, size_t page_size);
size_t bench_compare_runs(uintptr_t a, uintptr_t b, uintptr_t runs, size_t count, size_t page_size);
size_t bench_compare(uintptr_t a, uintptr_t b, size_t bytes, size_t page_size, uintptr_t pages);
int bench_guard(uintptr_t base, size_t bytes, size_t page_size);
int bench_unguard(void);
void bench_spin(uintptr_t flags);
"""


@functools.cache
def c_library() -> Any:
    """``native.c``, compiled now. Unavailable: as for `compiled`."""
    ffi_c = FFI()
    ffi_c.cdef(_CDEF)
    return compiled(ffi_c, str(Path(__file__).with_name("native.c")))


def compiled(ffi_c: FFI, *sources: str, flags: tuple[str, ...] = ()) -> Any:
    """C files as a library, compiled now.

    Raises:
        Unavailable: there is no C compiler, or it fails.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise Unavailable("needs a C compiler: install gcc, or set CC")
    with tempfile.TemporaryDirectory() as folder:
        library = str(Path(folder, "bench.so"))
        options = ["-std=gnu11", "-O2", "-shared", "-fPIC", *flags, "-o", library]
        try:
            subprocess.run(
                [*compiler.split(), *options, *sources], check=True, capture_output=True, text=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", None) or error
            raise Unavailable(f"the C compiler {compiler!r} fails: {reason}") from error
        return ffi_c.dlopen(library)


def size(nbytes: int) -> str:
    """A number of bytes in words."""
    return f"{nbytes >> 30} GiB" if nbytes % (1 << 30) == 0 else f"{nbytes >> 20} MiB"
