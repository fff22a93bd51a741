"""A cursor, and the one way to make a native call for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

from dirtytrack.kernel import mappings
from dirtytrack.native import ffi, lib
from dirtytrack.tracking._core.failures import StaleError, warn_of_missed
from dirtytrack.tracking._core.native_epoch import NativeEpoch
from dirtytrack.tracking._core.tracker import Tracker
from dirtytrack.tracking.pages import PageSet
from dirtytrack.tracking.region import Region


class Consumer:
    """A cursor of a tracker, with the regions that it is about, and the one way to make native calls.

    The native functions take the session and the cursor first. `run` calls one that takes pages from the
    cursor: whatever goes wrong, the pages are the cursor's again. `call` calls any other. Both find memory
    that has moved, as `Tracker.call` does.

    Attributes:
        tracker: whose cursor it is.
        name: of the cursor, for messages.
        regions: what `collect` and `peek` look at, whole and in this order.
        slices: all of their pages, natively: a ``struct dt_slice`` for each region.
        extents: where they lie, natively: a ``struct dt_extent`` for each region.
    """

    def __init__(
        self,
        tracker: Tracker,
        name: str,
        regions: tuple[Region, ...] = (),
        *,
        cursor: int = 0,
        known: Mapping[Region, tuple[int, ...]] = MappingProxyType({}),
    ) -> None:
        """Prepares a consumer, whose cursor `open` opens; or one for a *cursor* that is open already.

        The extents of regions that are *known* are not looked for again.
        """
        self.tracker = tracker
        self.name = name
        self.regions = regions
        self.slices = slices_of(dict.fromkeys(regions))[0]
        self._rows = {region: known.get(region) or _extent(tracker, region) for region in regions}
        self.extents = ffi.new("struct dt_extent[]", [self._rows[region] for region in regions])
        self._opened = ffi.new("uint64_t *", cursor)  # written by the native call: no interrupt can lose it
        self._natives = (tracker._native, cursor)

    @classmethod
    def default(cls, tracker: Tracker) -> Consumer:
        """Returns a consumer for the cursor that the tracker has from the start."""
        return cls(tracker, "default", cursor=tracker.default_cursor)

    @property
    def is_default(self) -> bool:
        """Whether it has the cursor that the tracker has from the start."""
        return bool(self._opened[0] == self.tracker.default_cursor)

    def open(self) -> Self:
        """Opens its cursor. It can be closed whatever interrupts this.

        Raises:
            KernelError: the kernel refused the scan that gives earlier writes to the other cursors (ENOMEM).
            ClosedError, ForkedError: the tracker can't be used.
        """
        error = lib.dt_cursor_open(self.tracker._native, self._opened)
        if error:
            raise self.error(error)
        self._natives = (self.tracker._native, self._opened[0])
        return self

    def over(self, regions: tuple[Region, ...]) -> Self:
        """Returns a consumer with the same cursor that is about other regions; closing either closes it."""
        return type(self)(self.tracker, self.name, regions, cursor=self._opened[0], known=self._rows)

    def feed(self, region: Region, runs: Sequence[tuple[int, int]] | None = None) -> None:
        """Gives pages of a region to the next epoch of its cursor, and of no other.

        Args:
            region: which; it need not be one of its own.
            runs: of its pages, each [start, stop). None: all.

        Raises:
            ClosedError, ForkedError: the region or the tracker can't be used.
        """
        pages = [(0, region.geometry.page_count)] if runs is None else runs
        slices = _native_slices([(region.id, start, stop) for start, stop in pages])
        error = self.call(lib.dt_cursor_feed, slices, len(pages))
        if error:
            raise self.error(error, regions=(region,))

    def close(self) -> None:
        """Ends the cursor; idempotent. In a forked child it does nothing."""
        if self.tracker.is_usable and self._opened[0]:
            lib.dt_cursor_close(self.tracker._native, self._opened[0])
        self._natives = (self.tracker._native, 0)

    def check(self) -> None:
        """Raises ClosedError or ForkedError if it can't be used any more, or in this process."""
        self.tracker.check()
        if not self._natives[1]:
            raise self.error(-lib.DT_ECLOSED)

    def collect(self) -> NativeEpoch:
        """Takes what was written to its regions since the last time, and re-arms it.

        Returns:
            The pages, by the places of the regions; best used as a context manager.

        Raises:
            RegionLostError, MissedWriteError, ClosedError, ForkedError, KernelError: as `Session.collect`.
        """
        return self._look(lib.DT_COLLECT)

    def peek(self) -> NativeEpoch:
        """Looks at what `collect` would take. Takes and arms nothing, and stops no thread."""
        return self._look(lib.DT_PEEK | lib.DT_BESIDE)

    def run(
        self,
        epoch: NativeEpoch,
        function: Callable[..., int],
        *arguments: Any,
        regions: Sequence[Region] | None = None,
    ) -> None:
        """Makes a native call that fills *epoch*: ``function(session, cursor, *arguments)``.

        Args:
            epoch: takes the pages; when this raises they are the cursor's again.
            function: returns 0 or a negative error.
            *arguments: one of them is ``epoch.native``.
            regions: those that the call is about; all of its own by default.

        Raises:
            RegionLostError, MissedWriteError, ClosedError, ForkedError, KernelError: as `Session.collect`.
        """
        tracker = self.tracker
        try:
            error = tracker.call(function, self._natives + arguments)
            if error:
                raise self.error(error, epoch.native.failure, regions)
            if tracker.warns:
                warn_of_missed(tracker)
        except BaseException:  # the traceback of an interrupt keeps the epoch, which would keep the pages
            epoch.give_back()
            raise

    def look_at_all(self, epoch: NativeEpoch, verb: int) -> tuple[Region, ...]:
        """Runs a verb (DT_COLLECT, DT_PEEK, DT_RESET) on every region of the tracker, and returns them."""
        generation, regions = self.tracker.listing or self.tracker.list_regions()
        while True:
            try:
                self.run(epoch, lib.dt_collect_all, verb, generation, epoch.native, regions=regions)
            except StaleError:
                generation, regions = self.tracker.list_regions()
            else:
                return regions

    def look_at(self, epoch: NativeEpoch, verb: int, asked: Mapping[Region, PageSet | None]) -> None:
        """Runs a verb on pages of regions; None: on all of a region's."""
        slices, count = slices_of(asked)
        self.run(epoch, lib.dt_collect, verb, slices, count, epoch.native, regions=tuple(asked))

    def call(self, function: Callable[..., int], *arguments: Any) -> int:
        """Makes a native call, ``function(session, cursor, *arguments)``, that takes no pages.

        Returns:
            The result of the call, also if it is an error: `error` says which.
        """
        return self.tracker.call(function, self._natives + arguments)

    def error(self, error: int, failure: Any = None, regions: Sequence[Region] | None = None) -> Exception:
        """Returns the exception for a negative native result, as `Tracker.error` does."""
        return self.tracker.error(error, self.regions if regions is None else regions, failure, self.name)

    def _look(self, verb: int) -> NativeEpoch:
        epoch = NativeEpoch()
        self.run(epoch, lib.dt_collect, verb, self.slices, len(self.regions), epoch.native)
        return epoch


def slices_of(asked: Mapping[Region, PageSet | None]) -> tuple[Any, int]:
    """Makes native slices of pages of regions (None: of all pages); returns them and their number."""
    if len(asked) == 1 and None in asked.values():
        (region,) = asked
        if region._whole is None:
            region._whole = _native_slices([(region.id, 0, region.geometry.page_count)])
        return region._whole, 1
    rows = []
    for region, pages in asked.items():
        runs = ((0, region.geometry.page_count),) if pages is None else pages.runs
        rows += [(region.id, start, stop) for start, stop in runs]
    return _native_slices(rows), len(rows)


def _extent(tracker: Tracker, region: Region) -> tuple[int, ...]:
    # A file may be truncated by anybody; and where nothing is registered, memory may be mapped over.
    kinds = {mapping.kind for mapping in mappings.overlapping(*region.page_range)}
    fallible = not tracker.backend.registers or kinds != {mappings.Kind.ANONYMOUS}
    return region.id, region.address, region.nbytes, region.geometry.offset, region.page_size, fallible


def _native_slices(rows: list[tuple[int, int, int]]) -> Any:
    return ffi.new("struct dt_slice[]", rows)
