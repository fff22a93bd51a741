"""Objects that end with a ``with`` block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closable(ABC):
    """A context manager that is closed when its block ends, and can only be entered while it can be used."""

    @abstractmethod
    def close(self) -> None:
        """Ends it. Idempotent, and can be repeated if an interrupt has ended it."""

    @abstractmethod
    def _check(self) -> None:
        """Raises ClosedError or ForkedError if it can't be used any more, or in this process."""

    def __enter__(self) -> Self:
        self._check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
