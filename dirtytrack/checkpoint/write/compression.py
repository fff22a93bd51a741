"""What is compressed, and by what: ``compression=`` as an object."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from dirtytrack.checkpoint.format.codec import CODECS, Bytes, Codec
from dirtytrack.checkpoint.format.structures import BLOCK, Encoding

if TYPE_CHECKING:
    from typing_extensions import Buffer

CompressionName = Literal["auto", "none", "zstd"]

_AUTO = "zstd"  # what "auto" compresses with
_WORTH = 0.9  # a run is stored compressed if that makes it at most so much of its size
_SKIPPED = 15  # runs stored raw after one that did not compress
_SAMPLES = 16
_SAMPLE_BYTES = 4 * BLOCK


class Compression:
    """A choice of a codec, and of the runs that it is for."""

    def __init__(self, name: str) -> None:
        """Looks it up.

        Args:
            name: "none"; a codec's, for all runs that become shorter by it; or "auto", for those of which
                samples say so.

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
        return plain > 0 and compressed <= plain * _WORTH

    def encoder(self) -> Encoder:
        """What encodes the runs of one file."""
        return Encoder(self._codec, self._by_samples)


class Encoder:
    """Encodes the runs of one file, for use by one thread."""

    def __init__(self, codec: Codec | None, by_samples: bool) -> None:
        """Begins a file.

        Args:
            codec: None stores every run as it is.
            by_samples: after a run that did not become shorter, do not try the next ones of its region.
        """
        self._encoding = Encoding.RAW if codec is None else codec.encoding
        self._compress = None if codec is None else codec.compressor()
        self._by_samples = by_samples
        self._skip: defaultdict[int, int] = defaultdict(int)

    def encode(self, region: int, data: Bytes) -> tuple[int, Bytes]:
        """The encoding of a run, and the bytes to be stored, which may be the data itself."""
        if self._compress is None:
            return Encoding.RAW, data
        if self._skip[region]:
            self._skip[region] -= 1
            return Encoding.RAW, data
        compressed = self._compress(data)
        if len(compressed) <= len(data) * _WORTH:
            return self._encoding, compressed
        if self._by_samples:
            self._skip[region] = _SKIPPED
        return Encoding.RAW, data


def _samples(nbytes: int) -> Iterator[slice]:
    # Pieces of a region, evenly spread.
    for start in range(0, nbytes, max(_SAMPLE_BYTES, nbytes // _SAMPLES)):
        yield slice(start, min(start + _SAMPLE_BYTES, nbytes))
