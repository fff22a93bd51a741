"""Commits are numbered, each is made once, and its writer knows whether it was the one."""

from __future__ import annotations

import itertools
import json
import random
import re
import threading

import pytest
import xxhash

from _lib.checkpoint.buckets import FaultyBucket, ModelBucket
from _lib.checkpoint.faulty_store import Trouble
from dirtytrack import BusyError, UnsupportedError
from dirtytrack.checkpoint.store.commits import CommitLog
from dirtytrack.checkpoint.store.protocol import UnreadableError

pytestmark = pytest.mark.anywhere


def _body(number):
    return {"files": [f"of {number}"]}


def _with_commits(count, **options):
    bucket = ModelBucket()
    log = CommitLog(bucket)
    for _ in range(count):
        log.append(_body)
    for name, value in options.items():
        setattr(bucket, name, value)
    return bucket


def test_an_object_is_as_documented():
    """One line of JSON, and its checksum on a second one, below a name that counts down."""
    bucket = _with_commits(3)
    assert sorted(bucket.objects) == [f"commits/{10**20 - 1 - number:020d}.json" for number in (3, 2, 1)]
    data = bucket.objects["commits/99999999999999999997.json"][0]
    line, end = re.fullmatch(rb"([^\n]*)\n([0-9a-f]{16})\n", data).groups()
    assert int(end, 16) == xxhash.xxh3_64_intdigest(line)
    said = json.loads(line)
    assert re.fullmatch("[0-9a-f]{32}", said.pop("writer"))
    assert isinstance(said.pop("created"), float)
    assert said == {
        "format": "dirtytrack commit",
        "version": 1,
        "number": 2,
        "write": 2,
        "files": ["of 2"],
    }


@pytest.mark.parametrize("count", [0, 1, 2, 9, 10, 11, 25])
def test_the_newest_is_found(count):
    """Whatever the length of a page; by three requests where the listing is in order."""
    bucket = _with_commits(count, page=10)
    bucket.requests.clear()
    newest = CommitLog(bucket).newest()
    assert (newest and (newest.number, newest.body["files"])) == ((count, [f"of {count}"]) if count else None)
    assert bucket.requests == ({"list": 1, "size": 1, "get": 1} if count else {"list": 1, "size": 1})


def test_no_order_is_assumed():
    """A listing in whatever order is read to its end."""
    draw = random.Random(1)
    bucket = _with_commits(300, page=10, order=lambda key: xxhash.xxh3_64_intdigest(key.encode()))
    assert CommitLog(bucket).newest().number == 300
    bucket.order = lambda key: -int(key[8:28])
    assert CommitLog(bucket).newest().number == 300
    keys = sorted(bucket.objects, key=lambda _: draw.random())
    bucket.order = keys.index
    assert CommitLog(bucket).newest().number == 300


def test_a_late_listing_does_no_harm():
    """What it lacks is asked for."""
    bucket = _with_commits(20)
    bucket.unlisted = {f"commits/{10**20 - 1 - number:020d}.json" for number in range(13, 21)}
    assert CommitLog(bucket).newest().number == 20


def test_foreign_objects_are_left_alone():
    """Whatever else is called like nothing of ours."""
    bucket = _with_commits(2)
    bucket.put("commits/00000000000000000001.txt", b"")
    bucket.put("commits/readme", b"")
    log = CommitLog(bucket)
    assert log.newest().number == 2
    assert sorted(log.all()) == [1, 2]


