"""zstd for oracles: by Python's own module where there is one (3.14), else by the package zstandard."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 14):
    from compression import zstd

    def compress(data: bytes, level: int = 3) -> bytes:
        """One frame of the data, which says how long that is."""
        return zstd.compress(data, level)

    def decompress(frame: bytes) -> bytes:
        """The data of one frame, behind which nothing stands.

        Raises:
            ValueError: it is something else.
        """
        unpacker = zstd.ZstdDecompressor()
        try:
            data = unpacker.decompress(frame)
        except zstd.ZstdError as error:
            raise ValueError(str(error)) from error
        if not unpacker.eof or unpacker.unused_data:
            raise ValueError("not one frame")
        return data

    def content_size(frame: bytes) -> int | None:
        """How long the data is, as the frame says."""
        return zstd.get_frame_info(frame).decompressed_size

else:
    import zstandard

    def compress(data: bytes, level: int = 3) -> bytes:
        """One frame of the data, which says how long that is."""
        return zstandard.ZstdCompressor(level=level).compress(data)

    def decompress(frame: bytes) -> bytes:
        """The data of one frame, behind which nothing stands.

        Raises:
            ValueError: it is something else.
        """
        try:
            return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error

    def content_size(frame: bytes) -> int | None:
        """How long the data is, as the frame says."""
        return zstandard.get_frame_parameters(frame).content_size
