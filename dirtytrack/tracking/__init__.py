"""Sessions, regions, cursors, epochs and page sets.

What users call is in `dirtytrack`, too. The rest is for packages that build on it: `track_many` and
`open_consumer` for memory that they track themselves, and the `Consumer`, whose `run` and `call` are the way
to make native calls.
"""

from dirtytrack.tracking._core import Consumer, NativeEpoch, Tracker
from dirtytrack.tracking._possibly_nonzero import possibly_nonzero
from dirtytrack.tracking._track_many import open_consumer, refuse_overlaps, session_for, track_many
from dirtytrack.tracking.blindspots import BlindSpot
from dirtytrack.tracking.cursor import Cursor
from dirtytrack.tracking.epoch import Epoch
from dirtytrack.tracking.huge_pages import HugePages
from dirtytrack.tracking.memory import alloc, empty, resolve
from dirtytrack.tracking.mirror import Mirror
from dirtytrack.tracking.pages import Geometry, PageSet, Runs
from dirtytrack.tracking.region import Region, RegionSlice
from dirtytrack.tracking.session import Session, default_session
from dirtytrack.tracking.working_set import WorkingSet

__all__ = [
    "BlindSpot",
    "Consumer",
    "Cursor",
    "Epoch",
    "Geometry",
    "HugePages",
    "Mirror",
    "NativeEpoch",
    "PageSet",
    "Region",
    "RegionSlice",
    "Runs",
    "Session",
    "Tracker",
    "WorkingSet",
    "alloc",
    "default_session",
    "empty",
    "open_consumer",
    "possibly_nonzero",
    "refuse_overlaps",
    "resolve",
    "session_for",
    "track_many",
]
