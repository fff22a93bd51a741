"""Compression: a codec is an object with a number in the index, and what has no codec here is refused."""

from __future__ import annotations

import os
import resource
import sys
import zlib
from typing import get_args

import numpy as np
import pytest

from _lib import limits
from _lib.checkpoint import forge
from _lib.checkpoint.files import opened, segments
from _lib.checkpoint.forge import BLOCK, ZSTD, File, Run
from _lib.checkpoint.world import World, restored
from _lib.support import in_child
from _lib.zstd import decompress
from dirtytrack.checkpoint import Chain, Checkpointer
from dirtytrack.checkpoint.format import codec
from dirtytrack.checkpoint.format.structures import FormatError
from dirtytrack.checkpoint.write import tip
from dirtytrack.checkpoint.write.compression import Compression, CompressionName, Encoder, Sampled
from dirtytrack.checkpoint.write.prospects import Prospects

SIXTEEN = bytes(range(16)) * (BLOCK // 16)


class Deflate:
    """A codec that the package does not have."""

    name = "deflate"
    encoding = 7

    def compressor(self, _threads=1, /):
        return lambda pieces: [zlib.compress(piece) for piece in pieces]

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


@pytest.mark.anywhere
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auto", (False, True, False, False, True)),
        ("none", (False,) * 5),
        ("zstd", (True,) * 5),
    ],
)
def test_which_regions_are_compressed(name, expected):
    """As asked; or what samples show to become shorter, also of many regions in one call."""
    noise = np.random.default_rng(1).integers(0, 256, 1 << 20, np.uint8).tobytes()
    words = (b"some text " * (1 << 17))[: 1 << 20]
    contents = [noise, words, bytes(1 << 20), b"", words[:5000]] * 20
    regions = [Sampled(len(content), content.__getitem__) for content in contents]
    assert Compression(name).suited(regions) == expected * 20


@pytest.mark.anywhere
def test_a_small_gain_is_left_alone_where_nobody_asked_for_it():
    """A tenth less costs a restore four times the time, and the mapping of a base."""
    noise = np.random.default_rng(1).integers(0, 256, 1 << 20, np.uint8)
    for mask, worth in ((0xFF, []), (0x7F, ["zstd"]), (0x0F, ["auto", "zstd"])):
        data = (noise & mask).tobytes()
        found = [name for name in ("auto", "zstd") if Compression(name).encoder().encode([data])[0][0] != 1]
        assert found == worth
        assert Compression("auto").suited([Sampled(len(data), data.__getitem__)]) == ("auto" in worth,)


class Counting(Deflate):
    """It has the sizes of what was tried together."""

    def __init__(self):
        self.tried = []

    def compressor(self, _threads=1, /):
        def compress(pieces):
            self.tried.append([len(piece) for piece in pieces])
            return [zlib.compress(piece) for piece in pieces]

        return compress


NOISE = np.random.default_rng(1).integers(0, 256, BLOCK, np.uint8).tobytes()


@pytest.mark.anywhere
def test_segments_that_do_not_become_shorter_are_stored_as_they_are():
    """All are tried if somebody asked for it; else fewer and fewer, in the files that follow, too."""
    for is_asked_for, tries in ((True, [8] * 5), (False, [1, 1, 1, 1])):
        codec, prospects = Counting(), Prospects(is_asked_for=is_asked_for)
        for _ in range(5):
            encoder = Encoder(codec, prospects, 0.9)
            assert encoder.encode([NOISE] * 8) == [(1, NOISE)] * 8
        assert [len(sizes) for sizes in codec.tried] == tries  # the 1st, 5th, 13th and 29th
    encoder = Encoder(None, prospects, 0.9)
    assert encoder.encode([SIXTEEN, NOISE]) == [(1, SIXTEEN), (1, NOISE)]
    assert not encoder.compresses


