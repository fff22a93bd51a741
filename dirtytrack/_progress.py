"""How far something long is, on stderr."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any, Self

from dirtytrack._text import size

_INTERVAL = 0.1  # seconds between two redraws


class ShowProgress:
    """A context manager to be passed wherever a *progress* is taken: a line on stderr that goes at the end.

    With the extra ``dirtytrack[report]`` it is a bar with the speed and the time left, drawn by rich. Where
    stderr is no terminal it shows nothing.
    """

    def __init__(self, what: str) -> None:
        """Prepares it; *what* is done, in a word."""
        self._what = what
        self._stream = sys.stderr
        self._is_shown = self._stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._bar: Any = _bar() if self._is_shown else None
        self._task: Any = None
        self._drawn = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Is told the bytes that are done, and those that there are in all, at least 1."""
        if not self._is_shown:
            return
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task(self._what, total=total)
            self._bar.update(self._task, completed=done, total=total)
        elif time.monotonic() - self._drawn >= _INTERVAL:
            self._drawn = time.monotonic()
            self._stream.write(f"\r{self._what}: {100 * done // total:3} % of {size(total)}\x1b[K")
            self._stream.flush()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._is_shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def _bar() -> Any:
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
    except ImportError:
        return None
    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(TextColumn("{task.description}"), *columns, console=console, transient=True)
