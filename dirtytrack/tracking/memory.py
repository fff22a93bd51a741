"""Memory to track: an address range from any buffer, and page-aligned allocation."""

from __future__ import annotations

import functools
import math
import mmap
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

from dirtytrack.kernel.userfaultfd import USER_SPACE_END
from dirtytrack.native import ffi

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_HUGE_SIZE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")


class Memory(NamedTuple):
    """An address range and what keeps it there.

    Attributes:
        address: of the first byte.
        nbytes: length in bytes.
        view: the bytes, writable; it and what is derived from it hold the buffer's export where there is one.
        in_place: None, or a function that says whether the memory still is where it was.
    """

    address: int
    nbytes: int
    view: memoryview
    in_place: Callable[[], bool] | None = None


def resolve(memory: object) -> Memory:
    """Finds the address range of *memory*.

    Args:
        memory: a writable contiguous buffer, an object with ``__array_interface__``, a CPU torch tensor, or
            a pair ``(address, nbytes)``.

    Raises:
        TypeError: not memory, or memory that holds Python objects.
        ValueError: read-only, not contiguous, empty, on a GPU, or an impossible address.
    """
    if isinstance(memory, tuple):
        return _from_address(memory)
    if isinstance(memory, type):
        raise TypeError(f"{memory.__name__} is a class: pass an object of it")
    if hasattr(memory, "untyped_storage"):
        return _from_tensor(memory)
    try:
        view = memoryview(memory)  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        if hasattr(memory, "__array_interface__"):
            return _from_array_interface(memory, memory)
        if hasattr(memory, "__cuda_array_interface__"):
            raise ValueError(f"{_kind(memory)} is GPU memory: only host memory can be tracked") from None
        raise TypeError(
            f"{_kind(memory)} is no memory to track: pass a writable buffer (mmap, bytearray, numpy array, "
            "SharedMemory.buf, ...), a CPU tensor, or a pair (address, nbytes)"
        ) from None
    _refuse_objects(view.format, memory)
    _refuse(
        view.readonly, memory, "read-only: its pages are never written through it. Pass the writable original"
    )
    _refuse(view.nbytes == 0, memory, "empty: there is no byte to track")
    if not view.c_contiguous:
        _refuse(not hasattr(memory, "__array_interface__"), memory, _NOT_CONTIGUOUS)
        return _from_array_interface(memory, view)
    export: Any = ffi.from_buffer("char[]", memory, require_writable=True)  # type: ignore[call-overload]
    return Memory(int(ffi.cast("uintptr_t", export)), view.nbytes, memoryview(ffi.buffer(export)))


_NOT_CONTIGUOUS = "not contiguous: track the array that owns the memory, or a contiguous copy"


def _kind(memory: object) -> str:
    kind = type(memory)
    return f"{'' if kind.__module__ == 'builtins' else kind.__module__ + '.'}{kind.__qualname__} object"


def _refuse(condition: bool, memory: object, reason: str) -> None:
    if condition:
        raise ValueError(f"{_kind(memory)} is {reason}")


def _refuse_objects(typecode: str | None, memory: object) -> None:
    # In struct syntax an O stands for a PyObject pointer; field names stand between colons.
    if "O" in re.sub(r":[^:]*:", "", typecode or ""):
        raise TypeError(
            f"{_kind(memory)} holds pointers to Python objects: their pages say nothing about the objects. "
            "Track arrays of plain numbers or bytes"
        )


def _view(address: int, nbytes: int, owner: object) -> memoryview:
    # The destructor's only job is to hold the owner for as long as the view or a slice of it lives. It is no
    # Python function, which could swallow an interrupt.
    pointer = ffi.gc(ffi.cast("char *", address), functools.partial(operator.is_, owner))
    return memoryview(ffi.buffer(pointer, nbytes))


def _from_address(pair: tuple[object, ...]) -> Memory:
    if len(pair) != 2 or not all(type(item) is int for item in pair):
        raise TypeError(f"{pair!r} is no pair of integers (address, nbytes)")
    address, nbytes = pair
    assert isinstance(address, int)
    assert isinstance(nbytes, int)
    if address <= 0 or nbytes <= 0:
        raise ValueError(f"address {address} and nbytes {nbytes} must both be positive")
    if address + nbytes > USER_SPACE_END:
        raise ValueError(f"[{address:#x}, {address + nbytes:#x}) is not an address range of a user process")
    return Memory(address, nbytes, _view(address, nbytes, None))


def _from_array_interface(array: Any, owner: object) -> Memory:
    interface = array.__array_interface__
    shape, strides = interface["shape"], interface.get("strides")
    kind, itemsize = _item(array, interface["typestr"])
    _refuse_objects("O" if kind == "O" or "'|O" in repr(interface.get("descr")) else "", array)
    nbytes = math.prod(shape) * itemsize
    _refuse(nbytes == 0, array, "empty: there is no byte to track")
    _refuse(not is_contiguous(shape, strides, itemsize), array, _NOT_CONTIGUOUS)
    data = interface.get("data")
    if not isinstance(data, tuple):
        return resolve(data)
    address, read_only = data
    _refuse(
        bool(read_only),
        array,
        "read-only: its pages are never written through it. Pass the writable original",
    )
    return Memory(address, nbytes, _view(address, nbytes, owner))