@pytest.mark.anywhere
def test_segments_that_do_become_shorter_are_tried_together():
    """More and more of them; one that does not ends that."""
    codec, prospects = Counting(), Prospects(is_asked_for=False)
    encoder = Encoder(codec, prospects, 0.9)
    data = [*[SIXTEEN] * 30, NOISE, *[SIXTEEN] * 4]
    found = encoder.encode(data)
    assert [len(sizes) for sizes in codec.tried] == [1, 2, 4, 8, 8, 8, 1]
    assert [encoding for encoding, _ in found] == [7] * 30 + [1] + [1] * 3 + [7]
    assert [zlib.decompress(stored) if encoding == 7 else stored for encoding, stored in found] == data


@pytest.mark.anywhere
def test_what_compresses_behind_much_that_does_not():
    """In a base it is found at once, but for what is stored untried after one segment; in a delta later."""
    auto = Compression("auto")
    data = [*[NOISE] * 66, *[SIXTEEN] * 8]  # of the base the 65th is tried, of the delta none after the 61st
    for prospects, found in ((None, 6), (auto.prospects(), 0)):
        encodings = [encoding for encoding, _ in auto.encoder(prospects).encode(data)]
        assert encodings == [1] * (len(data) - found) + [ZSTD] * found


@pytest.mark.parametrize("place", range(8))
@pytest.mark.anywhere
def test_what_compresses_is_found_wherever_it_lies(place):
    """Also in saves that are all alike, of which not even every other one is tried."""
    auto = Compression("auto")
    prospects = auto.prospects()
    data = [SIXTEEN if at == place else NOISE for at in range(8)]
    for _ in range(63):
        encoder = auto.encoder(prospects, nbytes=len(data) * BLOCK)
        if not encoder.compresses:
            prospects.pass_over(len(data) * BLOCK)
        elif any(encoding == ZSTD for encoding, _ in encoder.encode(data)):
            return
    pytest.fail("it was not")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.anywhere
def test_each_segment_is_a_frame_of_its_own(threads, count):
    """However many are compressed together, and by how many threads."""
    pieces = [bytes([at]) * (1000 + at) for at in range(count)]
    frames = codec.CODECS[ZSTD].compressor(threads)([memoryview(piece) for piece in pieces])
    assert [decompress(bytes(frame)) for frame in frames] == pieces


@pytest.mark.anywhere
def test_a_library_that_compresses_one_at_a_time():
    """As zstandard does without its C extension."""
    code = "from dirtytrack._zstd import zstd; print(len(zstd().compressor(1)([bytes(9), bytes(8)])))"
    environment = os.environ | {"PYTHON_ZSTANDARD_IMPORT_POLICY": "cffi"}
    done = limits.run([sys.executable, "-c", code], env=environment)
    assert (done.stdout, done.stderr) == ("2\n", "")


@pytest.mark.anywhere
def test_where_there_can_be_no_more_threads_one_compresses():
    """A save takes longer then, and does not fail."""
    compress = codec.CODECS[ZSTD].compressor(2)

    def child():
        if os.geteuid() == 0:
            os.setuid(65534)  # for root there is no such limit
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        return [bytes(frame) for frame in compress([SIXTEEN, NOISE])]

    assert [decompress(frame) for frame in in_child(child).check()] == [SIXTEEN, NOISE]


def test_a_base_is_compressed_by_threads(tmp_path, monkeypatch):
    """Its caller waits for it; a delta takes no processor from anybody."""
    told = []

    class Telling(Deflate):
        def compressor(self, threads=1, /):
            told.append(threads)
            return super().compressor(threads)

    monkeypatch.setitem(codec.CODECS, 7, Telling())
    monkeypatch.setattr(tip, "_THREADS", 3)
    array = bytearray(SIXTEEN * 8)
    with Checkpointer(tmp_path, {"a": array}, compression="deflate", fsync=False) as checkpoints:
        for expected in (3, 1):
            told.clear()
            array[0] += 1
            checkpoints.save(wait=True)
            assert set(told) == {expected}


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
