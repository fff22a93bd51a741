"""Checksums, hashes and compression, by libraries: xxhash, and zstd (Python's own where it has it)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

_EXTRA = 'pip install "dirtytrack[checkpoint]"'
_LEVEL = 1
_WORTH = 0.9  # a run is stored compressed if that makes it at most so much of its size

try:
    import xxhash
except ImportError as error:
    raise ImportError(f"checkpoints need xxhash: {_EXTRA}") from error

try:
    from compression import zstd  # type: ignore[import-not-found]
except ImportError:
    zstd = None

try:
    import zstandard
except ImportError:
    zstandard = None  # type: ignore[assignment]

checksum: Callable[[Buffer], int] = xxhash.xxh3_64_intdigest
block_hash: Callable[[Buffer, int], bytes] = xxhash.xxh3_128_digest
HASH_BYTES = 16

Bytes = bytes | bytearray | memoryview


def compressor() -> Callable[[Bytes], bytes]:
    """A function that makes one zstd frame, for use by one thread at a time.

    Raises:
        ImportError: without zstd, naming the extra.
    """
    if zstd:
        return lambda data: zstd.compress(data, _LEVEL)
    _require_zstandard()
    return zstandard.ZstdCompressor(level=_LEVEL).compress


def decompressor() -> Callable[[Bytes, int], bytes]:
    """A function that undoes a frame of exactly so many bytes; several threads may use it.

    It takes no more memory than that, whatever the frame says, and raises ValueError for any other frame.

    Raises:
        ImportError: without zstd, naming the extra.
    """
    if zstd:
        return _decompress
    _require_zstandard()
    return _decompress_by_zstandard


def _decompress(data: Bytes, nbytes: int) -> bytes:
    unpacker = zstd.ZstdDecompressor()
    try:
        plain = unpacker.decompress(data, nbytes)
    except zstd.ZstdError as error:
        raise ValueError(str(error)) from None
    if len(plain) != nbytes or not unpacker.eof or unpacker.unused_data:
        raise ValueError("not one frame of the right length")
    return bytes(plain)


def _decompress_by_zstandard(data: Bytes, nbytes: int) -> bytes:
    unpacker = zstandard.ZstdDecompressor()
    try:
        # Otherwise it would allocate what the frame says.
        if zstandard.get_frame_parameters(data).content_size != nbytes:
            raise ValueError("not a frame of the right length")
        return unpacker.decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None


def is_worth_it(plain: int, compressed: int) -> bool:
    """Whether compression that makes *compressed* of *plain* bytes pays."""
    return compressed <= plain * _WORTH


def compresses(samples: Iterable[Buffer]) -> bool:
    """Whether memory of which these are samples is worth compressing; zeros don't count."""
    compress = compressor()
    plain = compressed = 0
    for sample in samples:
        content = bytes(sample)
        if content.strip(b"\0"):
            plain += len(content)
            compressed += len(compress(content))
    return plain > 0 and is_worth_it(plain, compressed)


def _require_zstandard() -> None:
    if zstandard is None:
        raise ImportError(f'compression needs zstandard: {_EXTRA}, or compression="none"')