def _item(array: Any, typestr: str) -> tuple[str, int]:
    # The kind and the size in bytes: "<f8", "<M8[ns]"; that of "<U5" counts characters.
    match = re.fullmatch(r"[<>|=]([a-zA-Z])(\d+)(\[.*\])?", typestr)
    if match is None or match[1] == "t":
        raise TypeError(f"{_kind(array)} has elements of type {typestr!r}: track its bytes instead")
    return match[1], int(match[2]) * (4 if match[1] == "U" else 1)


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...] | None, itemsize: int) -> bool:
    """Whether elements lie one after the other, the last axis fastest; *strides* in bytes."""
    if strides is None:
        return True
    expected = itemsize
    for stride, length in sorted(
        zip(strides, shape, strict=True)
    ):  # row-major, column-major, or any order of axes
        if length > 1:
            if stride != expected:
                return False
            expected *= length
    return True


def _from_tensor(tensor: Any) -> Memory:
    device = getattr(tensor.device, "type", str(tensor.device))
    _refuse(device != "cpu", tensor, f"on device {device!r}: only host memory can be tracked")
    _refuse(not tensor.is_contiguous(), tensor, _NOT_CONTIGUOUS)
    nbytes = tensor.numel() * tensor.element_size()
    _refuse(nbytes == 0, tensor, "empty: there is no byte to track")
    storage = tensor.untyped_storage()

    def place() -> tuple[int, int, int]:
        # Of the storage that the tensor has now: resize_() moves it, set_() and .data = give it another one.
        now = tensor.untyped_storage()
        return tensor.data_ptr(), now.data_ptr(), now.nbytes()

    first = place()
    return Memory(first[0], nbytes, _view(first[0], nbytes, storage), lambda: place() == first)


def alloc(nbytes: int, *, huge: bool | None = None) -> mmap.mmap:
    """Page-aligned anonymous private memory, zeroed.

    Args:
        nbytes: length in bytes, at least 1.
        huge: None leaves transparent huge pages as the system has them; True asks for them and aligns the
            memory to their size; False forbids them. Tracking splits a huge page at its first write after a
            collect, see ``docs/guarantees.md``.

    Raises:
        ValueError: *nbytes* is not positive.
        OSError: no memory, or no way to align it.
    """
    nbytes = operator.index(nbytes)
    if nbytes <= 0:
        raise ValueError(f"cannot allocate {nbytes} bytes: at least 1")
    if huge:
        memory = _alloc_aligned(nbytes, int(_HUGE_SIZE.read_text()) if _HUGE_SIZE.exists() else mmap.PAGESIZE)
        memory.madvise(mmap.MADV_HUGEPAGE)
        return memory
    memory = _map(nbytes)
    if huge is False:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def _map(nbytes: int) -> mmap.mmap:
    return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _alloc_aligned(nbytes: int, alignment: int) -> mmap.mmap:
    # Linux aligns a mapping of whole huge pages by itself where it has such pages (thp_get_unmapped_area());
    # so ask for whole ones, and give the rest back. Elsewhere each new mapping comes below the last one: a
    # filler of the right size makes the next try aligned.
    whole = -(-nbytes // alignment) * alignment
    misses: list[mmap.mmap] = []
    try:
        for _ in range(16):
            memory = _map(whole)
            address = int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))
            if address % alignment == 0:
                if nbytes < whole:
                    memory.resize(nbytes)  # in place: the kernel moves a mapping only to make it larger
                return memory
            misses.append(memory)
            misses.append(_map(address % alignment))
    finally:
        for miss in misses:
            miss.close()
    raise OSError(f"could not place {nbytes} bytes on a multiple of {alignment} in 16 tries: use huge=None")


def empty(
    shape: SupportsIndex | tuple[int, ...], dtype: npt.DTypeLike = float, *, huge: bool | None = None
) -> np.ndarray[Any, Any]:
    """A numpy array of zeros in page-aligned memory of its own, so that it shares no page with anything else.

    Args:
        shape: as for ``numpy.empty``.
        dtype: as for ``numpy.empty``.
        huge: as for `alloc`.

    Raises:
        ValueError: a negative length.
        TypeError: elements that are Python objects.
        OSError: as for `alloc`.
    """
    try:
        import numpy as np
    except ImportError as error:
        raise ImportError('empty() needs numpy: pip install "dirtytrack[numpy]", or use alloc()') from error
    kind = np.dtype(dtype)
    lengths = (operator.index(shape),) if isinstance(shape, SupportsIndex) else tuple(shape)
    if any(length < 0 for length in lengths):
        raise ValueError(f"an array of shape {lengths} has a negative length")
    if kind.hasobject:
        raise TypeError(f"{kind} holds pointers to Python objects: use numpy.empty() for them")
    memory = alloc(max(math.prod(lengths) * kind.itemsize, 1), huge=huge)
    return np.ndarray(lengths, kind, buffer=memory)
