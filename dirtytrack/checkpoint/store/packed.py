"""What is packed by native code, for files that have no descriptor which it could write to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dirtytrack.native import ffi, lib

if TYPE_CHECKING:
    from typing_extensions import Buffer


def write_packed(pack: Any, batch: Any, write: Callable[[int, Sequence[Buffer]], object]) -> None:
    """Packs a batch, and writes what came of it by `NewFile.write`.

    Raises:
        MemoryError: there is none for the segments.
    """
    if lib.dt_pack_add(pack, batch):
        raise MemoryError
    for piece in pack.writes[0 : pack.write_count]:
        write(piece.offset, [ffi.buffer(piece.data, piece.bytes)])
