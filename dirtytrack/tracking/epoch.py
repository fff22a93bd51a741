"""What a cursor gets when it collects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from dirtytrack._lifetime.handle import Handle
from dirtytrack.errors import ForkedError
from dirtytrack.native import ffi, lib
from dirtytrack.tracking.pages import PageSet
from dirtytrack.tracking.region import Region, RegionSlice, pages_of

if TYPE_CHECKING:
    from dirtytrack.tracking.cursor import Cursor

# One call makes the native epoch and ties its release to it: no interrupt can come in between and leak it.
_new_native = ffi.new_allocator(lib.dt_epoch_new, lib.dt_epoch_release, should_clear_after_alloc=False)


class Epoch(Handle, Mapping[Region, PageSet]):
    """The pages written since the cursor's last epoch: a mapping of every region collected to its `PageSet`.

    Regions without a written page are in it, with an empty set; so ``if epoch.pages:`` asks whether anything
    was written. Of a region that was narrowed it knows the pages asked for, and no others.

    As a context manager an epoch aborts when its block raises. One that dies unread and unentered, or is
    interrupted before its block is done, aborts itself: no page is lost by it. Reading it outside of a
    ``with`` takes the pages over. To forget pages on purpose there is `Cursor.reset`.

    Attributes:
        cursor: whose epoch it is.
    """

    __slots__ = ("_asked", "_entered", "_entries", "_native", "_regions", "cursor")

    # Nothing that must happen may be Python: a signal handler can raise before the first line of any method.
    # The pages stay in the hands of the native epoch, whose release gives back what nobody has settled.

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self._native: Any = _new_native("struct dt_epoch *")
        self._regions: tuple[Region, ...] = ()
        self._asked: dict[Region, PageSet | None] = {}  # which pages of a region; None or absent: all
        self._entries: dict[int, int] | None = None
        self._entered = False

    @property
    def number(self) -> int:
        """1 for a cursor's first epoch. A peek has the number that a collect would have had."""
        return int(self._native.number)

    @property
    def pages(self) -> int:
        """How many pages were written, over all regions."""
        return int(self._read().pages)

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
        native = self._native
        entries, assumed = native.buffers.entries, native.buffers.assumed
        by_id: dict[int, Any] = {entries[i].region: entries[i] for i in range(native.entry_count)}
        found = {}
        for region in self._regions:
            entry = by_id.get(region._id)
            count = entry.assumed_count if entry is not None else 0
            runs = assumed + entry.first_assumed if entry is not None and count else ffi.NULL
            pages = int(lib.dt_runs_count(runs, count))
            found[region] = PageSet._on(region.geometry, runs, count, native, pages)
        return found

    def abort(self) -> None:
        """Gives the pages back: the cursor's next epoch has them again.

        Idempotent, in any order, also after newer epochs of the cursor. What was closed or untracked
        meanwhile is skipped, and a peek has nothing to give back.

        Raises:
            ForkedError: in a child of the process that collected.
        """
        if lib.dt_epoch_abort(self._native) == -lib.DT_EFORKED:
            raise ForkedError("this epoch belongs to the parent process, which still has it")

    def __getitem__(self, key: Region | RegionSlice) -> PageSet:
        native = self._read()
        region = key.region if isinstance(key, RegionSlice) else key
        if not isinstance(region, Region) or region.session is not self.cursor.session:
            raise KeyError(key)
        if self._entries is None:
            entries = native.buffers.entries
            self._entries = {entries[i].region: i for i in range(native.entry_count)}
        at = self._entries.get(region._id)
        if at is None:
            raise KeyError(key)
        entry = native.buffers.entries[at]
        pages = PageSet._on(
            region.geometry, native.buffers.runs + entry.first_run, entry.run_count, native, entry.pages
        )
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
            self._native.settled = 1
        else:
            lib.dt_epoch_abort(self._native)

    def _read(self) -> Any:
        # Within a with block the pages belong to whoever leaves it: the exit settles.
        if not self._entered:
            self._native.settled = 1
        return self._native

    def __repr__(self) -> str:
        native = self._native
        return f"<Epoch {native.number} of {self.cursor.name!r}: {native.pages} pages in {len(self)} regions>"
