"""The C core, private: ``lib`` has its functions, ``ffi`` its types; ``_core.pyi`` is the typed contract.

A function that stands beside them is a call so short that cffi would take as long (``binding/fastcall.h``).

It knows no Python and no policy. Its folders, of which each includes only from those above it in this list:

- ``base``: memory of its own, run lists, bitmaps, where the bytes of a region lie, the clock.
- ``kernel``: userfaultfd, PAGEMAP_SCAN and what only a try tells of this kernel; one thin function a call.
- ``core``: a session: its lock, regions, cursors and what they have pending; the scan, collecting, epochs.
- ``backends``: how written pages are found: by asynchronous write-protection, adaptively, by comparing.
- ``snapshot``, ``checkpoint``, ``barrier``: the loops of those packages, which do not know each other.
- ``binding``: how it is built, and what of it Python sees.

``include`` has the interface for native runtimes, which take everything but the snapshots, the checkpoints
and the binding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dirtytrack.native._core import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["cards_look", "ffi", "lib"]

cards_look: Callable[[int, int, int, int, object], int]
if lib.dt_add_fastcalls(id(globals())):
    raise MemoryError("no memory for the functions of the C core")
