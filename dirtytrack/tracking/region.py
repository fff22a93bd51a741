"""Tracked memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from dirtytrack._html import table
from dirtytrack._lifetime.handle import Handle
from dirtytrack._text import size
from dirtytrack.errors import ClosedError, ForkedError
from dirtytrack.kernel import mappings
from dirtytrack.native import ffi
from dirtytrack.objects import Description, Elements, title_of
from dirtytrack.tracking.backends import Backend
from dirtytrack.tracking.blindspots import BlindSpot
from dirtytrack.tracking.huge_pages import HugePages, reason_of
from dirtytrack.tracking.pages import Geometry, PageSet


class SessionLike(Protocol):
    """A `Session`, as far as its regions know it."""

    @property
    def backend(self) -> str:
        """How it finds written pages."""

    @property
    def closed(self) -> bool:
        """Whether it is closed."""

    def mark(self, region: Region | RegionSlice, start: int = 0, stop: int | None = None) -> None:
        """Declares bytes of a region written."""

    def untrack(self, region: Region) -> None:
        """Ends the tracking of a region."""


class _Tracker(Protocol):
    """A `Tracker`, as far as its regions ask it."""

    @property
    def backend(self) -> Backend: ...
    @property
    def is_usable(self) -> bool: ...
    @property
    def is_forked(self) -> bool: ...
    @property
    def huge_pages_reason(self) -> str: ...
    def huge_pages(self, region: Region) -> tuple[int, int, int, int]: ...
    def is_lost(self, region: Region) -> bool: ...
    def check_place(self, region: Region) -> None: ...


class Region(Handle):
    """A tracked piece of memory, made by `Session.track`.

    ``region[start:stop]``, in bytes, is a `RegionSlice`, which is accepted wherever a region is.

    Attributes:
        session: the session that tracks it.
        name: as given to ``track``, or None.
        address: the address of its first byte.
        nbytes: its length in bytes.
        sparse: whether memory not yet populated is left alone.
        geometry: how it lies on its pages; carried by every `PageSet` of it.
    """

    def __init__(
        self, session: SessionLike, tracker: _Tracker, memory: Description, name: str | None, sparse: bool
    ) -> None:
        self.session = session
        self.name = name
        self.address = memory.address
        self.nbytes = memory.nbytes
        self.sparse = sparse
        self.geometry: Geometry
        self._lie_on(mmap.PAGESIZE)
        self._tracker = tracker
        self._identifier = ffi.new("uint64_t *")  # written by the native call: no interrupt can lose it
        self._memory: Description | None = memory
        self._whole: Any = None  # the slice of all its pages, once it was asked for
        self._lost_ranges: tuple[tuple[int, int], ...] | None = None

    def _lie_on(self, page_size: int) -> None:
        self.geometry = Geometry(self.nbytes, self.address % page_size, page_size)

    @property
    def id(self) -> int:
        """The number by which native code knows the region, 0 until it is tracked. It is never used again."""
        return int(self._identifier[0])

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
            RegionLostError: the object that was tracked has other memory now.
        """
        memory = self._memory
        if memory is None:
            raise ClosedError(f"{self.title} is not tracked any more: its memory may be gone")
        if memory.can_move:
            self._tracker.check_place(self)
        return memory.view[:]  # not itself: who gets it may release it

    @property
    def elements(self) -> Elements | None:
        """What its bytes are elements of; None for plain bytes, and once it is untracked."""
        return None if self._memory is None else self._memory.elements

    @property
    def tracked(self) -> bool:
        """Whether the region is tracked; False once it is untracked or its session is closed."""
        return self._memory is not None

    @property
    def lost(self) -> bool:
        """Whether the last look found the memory to be no longer what was registered."""
        return self.tracked and self._tracker.is_lost(self)

    @property
    def blind_spots(self) -> frozenset[BlindSpot]:
        """The kinds of change that this memory can suffer unseen, from what is mapped there now.

        DMA is always among them; memory of other kinds than private anonymous has more. What to do about each
        is in ``docs/guarantees.md``.

        Raises:
            ClosedError: the region is untracked: what is mapped there now may be anything.
            ForkedError: this is another process than the session's, with other mappings.
        """
        spots: set[BlindSpot] = set()
        for mapping in self._mappings():
            spots |= self._tracker.backend.blind_spots(mapping, sparse=self.sparse)
        return frozenset(spots)

    @property
    def huge_pages(self) -> HugePages:
        """What of it lies on transparent huge pages, if its session keeps them, and else why it does not.

        Raises:
            ClosedError, ForkedError: as for `blind_spots`.
        """
        found = self._mappings()
        reason = self._tracker.huge_pages_reason or reason_of(*self.page_range, found)
        return HugePages(*self._tracker.huge_pages(self), reason)

    def _mappings(self) -> list[mappings.Mapping]:
        if self._tracker.is_forked:
            raise ForkedError(
                f"{self.title} belongs to another process: what is mapped here is not its memory"
            )
        if not self.tracked:
            raise ClosedError(f"{self.title} is not tracked any more: its memory may be gone")
        return mappings.overlapping(*self.page_range)

    @property
    def title(self) -> str:
        """What messages call the region: its name, or where it is."""
        return f"region {self.name!r}" if self.name else f"region at {self.address:#x}"

    def page_set(self, runs: Iterable[tuple[int, int]] | None = None) -> PageSet:
        """Makes a set of this region's pages, from half-open runs of page numbers; of all by default.

        Raises:
            ValueError: a run is empty or outside of the region.
        """
        return PageSet(self.geometry, [(0, self.geometry.page_count)] if runs is None else runs)

    def __getitem__(self, piece: slice) -> RegionSlice:
        if not isinstance(piece, slice) or piece.step not in (None, 1):
            raise TypeError(f"{self.title} is narrowed with a slice of bytes, region[start:stop]")
        start, stop, _ = piece.indices(self.nbytes)
        if start >= stop:
            raise ValueError(f"{self.title}[{piece.start}:{piece.stop}] holds no byte of its {self.nbytes}")
        return RegionSlice(self, start, stop)

    def _repr_html_(self) -> str:
        rows = [
            ("address", f"{self.address:#x}"),
            ("size", size(self.nbytes)),
            ("pages", f"{self.geometry.page_count:,} of {size(self.page_size)}"),
        ]
        if self.elements is not None:
            rows.append(("elements", f"{title_of(self.elements.dtype)}, {self.elements.shape}"))
        return table(self.title, ("", ""), rows)

    def __repr__(self) -> str:
        state = "" if self.tracked else ", untracked"
        if self.tracked and self._tracker.is_usable:
            state = ", lost" if self.lost else ""
        return (
            f"<{self.title}: [{self.address:#x}, {self.address + self.nbytes:#x}), {self.nbytes} bytes on "
            f"{self.geometry.page_count} pages of {self.page_size}{state}>"
        )


