"""What a native failure means: which exception it becomes, and which memory it is about."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Protocol

from dirtytrack.errors import (
    BusyError,
    ClosedError,
    ForkedError,
    Loss,
    MissedWriteError,
    RegionLostError,
    kernel_error,
)
from dirtytrack.kernel import mappings
from dirtytrack.kernel.touch import untouchable
from dirtytrack.native import ffi, lib
from dirtytrack.tracking.region import Region

_REMEDIES = {
    errno.ENOMEM: "Memory ran short, or the process has too many mappings: raise vm.max_map_count, or track "
    "fewer, larger regions.",
    errno.EPERM: "The mapping can never be written by this process: it shares a file opened read-only, or "
    "is the kernel's own (vvar).",
    errno.EINVAL: "Memory of this kind can't be tracked (vdso, a device, a shadow stack, MAP_DROPPABLE).",
}

_TOUCHES = {"read": False, "write": True}  # of memory (core/access.c), and whether it is written
_AFTER_A_TOUCH = "Nothing is lost: what was written is in the next call"


class StaleError(Exception):
    """The list of regions that a call was given is not the tracker's any more."""


class Failing(Protocol):
    """A `Tracker`, as far as its failures ask it."""

    @property
    def is_usable(self) -> bool: ...
    @property
    def regions(self) -> tuple[Region, ...]: ...
    @property
    def stop_threads(self) -> int: ...
    def holds(self, start: int, stop: int) -> bool: ...
    def take_missed(self) -> list[tuple[int, int]]: ...


def native_error(
    tracker: Failing, error: int, regions: Sequence[Region], failure: Any, cursor: str
) -> Exception:
    """Returns the exception for a negative native result; the arguments are those of `Tracker.error`."""
    if error == -lib.DT_EFORKED:
        return ForkedError(
            f"{tracker!r} can't be used in process {os.getpid()}, a fork of its owner: open a session here"
        )
    if error == -lib.DT_ECLOSED:
        return _closed_error(tracker, regions, cursor)
    if error == -lib.DT_ELOST:
        return _lost_error(tracker, [region for region in regions if region.lost])
    if error == -lib.DT_ESTALE:
        return StaleError()
    if error == -lib.DT_EMISSED and (missed := _missed_error(tracker)) is not None:
        return missed
    if error == -errno.EBUSY:  # memory that is another's is told by cannot_track
        return busy_signal(tracker.stop_threads)
    call, start, stop = _where(failure)
    if call in _TOUCHES and start is not None and stop is not None:
        title = _title_at(regions, start)
        return untouchable(-error, title, start, stop, _AFTER_A_TOUCH, write=_TOUCHES[call])
    return kernel_error(-error, call, start=start, stop=stop, remedy=_REMEDIES.get(-error, ""))


def _title_at(regions: Sequence[Region], address: int) -> str:
    titles = (one.title for one in regions if one.page_range[0] <= address < one.page_range[1])
    return next(titles, "memory")


def cannot_track(error: int, region: Region, failure: Any, others: Sequence[Region]) -> Exception | None:
    """Returns the exception for memory that can't be tracked; None if the error is of another kind.

    Args:
        error: the native result.
        region: what was to be tracked.
        failure: the ``struct dt_failure`` that was filled.
        others: regions of other sessions that lie on the same pages.
    """
    start, stop = region.page_range
    where = f"[{start:#x}, {stop:#x})"
    call, _, _ = _where(failure)
    if error == -lib.DT_EMIXED:
        return ValueError(
            f"{where} shares pages with a region of the other kind: sparse and dense regions can't overlap. "
            "Track both the same way, or align them to pages"
        )
    if error == -errno.ENOMEM and call == "msync":
        return ValueError(f"{where} is not mapped, or not all of it: track what exists")
    if error == -errno.EBUSY:
        return BusyError(errno.EBUSY, call, start=start, stop=stop, remedy=_busy_remedy(region, others))
    return None


def busy_signal(number: int) -> BusyError:
    """Returns the exception for a signal that threads can't be stopped by, since it has another handler."""
    return BusyError(
        errno.EBUSY,
        "sigaction",
        remedy=f"Signal {number} has a handler of somebody else's in this process, another copy of this "
        "library perhaps, so threads can't be stopped by it. Nothing is lost. Choose a signal that nobody "
        "uses: Session(stop_threads=signal.SIGRTMIN + 3), or any other",
    )


