"""What a cursor gets when it collects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from dirtytrack._html import heat_map, table
from dirtytrack._lifetime.handle import Handle
from dirtytrack._text import columns, count, heat_bar, plain, size
from dirtytrack.errors import ForkedError
from dirtytrack.native import ffi, lib
from dirtytrack.tracking._core import NativeEpoch
from dirtytrack.tracking.pages import PageSet
from dirtytrack.tracking.region import Region, RegionSlice, SessionLike, pages_of, region_called

_PARTS, _PARTS_HTML = 32, 100  # of a region, in tables


def _name(region: Region) -> str:
    return region.name if region.name is not None else f"{region.address:#x}"


class _Cursor(Protocol):
    """A `Cursor`, as far as its epochs know it."""

    @property
    def session(self) -> SessionLike: ...
    @property
    def name(self) -> str: ...
    def collect(self, *regions: Region | RegionSlice) -> Epoch: ...
    def peek(self, *regions: Region | RegionSlice) -> Epoch: ...
    def reset(self, *regions: Region | RegionSlice) -> None: ...


class Epoch(Handle, Mapping[Region, PageSet]):
    """The pages written since the cursor's last epoch: a mapping of every region collected to its `PageSet`.

    Regions without a written page have an empty set. A region is found by its name as well,
    ``epoch["weights"]``. A region that was asked for by a slice has the pages of the slice, and no others.
    ``if epoch:`` asks whether anything was written, and takes nothing over.

    As a context manager an epoch aborts when its block raises. An epoch that is dropped without being read
    or entered, or is interrupted before its block is done, aborts itself: no page is lost by it. Reading it
    outside of a ``with`` takes the pages over. To forget pages on purpose there is `Cursor.reset`.

    Attributes:
        cursor: the cursor that collected it.
    """

    __slots__ = ("_asked", "_entered", "_native", "_places", "_regions", "cursor")

    def __init__(
        self,
        cursor: _Cursor,
        native: NativeEpoch,
        regions: tuple[Region, ...],
        asked: Mapping[Region, PageSet | None],
    ) -> None:
        self.cursor = cursor
        self._native = native
        self._regions = regions
        self._asked = asked  # which pages of a region; None or absent: all
        self._places: dict[int, int] | None = None
        self._entered = False

    @property
    def number(self) -> int:
        """1 for a cursor's first epoch. A peek has the number that a collect would have had."""
        return int(self._native.native.number)

    @property
    def pages(self) -> int:
        """How many pages were written, over all regions."""
        return self._read().pages

    @property
    def nbytes(self) -> int:
        """How many bytes of the regions lie on those pages."""
        return sum(pages.nbytes for pages in self.values())

    @property
    def assumed(self) -> dict[Region, PageSet]:
        """The pages that are in it without proof that they were written, by region; empty sets included.

        An adaptive session leaves hot pages open, so that nobody sees whether they are stored to. Every
        other session proves all: its sets are empty.
        """
        native = self._native.native
        entries, assumed = native.buffers.entries, native.buffers.assumed
        by_id: dict[int, Any] = {entries[i].region: entries[i] for i in range(native.entry_count)}
        found = {}
        for region in self._regions:
            entry = by_id.get(region.id)
            count = entry.assumed_count if entry is not None else 0
            runs = assumed + entry.first_assumed if entry is not None and count else ffi.NULL
            pages = int(lib.dt_runs_count(runs, count))
            found[region] = PageSet._on(region.geometry, runs, count, native, pages)
        return found

    @property
    def unstopped(self) -> tuple[int, ...]:
        """The threads that were to be stopped during the scan, and ran during some of it.

        Identifiers as of ``threading.get_native_id``. In a session with ``stop_threads``, if it is empty, the
        epoch is of one instant. In every other session it is always empty.
        """
        return self._native.unstopped

    def abort(self) -> None:
        """Gives the pages back: the cursor's next epoch has them again.

        Idempotent, in any order, also after newer epochs of the cursor. What was closed or untracked
        meanwhile is skipped, and a peek has nothing to give back.

        Raises:
            ForkedError: in a child of the process that collected.
        """
        if not self._native.abort():
            raise ForkedError("this epoch belongs to the parent process, which still has it")

    def __bool__(self) -> bool:
        return self._native.pages > 0

    def __getitem__(self, key: Region | RegionSlice | str) -> PageSet:
        native = self._read()
        if isinstance(key, str):
            key = region_called(key, self._regions)
        region = key.region if isinstance(key, RegionSlice) else key
        if not isinstance(region, Region) or region.session is not self.cursor.session:
            raise KeyError(key)
        if self._places is None:
            self._places = native.places()
        place = self._places.get(region.id)
        if place is None:
            raise KeyError(key)
        pages = native.page_set(place, region.geometry)
        return pages & self._looked_at(key) if isinstance(key, RegionSlice) else pages

    def _looked_at(self, key: RegionSlice) -> PageSet:
        # The pages of a slice; an epoch must not say "clean" of pages that it has not looked at.
        wanted = PageSet(key.region.geometry, [pages_of(key)])
        asked = self._asked.get(key.region)
        if asked is not None and wanted - asked:
            raise KeyError(key)
        return wanted

    def __iter__(self) -> Iterator[Region]:
        self._read()
        return iter(self._regions)

    def __len__(self) -> int:
        return len(self._regions)

    def __enter__(self) -> Self:
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._native.settle()
        else:
            self._native.abort()

    def _seen(self) -> list[tuple[Region, PageSet]]:
        # What is in it; to show it takes nothing over.
        places = self._native.places()
        return [
            (region, self._native.page_set(places[region.id], region.geometry))
            for region in self._regions
            if region.id in places
        ]

    def _title(self, seen: list[tuple[Region, PageSet]]) -> str:
        pages, nbytes = self._native.pages, sum(one.nbytes for _, one in seen)
        return f"Epoch {self.number} of {self.cursor.name!r}: {count(pages, 'page')}, {size(nbytes)}"

    def __str__(self) -> str:
        """A table by region. To look at it takes no page over."""
        seen = self._seen()
        total = sum(one.nbytes for _, one in seen) or 1
        rows = [("region", "pages", "of", "bytes", "share", "")]
        for region, pages in seen:
            numbers = f"{len(pages):,}", f"{region.geometry.page_count:,}", size(pages.nbytes)
            share, heat = f"{pages.nbytes / total:.1%}", heat_bar(pages.heat(_PARTS))
            rows.append((plain(_name(region)), *numbers, share, f"|{heat}|"))
        return "\n".join([self._title(seen), *columns(rows, "<>>>><")])

    def _repr_html_(self) -> str:
        seen = self._seen()
        total = sum(one.nbytes for _, one in seen) or 1
        rows = [
            (
                _name(region),
                heat_map(pages.heat(_PARTS_HTML)),
                f"{len(pages):,} of {region.geometry.page_count:,}",
                size(pages.nbytes),
                f"{pages.nbytes / total:.1%}",
            )
            for region, pages in seen
        ]
        return table(self._title(seen), ("region", "", "pages", "bytes", "share"), rows)

    def _read(self) -> NativeEpoch:
        # Within a with block the pages belong to whoever leaves it: the exit settles.
        if not self._entered:
            self._native.settle()
        return self._native

    def __repr__(self) -> str:
        number, pages = self.number, self._native.pages
        return f"<Epoch {number} of {self.cursor.name!r}: {pages} pages in {len(self)} regions>"
