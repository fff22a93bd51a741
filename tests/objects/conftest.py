"""Describing an object needs nothing of the kernel; what looks at tracked memory does."""

from _lib.works import own_default_session

__all__ = ["own_default_session"]
