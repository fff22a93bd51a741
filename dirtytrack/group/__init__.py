"""One state of many processes: committed for all of them or for none, behind the training step.

`GroupCheckpointer` writes it, `GroupChain` reads it. The promises are in ``docs/beyond.md``. Needs the extra:
pip install "dirtytrack[checkpoint]", or for a URL "dirtytrack[cloud]".
"""

from dirtytrack.group.chain import GroupChain, GroupCheckpoint
from dirtytrack.group.checkpointer import GroupCheckpointer
from dirtytrack.group.compaction import CompactedGroup, compact_group
from dirtytrack.group.coordinator import Coordinator
from dirtytrack.group.file_coordinator import file_coordinator
from dirtytrack.group.mpi_coordinator import mpi_coordinator
from dirtytrack.group.record import Part
from dirtytrack.group.save import GroupSave
from dirtytrack.group.torch_coordinator import torch_coordinator

__all__ = [
    "CompactedGroup",
    "Coordinator",
    "GroupChain",
    "GroupCheckpoint",
    "GroupCheckpointer",
    "GroupSave",
    "Part",
    "compact_group",
    "file_coordinator",
    "mpi_coordinator",
    "torch_coordinator",
]
