"""A file that is sent while it is made: every byte in its place, in bounded memory, or nothing."""

from __future__ import annotations

import random
import threading
from typing import NamedTuple

import pytest

from _lib.checkpoint.buckets import FaultyBucket, ModelBucket
from _lib.checkpoint.faulty_store import Trouble
from dirtytrack.checkpoint.store import uploads
from dirtytrack.checkpoint.store.uploads import Upload

pytestmark = pytest.mark.anywhere

FIRST = bytes(range(128))


class Small(ModelBucket):
    """Takes parts of any length, and remembers them."""

    def __init__(self):
        super().__init__()
        self.parts = []

    def upload(self, key, pieces, part_bytes):
        assert part_bytes >= 1000
        data = []
        for piece in pieces:
            data.append(bytes(piece))
            self.parts += [part_bytes] * (len(piece) // part_bytes) + [len(piece) % part_bytes]
        with self._mutex:
            self._set(key, b"".join(data))


class _Ending(NamedTuple):
    """As `Ending`, of bytes that are there."""

    at: int
    tail: bytes
    first: bytes

    def write_batches(self, write):
        """There are none."""

    def write_end(self, write):
        write(self.at, [self.tail])
        write(0, [self.first])
        return len(self.tail)


@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setattr(uploads, "PART_BYTES", 1000)
    return Small()


def _begin(bucket, first=FIRST, most=0):
    published = []
    upload = Upload(bucket, "data/", "name.delta", first, most, lambda *said: published.append(said))
    return upload, published


@pytest.mark.parametrize("nbytes", [128, 129, 999, 1000, 1001, 2000, 2001, 3000, 3001, 12_345])
def test_every_byte_is_in_its_place(bucket, nbytes):
    """Whatever pieces it was written in; what is no longer than a part is one request."""
    data = FIRST + random.Random(nbytes).randbytes(nbytes - len(FIRST))
    upload, published = _begin(bucket)
    draw, at = random.Random(nbytes), len(FIRST)
    while at < max(nbytes - 100, len(FIRST)):
        stop = min(at + draw.randint(1, 1500), max(nbytes - 100, len(FIRST)))
        middle = (at + stop) // 2
        assert upload.write(at, [data[at:middle], bytearray(data[middle:stop])]) == stop
        at = stop
    assert upload.is_fixed == (at > 2000)
    upload.publish("name.delta", _Ending(at, data[at:], data[:128]), footing=["below"])
    assert bucket.objects["data/name.delta"][0] == data
    assert published == [("name.delta", nbytes, nbytes - at, ["below"])]
    assert bucket.requests["put"] == (nbytes <= 2000)
    assert all(length in (1000, 0) for length in bucket.parts[:-1])
    upload.discard()
    assert "data/name.delta" in bucket.objects


def test_a_short_file_may_change_its_name_and_its_first_bytes(bucket):
    """Nothing of it is on its way before it is published."""
    upload, published = _begin(bucket)
    upload.write(128, [b"rest"])
    upload.publish("name.base", _Ending(132, b"tail", bytes(128)))
    assert bucket.objects == {"data/name.base": (bytes(128) + b"resttail", bucket.now)}
    assert published[0][0] == "name.base"


def test_a_long_one_may_not(bucket):
    """It is told, and nothing is published."""
    for name, first in (("name.base", FIRST), ("name.delta", bytes(128))):
        upload, published = _begin(bucket)
        upload.write(128, [bytes(5000)])
        assert upload.is_fixed
        with pytest.raises(OSError, match=r"on their way|on its way"):
            upload.publish(name, _Ending(5128, b"tail", first))
        upload.discard()
        assert (published, bucket.objects) == ([], {})


def test_what_is_not_written_is_zeros(bucket):
    """Between two writes, over many parts."""
    upload, _ = _begin(bucket)
    upload.write(3333, [b"x"])
    upload.publish("name.delta")
    assert bucket.objects["data/name.delta"][0] == FIRST + bytes(3333 - 128) + b"x"


def test_writing_twice_is_an_error(bucket):
    """All but the first bytes are written once."""
    upload, _ = _begin(bucket)
    upload.write(128, [b"abc"])
    with pytest.raises(OSError, match="written already"):
        upload.write(128, [b"abc"])
    upload.discard()


def test_parts_grow_with_the_file(bucket, monkeypatch):
    """So that there are no more than the services allow."""
    monkeypatch.setattr(uploads, "_MOST_PARTS", 10)
    upload, _ = _begin(bucket, most=50_000)
    upload.write(128, [bytes(50_000 - 128)])
    upload.publish("name.delta")
    assert [length for length in bucket.parts if length] == [5000] * 10


def test_who_writes_waits_for_the_network(bucket):
    """A few parts are in memory, however much is written: the writer stops until one is taken."""
    taken, go_on = threading.Semaphore(0), threading.Semaphore(0)
    most = 0

    class Slow(Small):
        def upload(self, key, pieces, part_bytes):
            nonlocal most
            assert (key, part_bytes) == ("data/name.delta", 1000)
            for _ in pieces:
                taken.release()
                go_on.acquire()

    upload, _ = _begin(Slow())
    written = 0

    def write():
        nonlocal written
        for at in range(128, 50_000, 100):
            upload.write(at, [bytes(100)])
            written = at

    writer = threading.Thread(target=write)
    writer.start()
    for part in range(1, 40):
        taken.acquire()
        most = max(most, written - (part + 1) * 1000)  # the first is two
        go_on.release()
    for _ in range(20):
        go_on.release()
    writer.join()
    upload.discard()
    assert most <= 4000


def test_a_failure_is_told_at_once(bucket):
    """By the next write that has a part to send, or by publishing; nothing is there."""
    for nbytes in (5000, 2500):
        upload, published = _begin(FaultyBucket(bucket, Trouble(1)))
        with pytest.raises(OSError, match="Input/output error"):
            for at in range(128, nbytes, 100):
                upload.write(at, [bytes(100)])
            upload.publish("name.delta")
        upload.discard()
        assert (published, bucket.objects) == ([], {})


def test_a_lost_answer_is_no_failure(bucket):
    """The object is there, as long as it has to be, and the name is nobody else's."""
    for nbytes in (500, 5000):
        upload, published = _begin(FaultyBucket(bucket, Trouble(1, late=True)))
        upload.write(128, [bytes(nbytes)])
        upload.publish("name.delta")
        assert len(published) == 1
        assert len(bucket.objects["data/name.delta"][0]) == nbytes + 128


def test_discarding_takes_it_back(bucket):
    """At any point, and twice; its thread has ended then."""
    for nbytes in (0, 500, 5000):
        threads = threading.active_count()
        upload, _ = _begin(bucket)
        upload.write(128, [bytes(nbytes)])
        upload.discard()
        upload.discard()
        assert bucket.objects == {}
        assert threading.active_count() == threads
