"""Memory of this process that may be inaccessible: the kernel copies it, and where it can't says so.

A load or a store is a signal where a page is protected, is a guard page, lies beyond the end of its file, or
is not mapped; and any of that can come between a check and the access. A system call that is to read or write
there returns an error.
"""

from __future__ import annotations

import errno as _errno
import mmap
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from dirtytrack._lifetime.background import others_run
from dirtytrack.errors import KernelError, kernel_error
from dirtytrack.kernel import mappings
from dirtytrack.kernel._flags import Category
from dirtytrack.kernel.pagemap import scan
from dirtytrack.native import ffi, lib

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Memory:
    """Bytes of this process, whoever they belong to. Methods may be called from any thread.

    Attributes:
        title: what messages call it.
        address: of its first byte.
        nbytes: its length.
        view: its bytes, for system calls, which fail where a touch would kill.
        is_steady: whether nobody is there who could take it away between two calls: it is the library's own,
            or private anonymous memory of a process whose other Python threads are the library's.
    """

    def __init__(self, title: str, view: memoryview, then: str, *, is_own: bool = False) -> None:
        """Touches nothing.

        Args:
            title: what messages call it.
            view: its bytes, which are kept alive.
            then: what an access that failed means, and what to do; the last sentence of the error.
            is_own: whether it is the library's own.
        """
        self.title = title
        self.nbytes = len(view)
        self.address = int(ffi.cast("uintptr_t", ffi.from_buffer(view))) if view else 0
        self.view = view
        self.is_steady = is_own or (not others_run() and self._is_anonymous())
        self._then = then

    def read(self, start: int, into: Buffer) -> None:
        """Copies the bytes from *start* on into a buffer, as many as it has.

        Raises:
            KernelError: some of them can't be read; it says which and why. The buffer is undefined.
        """
        refused: Any = ffi.new("uint64_t *")
        with ffi.from_buffer("uint8_t[]", into, require_writable=True) as to:
            error, stop = lib.dt_copy_from(self.address + start, to, len(to), refused), start + len(to)
        if error:
            raise self._refused(error, refused[0], stop, write=False)

    def write(self, start: int, data: Buffer) -> None:
        """Copies bytes there, from *start* on.

        Raises:
            KernelError: some of it can't be written; it says which and why. It is undefined.
        """
        refused: Any = ffi.new("uint64_t *")
        with ffi.from_buffer("uint8_t[]", data) as source:
            error, stop = (
                lib.dt_copy_to(self.address + start, source, len(source), refused),
                start + len(source),
            )
        if error:
            raise self._refused(error, refused[0], stop, write=True)

    def check_writable(self, then: str) -> None:
        """Refuses memory that can't be written, as far as that can be asked; the ends of files can't.

        Args:
            then: the last sentence of the error.

        Raises:
            KernelError: it says where and why. Nothing was touched.
        """
        if self.nbytes and (found := _find_refusal(self.address, self.address + self.nbytes, write=True)):
            raise _error(self.title, found, then, write=True)

    def refused(self, error: int, start: int, *, write: bool) -> KernelError:
        """What to raise when a native call could not touch it.

        Args:
            error: -errno, as the call has it.
            start: the address of the first page that it could not touch.
            write: whether it was to be written; else read.
        """
        return self._refused(error, start, self.nbytes, write=write)

    def _is_anonymous(self) -> bool:
        with suppress(KernelError):
            found = mappings.overlapping(self.address, self.address + max(self.nbytes, 1))
            return all(one.kind is mappings.Kind.ANONYMOUS for one in found)
        return False

    def _refused(self, error: int, start: int, stop: int, *, write: bool) -> KernelError:
        return untouchable(-error, self.title, start, self.address + stop, self._then, write=write)


_TO_WRITE: Any = ffi.new("struct dt_touch *", {"write": True})


def refuse_unwritable(title: str, address: int, nbytes: int, then: str) -> None:
    """Refuses memory that can't be stored to now; what is not populated yet is, as stores would do it.

    Args:
        title: what messages call it.
        address: of its first byte.
        nbytes: its length.
        then: the last sentence of the error.

    Raises:
        KernelError: it says where and why.
    """
    start, stop = address & -mmap.PAGESIZE, -(-(address + nbytes) // mmap.PAGESIZE) * mmap.PAGESIZE
    if nbytes and (error := lib.dt_try_touch(_TO_WRITE, start, stop)):
        raise untouchable(-error, title, address, address + nbytes, then, write=True)


class _Refusal(NamedTuple):
    # Why memory can't be touched, which, and what to do about that.
    errno: int
    start: int
    stop: int
    remedy: str


def untouchable(errno: int, title: str, start: int, stop: int, then: str, *, write: bool) -> KernelError:
    """The exception for memory that could not be touched: which addresses, why, and the remedy.

    Args:
        errno: what the call said that should have touched it.
        title: what messages call the memory.
        start: the address of the first page that it could not touch.
        stop: up to where it was to.
        then: the last sentence.
        write: whether it was to be written; else read.
    """
    if errno not in (_errno.EACCES, _errno.EFAULT):
        return _error(title, _Refusal(errno, start, stop, "The system refused the call"), then, write=write)
    found = _find_refusal(start, stop, write=write)
    return _error(title, found or _in_hindsight(errno, start, stop), then, write=write)


def _error(title: str, found: _Refusal, then: str, *, write: bool) -> KernelError:
    call = f"{'write to' if write else 'read'} {title}"
    remedy = f"{found.remedy}. {then}".rstrip()
    return kernel_error(found.errno, call, start=found.start, stop=found.stop, remedy=remedy)


def _find_refusal(start: int, stop: int, *, write: bool) -> _Refusal | None:
    # The first one, by ascending address; None also where that can't be asked.
    at = start
    with suppress(KernelError):
        for one in mappings.overlapping(start, stop):
            low, high = max(one.start, start), min(one.stop, stop)
            if at < low:
                break
            if ("w" if write else "r") not in one.permissions:
                verb = "writable" if write else "readable"
                return _Refusal(_errno.EACCES, low, high, f"It is protected there: make it {verb} (mprotect)")
            if guards := _guard_pages(low, high):
                remedy = "There are guard pages: take them down (MADV_GUARD_REMOVE)"
                return _Refusal(_errno.EFAULT, *guards, remedy)
            at = high
        if at < stop:
            nexts = [one.start for one in mappings.overlapping(at, stop)]
            remedy = "Nothing is mapped there any more: map it again, or leave this memory out"
            return _Refusal(_errno.EFAULT, at, min([*nexts, stop]), remedy)
    return None


def _guard_pages(start: int, stop: int) -> tuple[int, int] | None:
    page = mappings.page_size_at(start)
    guard = Category.GUARD
    with suppress(KernelError):  # before Linux 6.16
        found = scan(start - start % page, stop, category_mask=guard, return_mask=guard, vec_len=1).regions
        return (max(found[0].start, start), min(found[0].end, stop)) if found else None
    return None


def _in_hindsight(errno: int, start: int, stop: int) -> _Refusal:
    # It looks as if it could be touched. So it lies beyond the end of its file; or it could not at that time.
    with suppress(KernelError):
        for one in mappings.overlapping(start, start + 1):
            if one.kind is not mappings.Kind.ANONYMOUS:
                name = one.name or "it maps"
                remedy = f"It lies beyond the end of the file {name}, or that can't be read: make it longer"
                return _Refusal(errno, start, min(one.stop, stop), remedy)
    return _Refusal(errno, start, stop, "It could not be touched at that time, and can be now")
