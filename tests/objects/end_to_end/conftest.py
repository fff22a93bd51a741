"""Real objects, through everything that takes them: that needs a kernel that can track."""

from _lib.works import own_default_session, tracking_works

__all__ = ["own_default_session", "tracking_works"]
