"""Memory to track: what is given, and page-aligned memory to give."""

from __future__ import annotations

import math
import mmap
import operator
from collections.abc import Sequence
from io import FileIO
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar, overload

from dirtytrack.errors import kernel_error
from dirtytrack.kernel.anonymous import map_anonymous
from dirtytrack.native import ffi
from dirtytrack.objects import Description, describe
from dirtytrack.tracking.region import Region

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_Scalar = TypeVar("_Scalar", bound="np.generic")

_HUGE_SIZE = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"


def resolve(memory: object, *, empty: bool = False) -> Description:
    """Describes a region, or what `Session.track` takes.

    A region is described as plain bytes: what its elements are is not asked again.

    Args:
        memory: what to describe.
        empty: whether it may have no byte, which `Session.track` refuses.

    Raises:
        TypeError, ValueError: as `Session.track`.
        ClosedError: a region that is not tracked any more.
    """
    if isinstance(memory, Region):
        return Description(memory.address, memory.nbytes, memory.view)
    return describe(memory, empty=empty)


def alloc(nbytes: int, *, huge: bool | None = None) -> mmap.mmap:
    """Allocates page-aligned anonymous private memory, zeroed.

    Args:
        nbytes: length in bytes, at least 1.
        huge: None, the default, leaves transparent huge pages as the system has them; True asks for them and
            aligns the memory to their size; False forbids them. Tracking splits a huge page at its first
            write after a collect, see ``docs/guarantees.md``.

    Raises:
        ValueError: *nbytes* is not positive.
        KernelError: no memory.
        OSError: no way to align it.
    """
    nbytes = operator.index(nbytes)
    if nbytes <= 0:
        raise ValueError(f"cannot allocate {nbytes} bytes: at least 1")
    if huge:
        memory = _alloc_aligned(nbytes, _huge_size())
        memory.madvise(mmap.MADV_HUGEPAGE)
        return memory
    memory = map_anonymous(nbytes)
    if huge is False:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def _huge_size() -> int:
    try:
        with FileIO(_HUGE_SIZE) as file:
            return int(file.readall())
    except FileNotFoundError:  # a kernel without transparent huge pages
        return mmap.PAGESIZE
    except OSError as error:
        raise kernel_error(error.errno or 0, f"open {_HUGE_SIZE}") from None


def _alloc_aligned(nbytes: int, alignment: int) -> mmap.mmap:
    # Linux aligns a mapping of whole huge pages by itself where it has such pages (thp_get_unmapped_area());
    # so ask for whole ones, and give the rest back. Elsewhere each new mapping comes below the last one: a
    # filler of the right size makes the next try aligned.
    whole = -(-nbytes // alignment) * alignment
    misses: list[mmap.mmap] = []
    try:
        for _ in range(16):
            memory = map_anonymous(whole)
            address = int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))
            if address % alignment == 0:
                if nbytes < whole:
                    memory.resize(nbytes)  # in place: the kernel moves a mapping only to make it larger
                return memory
            misses.append(memory)
            misses.append(map_anonymous(address % alignment))
    finally:
        for miss in misses:
            miss.close()
    raise OSError(f"could not place {nbytes} bytes on a multiple of {alignment} in 16 tries: use huge=None")


_Shape = SupportsIndex | Sequence[SupportsIndex]


@overload
def empty(shape: _Shape, *, huge: bool | None = None) -> npt.NDArray[np.float64]: ...
@overload
def empty(
    shape: _Shape, dtype: type[_Scalar] | np.dtype[_Scalar], *, huge: bool | None = None
) -> npt.NDArray[_Scalar]: ...
@overload
def empty(shape: _Shape, dtype: npt.DTypeLike, *, huge: bool | None = None) -> npt.NDArray[Any]: ...
def empty(shape: _Shape, dtype: npt.DTypeLike = float, *, huge: bool | None = None) -> npt.NDArray[Any]:
    """Makes a numpy array of zeros in page-aligned memory of its own: it shares no page with anything else.

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
    lengths = tuple(map(operator.index, (shape,) if isinstance(shape, SupportsIndex) else shape))
    if any(length < 0 for length in lengths):
        raise ValueError(f"an array of shape {lengths} has a negative length")
    if kind.hasobject:
        raise TypeError(f"{kind} holds pointers to Python objects: use numpy.empty() for them")
    memory = alloc(max(math.prod(lengths) * kind.itemsize, 1), huge=huge)
    return np.ndarray(lengths, kind, buffer=memory)
