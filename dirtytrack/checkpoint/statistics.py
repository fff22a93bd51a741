"""What a Checkpointer has done so far."""

from __future__ import annotations

from dataclasses import dataclass

from dirtytrack.checkpoint.write.mirror import MirrorStatistics


@dataclass(frozen=True)
class Statistics:
    """Figures of a Checkpointer, at the time of the call.

    Attributes:
        checkpoint: number of the newest checkpoint that it has committed; None before the first one.
        mirror: how far its mirror is; None without one.
    """

    checkpoint: int | None
    mirror: MirrorStatistics | None
