"""Several pieces of memory as one: what is built on regions takes them so."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from contextlib import suppress

from dirtytrack._lifetime.undo import Undo
from dirtytrack.errors import ClosedError
from dirtytrack.tracking.cursor import Cursor
from dirtytrack.tracking.region import Region
from dirtytrack.tracking.session import Session, default_session


def track_all(
    memories: Mapping[str, object], session: Session | None, undo: Undo
) -> tuple[Session, dict[str, Region]]:
    """Tracks each piece of memory that is not a region already; *undo* ends that.

    Args:
        memories: by name, what `Session.track` takes, or regions of the session.
        session: None: that of the regions, or `default_session`.
        undo: is told what to do in the end.

    Raises:
        As `Session.track`; ClosedError: a region is not tracked any more.
    """
    given = [memory for memory in memories.values() if isinstance(memory, Region)]
    session = session or (given[0].session if given else default_session())
    session._check_requests(tuple(given))
    regions: dict[str, Region] = {}
    for name, memory in memories.items():
        if isinstance(memory, Region):
            _ = memory.view  # or it is closed
            regions[name] = memory
        else:
            label = _Label(name)
            undo.callback(_untrack, session, label)
            regions[name] = session.track(memory, name=label)
    return session, regions


def refuse_overlaps(memories: Iterable[tuple[int, int, str]]) -> None:
    """Refuses memory, given as (address, nbytes, name), of which a byte belongs to two names.

    Raises:
        ValueError: naming them.
    """
    for (start, nbytes, name), (next_start, _, other) in itertools.pairwise(sorted(memories)):
        if next_start < start + nbytes:
            raise ValueError(f"the memory of {name!r} and of {other!r} overlaps: give every byte once")


def open_cursor(session: Session, name: str, undo: Undo) -> Cursor:
    """A cursor of a name that nobody else uses; *undo* closes it."""
    undo.callback(_close_cursor, session, name)
    return session.cursor(name)


# What is to be undone is said before it is done: an interrupt may take the result of a call away.


class _Label(str):
    """A name that is told apart from its equals."""

    __slots__ = ()


def _untrack(session: Session, label: str) -> None:
    for region in session.regions:
        if region.name is label:
            with suppress(ClosedError):
                session.untrack(region)


def _close_cursor(session: Session, name: str) -> None:
    cursor = session._cursors.get(name)
    if cursor is not None:
        cursor.close()
