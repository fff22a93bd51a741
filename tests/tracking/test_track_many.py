"""Several pieces of memory, tracked as one."""

from __future__ import annotations

from contextlib import closing

import pytest

import dirtytrack
from dirtytrack import ClosedError, Session
from dirtytrack._lifetime.undo import Undo
from dirtytrack.tracking import track_many


def test_what_is_not_tracked_yet_is_until_undone(session: Session) -> None:
    """Regions are taken as they are, and stay; the rest is tracked under its name."""
    mine = session.track(dirtytrack.alloc(100), name="mine")
    with closing(Undo()) as undo:
        found, regions = track_many({"a": mine, "b": dirtytrack.alloc(50)}, None, undo)
        assert found is session
        assert regions["a"] is mine
        assert (regions["b"].name, regions["b"].nbytes) == ("b", 50)
        assert len(session.regions) == 2
    assert session.regions == (mine,)


@pytest.mark.registration
def test_the_session_is_that_named_or_of_the_regions_or_the_default(session: Session) -> None:
    """In this order."""
    with closing(Undo()) as undo:
        assert track_many({"a": dirtytrack.alloc(50)}, session, undo)[0] is session
    with closing(Undo()) as undo:
        assert track_many({"a": dirtytrack.alloc(50)}, None, undo)[0] is dirtytrack.default_session()
    dirtytrack.default_session().close()


def test_what_can_not_be_tracked_leaves_nothing(session: Session) -> None:
    """Foreign or untracked regions, and no memory: refused, and nothing stays tracked for it."""
    closed = session.track(dirtytrack.alloc(50))
    session.untrack(closed)
    with Session(backend=session.backend) as other:
        for bad, error in (
            (other.track(dirtytrack.alloc(50)), ValueError),
            (closed, ClosedError),
            (1, TypeError),
        ):
            with pytest.raises(error), closing(Undo()) as undo:
                track_many({"a": dirtytrack.alloc(50), "b": bad}, session, undo)
            assert session.regions == ()
