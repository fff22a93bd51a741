"""Saving needs a kernel that can track; tests of records and votes alone are marked ``anywhere``."""

from _lib.works import own_default_session, tracking_works

__all__ = ["own_default_session", "tracking_works"]
