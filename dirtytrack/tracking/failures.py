"""The exceptions of tracking: which one a native error becomes, and what a lost region has lost."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

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
from dirtytrack.native import ffi, lib

if TYPE_CHECKING:
    from dirtytrack.tracking.cursor import Cursor
    from dirtytrack.tracking.region import Region
    from dirtytrack.tracking.session import Session

_REMEDIES = {
    errno.ENOMEM: "Memory ran short, or the process has too many mappings: raise vm.max_map_count, or track "
    "fewer, larger regions.",
    errno.EPERM: "The mapping can never be written by this process: it shares a file opened read-only, or "
    "is the kernel's own (vvar).",
    errno.EINVAL: "Memory of this kind can't be tracked (vdso, a device, a shadow stack, MAP_DROPPABLE).",
}


def native_error(
    session: Session,
    error: int,
    regions: tuple[Region, ...] = (),
    failure: Any = None,
    cursor: Cursor | None = None,
) -> Exception:
    """The exception for a negative native result; *regions* and *cursor* are what the call was about."""
    if error == -lib.DT_EFORKED:
        return ForkedError(
            f"{session!r} can't be used in process {os.getpid()}, a fork of its owner: open a session here"
        )
    if error == -lib.DT_ECLOSED:
        return _closed_error(session, regions, cursor)
    if error == -lib.DT_ELOST:
        return _lost_error(regions)
    if error == -lib.DT_EMISSED:
        missed = missed_error(session)
        if missed is not None:
            return missed
    call, start, stop = _where(failure)
    return kernel_error(-error, call, start=start, stop=stop, remedy=_REMEDIES.get(-error, ""))


def track_error(session: Session, error: int, region: Region, failure: Any) -> Exception:
    """The exception for a region that could not be tracked."""
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
        remedy = (
            "Another userfaultfd tracks part of it, perhaps that of a session that was not closed. Share a "
            "session: dirtytrack.default_session() is one for the whole process."
        )
        return BusyError(errno.EBUSY, call, start=start, stop=stop, remedy=remedy)
    return native_error(session, error, (region,), failure)


def _where(failure: Any) -> tuple[str, int | None, int | None]:
    if not failure or not failure.call:
        return "mmap", None, None
    call = str(ffi.string(failure.call), "ascii")  # type: ignore[arg-type]
    return (call, failure.start, failure.stop) if failure.stop else (call, None, None)


def _closed_error(session: Session, regions: tuple[Region, ...], cursor: Cursor | None) -> ClosedError:
    if lib.dt_session_usable(session._native) == -lib.DT_ECLOSED:
        return ClosedError(f"{session!r} is closed: open another one")
    for region in regions:
        if not region.tracked:
            return ClosedError(f"{region._title} is not tracked any more")
    name = cursor.name if cursor else "?"
    return ClosedError(f"cursor {name!r} is closed: open another one with session.cursor(name)")


def _lost_error(regions: tuple[Region, ...]) -> RegionLostError:
    lost = {region: lost_ranges(region) for region in regions if region.lost}
    losses = [Loss(region, ranges) for region, ranges in lost.items()]
    return RegionLostError(
        "memory is no longer what was tracked (unmapped, mapped over, moved, or taken): "
        f"{_listed(losses)}. Untrack it, and track it anew where it is now; what was written to it meanwhile "
        "is unknown",
        tuple(losses),
    )


def _listed(losses: list[Loss]) -> str:
    return "; ".join(
        f"{getattr(region, '_title', region)} at "
        + ", ".join(f"[{start:#x}, {stop:#x})" for start, stop in ranges)
        for region, ranges in losses
    )


def missed_error(session: Session) -> MissedWriteError | None:
    """What the shadow check found since this was last asked; None if nothing."""
    count = lib.dt_session_missed(session._native, ffi.NULL, 0)
    if count <= 0:
        return None
    pages = ffi.new("struct dt_run[]", count)
    count = min(count, lib.dt_session_missed(session._native, pages, count))
    found = sorted({(pages[i].start, pages[i].stop) for i in range(count)})
    missed = []
    for region in session.regions:
        first, last = region.page_range
        ranges = tuple((start, stop) for start, stop in found if start < last and stop > first)
        if ranges:
            missed.append(Loss(region, ranges))
    return MissedWriteError(
        f"pages changed, and were called clean: {_listed(missed)}. Something writes there past the page "
        "tables: see region.blind_spots, and mark() what it writes; if that explains nothing, please report "
        "it. The pages are in the next epoch",
        tuple(missed),
    )


def lost_ranges(region: Region) -> tuple[tuple[int, int], ...]:
    """The address ranges of a lost region that are unmapped, unregistered or another's, as first seen.

    When nothing is wrong with the memory any more (it was registered here again), that is all of it: nobody
    can say what happened in between.
    """
    if region._lost_ranges is None:
        start, stop = region.page_range
        found = _not_ours(region, start, stop)
        region._lost_ranges = tuple(found) or ((start, stop),)
    return region._lost_ranges


def _not_ours(region: Region, start: int, stop: int) -> list[tuple[int, int]]:
    lost: list[tuple[int, int]] = []
    at = start
    for mapping in mappings.overlapping(start, stop):
        first, last = max(mapping.start, start), min(mapping.stop, stop)
        if at < first:
            lost.append((at, first))
        # A mapping belongs to one userfaultfd, or to none, so the answer is for all of it.
        if lib.dt_session_holds(region.session._native, first, last) != 1:
            lost.append((first, last))
        at = last
    if at < stop:
        lost.append((at, stop))
    merged: list[tuple[int, int]] = []
    for first, last in lost:
        if merged and merged[-1][1] == first:
            first = merged.pop()[0]
        merged.append((first, last))
    return merged
