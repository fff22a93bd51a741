"""Ways to find written pages, behind one Protocol."""

from __future__ import annotations

import os
from typing import Any, Protocol

from dirtytrack.kernel.mappings import Mapping
from dirtytrack.kernel.support import support
from dirtytrack.tracking.backends.compare import Compare
from dirtytrack.tracking.backends.wp_async import WpAsync
from dirtytrack.tracking.blindspots import BlindSpot

__all__ = ["Backend", "find"]

_VARIABLE = "DIRTYTRACK_BACKEND"


class Backend(Protocol):
    """A way to find written pages, as a session needs to know it.

    The loops are native: a backend opens what its scan works on, and answers for what that scan can't see.

    Attributes:
        name: as given to ``Session(backend=...)``.
        registers: whether it registers memory with a userfaultfd. A page can then be tracked by one session
            only, hot pages can be left open, and cold memory goes back on huge pages.
        sees_every_store: whether a store is found also if the page has its old contents again.
    """

    name: str
    registers: bool
    sees_every_store: bool

    def open(self, opening: Any) -> None:
        """Opens a session in a native ``struct dt_opening``, whose end closes it.

        Raises:
            UnsupportedError: this backend can't work here; the message says why and what to do.
            KernelError: a limit was hit.
        """

    def blind_spots(self, mapping: Mapping, /, *, sparse: bool) -> frozenset[BlindSpot]:
        """Returns the kinds of change that memory of such a mapping can suffer unseen."""


_BACKENDS: dict[str, type[Backend]] = {"wp-async": WpAsync, "compare": Compare}


def find(name: str) -> tuple[Backend, str]:
    """Returns the backend of a name, and why it is that one.

    Raises:
        ValueError: there is no such backend; the message names those that there are.
    """
    forced = os.environ.get(_VARIABLE)
    reason = f"{_VARIABLE} asks for it" if forced else "asked for"
    if (forced or name) == "auto":
        return _choose()
    try:
        return _BACKENDS[forced or name](), reason
    except (KeyError, TypeError):
        names = ", ".join(sorted([*_BACKENDS, "auto"]))
        told = f" ({_VARIABLE})" if forced else ""
        raise ValueError(f"no backend {forced or name!r}{told}: choose one of {names}") from None


def _choose() -> tuple[Backend, str]:
    # A limit that was hit is no reason to be slow for ever: there wp-async fails, and says so.
    try:
        found = support()
    except (OSError, ImportError) as error:  # not even its modules can be read
        return WpAsync(), f"nothing could be tried: {error}"
    if found.works:
        return WpAsync(), "works here"
    if found.cause == "resources":
        return WpAsync(), found.remedy
    return Compare(), f"wp-async can't work here ({found.cause}). {found.remedy}"
