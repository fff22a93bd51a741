"""Several pieces of memory as one: what is built on regions takes them so."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress

from dirtytrack.errors import ClosedError
from dirtytrack.tracking.region import Region
from dirtytrack.tracking.session import Session, default_session


def track_all(
    memories: Mapping[str, object], session: Session | None, undo: ExitStack
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
            regions[name] = session.track(memory, name=name)
            undo.callback(_untrack, session, regions[name])
    return session, regions


def _untrack(session: Session, region: Region) -> None:
    with suppress(ClosedError):
        session.untrack(region)
