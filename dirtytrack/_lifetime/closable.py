"""Objects that end with a ``with`` block."""

from __future__ import annotations

import atexit
import sys
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from dirtytrack._lifetime.listing import values_of
from dirtytrack._lifetime.undo import Undo


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


class Owner(Closable):
    """One that has something to give back: whoever forgets to close it is warned, and it closes itself.

    At the exit of the interpreter it only warns: modules are emptied then, so that a destructor can call
    nothing, and the kernel takes everything back.
    """

    _closed = True  # until there is something to close
    _begun: Undo | None = None  # while it is being opened: what is to be undone if that is interrupted

    def __new__(cls, *_args: object, **_options: object) -> Self:
        owner = super().__new__(cls)
        key = id(owner)
        forget: Callable[[int, None], object] = _owners.pop
        _owners[key] = weakref.ref(owner, lambda _: forget(key, None))
        return owner

    @abstractmethod
    def _is_forgotten(self) -> bool:
        """Whether something would be left open, were it not closed: not in a forked child, for one."""

    def __del__(self, is_exiting: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_exiting():
            return
        end = Undo()  # an interrupt does not end it: nobody could repeat it
        end.callback(self._give_back)
        end.close()

    def _give_back(self) -> None:
        if self._closed:
            if self._begun is not None:
                self._begun.close()
            return
        try:
            self._warn()
        finally:  # warnings may be errors
            self.close()

    def _warn(self) -> None:
        if not self._is_forgotten():
            return
        message = f"{self!r} was never closed"
        try:
            warnings.warn(message, ResourceWarning, source=self, stacklevel=3)
        except AttributeError:  # in the middle of an import of tracemalloc, which is what a source is for
            warnings.warn(message, ResourceWarning, stacklevel=3)


_owners: dict[int, weakref.ref[Owner]] = {}  # those that live, by id(): each access to it is atomic


@atexit.register
def _warn_of_open_ones() -> None:
    for reference in values_of(_owners):
        owner = reference()
        if owner is not None and not owner._closed:
            with suppress(Exception):  # warnings may be errors
                owner._warn()
