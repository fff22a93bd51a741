"""Snapshots and histories need a kernel that can track; what a diff does by itself is marked ``anywhere``."""

from _lib.works import own_default_session, tracking_works

__all__ = ["own_default_session", "tracking_works"]
