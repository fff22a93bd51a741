"""What a verb or a chain tracks with the default session is gone after the test."""

from _lib.works import own_default_session

__all__ = ["own_default_session"]
