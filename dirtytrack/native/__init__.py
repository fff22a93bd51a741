"""The C core, private: ``lib`` has its functions, ``ffi`` its types; ``_core.pyi`` is the typed contract."""

from dirtytrack.native._core import ffi, lib

__all__ = ["ffi", "lib"]