def _busy_remedy(region: Region, others: Sequence[Region]) -> str:
    if not others:
        return (
            "Another userfaultfd tracks part of it: that of another library in this process, or of another "
            "process that handles its faults. The kernel allows one."
        )
    other = others[0]
    share = "Share a session: dirtytrack.default_session() is one for the whole process"
    if region.address < other.address + other.nbytes and other.address < region.address + region.nbytes:
        return f"{other.title} of {other.session!r} is there. {share}."
    return (
        f"{other.title} of {other.session!r} lies on the same page. {share}. Or give one of them pages of "
        "its own: dirtytrack.alloc() and dirtytrack.empty() do."
    )


def warn_of_missed(tracker: Failing) -> None:
    """Warns of pages that changed and were called clean, at the line that called the library."""
    missed = _missed_error(tracker)
    if missed is not None:
        warnings.warn(missed, stacklevel=_level_of_the_caller())


def _closed_error(tracker: Failing, regions: Sequence[Region], cursor: str) -> ClosedError:
    if not tracker.is_usable:
        return ClosedError(f"{tracker!r} is closed: open another one")
    for region in regions:
        if not region.tracked:
            return ClosedError(f"{region.title} is not tracked any more")
    return ClosedError(f"cursor {cursor!r} is closed: open another one with session.cursor(name)")


def _lost_error(tracker: Failing, regions: Sequence[Region]) -> RegionLostError:
    losses = tuple(Loss(region, _lost_ranges(tracker, region)) for region in regions)
    return RegionLostError(
        "memory is no longer what was tracked (unmapped, mapped over, moved, or taken): "
        f"{_listed(losses)}. Untrack it, and track it anew where it is now; what was written to it meanwhile "
        "is unknown",
        losses,
    )


def _missed_error(tracker: Failing) -> MissedWriteError | None:
    found = sorted(set(tracker.take_missed()))
    if not found:
        return None
    missed = []
    for region in tracker.regions:
        low, high = region.page_range
        ranges = tuple((start, stop) for start, stop in found if start < high and stop > low)
        if ranges:
            missed.append(Loss(region, ranges))
    return MissedWriteError(
        f"pages changed, and were called clean: {_listed(missed)}. Something writes there past the page "
        "tables: see region.blind_spots, and mark() what it writes; if that explains nothing, please report "
        "it. The pages are in the next epoch",
        tuple(missed),
    )


def _lost_ranges(tracker: Failing, region: Region) -> tuple[tuple[int, int], ...]:
    # What of a lost region is unmapped, unregistered or another's, as first seen. When nothing is wrong with
    # the memory any more (it was registered here again), that is all of it: nobody can say what happened in
    # between.
    if region._lost_ranges is None:
        start, stop = region.page_range
        region._lost_ranges = _not_ours(tracker, start, stop) or ((start, stop),)
    return region._lost_ranges


def _not_ours(tracker: Failing, start: int, stop: int) -> tuple[tuple[int, int], ...]:
    lost: list[tuple[int, int]] = []
    at = start
    for mapping in mappings.overlapping(start, stop):
        low, high = max(mapping.start, start), min(mapping.stop, stop)
        if at < low:
            lost.append((at, low))
        # A mapping belongs to one userfaultfd, or to none, so the answer is for all of it.
        if not tracker.holds(low, high):
            lost.append((low, high))
        at = high
    if at < stop:
        lost.append((at, stop))
    return _merged(lost)


def _merged(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for start, stop in ranges:
        if merged and merged[-1][1] == start:
            start = merged.pop()[0]
        merged.append((start, stop))
    return tuple(merged)


def _where(failure: Any) -> tuple[str, int | None, int | None]:
    if not failure or not failure.call:
        return "mmap", None, None
    call = str(ffi.string(failure.call), "ascii")  # type: ignore[arg-type]
    return (call, failure.start, failure.stop) if failure.stop else (call, None, None)


def _listed(losses: Sequence[Loss]) -> str:
    return "; ".join(
        f"{getattr(loss.region, 'title', loss.region)} at "
        + ", ".join(f"[{start:#x}, {stop:#x})" for start, stop in loss.ranges)
        for loss in losses
    )


def _level_of_the_caller() -> int:
    # For the stacklevel of a warning that is given by the caller of this.
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and (frame.f_globals.get("__package__") or "").startswith("dirtytrack"):
        frame, level = frame.f_back, level + 1
    return level
