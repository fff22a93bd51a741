"""Ways to find written pages, behind one Protocol."""

from __future__ import annotations

from typing import Any, Protocol

from dirtytrack.kernel.mappings import Mapping
from dirtytrack.tracking.backends.wp_async import WpAsync
from dirtytrack.tracking.blindspots import BlindSpot


class Backend(Protocol):
    """What a session needs to know of its way to find written pages.

    The loops are native: a backend opens a tracker that has its scan built in, and answers for what that scan
    can't see.

    Attributes:
        name: as given to ``Session(backend=...)``.
    """

    name: str

    def open(self) -> tuple[Any, int]:
        """A new native tracker, with the identifier of its default cursor.

        Raises:
            UnsupportedError: this backend can't work here; the message says why and what to do.
        """

    def blind_spots(self, mapping: Mapping, *, sparse: bool) -> frozenset[BlindSpot]:
        """The kinds of change that memory of such a mapping can suffer unseen."""


_BACKENDS: dict[str, type[Backend]] = {"wp-async": WpAsync}


def find(name: str) -> Backend:
    """The backend of that name; a ValueError names those that exist."""
    try:
        return _BACKENDS[name]()
    except KeyError:
        raise ValueError(f"no backend {name!r}: choose one of {', '.join(sorted(_BACKENDS))}") from None
