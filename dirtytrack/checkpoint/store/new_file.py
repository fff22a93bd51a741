"""A file on its way into a directory, by calls that are made together."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from dirtytrack.checkpoint.store.descriptors import with_room
from dirtytrack.checkpoint.store.packed import Ending
from dirtytrack.checkpoint.store.protocol import Condition, NativeClaim
from dirtytrack.checkpoint.store.system import Folder, check, not_synced
from dirtytrack.native import ffi, lib

if TYPE_CHECKING:
    from typing_extensions import Buffer

_WRITEBACK = 1 << 24  # bytes after which the disk is to begin
_BLOCK = 4096  # bytes, of a batch


class DirectoryNewFile:
    """See `NewFile`. It is there once something is written, with a temporary name until it is published."""

    is_fixed = False
    _fd: Any = None

    def __init__(self, folder: Folder, name: str, fsync: bool) -> None:
        """Makes nothing yet; the *name* is the temporary one."""
        self._folder, self._name, self._fsync = folder, name, fsync
        self._fd: Any = ffi.new("int *", -1)  # which native code sets, so that no interrupt comes in between
        self._waiting = 0  # bytes that the disk has not been asked for yet, at most
        self._is_published = False
        self._prepared: _Prepared | None = None

    def write(self, offset: int, buffers: Sequence[Buffer]) -> int:
        """See `NewFile`."""
        placed, start = [], offset
        for buffer in buffers:
            placed.append((offset, buffer))
            offset += memoryview(buffer).nbytes
        with ExitStack() as held:
            self._write([_write(_pieces(placed, held))], offset - start)
        return offset

    def write_segments(self, pack: Any, first: int, stop: int) -> None:
        """See `NewFile`."""
        nbytes = sum(segment.length for segment in pack.segments[first:stop])
        place = {"act": lib.DT_PACK_PLACE, "pack": pack, "first": first, "stop": stop}
        self._write([place, {"act": lib.DT_WRITE_PACKED, "pack": pack}], nbytes)

    def write_batch(self, pack: Any, batch: Any) -> None:
        """See `NewFile`."""
        self._write(_pack(pack, batch), batch.blocks * _BLOCK)

    def prepare(self, name: str, ending: Ending, condition: Condition, revoked: Any) -> Any:
        """See `NewFile`."""
        claim = condition.claim.native(condition.names)
        if claim is None:
            return ffi.NULL
        calls = self._created([*_packing(ending), *self._last_calls(name, ending, claim)])
        native, count = self._native(calls), len(calls)
        errand: Any = ffi.new("struct dt_errand *", {"calls": native, "count": count, "revoked": revoked})
        self._prepared = _Prepared(name, errand, calls, (native, revoked, ending, claim))
        return errand

    def publish(
        self,
        name: str,
        ending: Ending | None = None,
        condition: Condition | None = None,
        footing: Sequence[str] | None = (),
    ) -> None:
        """See `NewFile`. All of it is one entry into native code, if that can ask for the condition."""
        if self._prepared is not None:
            error, left = self._with_room(*self._prepared.run())
        else:
            claim = None if condition is None else condition.claim.native(condition.names)
            packing = [] if ending is None else _packing(ending)
            if condition is not None and claim is None:
                if packing:
                    self._write(packing, 0)
                packing = []
                condition.check()
            error, left = self._make([*packing, *self._last_calls(name, ending, claim)])
        if condition is not None and left and left[0]["act"] == lib.DT_CLAIM:
            condition.otherwise()
            error, left = self._make(left[1:])
        _check_memory(error, left)
        if not _is_to_be_named(left):
            self._name = name
        with self._folder.naming(name):
            if left and left[0]["act"] == lib.DT_FSYNC:
                raise not_synced(-error)
            check(error)
        self._is_published = True

    def discard(self) -> None:
        """See `NewFile`."""
        if not self._is_published:
            prepared = self._prepared
            if prepared is not None and not _is_to_be_named(prepared.left):  # what failed came after that
                self._name = prepared.name
            with suppress(OSError):
                self._close()
            with suppress(OSError):
                self._folder.unlink(self._name)

    def __del__(self, is_exiting: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_exiting():  # then modules are empty
            with suppress(OSError):
                self._close()

    def _close(self) -> None:
        if self._fd is None:  # an interrupt came first
            return
        fd, self._fd[0] = self._fd[0], -1
        if fd >= 0:
            os.close(fd)

    def _write(self, calls: list[dict[str, Any]], nbytes: int) -> None:
        self._waiting += nbytes
        if self._fsync and self._waiting >= _WRITEBACK:  # so that the sync has less to wait for
            self._waiting = 0
            calls.append({"act": lib.DT_WRITEBACK})
        error, left = self._make(calls)
        _check_memory(error, left)
        with self._folder.naming(self._name):
            check(error)

    def _last_calls(
        self, name: str, ending: Ending | None, claim: NativeClaim | None
    ) -> list[dict[str, Any]]:
        # From the condition to the name.
        calls: list[dict[str, Any]] = []
        if claim is not None:
            calls.append({"act": lib.DT_CLAIM, "claim": claim.question})
        if ending is not None:
            calls.append({"act": lib.DT_PACK_END, "pack": ending.pack, "ending": ending.native})
            calls.append({"act": lib.DT_WRITE_PACKED, "pack": ending.pack})
        if self._fsync:
            calls.append({"act": lib.DT_FSYNC})
        calls.append({"act": lib.DT_CLOSE})  # where some say at last what they could not write
        old, new = (ffi.new("char[]", one.encode()) for one in (self._name, name))
        calls.append({"act": lib.DT_RENAME, "name": old, "new_name": new})
        if self._fsync:
            calls.append({"act": lib.DT_SYNC_DIRECTORY})
        return calls

    def _created(self, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
        # The file is made by its first calls.
        if self._fd[0] >= 0:
            return calls
        return [{"act": lib.DT_CREATE, "name": ffi.new("char[]", self._name.encode())}, *calls]

    def _make(self, calls: list[dict[str, Any]]) -> tuple[int, list[dict[str, Any]]]:
        # One entry into native code, since each costs 5 ms beside a thread that computes. -errno of the call
        # that failed, or 0; and the calls that are left, that one the first.
        return self._with_room(*self._enter(self._created(calls)))

    def _with_room(self, error: int, left: list[dict[str, Any]]) -> tuple[int, list[dict[str, Any]]]:
        # The same once more, where there was no descriptor for the file.
        if error == -errno.EMFILE and left[0]["act"] == lib.DT_CREATE:
            with self._folder.naming(self._name):
                with_room(lambda: check(self._enter(left[:1])[0]))
            error, left = self._enter(left[1:])
        return error, left

    def _enter(self, calls: list[dict[str, Any]]) -> tuple[int, list[dict[str, Any]]]:
        done: Any = ffi.new("size_t *")
        error = lib.dt_file_calls(self._native(calls), len(calls), done)
        return error, calls[done[0] :]

    def _native(self, calls: list[dict[str, Any]]) -> Any:
        shared = {"directory": self._folder.fd, "file": self._fd}
        return ffi.new("struct dt_file_call[]", [{**shared, **call} for call in calls])


class _Prepared(NamedTuple):
    # Calls that are about to be made, or were, the file's name among them.
    name: str
    errand: Any
    calls: list[dict[str, Any]]
    kept: object

    def run(self) -> tuple[int, list[dict[str, Any]]]:
        error = lib.dt_errand_run(self.errand)
        return error, self.left

    @property
    def left(self) -> list[dict[str, Any]]:
        return self.calls[self.errand.made :]


def _packing(ending: Ending) -> list[dict[str, Any]]:
    return [call for batch in ending.batches for call in _pack(ending.pack, batch)]


def _pack(pack: Any, batch: Any) -> list[dict[str, Any]]:
    packing = {"act": lib.DT_PACK, "pack": pack, "batch": batch}
    return [packing, {"act": lib.DT_WRITE_PACKED, "pack": pack}]


def _is_to_be_named(left: Sequence[dict[str, Any]]) -> bool:
    return any(call["act"] == lib.DT_RENAME for call in left)


def _check_memory(error: int, left: Sequence[dict[str, Any]]) -> None:
    # What packing fails for, unless it writes.
    if error == -errno.ENOMEM and left[0]["act"] in (lib.DT_PACK, lib.DT_PACK_PLACE, lib.DT_PACK_END):
        raise MemoryError


def _pieces(placed: Sequence[tuple[int, Buffer]], held: ExitStack) -> Any:
    # As native ones, until what is held ends: not the garbage collector, which may not let go of memoryviews.
    pieces: Any = ffi.new("struct dt_write[]", len(placed))
    for piece, (offset, buffer) in zip(pieces, placed, strict=True):
        data: Any = held.enter_context(ffi.from_buffer("uint8_t[]", buffer))
        piece.offset, piece.bytes, piece.data = offset, len(data), data
    return pieces


def _write(pieces: Any) -> dict[str, Any]:
    return {"act": lib.DT_WRITE, "pieces": pieces, "count": len(pieces)}
