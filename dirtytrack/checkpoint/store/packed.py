"""What native code packs, and how it comes into files without a descriptor that it could write to."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dirtytrack.native import ffi, lib

if TYPE_CHECKING:
    from typing_extensions import Buffer

Write = Callable[[int, Sequence["Buffer"]], object]  # `NewFile.write`


class Ending(NamedTuple):
    """What a file gets at last, before its name.

    Attributes:
        pack: the ``struct dt_pack`` of what it has.
        batches: each a ``struct dt_captured``, that it does not have yet.
        native: a ``struct dt_ending``.
        kept: what that refers to.
    """

    pack: Any
    batches: Sequence[Any]
    native: Any
    kept: object

    def write_batches(self, write: Write) -> None:
        """Packs the batches, and writes them by `NewFile.write`.

        Raises:
            MemoryError: there is none for them.
        """
        for batch in self.batches:
            write_packed(self.pack, batch, write)

    def write_end(self, write: Write) -> int:
        """Writes all else; how many bytes at the end of the file are no segments.

        Raises:
            MemoryError: there is none for it.
            OSError: not all segments were stored.
        """
        error = lib.dt_pack_end(self.pack, self.native)
        if error:
            raise MemoryError if error == -errno.ENOMEM else OSError(-error, os.strerror(-error))
        _write(self.pack, write)
        return int(self.pack.writes[0].bytes)


def write_packed(pack: Any, batch: Any, write: Write) -> None:
    """Packs a batch, and writes what came of it by `NewFile.write`.

    Raises:
        MemoryError: there is none for the segments.
    """
    if lib.dt_pack_add(pack, batch):
        raise MemoryError
    _write(pack, write)


def write_placed(pack: Any, first: int, stop: int, write: Write) -> None:
    """Places the segments from *first* to *stop*, and writes them by `NewFile.write`.

    Raises:
        MemoryError: there is none for the list of writes.
    """
    if lib.dt_pack_place(pack, first, stop):
        raise MemoryError
    _write(pack, write)


def _write(pack: Any, write: Write) -> None:
    for piece in pack.writes[0 : pack.write_count]:
        write(piece.offset, [ffi.buffer(piece.data, piece.bytes)])
