"""Going on with a chain needs a kernel that can track; reading it does not."""

from _lib.works import own_default_session, tracking_works

__all__ = ["own_default_session", "tracking_works"]
