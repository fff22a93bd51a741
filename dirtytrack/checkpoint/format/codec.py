"""Checksums and codecs, by libraries: xxhash, and zstd (Python's own where it has it)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from dirtytrack._zstd import Bytes, Compressor, zstd
from dirtytrack._zstd import Zstd as Library
from dirtytrack.native import ffi, lib

if TYPE_CHECKING:
    from typing_extensions import Buffer

_EXTRA = 'pip install "dirtytrack[checkpoint]"'

try:
    import xxhash
except ImportError as error:
    raise ImportError(f"checkpoints need xxhash: {_EXTRA}") from error

checksum: Callable[[Buffer], int] = xxhash.xxh3_64_intdigest


class RunningChecksum:
    """The same of bytes that come piece by piece, some of them from native code.

    Attributes:
        native: a ``struct dt_checksum``.
    """

    def __init__(self) -> None:
        """Of nothing so far."""
        self.native: Any = ffi.new("struct dt_checksum *")
        lib.dt_checksum_begin(self.native)

    def update(self, data: Buffer) -> None:
        """Adds bytes."""
        with ffi.from_buffer("uint8_t[]", data) as piece:
            lib.dt_checksum_add(self.native, piece, len(piece))

    def value(self) -> int:
        """Of what was added so far."""
        return int(lib.dt_checksum_value(self.native))


class Codec(Protocol):
    """A way to store a segment in fewer bytes than it has.

    Attributes:
        name: as ``compression=`` has it.
        encoding: its number in the index, as ``docs/format.md`` has it.
    """

    name: str
    encoding: int

    def compressor(self, threads: int = 1, /) -> Compressor:
        """A function that compresses segments, each for itself, for use by one thread at a time.

        Args:
            threads: that it may use, where the library can.

        Raises:
            ImportError: the library is missing; it names the extra.
        """

    def decompress(self, data: Bytes, nbytes: int) -> bytes:
        """A segment of exactly so many bytes; it takes no more memory than that, whatever the data claims.

        Several threads may use it at once.

        Raises:
            ValueError: the data is something else.
            ImportError: the library is missing; it names the extra.
        """


class Zstd:
    """One zstd frame a segment."""

    name = "zstd"
    encoding = 2

    _LEVEL = 1

    def compressor(self, threads: int = 1, /) -> Compressor:
        """See `Codec`."""
        return self._library.compressor(self._LEVEL, threads)

    def decompress(self, data: Bytes, nbytes: int) -> bytes:
        """See `Codec`."""
        return self._library.decompress(data, nbytes)

    @property
    def _library(self) -> Library:
        library = zstd()
        if library is None:
            raise ImportError(f'compression needs zstandard: {_EXTRA}, or compression="none"')
        return library


CODECS: dict[int, Codec] = {codec.encoding: codec for codec in (Zstd(),)}
