"""Tracked memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dirtytrack._lifetime.handle import Handle
from dirtytrack.errors import ClosedError, ForkedError
from dirtytrack.kernel import mappings
from dirtytrack.native import ffi, lib
from dirtytrack.tracking.blindspots import BlindSpot
from dirtytrack.tracking.memory import Memory
from dirtytrack.tracking.pages import Geometry, PageSet

if TYPE_CHECKING:
    from dirtytrack.tracking.session import Session


class Region(Handle):
    """A tracked piece of memory. Made by `Session.track`.

    ``region[start:stop]`` narrows it to bytes: what that gives is accepted wherever a region is.

    Attributes:
        session: the session that tracks it.
        name: as given to ``track``, or None.
        address: of its first byte.
        nbytes: its length in bytes.
        sparse: whether memory not yet populated is left alone.
        geometry: how it lies on its pages; carried by every `PageSet` of it.
    """

    def __init__(
        self, session: Session, memory: Memory, name: str | None, sparse: bool, page_size: int
    ) -> None:
        self.session = session
        self.name = name
        self.address = memory.address
        self.nbytes = memory.nbytes
        self.sparse = sparse
        self.geometry = Geometry(memory.nbytes, memory.address % page_size, page_size)
        self._memory: Memory | None = memory
        self._id = 0
        self._whole = ffi.new("struct dt_slice[1]")
        self._lost_ranges: tuple[tuple[int, int], ...] | None = None

    def _tracked_as(self, identifier: int) -> None:
        self._id = identifier
        self._whole[0] = (identifier, 0, self.geometry.page_count)

    @property
    def page_size(self) -> int:
        """Bytes in a page: the unit in which the kernel reports writes to this memory."""
        return self.geometry.page_size

    @property
    def page_range(self) -> tuple[int, int]:
        """The addresses [start, stop) of the whole pages that the region touches."""
        start = self.address - self.geometry.offset
        return start, start + self.geometry.page_count * self.geometry.page_size

    @property
    def view(self) -> memoryview:
        """The region's bytes, writable. As long as slices of it live they keep the tracked buffer exported.

        Raises:
            ClosedError: the region is untracked.
        """
        memory = self._memory
        if memory is None:
            raise ClosedError(f"{self._title} is not tracked any more: its memory may be gone")
        return memory.view

    @property
    def tracked(self) -> bool:
        """Whether the region is tracked; False once it is untracked or its session is closed."""
        return self._memory is not None

    @property
    def lost(self) -> bool:
        """Whether the last look found the memory to be no longer what was registered."""
        return self.tracked and lib.dt_session_is_lost(self.session._native, self._id) == 1

    @property
    def blind_spots(self) -> frozenset[BlindSpot]:
        """The kinds of change that this memory can suffer unseen, from what is mapped there now.

        DMA is always among them; memory of other kinds than private anonymous has more. What to do about each
        is in ``docs/guarantees.md``.

        Raises:
            ClosedError: the region is untracked: what is mapped there now may be anything.
            ForkedError: this is another process than the session's, with other mappings.
        """
        if lib.dt_session_usable(self.session._native) == -lib.DT_EFORKED:
            raise ForkedError(
                f"{self._title} belongs to another process: what is mapped here is not its memory"
            )
        if not self.tracked:
            raise ClosedError(f"{self._title} is not tracked any more: its memory may be gone")
        spots: set[BlindSpot] = set()
        for mapping in mappings.overlapping(*self.page_range):
            spots |= self.session._backend.blind_spots(mapping, sparse=self.sparse)
        return frozenset(spots)

    def page_set(self, runs: Iterable[tuple[int, int]] | None = None) -> PageSet:
        """A set of this region's pages, from half-open runs of page numbers; all of its pages by default.

        Raises:
            ValueError: a run is empty or outside of the region.
        """
        return PageSet(self.geometry, [(0, self.geometry.page_count)] if runs is None else runs)

    def __getitem__(self, piece: slice) -> RegionSlice:
        if not isinstance(piece, slice) or piece.step not in (None, 1):
            raise TypeError(f"{self._title} is narrowed with a slice of bytes, region[start:stop]")
        start, stop, _ = piece.indices(self.nbytes)
        if start >= stop:
            raise ValueError(f"{self._title}[{piece.start}:{piece.stop}] holds no byte of its {self.nbytes}")
        return RegionSlice(self, start, stop)

    @property
    def _title(self) -> str:
        return f"region {self.name!r}" if self.name else f"region at {self.address:#x}"

    def __repr__(self) -> str:
        state = "" if self.tracked else ", untracked"
        unseen = ""
        if self.tracked and lib.dt_session_usable(self.session._native) == 0:
            state = ", lost" if self.lost else ""
            unseen = ", blind to " + ", ".join(sorted(spot.name for spot in self.blind_spots))
        return (
            f"<{self._title}: [{self.address:#x}, {self.address + self.nbytes:#x}), {self.nbytes} bytes on "
            f"{self.geometry.page_count} pages of {self.page_size}{state}{unseen}>"
        )


class RegionSlice(Handle):
    """Bytes [start, stop) of a region; accepted wherever a region is, at the precision of pages.

    Attributes:
        region: the region.
        start: the first byte, counted in the region.
        stop: the byte after the last one.
    """

    __slots__ = ("region", "start", "stop")

    def __init__(self, region: Region, start: int, stop: int) -> None:
        self.region = region
        self.start = start
        self.stop = stop

    def __getitem__(self, piece: slice) -> RegionSlice:
        if not isinstance(piece, slice) or piece.step not in (None, 1):
            raise TypeError(f"{self!r} is narrowed with a slice of bytes, [start:stop]")
        start, stop, _ = piece.indices(self.stop - self.start)
        return self.region[self.start + start : self.start + stop]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RegionSlice):
            return NotImplemented
        return (self.region, self.start, self.stop) == (other.region, other.start, other.stop)

    def __hash__(self) -> int:
        return hash((self.region, self.start, self.stop))

    def __repr__(self) -> str:
        return f"<bytes [{self.start}, {self.stop}) of {self.region._title}>"


def pages_of(request: Region | RegionSlice) -> tuple[int, int]:
    """The half-open range of a region's pages that a request for it, or for a slice of it, means."""
    if isinstance(request, Region):
        return 0, request.geometry.page_count
    return request.region.geometry.pages_of(request.start, request.stop)


def native_slices(
    requests: tuple[Region | RegionSlice, ...],
) -> tuple[dict[Region, PageSet | None], Any, int]:
    """The pages requested of each region (None: all); the same as native slices; how many of these."""
    if len(requests) == 1 and isinstance(requests[0], Region):
        return {requests[0]: None}, requests[0]._whole, 1
    ranges: dict[Region, list[tuple[int, int]]] = {}
    for request in requests:
        region = request if isinstance(request, Region) else request.region
        ranges.setdefault(region, []).append(pages_of(request))
    asked = {region: PageSet(region.geometry, wanted) for region, wanted in ranges.items()}
    slices = [(region._id, first, last) for region, pages in asked.items() for first, last in pages.runs]
    return dict(asked), ffi.new("struct dt_slice[]", slices), len(slices)
