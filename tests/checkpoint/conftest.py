"""Writing a chain needs a kernel that can track; tests that only read one are marked ``anywhere``."""

from _lib.works import own_default_session, tracking_works

__all__ = ["own_default_session", "tracking_works"]
