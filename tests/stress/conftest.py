"""Writers and leaks need a kernel that can track."""

from _lib.works import tracking_works

__all__ = ["tracking_works"]
