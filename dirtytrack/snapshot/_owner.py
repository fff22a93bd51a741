"""What a snapshot and a history have in common: memory of their own process, until they are closed."""

from __future__ import annotations

import threading
import warnings
from abc import abstractmethod

from dirtytrack._lifetime.closable import Closable
from dirtytrack._lifetime.handle import Handle
from dirtytrack._lifetime.turns import in_turn
from dirtytrack._lifetime.undo import Undo
from dirtytrack.errors import ClosedError, ForkedError
from dirtytrack.native import lib
from dirtytrack.snapshot._memories import Memories
from dirtytrack.tracking import Region, Session


class Owner(Handle, Closable):
    """Has memories; a context manager, which closes it. Its methods take turns."""

    _closed = True  # until there is something to close

    def __init__(self, session: Session | None, memories: tuple[object, ...]) -> None:
        self._undo = Undo()
        try:
            self._memories = Memories(session, memories, type(self).__name__.lower(), self._undo)
            self._prepare()
            self._process = lib.dt_address_space()
            self._lock = threading.RLock()
            self._in_turn = False
        except BaseException:
            self._undo.close()
            raise
        self._closed = False

    @abstractmethod
    def _prepare(self) -> None:
        """Makes what it keeps; the memory is tracked."""

    @abstractmethod
    def _forget(self) -> None:
        """Frees what it keeps."""

    @property
    def regions(self) -> tuple[Region, ...]:
        """What it is of, in the order given."""
        return self._memories.regions

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._closed

    def close(self) -> None:
        """Gives up what it keeps, and ends the tracking that it began; idempotent. Memory stays as it is.

        In a forked child it only closes the child's copy of a descriptor.
        """
        if self._closed:
            return
        if lib.dt_is_address_space(self._process):
            self._close()
        else:
            self._closed = True
            self._memories.close_maps()

    @in_turn
    def _close(self) -> None:
        if not self._closed:
            self._undo.close()
            self._closed = True
            self._forget()

    def __del__(self) -> None:
        if self._closed:
            return
        if lib.dt_is_address_space(self._process) and not self._memories.session.closed:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=2)
        self.close()

    @property
    def _mutex(self) -> threading.RLock:
        # In a forked child it may be locked for ever.
        if not lib.dt_is_address_space(self._process):
            raise ForkedError(f"{self!r} belongs to another process: make one here")
        return self._lock

    def _check(self) -> None:
        if self._closed:
            raise ClosedError(f"{self!r} is closed: make another one")
