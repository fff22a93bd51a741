"""Sets of pages, and the one place that knows how the bytes of a region fall into pages."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple, SupportsIndex, cast, overload

from dirtytrack._html import heat_map, table
from dirtytrack._text import size
from dirtytrack.native import ffi, lib

_PARTS = 200  # of a map, at most
_RUN = ffi.sizeof("struct dt_run")

# Native memory with a native destructor: Python code there could swallow an interrupt.
_new = ffi.new_allocator(lib.dt_block_new, lib.dt_block_free, should_clear_after_alloc=False)


def _new_runs(count: int) -> Any:
    return _new("struct dt_run[]", max(count, 1))


class Geometry(NamedTuple):
    """How a region lies on its pages.

    Attributes:
        nbytes: the region's length in bytes.
        offset: bytes between the start of page 0 and the region's first byte.
        page_size: bytes in a page.
    """

    nbytes: int
    offset: int
    page_size: int

    @property
    def page_count(self) -> int:
        """The number of pages that the region touches."""
        return -(-(self.offset + self.nbytes) // self.page_size)

    def pages_of(self, start: int, stop: int) -> tuple[int, int]:
        """Returns the half-open range of pages that bytes [start, stop) of the region touch."""
        if start == stop:
            return 0, 0
        return (self.offset + start) // self.page_size, -(-(self.offset + stop) // self.page_size)

    def bytes_of(self, start: int, stop: int) -> slice:
        """Returns the bytes of the region that lie on pages [start, stop), and none beyond the region."""
        first = start * self.page_size - self.offset
        end = stop * self.page_size - self.offset
        return slice(max(first, 0), min(end, self.nbytes))


class Runs(Sequence[tuple[int, int]]):
    """The runs of a page set: a sequence of (start, stop) page numbers, ascending and never touching.

    ``np.asarray(runs)`` is an (n, 2) uint64 array on the same memory, without a copy and read-only.
    """

    __slots__ = ("_count", "_data", "_owner")

    def __init__(self, data: Any, count: int, owner: object) -> None:
        self._data = data
        self._count = count
        self._owner = owner  # keeps the memory alive

    @property
    def __array_interface__(self) -> dict[str, object]:
        address = int(ffi.cast("uintptr_t", self._data))
        return {"version": 3, "shape": (self._count, 2), "typestr": "=u8", "data": (address, True)}

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, int]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, int] | list[tuple[int, int]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(f"run {index} of {self._count}")
        run = self._data[index % self._count]
        return run.start, run.stop

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for first in range(0, self._count, 1024):  # in pieces: a whole unpack of a large set would double it
            count = min(1024, self._count - first)
            flat = ffi.unpack(ffi.cast("uint64_t *", self._data + first), 2 * count)
            yield from zip(flat[::2], flat[1::2], strict=True)

    def __repr__(self) -> str:
        shown = ", ".join(f"[{start}, {stop})" for start, stop in self[:8])
        return f"<{self._count} runs: {shown}{', ...' if self._count > 8 else ''}>"


class PageSet(AbstractSet[int]):
    """An immutable set of pages of one region.

    Page 0 is the page of the region's first byte. A set carries the geometry of its region, not the region:
    it stays valid when that is gone, and it can be pickled.

    It is equal to any set of the same page numbers, ``pages == {5, 7}``, and has the hash of that frozenset,
    which takes a frozenset of all its pages to compute, once. With any set of page numbers of the region it
    combines by ``| & - ^`` to a page set. Two page sets are of the same region, or of one that lies alike:
    where their geometries differ they are not equal, neither is a part of the other, and to combine them is a
    ValueError.

    Attributes:
        geometry: how the region lies on its pages: nbytes, offset and page_size, in bytes.
        runs: the pages as half-open runs, ``np.asarray(pages.runs)`` without a copy.
    """

    __slots__ = ("_cached_hash", "_length", "geometry", "runs")

    geometry: Geometry
    runs: Runs

    def __init__(self, geometry: Geometry, runs: Iterable[tuple[int, int]] = ()) -> None:
        """Makes a set from runs of page numbers, in any order.

        Raises:
            ValueError: a run is empty or backwards, or reaches outside of the region's pages.
        """
        merged: list[tuple[int, int]] = []
        for start, stop in sorted((operator.index(start), operator.index(stop)) for start, stop in runs):
            if not 0 <= start < stop <= geometry.page_count:
                raise ValueError(f"run [{start}, {stop}) is not within pages [0, {geometry.page_count})")
            if merged and start <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(stop, merged[-1][1])
            else:
                merged.append((start, stop))
        data = _new_runs(len(merged))
        for i, run in enumerate(merged):
            data[i].start, data[i].stop = run
        self._set(geometry, data, len(merged), data)

    @classmethod
    def _on(
        cls, geometry: Geometry, data: Any, count: int, owner: object, length: int | None = None
    ) -> PageSet:
        # A set on native runs that are already sorted and merged; owner keeps them alive.
        pages = cls.__new__(cls)
        pages._set(geometry, data, count, owner, length)
        return pages

    def _set(
        self, geometry: Geometry, data: Any, count: int, owner: object, length: int | None = None
    ) -> None:
        self.geometry = geometry
        self.runs = Runs(data, count, owner)
        self._length = lib.dt_runs_count(data, count) if length is None else length
        self._cached_hash: int | None = None

    @property
    def nbytes(self) -> int:
        """How many bytes of the region lie on these pages; those of its neighbours don't count."""
        total = self._length * self.geometry.page_size
        if self._length:
            last = self.geometry.page_count - 1
            if 0 in self:
                total -= self.geometry.offset
            if last in self:
                total -= (last + 1) * self.geometry.page_size - self.geometry.offset - self.geometry.nbytes
        return total

    def slices(self) -> list[slice]:
        """Returns the bytes of these pages as slices of the tracked buffer, one for each run."""
        clip = self.geometry.bytes_of
        return [clip(start, stop) for start, stop in self.runs]

    def mask(self) -> memoryview:
        """Returns a byte for each page of the region (format B): 1 for those in the set, 0 for the others."""
        mask = bytearray(self.geometry.page_count)
        lib.dt_runs_mask(self.runs._data, len(self.runs), len(mask), ffi.from_buffer("uint8_t[]", mask))
        return memoryview(mask).toreadonly()

    def heat(self, parts: int) -> list[float]:
        """Returns the fraction of pages that are in the set, for each of some equal parts of the region.

        Raises:
            ValueError: not at least one part.
        """
        if parts < 1:
            raise ValueError(f"{parts} parts: at least one")
        mask, pages = self.mask(), self.geometry.page_count
        found = []
        for part in range(parts):
            start = part * pages // parts
            stop = max(start + 1, (part + 1) * pages // parts)
            found.append(1 - bytes(mask[start:stop]).count(0) / (stop - start))
        return found

    def elements(self, dtype: Any) -> list[slice]:
        """Returns the smallest slices of elements that cover these pages.

        Args:
            dtype: the element type of the buffer: a size in bytes, an object with ``itemsize``, or anything
                that ``numpy.dtype`` takes.

        Returns:
            Slices of element indices; ascending and disjoint. An element that lies on two pages is covered
            when either is in the set.
        """
        size = _itemsize(dtype)
        slices: list[slice] = []
        for piece in self.slices():
            start, stop = piece.start // size, -(-piece.stop // size)
            if slices and start <= slices[-1].stop:
                slices[-1] = slice(slices[-1].start, stop)
            else:
                slices.append(slice(start, stop))
        return slices

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        for start, stop in self.runs:
            yield from range(start, stop)

    def __contains__(self, page: object) -> bool:
        if isinstance(page, float) and page.is_integer():
            page = int(page)  # 5.0 is in {5}
        try:
            number = operator.index(page)  # type: ignore[arg-type]
        except TypeError:
            return False
        if not 0 <= number < self.geometry.page_count:
            return False
        return bool(lib.dt_runs_contain(self.runs._data, len(self.runs), number))

    # A union of other sets may hold anything; one with this holds pages.

    def __or__(self, other: AbstractSet[SupportsIndex]) -> PageSet:  # type: ignore[override]
        return self._combine(lib.DT_OR, other)

    def __and__(self, other: AbstractSet[SupportsIndex]) -> PageSet:
        return self._combine(lib.DT_AND, other)

    def __xor__(self, other: AbstractSet[SupportsIndex]) -> PageSet:  # type: ignore[override]
        return self._combine(lib.DT_XOR, other)

    def __sub__(self, other: AbstractSet[SupportsIndex]) -> PageSet:
        return self._combine(lib.DT_SUB, other)

    def __rsub__(self, other: AbstractSet[SupportsIndex]) -> PageSet:
        return self._on_my_pages(other) - self if isinstance(other, AbstractSet) else NotImplemented

    __ror__, __rand__, __rxor__ = __or__, __and__, __xor__

    def _combine(self, operation: int, other: object) -> PageSet:
        if not isinstance(other, AbstractSet):
            return NotImplemented  # type: ignore[no-any-return]
        mine, theirs = self.runs, self._on_my_pages(other).runs
        out = _new_runs(len(mine) + len(theirs))
        count = lib.dt_runs_combine(operation, mine._data, len(mine), theirs._data, len(theirs), out)
        return PageSet._on(self.geometry, out, count, out)

    def _on_my_pages(self, other: AbstractSet[SupportsIndex]) -> PageSet:
        if isinstance(other, PageSet):
            if self.geometry != other.geometry:
                raise ValueError(f"page sets of different geometry: {self.geometry} and {other.geometry}")
            return other
        pages = [operator.index(page) for page in other]
        count = self.geometry.page_count
        for page in pages:
            if not 0 <= page < count:
                raise ValueError(f"page {page} is not one of the {count} of this set's region")
        return PageSet(self.geometry, [(page, page + 1) for page in pages])

    def isdisjoint(self, other: Iterable[object]) -> bool:
        """Whether no page is in both.

        Raises:
            ValueError: a page set of another geometry.
        """
        return not self & other if isinstance(other, PageSet) else super().isdisjoint(other)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PageSet):
            return self.geometry == other.geometry and self._bytes() == other._bytes()
        return super().__eq__(other)

    def __le__(self, other: AbstractSet[object]) -> bool:
        if isinstance(other, PageSet):
            return self.geometry == other.geometry and not self - other
        return super().__le__(other)

    def __ge__(self, other: AbstractSet[object]) -> bool:
        return other <= self if isinstance(other, PageSet) else super().__ge__(other)

    def __hash__(self) -> int:
        if self._cached_hash is None:
            self._cached_hash = hash(frozenset(self))
        return self._cached_hash

    def _bytes(self) -> bytes:
        return bytes(ffi.buffer(self.runs._data, len(self.runs) * _RUN)) if self.runs else b""

    def __reduce__(self) -> tuple[Callable[[Geometry, bytes], PageSet], tuple[Geometry, bytes]]:
        return _unpickle, (self.geometry, self._bytes())

    def _repr_html_(self) -> str:
        total = self.geometry.page_count
        row = (heat_map(self.heat(min(_PARTS, total))), f"{len(self):,} of {total:,}", size(self.nbytes))
        return table("PageSet", ("", "pages", "bytes"), [row])

    def __repr__(self) -> str:
        return (
            f"<PageSet: {len(self)} of {self.geometry.page_count} pages, {self.nbytes} bytes, {self.runs!r}>"
        )


def _unpickle(geometry: Geometry, data: bytes) -> PageSet:
    flat = memoryview(data).cast("Q").tolist()
    return PageSet(geometry, zip(flat[::2], flat[1::2], strict=True))


def _itemsize(dtype: Any) -> int:
    if dtype is None or isinstance(dtype, bool):
        raise TypeError(f"{dtype!r} is no element type: give a size in bytes or a dtype")
    try:
        size = operator.index(dtype)
    except TypeError:
        size = _size_of_type(dtype)
    if size <= 0:
        raise ValueError(f"elements of {size} bytes: give the size of one element, at least 1")
    return size


def _size_of_type(dtype: Any) -> int:
    size = getattr(dtype, "itemsize", None)
    if isinstance(size, int):
        return size
    try:
        import numpy as np
    except ImportError as error:
        raise ImportError(
            f'the size of {dtype!r} needs numpy: pip install "dirtytrack[numpy]", or give it in bytes'
        ) from error
    return cast(int, np.dtype(dtype).itemsize)