def region_called(name: str, regions: Sequence[Region]) -> Region:
    """Returns the one of some regions that has this name.

    Raises:
        KeyError: none has it, or more than one; it says which there are.
    """
    found = [region for region in regions if region.name == name]
    if len(found) > 1:
        places = " and ".join(f"{region.address:#x}" for region in found)
        raise KeyError(f"{len(found)} regions are called {name!r}, at {places}: give each a name of its own")
    if not found:
        names = ", ".join(repr(str(region.name)) for region in regions if region.name)
        there_are = f"there are {names}" if names else "none has a name"
        raise KeyError(f"no region is called {name!r}: {there_are}")
    return found[0]


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
        return f"<bytes [{self.start}, {self.stop}) of {self.region.title}>"


def pages_of(request: Region | RegionSlice) -> tuple[int, int]:
    """Returns the half-open range of a region's pages that a request for it, or for a slice of it, means."""
    if isinstance(request, Region):
        return 0, request.geometry.page_count
    return request.region.geometry.pages_of(request.start, request.stop)


def check_requests(requests: Iterable[object], session: SessionLike) -> None:
    """Refuses what is no region of the session, nor a slice of one.

    Raises:
        TypeError: no region at all.
        ValueError: another session's.
    """
    for request in requests:
        region = request.region if isinstance(request, RegionSlice) else request
        if not isinstance(region, Region):
            raise TypeError(f"{request!r} is no region: pass what track() returned, or a slice of it")
        if region.session is not session:
            raise ValueError(f"{region!r} belongs to another session")


def pages_asked(requests: tuple[Region | RegionSlice, ...]) -> dict[Region, PageSet | None]:
    """Returns the pages asked of each region, all requests for it together; None: all of a lone region."""
    if len(requests) == 1 and isinstance(requests[0], Region):
        return {requests[0]: None}
    ranges: dict[Region, list[tuple[int, int]]] = {}
    for request in requests:
        region = request if isinstance(request, Region) else request.region
        ranges.setdefault(region, []).append(pages_of(request))
    return {region: PageSet(region.geometry, wanted) for region, wanted in ranges.items()}
