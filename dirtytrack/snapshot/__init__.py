"""What changed in memory, to the byte; and how it was before, at the cost of what changed."""

from dirtytrack.snapshot.change import Change
from dirtytrack.snapshot.diff import Diff
from dirtytrack.snapshot.history import History, State
from dirtytrack.snapshot.snapshot import Snapshot
from dirtytrack.snapshot.watching import watch

__all__ = ["Change", "Diff", "History", "Snapshot", "State", "watch"]
