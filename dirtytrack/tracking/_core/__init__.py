"""The seam to the native session: nothing else in Python names its functions.

A `Tracker` is what a session tracks with. A `Consumer` is a cursor of it, and the one way to make a native
call that looks at tracked memory. A `NativeEpoch` is what such a call takes. `Session`, `Cursor` and `Epoch`
are what users see of them. The packages above import them from `dirtytrack.tracking`.
"""

from dirtytrack.tracking._core.consumer import Consumer
from dirtytrack.tracking._core.native_epoch import NativeEpoch
from dirtytrack.tracking._core.tracker import Tracker

__all__ = ["Consumer", "NativeEpoch", "Tracker"]
