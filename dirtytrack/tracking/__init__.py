"""Floor 1: sessions, regions, cursors, epochs and page sets, on top of `dirtytrack.kernel`."""

from dirtytrack.tracking.blindspots import BlindSpot
from dirtytrack.tracking.cursor import Cursor
from dirtytrack.tracking.epoch import Epoch
from dirtytrack.tracking.memory import alloc, empty
from dirtytrack.tracking.pages import Geometry, PageSet, Runs
from dirtytrack.tracking.region import Region, RegionSlice
from dirtytrack.tracking.session import Session, default_session

__all__ = [
    "BlindSpot",
    "Cursor",
    "Epoch",
    "Geometry",
    "PageSet",
    "Region",
    "RegionSlice",
    "Runs",
    "Session",
    "alloc",
    "default_session",
    "empty",
]
