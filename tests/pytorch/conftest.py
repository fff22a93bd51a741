"""What needs torch is tested in an environment that has it, and with a kernel that can track."""

from _lib.works import own_default_session, tracking_works

__all__ = ["own_default_session", "tracking_works"]
