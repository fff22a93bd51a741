"""What is announced is read ahead, in few requests, and within bounds."""

from __future__ import annotations

import threading

import pytest

from dirtytrack.checkpoint.store import ranges
from dirtytrack.checkpoint.store.ranges import Range, Ranges

pytestmark = pytest.mark.anywhere

DATA = {key: bytes((index * 7 + at) % 251 for at in range(1 << 16)) for index, key in enumerate("abc")}


class Source:
    """What is asked of it, and how much at once."""

    def __init__(self, monkeypatch=None, **limits):
        self.asked = []
        self.failing = set()
        self._mutex = threading.Lock()
        for name, value in limits.items():
            monkeypatch.setattr(ranges, name, value)
        self.ranges = Ranges(self._fetch)

    def _fetch(self, one):
        with self._mutex:
            self.asked.append(one)
        if one in self.failing:
            self.failing.remove(one)
            raise OSError("no answer")
        return DATA[one.key][one.start : one.stop]

    def read(self, key, start, stop):
        buffer = bytearray(stop - start)
        count = self.ranges.read_into(key, start, memoryview(buffer))
        assert buffer[:count] == DATA[key][start : start + count]
        return count

    def settle(self):
        """Everything that was begun has come."""
        for piece in [*self.ranges._pieces.values()]:
            with piece.coming:
                pass


@pytest.fixture
def source():
    made = Source()
    yield made
    made.ranges.close()


def test_what_was_not_announced_is_asked_for_as_it_is(source):
    """One request each, and again from memory."""
    assert source.read("a", 100, 300) == 200
    assert source.read("a", 100, 200) == 100
    assert source.read("b", 0, 1) == 1
    assert source.asked == [Range("a", 100, 300), Range("b", 0, 1)]


def test_a_read_beyond_the_end_is_short(source):
    """As the object is."""
    assert source.read("a", (1 << 16) - 5, (1 << 16) + 5) == 5
    assert source.read("a", 1 << 16, (1 << 16) + 5) == 0


def test_what_follows_closely_is_one_request(monkeypatch):
    """What is further away is another one."""
    source = Source(monkeypatch, _GAP=100)
    source.ranges.expect([Range("a", 0, 10), Range("a", 50, 60), Range("a", 161, 170), Range("b", 170, 180)])
    source.settle()
    for key, start, stop in (("a", 0, 10), ("a", 50, 60), ("a", 161, 170), ("b", 170, 180)):
        assert source.read(key, start, stop) == stop - start
    assert sorted(source.asked) == [Range("a", 0, 60), Range("a", 161, 170), Range("b", 170, 180)]
    source.ranges.close()


def test_what_is_long_is_cut(monkeypatch):
    """Into requests of a bounded length, of which only so many are on their way before the first is read."""
    source = Source(monkeypatch, _REQUEST=1000, _AHEAD=3000)
    source.ranges.expect([Range("a", 5, 10_005)])
    source.settle()
    assert len(source.asked) == 3
    for start in range(5, 10_005, 100):
        source.read("a", start, start + 100)
        source.settle()
        assert len(source.asked) <= 3 + (start + 100) // 1000 + 1
    assert sorted(source.asked) == [Range("a", at, at + 1000) for at in range(5, 10_005, 1000)]
    source.ranges.close()


def test_what_was_read_is_kept_within_bounds(monkeypatch):
    """The last of it: what was read long ago is asked for again."""
    source = Source(monkeypatch, _KEPT=1000)
    for start in range(0, 5000, 500):
        source.read("a", start, start + 500)
    source.read("a", 4500, 5000)
    assert len(source.asked) == 10
    source.read("a", 0, 500)
    assert len(source.asked) == 11
    assert source.ranges._kept <= 1000
    source.ranges.close()


def test_a_read_across_requests(monkeypatch):
    """Is put together from all of them."""
    source = Source(monkeypatch, _REQUEST=64)
    source.ranges.expect([Range("a", 0, 1000)])
    assert source.read("a", 10, 990) == 980
    source.ranges.close()


def test_what_is_read_in_another_order_than_announced(monkeypatch):
    """Is not asked for twice."""
    source = Source(monkeypatch, _REQUEST=100, _AHEAD=200)
    source.ranges.expect([Range("a", 0, 1000)])
    for start in (900, 500, 0, 100, 800, 200, 300, 400, 600, 700):
        source.read("a", start, start + 100)
    assert sorted(source.asked) == [Range("a", at, at + 100) for at in range(0, 1000, 100)]
    source.ranges.close()


def test_another_announcement_takes_the_place_of_the_first(monkeypatch):
    """Of the same object: what was not read of it makes room."""
    source = Source(monkeypatch, _REQUEST=100, _AHEAD=200)
    source.ranges.expect([Range("a", 0, 1000)])
    source.ranges.expect([Range("a", 5000, 5200)])
    source.settle()
    assert source.read("a", 5000, 5200) == 200
    source.ranges.forget("a")
    assert (source.ranges._ahead, source.ranges._kept, source.ranges._pieces) == (0, 0, {})
    source.ranges.close()


def test_a_failure_is_told_and_not_kept(source):
    """To who reads; reading again asks again."""
    source.failing = {Range("a", 0, 100)}
    source.ranges.expect([Range("a", 0, 100)])
    with pytest.raises(OSError, match="no answer"):
        source.read("a", 0, 50)
    assert source.read("a", 0, 50) == 50


def test_many_threads_read_what_was_announced(monkeypatch):
    """Each byte is right, whoever reads what."""
    source = Source(monkeypatch, _REQUEST=512, _AHEAD=2048, _KEPT=1024)
    source.ranges.expect(Range(key, 0, 1 << 16) for key in "abc")
    wrong = []

    def read(key):
        try:
            for start in range(0, 1 << 16, 300):
                source.read(key, start, min(start + 300, 1 << 16))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(key,)) for key in "abcabc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    source.ranges.close()


def test_it_can_be_read_when_it_is_closed(source):
    """By the caller's own thread, and closing it again does nothing."""
    source.read("a", 0, 10)
    source.ranges.close()
    source.ranges.close()
    assert source.read("a", 10, 20) == 10
