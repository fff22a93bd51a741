"""Several pieces of memory at once, with a consumer of their own: what the packages above are built on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from dirtytrack._lifetime.undo import Undo
from dirtytrack.tracking._core import Consumer
from dirtytrack.tracking.region import Region, check_requests
from dirtytrack.tracking.session import Session, default_session

# What is to be undone is said before it is done: an interrupt may take the result of a call away.


def session_for(session: Session | None, memories: Iterable[object]) -> Session:
    """Chooses the session to track memory with: the one given, else its regions', else `default_session`.

    Raises:
        TypeError: no session.
        ValueError: a region of another session.
    """
    regions = [memory for memory in memories if isinstance(memory, Region)]
    chosen = session if session is not None else regions[0].session if regions else default_session()
    if not isinstance(chosen, Session):
        raise TypeError(f"the session is a dirtytrack.Session or None, not {session!r}")
    check_requests(regions, chosen)
    return chosen


def track_many(
    memories: Mapping[str, object], session: Session | None, undo: Undo
) -> tuple[Session, dict[str, Region]]:
    """Tracks each piece of memory that is not a region already; *undo* ends that.

    Args:
        memories: by name, what `Session.track` takes, or regions of the session.
        session: as for `session_for`.
        undo: is told what to do in the end.

    Returns:
        The session, and the regions by name.

    Raises:
        As `session_for` and `Session.track`; ClosedError: a region is not tracked any more.
    """
    session = session_for(session, memories.values())
    tracker = session._tracker
    regions: dict[str, Region] = {}
    for name, memory in memories.items():
        if isinstance(memory, Region):
            _ = memory.view  # or it is closed
            regions[name] = memory
        else:
            regions[name] = region = session._prepare(memory, name)
            undo.callback(tracker.discard, region)
            tracker.add(region)
    return session, regions


def open_consumer(session: Session, name: str, regions: tuple[Region, ...], undo: Undo) -> Consumer:
    """Opens a consumer of a session for *regions*; *undo* closes it.

    Args:
        session: whose consumer it is.
        name: of its cursor, for messages.
        regions: all that it is about.
        undo: is told what to do in the end.

    Raises:
        KernelError, ClosedError, ForkedError: as `Session.cursor`.
    """
    consumer = Consumer(session._tracker, name, regions)
    undo.callback(consumer.close)
    return consumer.open()


def refuse_overlaps(memories: Iterable[tuple[int, int, str]]) -> None:
    """Refuses memory, given as (address, nbytes, name), of which a byte belongs to two names.

    Raises:
        ValueError: naming them.
    """
    for (start, nbytes, name), (next_start, _, other) in itertools.pairwise(sorted(memories)):
        if next_start < start + nbytes:
            raise ValueError(f"the memory of {name!r} and of {other!r} overlaps: give every byte once")
