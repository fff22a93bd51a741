"""Compression: a codec is an object with a number in the index, and what has no codec here is refused."""

from __future__ import annotations

import zlib
from typing import get_args

import numpy as np
import pytest

from _lib.checkpoint import forge
from _lib.checkpoint.files import opened, segments
from _lib.checkpoint.forge import BLOCK, ZSTD, File, Run
from _lib.checkpoint.world import World, restored
from dirtytrack.checkpoint import Chain, Checkpointer
from dirtytrack.checkpoint.format import codec
from dirtytrack.checkpoint.format.structures import FormatError
from dirtytrack.checkpoint.write import compression
from dirtytrack.checkpoint.write.compression import Compression, CompressionName

SIXTEEN = bytes(range(16)) * (BLOCK // 16)


class Deflate:
    """A codec that the package does not have."""

    name = "deflate"
    encoding = 7

    def compressor(self):
        return zlib.compress

    def decompress(self, data, nbytes):
        return zlib.decompress(data, bufsize=nbytes)


@pytest.fixture
def deflate(monkeypatch):
    """The package has it, for this test."""
    monkeypatch.setitem(codec.CODECS, 7, Deflate())


@pytest.mark.anywhere
@pytest.mark.parametrize("encoding", [4, 7, 2**32 - 1])
def test_an_encoding_that_nobody_knows_is_refused(tmp_path, encoding):
    """Though its stored bytes are a zstd frame: it is named, where the index is read and where these are."""
    forged = File(1, [Run(0, 0, SIXTEEN, ZSTD)], [forge.region("a", BLOCK)])

    def twist(entries):
        return [(0, encoding, *entries[0][2:])]

    with opened(forged.write(tmp_path)) as file:
        (known,) = segments(file, [BLOCK])
        assert file.read(known) == SIXTEEN
        with pytest.raises(FormatError, match=f"encoding {encoding}, which is not known here"):
            file.read(known._replace(segment=known.segment._replace(encoding=encoding)))
    with opened(forged.write(tmp_path, twist=twist)) as file:
        for read in (lambda: segments(file, [BLOCK]), lambda: list(file.verify(file.layouts))):
            with pytest.raises(FormatError, match=f"encoding {encoding}, which is not known here"):
                read()


def test_another_codec_is_written_and_read(place, deflate, monkeypatch):
    """By its name in ``compression=`` and its number in the file; without it the file names its encoding."""
    world = World(20, 1)
    with Checkpointer(place, world.regions, compression="deflate") as checkpoints:
        world.regions["first"][:] = (b"text " * len(world.regions["first"]))[: len(world.regions["first"])]
        save = checkpoints.save(wait=True)
        assert save.ratio is not None
        assert save.ratio > 5
    assert restored(place, world.sizes) == world.contents()
    monkeypatch.delitem(codec.CODECS, 7)
    with Chain(place) as chain:
        (problem,) = chain.verify()
        assert "encoding 7, which is not known here" in problem.reason


def test_what_compression_takes_is_what_it_says(monkeypatch):
    """Its names are those of the signature: no compression, a choice by samples, and each codec."""
    assert set(get_args(CompressionName)) == {"auto", "none", *(one.name for one in codec.CODECS.values())}
    for name in get_args(CompressionName):
        Compression(name)
    with pytest.raises(ValueError, match="compression='lzma': choose one of auto, none, zstd"):
        Compression("lzma")


@pytest.mark.parametrize(
    ("name", "noise", "text"), [("auto", False, True), ("none", False, False), ("zstd", True, True)]
)
@pytest.mark.anywhere
def test_which_regions_are_compressed(name, noise, text):
    """As asked; or what samples show to become shorter."""
    random = np.random.default_rng(1).integers(0, 256, 1 << 20, np.uint8).tobytes()
    words = (b"some text " * (1 << 17))[: 1 << 20]
    for data, expected in ((random, noise), (words, text)):
        assert Compression(name).suits(len(data), lambda piece, data=data: data[piece]) == expected
    assert Compression(name).suits(1 << 20, lambda piece: bytes(piece.stop - piece.start)) == (name == "zstd")


@pytest.mark.anywhere
def test_a_small_gain_is_left_alone_where_nobody_asked_for_it():
    """A tenth less costs a restore four times the time, and the mapping of a base."""
    noise = np.random.default_rng(1).integers(0, 256, 1 << 20, np.uint8)
    for mask, worth in ((0xFF, []), (0x7F, ["zstd"]), (0x0F, ["auto", "zstd"])):
        data = (noise & mask).tobytes()
        found = [name for name in ("auto", "zstd") if Compression(name).encoder().encode(data)[0] != 1]
        assert found == worth
        assert Compression("auto").suits(len(data), lambda piece, data=data: data[piece]) == ("auto" in worth)


@pytest.mark.anywhere
def test_segments_that_do_not_become_shorter_are_stored_as_they_are():
    """After one of them the next 3 are not tried, if nobody asked for it."""
    tried = []

    class Counting(Deflate):
        def compressor(self):
            return lambda data: tried.append(len(data)) or zlib.compress(data)

    noise = np.random.default_rng(1).integers(0, 256, BLOCK, np.uint8).tobytes()
    for by_samples, count in ((True, 2), (False, 8)):
        tried.clear()
        encoder = compression.Encoder(Counting(), by_samples)
        for _ in range(8):
            assert encoder.encode(noise) == (1, noise)
        assert len(tried) == count
        encoding, stored = encoder.encode(SIXTEEN)
        assert (encoding, zlib.decompress(stored)) == (7, SIXTEEN)
    assert compression.Encoder(None, False).encode(SIXTEEN) == (1, SIXTEEN)


def test_raw_segments_are_small_and_others_are_not(tmp_path):
    """Who reads one block of a raw one reads no more than a MiB; of what is in place it maps the file.

    Python is asked for each of the compressed.
    """
    words = np.frombuffer((b"some text " * (1 << 20))[: 9 << 20], np.uint8).copy()
    large, small = [1024, 1024, 256], [256] * 8 + [255]
    for name, delta in (("zstd", [1024, 1024, 255]), ("none", small)):
        with Checkpointer(
            path := tmp_path / name, {"a": words}, compression=name, fsync=False
        ) as checkpoints:
            checkpoints.save(wait=True)
            words[4096:] ^= 1
            checkpoints.save(wait=True)
        for kind, lengths in (("base", large), ("delta", delta)):
            (file,) = path.glob(f"*.{kind}")
            with opened(file) as stored:
                found = [sum(run.count for run in one.runs.native) for one in segments(stored, [len(words)])]
            assert found == lengths
