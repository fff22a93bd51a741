"""A file on its way into a bucket: what is written is sent while the rest is still to come."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from dirtytrack._lifetime.background import Background
from dirtytrack.checkpoint.store.bucket import Bucket, retried
from dirtytrack.checkpoint.store.packed import Ending, write_packed, write_placed
from dirtytrack.checkpoint.store.protocol import Condition
from dirtytrack.native import ffi

if TYPE_CHECKING:
    from typing_extensions import Buffer

PART_BYTES = 1 << 23  # of an upload in parts
_WHOLE = 2  # parts, of which what is no longer is sent by one request
_MOST_PARTS = 9000  # the services allow 10,000
_WAITING = 2  # parts that are complete and not taken yet

Published = Callable[[str, int, int, Sequence[str] | None], None]  # name, bytes, of these the last, footing


class _DiscardedError(Exception):
    """Makes an upload end, and be taken back."""


class Upload:
    """See `NewFile`. Memory for a few parts is all that it takes, however long the file becomes.

    Attributes:
        name: of the file.
    """

    def __init__(
        self, bucket: Bucket, folder: str, name: str, first: bytes, most: int, publish: Published
    ) -> None:
        """Begins it, as `Store.create` says.

        Args:
            bucket: where.
            folder: what the key of the object has before the file's name.
            name: of the file, unless `publish` says another one in time.
            first: bytes that it begins with, the same.
            most: bytes that it will hold at most, about: parts grow with them.
            publish: is called once the object is there.
        """
        self.name = name
        self._bucket, self._folder, self._first = bucket, folder, first
        self._published = publish
        self._part_bytes = max(PART_BYTES, -(-most // _MOST_PARTS))
        self._part, self._sent = bytearray(first), 0
        self._parts: SimpleQueue[bytearray | None] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()
        for _ in range(_WAITING):
            self._room.put(None)
        self._thread = Background("dirtytrack upload")
        self._failure: Exception | None = None
        self._is_begun = self._is_discarded = False

    @property
    def is_fixed(self) -> bool:
        """See `NewFile`."""
        return self._is_begun

    def write(self, offset: int, buffers: Sequence[Buffer]) -> int:
        """See `NewFile`."""
        for buffer in buffers:
            with memoryview(buffer) as view, view.cast("B") as data:
                self._write(offset, data)
                offset += len(data)
        return offset

    def write_segments(self, pack: Any, first: int, stop: int) -> None:
        """See `NewFile`."""
        write_placed(pack, first, stop, self.write)

    def write_batch(self, pack: Any, batch: Any) -> None:
        """See `NewFile`."""
        write_packed(pack, batch, self.write)

    def prepare(self, name: str, ending: Ending, condition: Condition, revoked: Any) -> Any:
        """See `NewFile`."""
        return ffi.NULL

    def publish(
        self,
        name: str,
        ending: Ending | None = None,
        condition: Condition | None = None,
        footing: Sequence[str] | None = (),
    ) -> None:
        """See `NewFile`."""
        if ending is not None:
            ending.write_batches(self.write)
        if condition is not None:
            condition.check()
        tail = 0 if ending is None else ending.write_end(self.write)
        nbytes = self._nbytes
        if not self._is_begun:
            self.name = name
        elif self.name != name:
            raise OSError(errno.EINVAL, f"it is on its way as {self.name}", self._place)
        self._send_rest(nbytes)
        self._published(name, nbytes, tail, footing)

    def discard(self) -> None:
        """See `NewFile`. An object that is there as a whole stays, until it is found to be garbage."""
        self._is_discarded = True
        self._parts.put(None)
        self._thread.stop()

    @property
    def _nbytes(self) -> int:
        return self._sent + len(self._part)

    @property
    def _key(self) -> str:
        return f"{self._folder}{self.name}"

    @property
    def _place(self) -> str:
        return f"{self._bucket.place}/{self._key}"

    def _write(self, offset: int, data: memoryview) -> None:
        if offset < len(self._first):
            self._write_first(offset, data)
            return
        if offset < self._nbytes:
            raise OSError(errno.EINVAL, f"{offset} was written already", self._place)
        gap = offset - self._nbytes
        while gap:
            gap -= self._add(memoryview(bytes(min(gap, self._part_bytes))))
        done = 0
        while done < len(data):
            done += self._add(data[done:])

    def _write_first(self, offset: int, data: memoryview) -> None:
        stop = offset + len(data)
        if stop > len(self._first) or (self._is_begun and self._first[offset:stop] != data):
            raise OSError(errno.EINVAL, "its first bytes are on their way already", self._place)
        if not self._is_begun:
            self._part[offset:stop] = data

    def _add(self, data: memoryview) -> int:
        # Some of it, up to the end of a part. A part that is full is sent when there is more to come.
        most = self._part_bytes * (1 if self._is_begun else _WHOLE)
        if len(self._part) == most:
            self._send()
            most = self._part_bytes
        count = min(len(data), most - len(self._part))
        self._part += data[:count]
        return count

    def _send(self) -> None:
        if not self._is_begun:
            try:
                self._thread.start()
            except RuntimeError as error:
                raise OSError(errno.EAGAIN, str(error), self._place) from error
            self._thread.put(self._run)
            self._is_begun = True
        self._room.get()
        if self._failure is not None:
            self._room.put(None)
            raise self._failure
        self._sent += len(self._part)
        self._parts.put(self._part)
        self._part = bytearray()

    def _send_rest(self, nbytes: int) -> None:
        try:
            if not self._is_begun:
                self._bucket.put(self._key, self._part)
            else:
                self._send()
                self._parts.put(None)
                self._thread.stop()
                if self._failure is not None:
                    raise self._failure
        except OSError as error:
            if not self._arrived(nbytes):  # the name is nobody else's, so what is there is this
                raise error

    def _arrived(self, nbytes: int) -> bool:
        # Whether it is there although the answer was lost.
        try:
            return bool(retried(lambda: self._bucket.size(self._key)) == nbytes)
        except OSError:
            return False

    def _run(self) -> None:
        try:
            self._bucket.upload(self._key, self._coming(), self._part_bytes)
        except Exception as error:
            self._failure = error if isinstance(error, OSError) else _unforeseen(error, self._place)
        finally:
            self._room.put(None)  # somebody may be waiting

    def _coming(self) -> Iterator[bytearray]:
        while (part := self._parts.get()) is not None:
            self._room.put(None)
            yield part
        if self._is_discarded:
            raise _DiscardedError


def _unforeseen(error: Exception, place: str) -> OSError:
    failure = OSError(errno.EIO, repr(error) or os.strerror(errno.EIO), place)
    failure.__cause__ = error
    return failure