def test_one_of_many_writers_makes_a_number():
    """Sixteen at once, again and again: each number has one winner, and each loser is told."""
    bucket = ModelBucket()
    for round_ in range(1, 11):
        logs = [CommitLog(bucket) for _ in range(16)]
        for log in logs:
            log.newest()
        start, won, lost = threading.Barrier(16, timeout=30), [], []

        def write(log, start=start, won=won, lost=lost):
            start.wait()
            try:
                won.append(log.append(_body))
            except BusyError:
                lost.append(log)

        threads = [threading.Thread(target=write, args=(log,)) for log in logs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [commit.number for commit in won] == [round_]
        assert len(lost) == 15
        assert all(log.is_lost for log in lost)
        with pytest.raises(BusyError):
            lost[0].append(_body)


def test_a_lost_answer_is_no_lost_race():
    """The commit is there, and its writer knows it as its own; the next one follows."""
    bucket = ModelBucket()
    log = CommitLog(FaultyBucket(bucket, Trouble(1, late=True)))
    assert log.append(_body).number == 1
    assert log.append(_body).number == 2
    assert not log.is_lost


def test_already_there_may_be_its_own():
    """A client that tries again by itself finds its own object, and says that it was there."""

    class Again(ModelBucket):
        def put_new(self, key, data):
            super().put_new(key, data)
            return super().put_new(key, data)

    log = CommitLog(Again())
    assert [log.append(_body).number for _ in range(3)] == [1, 2, 3]


def test_a_lost_answer_to_a_lost_race():
    """Another one's commit is there when the answer is lost: BusyError."""
    bucket = ModelBucket()
    first, second = CommitLog(bucket), CommitLog(FaultyBucket(bucket, Trouble(1, late=True)))
    first.append(_body)
    with pytest.raises(BusyError, match="Another writer has made commit 1"):
        second.append(_body)


def test_a_request_that_arrives_late_is_not_taken_for_anothers():
    """What was given up gets there after all: the writer's next commit is the number after it."""
    bucket, delayed = ModelBucket(), []

    class Slow(ModelBucket):
        objects, place = bucket.objects, bucket.place

        def put_new(self, key, data):
            if not delayed:
                delayed.append((key, data))
                raise OSError("nobody answers")
            return bucket.put_new(key, data)

    log = CommitLog(Slow())
    log._bucket.objects = bucket.objects
    with pytest.raises(OSError, match="nobody answers"):
        log.append(_body)
    assert bucket.put_new(*delayed[0])
    assert log.append(_body).number == 2
    assert sorted(CommitLog(bucket).all()) == [1, 2]


def test_a_failed_attempt_is_no_commit():
    """Nothing is there, the error is told, and the next attempt has the same number."""
    bucket = ModelBucket()
    log = CommitLog(FaultyBucket(bucket, Trouble(1)))
    with pytest.raises(OSError, match="Input/output"):
        log.append(_body)
    assert bucket.objects == {}
    assert log.append(_body).number == 1


def test_a_number_that_was_removed_is_not_made_again():
    """A writer that slept while its number was made, superseded and removed has lost all the same."""
    bucket = ModelBucket()
    sleeper = CommitLog(bucket)
    sleeper.append(_body)
    other = CommitLog(bucket)
    other.newest()
    for _ in range(9):
        other.append(_body)
    other.remove(range(1, 10))
    with pytest.raises(BusyError, match="Another writer has made commit 10"):
        sleeper.append(_body)
    assert CommitLog(bucket).newest().number == 10
    assert other.append(_body).number == 11


@pytest.mark.parametrize("count", [0, 3])
def test_a_store_that_replaces_is_refused(count):
    """It is found out by trying, with what is there or something of its own; nothing is lost or left."""
    bucket = _with_commits(count)
    log = CommitLog(bucket)
    before = dict(bucket.objects)
    log.probe(log.newest())
    bucket.keeps_its_word = False
    with pytest.raises(UnsupportedError, match=r"model://bucket.*If-None-Match"):
        log.probe(log.newest())
    assert bucket.objects == before


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-9], lambda data: data.replace(b"of", b"on"), lambda _: b""],
    ids=["cut off", "changed", "empty"],
)
def test_a_damaged_commit_is_never_used(damage, caplog):
    """The one before it is, with a warning; and the next number is still the next one."""
    bucket = _with_commits(3)
    key = "commits/99999999999999999996.json"
    bucket.put(key, damage(bucket.objects[key][0]))
    log = CommitLog(bucket)
    with pytest.raises(UnreadableError, match=key):
        log.read(3)
    assert log.newest().number == 2
    assert f"{key} is damaged" in caplog.text
    assert log.append(_body).number == 4
    for number in (1, 2, 4):
        bucket.put(log.key(number), b"{}")
    with pytest.raises(UnreadableError):
        CommitLog(bucket).newest()


def test_whichever_request_fails_a_writer_knows_or_is_told():
    """Of several commits in turn, once, and with the answer lost: none is there under two numbers."""
    for late in (False, True):
        for at in itertools.count(1):
            bucket, trouble = ModelBucket(), Trouble(at, late=late)
            log = CommitLog(FaultyBucket(bucket, trouble))
            told = []
            for what in range(3):
                for _ in range(2):
                    try:
                        told.append((log.append(lambda _, what=what: {"files": what}).number, what))
                        break
                    except OSError:
                        continue
            assert [what for _, what in told] == [0, 1, 2]
            reader = CommitLog(bucket)
            assert {(n, reader.read(n).body["files"]) for n in reader.all()} >= set(told)
            assert sorted(reader.all()) == [*range(1, len(reader.all()) + 1)]
            if trouble.struck is None:
                break
