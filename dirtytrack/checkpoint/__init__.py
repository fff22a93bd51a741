"""Incremental, crash-safe checkpoints of tracked memory, in a directory of files that never change.

`Checkpointer` writes a chain, `Chain` reads it, `restore` and `load` give its contents back, and `compact`
makes it short. The files are documented in ``docs/format.md``, the promises in ``docs/checkpoint.md``. Needs
the extra: pip install "dirtytrack[checkpoint]".
"""

from dirtytrack._progress import ShowProgress
from dirtytrack.checkpoint.chain import Chain, Checkpoint, Problem
from dirtytrack.checkpoint.checkpointer import Checkpointer
from dirtytrack.checkpoint.difference import Difference
from dirtytrack.checkpoint.format.layout import Layout
from dirtytrack.checkpoint.intervals import interval
from dirtytrack.checkpoint.restore import load, restore
from dirtytrack.checkpoint.save import Save
from dirtytrack.checkpoint.schedule import Schedule
from dirtytrack.checkpoint.statistics import Statistics
from dirtytrack.checkpoint.store.abilities import DirectorySupport, directory_support
from dirtytrack.checkpoint.write.compaction import Compacted, compact
from dirtytrack.checkpoint.write.experience import Forecast
from dirtytrack.checkpoint.write.keep import Keep
from dirtytrack.checkpoint.write.mirror import MirrorStatistics
from dirtytrack.checkpoint.write.reconciling import catch_up

__all__ = [
    "Chain",
    "Checkpoint",
    "Checkpointer",
    "Compacted",
    "Difference",
    "DirectorySupport",
    "Forecast",
    "Keep",
    "Layout",
    "MirrorStatistics",
    "Problem",
    "Save",
    "Schedule",
    "ShowProgress",
    "Statistics",
    "catch_up",
    "compact",
    "directory_support",
    "interval",
    "load",
    "restore",
]
