"""What one native call takes from a cursor."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from dirtytrack.native import ffi, lib
from dirtytrack.tracking.pages import Geometry, PageSet

# One call makes the native epoch and ties its release to it: no interrupt can come in between and leak it.
_new = ffi.new_allocator(lib.dt_epoch_new, lib.dt_epoch_release, should_clear_after_alloc=False)


class NativeEpoch:
    """The pages that one native call takes from a cursor. It is made before the call, which fills it.

    Nothing that must happen may be Python: a signal handler can raise before the first line of any method. So
    the pages are in the hands of the native epoch, whose release gives back what nobody has settled. As a
    context manager it is settled, or aborted when its block raises.

    Attributes:
        native: the ``struct dt_epoch``.
    """

    __slots__ = ("native",)

    def __init__(self) -> None:
        self.native: Any = _new("struct dt_epoch *")

    @property
    def pages(self) -> int:
        """How many pages it has, over all regions."""
        return int(self.native.pages)

    @property
    def unstopped(self) -> tuple[int, ...]:
        """The threads that ran during some of the scan, in a session that stops them."""
        threads = self.native.unstopped
        return tuple(threads.ids[place] for place in range(threads.count))

    def places(self) -> dict[int, int]:
        """Returns the place of each region that it has pages of, by the region's identifier."""
        entries = self.native.buffers.entries
        return {entries[place].region: place for place in range(self.native.entry_count)}

    def page_set(self, place: int, geometry: Geometry) -> PageSet:
        """Returns the pages of the region at a place. The places are in the order of the slices asked for."""
        buffers = self.native.buffers
        entry = buffers.entries[place]
        return PageSet._on(
            geometry, buffers.runs + entry.first_run, entry.run_count, self.native, entry.pages
        )

    def settle(self) -> None:
        """Ends its hold on the pages: its end does not give them back any more, only `abort` does."""
        self.native.settled = 1

    def abort(self) -> bool:
        """Gives the pages back to the cursor, once; what was closed or untracked meanwhile is skipped.

        Returns:
            False in a child of the process that made the call: the parent has the pages.
        """
        return lib.dt_epoch_abort(self.native) != -lib.DT_EFORKED

    def give_back(self) -> None:
        """Aborts unless it is settled, as its end would do."""
        if not self.native.settled:
            self.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.settle()
        else:
            self.abort()
