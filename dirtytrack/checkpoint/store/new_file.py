"""A file on its way into a directory, by calls that are made together."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from dirtytrack.checkpoint.store.descriptors import with_room
from dirtytrack.checkpoint.store.protocol import Condition
from dirtytrack.checkpoint.store.system import Folder, check, not_synced
from dirtytrack.native import ffi, lib

if TYPE_CHECKING:
    from typing_extensions import Buffer

_WRITEBACK = 1 << 24  # bytes after which the disk is to begin
_BLOCK = 4096  # bytes, of a batch


class DirectoryNewFile:
    """See `NewFile`. It is there once something is written, with a temporary name until it is published."""

    is_fixed = False

    def __init__(self, folder: Folder, name: str, fsync: bool) -> None:
        """Makes nothing yet; the *name* is the temporary one."""
        self._folder, self._name, self._fsync = folder, name, fsync
        self._fd: Any = ffi.new("int *", -1)  # which native code sets, so that no interrupt comes in between
        self._waiting = 0  # bytes that the disk has not been asked for yet, at most
        self._is_published = False

    def write(self, offset: int, buffers: Sequence[Buffer]) -> int:
        """See `NewFile`."""
        placed, start = [], offset
        for buffer in buffers:
            placed.append((offset, buffer))
            offset += memoryview(buffer).nbytes
        with ExitStack() as held:
            self._write([_write(_pieces(placed, held))], offset - start)
        return offset

    def write_batch(self, pack: Any, batch: Any) -> None:
        """See `NewFile`."""
        packing = {"act": lib.DT_PACK, "pack": pack, "batch": batch}
        self._write([packing, {"act": lib.DT_WRITE_PACKED, "pack": pack}], batch.blocks * _BLOCK)

    def publish(
        self,
        name: str,
        last: Sequence[tuple[int, Buffer]] = (),
        condition: Condition | None = None,
        footing: Sequence[str] | None = (),
    ) -> None:
        """See `NewFile`."""
        ends = [ffi.new("char[]", one.encode()) for one in (self._name, name)]
        claim = None if condition is None else condition.claim.native(condition.names)
        if condition is not None and claim is None:
            condition.check()
        calls: list[dict[str, Any]] = []
        with ExitStack() as held:
            if claim is not None:
                calls.append({"act": lib.DT_CLAIM, "claim": claim.question})
            if last:
                calls.append(_write(_pieces(last, held)))
            if self._fsync:
                calls.append({"act": lib.DT_FSYNC})
            calls.append({"act": lib.DT_CLOSE})  # where some say at last what they could not write
            calls.append({"act": lib.DT_RENAME, "name": ends[0], "new_name": ends[1]})
            if self._fsync:
                calls.append({"act": lib.DT_SYNC_DIRECTORY})
            error, left = self._make(calls)
            if condition is not None and left and left[0]["act"] == lib.DT_CLAIM:
                condition.otherwise()
                error, left = self._make(left[1:])
        if all(call["act"] != lib.DT_RENAME for call in left):
            self._name = name
        with self._folder.naming(name):
            if left and left[0]["act"] == lib.DT_FSYNC:
                raise not_synced(-error)
            check(error)
        self._is_published = True

    def discard(self) -> None:
        """See `NewFile`."""
        if not self._is_published:
            with suppress(OSError):
                self._close()
            with suppress(OSError):
                self._folder.unlink(self._name)

    def __del__(self, is_exiting: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_exiting():  # then modules are empty
            with suppress(OSError):
                self._close()

    def _close(self) -> None:
        fd, self._fd[0] = self._fd[0], -1
        if fd >= 0:
            os.close(fd)

    def _write(self, calls: list[dict[str, Any]], nbytes: int) -> None:
        self._waiting += nbytes
        if self._fsync and self._waiting >= _WRITEBACK:  # so that the sync has less to wait for
            self._waiting = 0
            calls.append({"act": lib.DT_WRITEBACK})
        error, left = self._make(calls)
        if error and left[0]["act"] == lib.DT_PACK:
            raise MemoryError
        with self._folder.naming(self._name):
            check(error)

    def _make(self, calls: list[dict[str, Any]]) -> tuple[int, list[dict[str, Any]]]:
        # One entry into native code, since each costs 5 ms beside a thread that computes. -errno of the call
        # that failed, or 0; and the calls that are left, that one the first.
        if self._fd[0] < 0:
            made = ffi.new("char[]", self._name.encode())
            calls = [{"act": lib.DT_CREATE, "name": made}, *calls]
        error, left = self._enter(calls)
        if error == -errno.EMFILE and left[0]["act"] == lib.DT_CREATE:
            with self._folder.naming(self._name):
                with_room(lambda: check(self._enter(left[:1])[0]))
            error, left = self._enter(left[1:])
        return error, left

    def _enter(self, calls: list[dict[str, Any]]) -> tuple[int, list[dict[str, Any]]]:
        shared = {"directory": self._folder.fd, "file": self._fd}
        native: Any = ffi.new("struct dt_file_call[]", [{**shared, **call} for call in calls])
        done: Any = ffi.new("size_t *")
        error = lib.dt_file_calls(native, len(calls), done)
        return error, calls[done[0] :]


def _pieces(placed: Sequence[tuple[int, Buffer]], held: ExitStack) -> Any:
    # As native ones, until what is held ends: not the garbage collector, which may not let go of memoryviews.
    pieces: Any = ffi.new("struct dt_write[]", len(placed))
    for piece, (offset, buffer) in zip(pieces, placed, strict=True):
        data: Any = held.enter_context(ffi.from_buffer("uint8_t[]", buffer))
        piece.offset, piece.bytes, piece.data = offset, len(data), data
    return pieces


def _write(pieces: Any) -> dict[str, Any]:
    return {"act": lib.DT_WRITE, "pieces": pieces, "count": len(pieces)}
