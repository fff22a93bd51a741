"""Sessions need a kernel that can track."""

from works import tracking_works

__all__ = ["tracking_works"]
