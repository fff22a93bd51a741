"""FLOOR 2: incremental, crash-safe checkpoints of tracked memory, in a directory of files that never change.

`Checkpointer` writes a chain, `Chain` reads it, `restore` and `load` give its contents back. The files are
documented in ``docs/format.md``, the promises in ``docs/checkpoint.md``. Needs the extra: pip install
"dirtytrack[checkpoint]".
"""

from dirtytrack.checkpoint.chain import Chain, Checkpoint, Problem
from dirtytrack.checkpoint.checkpointer import Checkpointer
from dirtytrack.checkpoint.restore import load, restore
from dirtytrack.checkpoint.save import Save

__all__ = ["Chain", "Checkpoint", "Checkpointer", "Problem", "Save", "load", "restore"]
