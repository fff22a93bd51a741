"""zstd: by the module of Python 3.14 and later, else by the package zstandard, which an extra brings."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

Bytes = bytes | bytearray | memoryview
Compressor = Callable[[Sequence[Bytes]], Sequence[Bytes]]


class Zstd(Protocol):
    """What is needed of a library."""

    def compressor(self, level: int, threads: int = 1, /) -> Compressor:
        """A function that makes a frame of each piece it is given, for use by one thread at a time.

        Args:
            level: of zstd.
            threads: that it may use, where the library can.
        """

    def decompress(self, data: Bytes, nbytes: int) -> bytes:
        """A frame of exactly so many bytes; it takes no more memory than that, whatever the data claims.

        Several threads may use it at once.

        Raises:
            ValueError: the data is something else.
        """


class _Python:
    def __init__(self) -> None:
        from compression import zstd  # type: ignore[import-not-found]

        self._zstd = zstd

    def compressor(self, level: int, _threads: int = 1, /) -> Compressor:
        return lambda pieces: [self._zstd.compress(piece, level=level) for piece in pieces]

    def decompress(self, data: Bytes, nbytes: int) -> bytes:
        unpacker = self._zstd.ZstdDecompressor()
        try:
            if self._zstd.get_frame_info(data).decompressed_size != nbytes:
                raise ValueError("not a frame of the right length")
            plain = unpacker.decompress(data, nbytes)
        except self._zstd.ZstdError as error:
            raise ValueError(str(error)) from None
        if len(plain) != nbytes or not unpacker.eof or unpacker.unused_data:
            raise ValueError("not one frame of the right length")
        return bytes(plain)


class _Zstandard:
    def __init__(self) -> None:
        import zstandard

        self._zstandard = zstandard

    def compressor(self, level: int, threads: int = 1, /) -> Compressor:
        compressor = self._zstandard.ZstdCompressor(level=level)
        # Of several pieces the GIL is given up once: beside a thread that computes each time costs 5 ms.
        # Without its C extension, as on PyPy, the library has that by name only.
        all_at_once: Any = compressor.multi_compress_to_buffer
        beside = threads if threads > 1 else 0  # by 1 the library means one more than this one
        has_it = "multi_compress_to_buffer" in self._zstandard.backend_features

        def compress(pieces: Sequence[Bytes]) -> Sequence[Bytes]:
            if len(pieces) == 1 or not has_it:
                return [compressor.compress(piece) for piece in pieces]
            try:
                frames = all_at_once(pieces, threads=beside)
            except self._zstandard.ZstdError:  # there can be no more threads
                frames = all_at_once(pieces, threads=0)
            return [memoryview(frame) for frame in frames]

        return compress

    def decompress(self, data: Bytes, nbytes: int) -> bytes:
        try:
            # Otherwise it would allocate what the frame says.
            if self._zstandard.get_frame_parameters(data).content_size != nbytes:
                raise ValueError("not a frame of the right length")
            return self._zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
        except self._zstandard.ZstdError as error:
            raise ValueError(str(error)) from None


@functools.cache
def zstd() -> Zstd | None:
    """The library, or None without one."""
    for library in (_Python, _Zstandard):
        try:
            return library()
        except ImportError:
            continue
    return None
