"""Two diffs, one after the other, as one."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence

from dirtytrack.errors import DiffError
from dirtytrack.native import ffi, lib
from dirtytrack.snapshot._changes import Changes
from dirtytrack.snapshot.change import Change


def merge(regions: Iterable[tuple[Sequence[Change], Sequence[Change]]]) -> Changes:
    """The changes of both, for each region those of the earlier diff and those of the later one.

    Raises:
        DiffError: where both have changes, the later one does not begin with what the earlier one left.
    """
    changes = Changes(0, None)
    for place, (earlier, later) in enumerate(regions):
        for start, first, second in _spans(earlier, later):
            _add(changes, place, start, first, second)
    return changes


_Span = tuple[int, list[Change], list[Change]]


def _spans(earlier: Iterable[Change], later: Iterable[Change]) -> Iterator[_Span]:
    # Changes that overlap or touch, each group with its first byte.
    both = heapq.merge(
        ((one, 0) for one in earlier), ((one, 1) for one in later), key=lambda item: item[0].start
    )
    group: tuple[list[Change], list[Change]] = ([], [])
    start = stop = 0
    for change, which in both:
        if change.start > stop and (group[0] or group[1]):
            yield start, *group
            group = ([], [])
        if not (group[0] or group[1]):
            start, stop = change.start, change.stop
        group[which].append(change)
        stop = max(stop, change.stop)
    if group[0] or group[1]:
        yield start, *group


def _add(changes: Changes, place: int, start: int, earlier: list[Change], later: list[Change]) -> None:
    nbytes = max(change.stop for change in (*earlier, *later)) - start
    before, after = bytearray(nbytes), bytearray(nbytes)
    known = bytearray(nbytes)  # 1 where the earlier one says what is between the two
    for change in earlier:
        where = slice(change.start - start, change.stop - start)
        before[where], after[where] = change.before, change.after
        known[where] = b"\1" * len(change.after)
    for change in later:
        where = slice(change.start - start, change.stop - start)
        between = known[where]
        if any(between):
            for at, old in enumerate(change.before):
                if not between[at]:
                    before[where.start + at] = old
                elif after[where.start + at] != old:
                    raise DiffError(
                        f"byte {change.start + at} of {change.region!r} is {after[where.start + at]} after "
                        f"the first diff and {old} before the second: one does not follow the other"
                    )
        else:
            before[where] = change.before
        after[where] = change.after
    old_bytes, new_bytes = ffi.from_buffer("uint8_t[]", before), ffi.from_buffer("uint8_t[]", after)
    lib.dt_compare(changes.native, place, start, old_bytes, new_bytes, nbytes, 0, changes.limit)
    changes.check()
