"""A file that is an object, read by ranges."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from dirtytrack.checkpoint.store.protocol import FileRemovedError, UnreadableError
from dirtytrack.checkpoint.store.ranges import Range, Ranges
from dirtytrack.native import ffi, lib

_HEAD = 128  # bytes of a file that are read with its end
_TAIL = 1 << 16  # bytes of its end, where a commit does not say how many count
_MOST_TAIL = 1 << 23
_WHOLE = 1 << 18  # bytes of a file that is read by one request
_REMOVED = (
    "it was removed, by a compaction perhaps, and the grace period of that is over: open the chain again"
)


class ObjectFile:
    """See `StoredFile`."""

    def __init__(self, ranges: Ranges, place: str, key: str, nbytes: int) -> None:
        """Opens an object of so many bytes."""
        self.nbytes = nbytes
        self._ranges, self._place, self._key = ranges, place, key

    def expect(self, spans: Iterable[tuple[int, int]]) -> None:
        """See `StoredFile`."""
        self._ranges.expect(Range(self._key, start, stop) for start, stop in spans)

    def read_into(self, offset: int, buffers: Sequence[memoryview], checksum: Any = None) -> None:
        """See `StoredFile`."""
        for buffer in buffers:
            try:
                count = self._ranges.read_into(self._key, offset, buffer)
            except FileNotFoundError as error:
                raise FileRemovedError(errno.ENOENT, _REMOVED, self._place) from error
            if count < len(buffer):
                raise UnreadableError("its length has changed")
            if checksum is not None:
                lib.dt_checksum_add(checksum, ffi.from_buffer("uint8_t[]", buffer), count)
            offset += count

    def skip_hole(self, start: int, stop: int) -> int:
        """See `StoredFile`."""
        return min(start, stop)

    def map(self, offset: int, nbytes: int) -> NoReturn:
        """See `StoredFile`."""
        raise OSError(errno.ENODEV, "an object can't be mapped: load it with lazy=False", self._place)

    def close(self) -> None:
        """See `StoredFile`."""
        self._ranges.forget(self._key)


def opening(key: str, nbytes: int, tail: int) -> list[Range]:
    """What is read of a file when it is opened: all of it, or its ends.

    Args:
        key: of the object.
        nbytes: its length.
        tail: bytes at its end that are needed; 0: not known.
    """
    tail = min(tail or _TAIL, _MOST_TAIL)
    if nbytes <= _WHOLE or nbytes <= _HEAD + tail:
        return [Range(key, 0, nbytes)]
    return [Range(key, 0, _HEAD), Range(key, nbytes - tail, nbytes)]
