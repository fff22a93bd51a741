"""What docs/guarantees.md says holds on either kind of kernel."""

from _lib.tracked import session

__all__ = ["session"]
