"""Which part of a program writes which memory, when, and how often.

`Profile` charges the writes to the regions of a session to named phases, exactly. `Report` shows what it
found: as a table, as a page of HTML, as JSON, for Perfetto and speedscope; `Report.load` reads the file of a
recording. The guide is ``docs/profile.md``.
"""

from dirtytrack.profile.profile import PhaseBlock, Profile
from dirtytrack.profile.recording import (
    Area,
    Column,
    Count,
    Phase,
    Process,
    Recording,
    Share,
    Tally,
    WorkingSet,
)
from dirtytrack.profile.report import Report

__all__ = [
    "Area",
    "Column",
    "Count",
    "Phase",
    "PhaseBlock",
    "Process",
    "Profile",
    "Recording",
    "Report",
    "Share",
    "Tally",
    "WorkingSet",
]
