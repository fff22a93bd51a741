"""What a snapshot and a history have in common: memory that is tracked until they are closed."""

from __future__ import annotations

import itertools
import threading
from abc import abstractmethod

from dirtytrack._lifetime.closable import Owner
from dirtytrack._lifetime.handle import Handle
from dirtytrack._lifetime.turns import in_turn
from dirtytrack._lifetime.undo import Undo
from dirtytrack.errors import ClosedError, ForkedError
from dirtytrack.kernel.proc import open_proc
from dirtytrack.native import lib
from dirtytrack.objects import describe, is_module, tensors_of
from dirtytrack.tracking import Region, Session, open_consumer, refuse_overlaps, track_many

_serial = itertools.count(1)


class TrackedSet(Handle, Owner):
    """Regions with a consumer of their own. A context manager, which closes it. Its methods take turns."""

    def __init__(self, session: Session | None, memories: tuple[object, ...]) -> None:
        """Tracks what is not tracked yet.

        Raises:
            TypeError, ValueError: no memory, two pieces of one name or that overlap, or as `Session.track`.
            ClosedError, ForkedError, KernelError: as `Session.track`.
        """
        named = _named(memories)
        self._begun = self._undo = Undo()
        try:
            self._track(named, session)
            self._prepare()
            self._process = lib.dt_address_space()
            self._lock = threading.RLock()
            self._in_turn = self._is_ending = False
        except BaseException:
            self._undo.close()
            raise
        self._begun, self._closed = None, False

    @abstractmethod
    def _prepare(self) -> None:
        """Makes what it keeps; the memory is tracked."""

    @abstractmethod
    def _forget(self) -> None:
        """Frees what it keeps."""

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions, in the order in which they were given."""
        return self._consumer.regions

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._closed

    def close(self) -> None:
        """Gives up what it keeps, and ends the tracking that it began; idempotent. Memory stays as it is.

        In a forked child it only closes the child's copy of a descriptor. Called in the middle of another
        method by the handler of a signal, it takes effect when that returns.
        """
        if self._closed:
            return
        if lib.dt_is_address_space(self._process):
            self._close()  # asked for here, and done when no other method is running
        else:
            self._closed = True
            self._maps.close()

    @in_turn
    def _close(self) -> None:
        self._is_ending = True

    def _end(self) -> None:
        if not self._closed:
            self._undo.close()
            self._closed = True
            self._forget()

    def _is_forgotten(self) -> bool:
        return lib.dt_is_address_space(self._process) == 1 and not self._session.closed

    @property
    def _mutex(self) -> threading.RLock:
        # In a forked child it may be locked for ever.
        if not lib.dt_is_address_space(self._process):
            raise ForkedError(f"{self!r} belongs to another process: make one here")
        return self._lock

    def _check(self) -> None:
        if self._closed:
            raise ClosedError(f"{self!r} is closed: make another one")

    def _track(self, memories: dict[str, object], session: Session | None) -> None:
        self._session, regions = track_many(memories, session, self._undo)
        refuse_overlaps((one.address, one.nbytes, name) for name, one in regions.items())
        pages = sorted(region.page_range for region in regions.values())
        self._apart = all(stop <= start for (_, stop), (start, _) in itertools.pairwise(pages))
        self._sizes = {name: region.nbytes for name, region in regions.items()}
        tracked = tuple(regions.values())
        name = f"{type(self).__name__.lower()} {next(_serial)}"
        self._consumer = open_consumer(self._session, name, tracked, self._undo)
        self._maps = open_proc("maps")  # by which native calls ask what may be touched
        self._undo.callback(self._maps.close)


def _named(memories: tuple[object, ...]) -> dict[str, object]:
    if not memories:
        raise ValueError("there is no memory: give at least one piece")
    named: dict[str, object] = {}
    for place, memory in enumerate(memories):
        if is_module(memory):
            parts = tensors_of(memory)
            for name, tensor in parts.items():
                _refuse(name, tensor)
        else:
            parts = {(isinstance(memory, Region) and memory.name) or str(place): memory}
        for name, part in parts.items():
            if name in named:
                raise ValueError(f"two regions are called {name!r}: track them under names of their own")
            named[name] = part
    if not named:
        raise ValueError("the module has no tensor with elements: there is no memory")
    return named


def _refuse(name: str, tensor: object) -> None:
    try:
        describe(tensor)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None
