"""What is compressed, and by what: ``compression=`` as an object."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from dirtytrack._zstd import Bytes
from dirtytrack.checkpoint.format.codec import CODECS, Codec
from dirtytrack.checkpoint.format.structures import BLOCK, SEGMENT_BYTES, Encoding
from dirtytrack.checkpoint.write.prospects import Prospects

if TYPE_CHECKING:
    from typing_extensions import Buffer

CompressionName = Literal["auto", "none", "zstd"]

_AUTO = "zstd"  # what "auto" compresses with
_WORTH = 0.9  # a segment is stored compressed if that makes it at most so much of its size
# The same where nobody asked for it: a base that is compressed takes four times as long to write and to
# restore, and can't be mapped. A tenth less is not worth that, a third less is.
_WORTH_UNASKED = 2 / 3
_RAW_SEGMENT = 1 << 20  # bytes: a reader who wants one block of them reads no more
_SAMPLES = 16
_SAMPLE_BYTES = 4 * BLOCK
_SAMPLES_AT_ONCE = 1 << 23  # bytes: each call gives up the GIL, and beside a busy thread waits 5 ms for it


class Sampled(NamedTuple):
    """A region of which samples are taken.

    Attributes:
        nbytes: its length.
        read: gives bytes of it.
    """

    nbytes: int
    read: Callable[[slice], Buffer]


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

    def suited(self, regions: Sequence[Sampled]) -> tuple[bool, ...]:
        """Which regions are to be compressed; where one is not, a base lays it out as memory is.

        Args:
            regions: are read only where samples decide.
        """
        if self._codec is None or not self._by_samples:
            return (self._codec is not None,) * len(regions)
        plain, compressed = [0] * len(regions), [0] * len(regions)
        compress = self._codec.compressor()
        for samples in _samples(regions):
            frames = compress([content for _, content in samples])
            for (place, content), frame in zip(samples, frames, strict=True):
                plain[place] += len(content)
                compressed[place] += len(frame)
        sizes = zip(plain, compressed, strict=True)
        return tuple(0 < after <= before * _WORTH_UNASKED for before, after in sizes)

    def prospects(self) -> Prospects:
        """What to learn in, of the deltas of one chain."""
        return Prospects(is_asked_for=not self._by_samples)

    def encoder(
        self, prospects: Prospects | None = None, *, nbytes: int | None = None, threads: int = 1
    ) -> Encoder:
        """What encodes the segments of one file.

        Args:
            prospects: of its chain; None: it is a base, and learns by itself.
            nbytes: that the file gets at most, if that is known: none of them is tried if they are bad.
            threads: that may compress.
        """
        prospects = prospects or Prospects(is_asked_for=not self._by_samples, is_lasting=False)
        is_vain = nbytes is not None and prospects.are_bad(nbytes)
        worth = _WORTH_UNASKED if self._by_samples else _WORTH
        return Encoder(None if is_vain else self._codec, prospects, worth, threads)


class Encoder:
    """Encodes the segments of one file, for use by one thread.

    Attributes:
        compresses: whether it does anything.
        segment_bytes: of the segments that it is to be given, at most. What is compressed comes in large
            ones, since Python is asked for them.
    """

    def __init__(self, codec: Codec | None, prospects: Prospects, worth: float, threads: int = 1) -> None:
        """Begins a file.

        Args:
            codec: None stores every segment as it is.
            prospects: say which ones are tried, and learn from them.
            worth: a segment is compressed if that makes it at most so much of its size.
            threads: that may compress.
        """
        self.compresses = codec is not None
        self.segment_bytes = _RAW_SEGMENT if codec is None else SEGMENT_BYTES
        self._encoding = Encoding.RAW if codec is None else codec.encoding
        self._compress = None if codec is None else codec.compressor(threads)
        self._prospects = prospects
        self._worth = worth

    def encode(self, segments: Sequence[Bytes]) -> list[tuple[int, Bytes]]:
        """The encoding of each segment, and the bytes to be stored, which may be the segment itself."""
        done: list[tuple[int, Bytes]] = []
        while len(done) < len(segments):
            left = segments[len(done) :]
            if self._compress is None or self._prospects.are_bad(1):
                done.append((Encoding.RAW, left[0]))
                self._prospects.pass_over(len(left[0]))
            else:
                done += self._try(self._compress, left[: self._prospects.at_once])
        return done

    def _try(
        self, compress: Callable[[Sequence[Bytes]], Sequence[Bytes]], segments: Sequence[Bytes]
    ) -> list[tuple[int, Bytes]]:
        tried: list[tuple[int, Bytes]] = [
            (self._encoding, frame) if len(frame) <= len(data) * self._worth else (Encoding.RAW, data)
            for data, frame in zip(segments, compress(segments), strict=True)
        ]
        self._prospects.learn(len(segments[-1]), is_worth=tried[-1][0] != Encoding.RAW)
        return tried


def _samples(regions: Sequence[Sampled]) -> Iterator[list[tuple[int, bytes]]]:
    # Pieces of the regions, evenly spread, as many together as may be compressed at once; zeros, which are
    # not stored, are left out.
    samples: list[tuple[int, bytes]] = []
    nbytes = 0
    for place, region in enumerate(regions):
        for start in range(0, region.nbytes, max(_SAMPLE_BYTES, region.nbytes // _SAMPLES)):
            content = bytes(region.read(slice(start, min(start + _SAMPLE_BYTES, region.nbytes))))
            if not content.strip(b"\0"):
                continue
            samples.append((place, content))
            nbytes += len(content)
            if nbytes >= _SAMPLES_AT_ONCE:
                yield samples
                samples, nbytes = [], 0
    if samples:
        yield samples
