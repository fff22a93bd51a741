"""The C core: ``lib`` holds its functions, ``ffi`` its types. Private; ``_core.pyi`` is its typed contract."""

from dirtytrack.native._core import ffi, lib

__all__ = ["ffi", "lib"]
