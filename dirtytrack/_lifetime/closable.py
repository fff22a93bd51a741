"""What ends with a ``with`` block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closable(ABC):
    """A context manager that is closed when its block ends, and can only be entered while it can be used."""

    @abstractmethod
    def close(self) -> None:
        """Ends it; idempotent."""

    @abstractmethod
    def _check(self) -> None:
        """Raises what says why it can't be used: closed, or another process's."""

    def __enter__(self) -> Self:
        self._check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
