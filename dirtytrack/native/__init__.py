"""The C core, private: ``lib`` has its functions, ``ffi`` its types; ``_core.pyi`` is the typed contract.

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

from dirtytrack.native._core import ffi, lib

__all__ = ["ffi", "lib"]
