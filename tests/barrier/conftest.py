"""Cards and write watches need a kernel that can track; what asks for neither is marked ``anywhere``."""

from _lib.tracked import session
from _lib.works import own_default_session, tracking_works

__all__ = ["own_default_session", "session", "tracking_works"]
