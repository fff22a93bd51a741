"""How far something long is, on stderr."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType
from typing import Self

from dirtytrack._text import size
from dirtytrack.cli._heat import Screen

_INTERVAL = 0.1  # seconds between two redraws


class Progress:
    """A line that is redrawn in place and goes at the end. Where stderr is no terminal there is none."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._screen = Screen(sys.stderr)
        self._drawn = -math.inf

    def __call__(self, done: int, total: int) -> None:
        """Tells the bytes that are done, and those that there are in all, at least 1."""
        now = time.monotonic()
        if now - self._drawn >= _INTERVAL:
            self._drawn = now
            self._screen.update(f"{self._what}: {100 * done // total:3} % of {size(total)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.update("")
