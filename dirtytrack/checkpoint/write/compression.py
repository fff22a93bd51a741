"""What is compressed, and by what: ``compression=`` as an object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from dirtytrack._zstd import Bytes
from dirtytrack.checkpoint.format.codec import CODECS, Codec
from dirtytrack.checkpoint.format.structures import BLOCK, SEGMENT_BYTES, Encoding

if TYPE_CHECKING:
    from typing_extensions import Buffer

CompressionName = Literal["auto", "none", "zstd"]

_AUTO = "zstd"  # what "auto" compresses with
_WORTH = 0.9  # a segment is stored compressed if that makes it at most so much of its size
# The same where nobody asked for it: a base that is compressed takes four times as long to write and to
# restore, and can't be mapped. A tenth less is not worth that, a third less is.
_WORTH_UNASKED = 2 / 3
_SKIPPED = 3  # segments stored raw after one that was not worth it
_RAW_SEGMENT = 1 << 20  # bytes: a reader who wants one block of them reads no more
_SAMPLES = 16
_SAMPLE_BYTES = 4 * BLOCK


class Compression:
    """A choice of a codec, and of the runs that it is for."""

    def __init__(self, name: str) -> None:
        """Looks it up.

        Args:
            name: "none"; a codec's, for all that becomes shorter by it; or "auto", where that is worth it.

        Raises:
            ValueError: there is no such choice.
            ImportError: the codec's library is missing; it names the extra.
        """
        codecs = {codec.name: codec for codec in CODECS.values()}
        if name not in ("auto", "none", *codecs):
            raise ValueError(f"compression={name!r}: choose one of {', '.join(['auto', 'none', *codecs])}")
        self._codec = None if name == "none" else codecs[_AUTO if name == "auto" else name]
        self._by_samples = name == "auto"
        if self._codec is not None:
            self._codec.compressor()  # or an ImportError, before anything is touched

    @property
    def compresses(self) -> bool:
        """Whether it does anything."""
        return self._codec is not None

    def suits(self, nbytes: int, read: Callable[[slice], Buffer]) -> bool:
        """Whether a region is to be compressed; if not, a base lays it out as memory is.

        Args:
            nbytes: its length.
            read: gives bytes of it; called only where samples decide.
        """
        if self._codec is None or not self._by_samples:
            return self._codec is not None
        compress = self._codec.compressor()
        plain = compressed = 0
        for piece in _samples(nbytes):
            content = bytes(read(piece))
            if content.strip(b"\0"):  # zeros are not stored
                plain += len(content)
                compressed += len(compress(content))
        return plain > 0 and compressed <= plain * _WORTH_UNASKED

    def encoder(self) -> Encoder:
        """What encodes the segments of one file."""
        return Encoder(self._codec, self._by_samples)


class Encoder:
    """Encodes the segments of one file, for use by one thread.

    Attributes:
        compresses: whether it does anything.
        segment_bytes: of the segments that it is to be given, at most. What is compressed comes in large
            ones, since Python is asked for each.
    """

    def __init__(self, codec: Codec | None, by_samples: bool) -> None:
        """Begins a file.

        Args:
            codec: None stores every segment as it is.
            by_samples: compress what is worth it, and after a segment that was not do not try the next ones.
        """
        self.compresses = codec is not None
        self.segment_bytes = _RAW_SEGMENT if codec is None else SEGMENT_BYTES
        self._encoding = Encoding.RAW if codec is None else codec.encoding
        self._compress = None if codec is None else codec.compressor()
        self._worth = _WORTH_UNASKED if by_samples else _WORTH
        self._skipped_after = _SKIPPED if by_samples else 0
        self._skip = 0

    def encode(self, data: Bytes) -> tuple[int, Bytes]:
        """The encoding of a segment, and the bytes to be stored, which may be the data itself."""
        if self._compress is None or self._skip:
            self._skip = max(0, self._skip - 1)
            return Encoding.RAW, data
        compressed = self._compress(data)
        if len(compressed) <= len(data) * self._worth:
            return self._encoding, compressed
        self._skip = self._skipped_after
        return Encoding.RAW, data


def _samples(nbytes: int) -> Iterator[slice]:
    # Pieces of a region, evenly spread.
    for start in range(0, nbytes, max(_SAMPLE_BYTES, nbytes // _SAMPLES)):
        yield slice(start, min(start + _SAMPLE_BYTES, nbytes))
