"""What is to be called once something is known."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress


class Callbacks:
    """Functions that are called once each, by whichever thread calls them first.

    Who adds one looks only then whether it is known already, and calls them if so: whoever made it known may
    have looked at the list before.
    """

    def __init__(self, logger: logging.Logger) -> None:
        """Logs there what they raise."""
        self._logger = logger
        self._acts: list[Callable[[], object]] = []

    def add(self, act: Callable[[], object]) -> None:
        """Adds one."""
        self._acts.append(act)

    def call(self, title: str) -> None:
        """Calls all that are there; an Exception of one is logged, with the title of what they are about."""
        # Two threads may do this at once: what one has popped the other does not see.
        while self._acts:
            with suppress(IndexError):
                act = self._acts.pop(0)
                try:
                    act()
                except Exception:
                    self._logger.exception("a callback of %s failed", title)
