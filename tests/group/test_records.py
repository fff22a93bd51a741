"""The records of a group: numbered, each made once, and a run that opens the group fences the one before."""

from __future__ import annotations

import errno
import json
import os
from unittest.mock import ANY

import pytest
import xxhash

from _lib.checkpoint.buckets import ModelBucket
from dirtytrack import BusyError, ChainError, UnsupportedError
from dirtytrack._json import footprint
from dirtytrack.checkpoint.store import commits
from dirtytrack.checkpoint.store.commits import sealed
from dirtytrack.checkpoint.store.directory_bucket import DirectoryBucket
from dirtytrack.group.garbage import collect
from dirtytrack.group.record import Part, Record, as_record
from dirtytrack.group.records import Records

pytestmark = pytest.mark.anywhere

NAMES = [["a", "b"], ["c"]]


def _commit(records, run, number, state=None, kind="committed"):
    parts = tuple(Part(f"parts/{run.run}/{rank:06}", "0" * 32, number, tuple(NAMES[rank])) for rank in (0, 1))
    made = Record(
        number, kind, run.incarnation, run.number, state or number, 0.0, 2, parts, (), {"step": number}
    )
    return records.offer(made)


def _committed(count):
    records = Records(ModelBucket())
    run = records.open(NAMES)
    for number in range(2, count + 2):
        _commit(records, run, number)
    return records, run


def test_a_group_is_opened_by_the_first_record():
    """It has a run of its own, and no state yet."""
    records = Records(ModelBucket())
    assert records.newest() is None
    assert records.states() == []
    run = records.open(NAMES)
    assert (run.number, run.kind, run.state, run.world, run.names) == (
        1,
        "opened",
        0,
        2,
        (("a", "b"), ("c",)),
    )
    assert records.newest()._replace(created=0.0) == run
    assert records.states() == []


def test_a_record_is_as_documented():
    """Two lines, as a commit of a chain, with what the kind has to say."""
    records, run = _committed(1)
    said = []
    for number in (1, 2):
        data = records.bucket.objects[f"records/{10**20 - 1 - number:020}.json"][0]
        line, end = data.decode().split("\n")[:2]
        assert int(end, 16) == xxhash.xxh3_64_intdigest(line.encode())
        said.append(json.loads(line))
    common = {
        "format": "dirtytrack group",
        "version": 1,
        "opened": 1,
        "incarnation": run.incarnation,
        "world": 2,
        "oldest": 0,
        "kept": [],
    }
    assert said[0].items() >= {**common, "kind": "opened", "number": 1, "state": 0, "names": NAMES}.items()
    parts = [[f"parts/{run.run}/{rank:06}", "0" * 32, 2, NAMES[rank]] for rank in (0, 1)]
    what = {"kind": "committed", "number": 2, "state": 2, "meta": {"step": 2}, "parts": parts}
    assert said[1].items() >= {**common, **what}.items()


def test_the_next_run_begins_with_the_newest_state():
    """Whatever was not committed after it."""
    records, run = _committed(3)
    _commit(records, run, 5, state=4, kind="aborted")
    second = records.open(NAMES)
    assert (second.number, second.state) == (6, 4)
    assert [one.number for one in records.states()] == [2, 3, 4]
    third = records.open(NAMES)
    assert (third.number, third.state) == (7, 4)


def test_an_older_state_can_be_gone_on_from():
    """It is the newest then, and those after it are no longer listed."""
    records, _ = _committed(3)
    run = records.open(NAMES, at=3)
    assert run.state == 3
    assert [one.number for one in records.states()] == [2, 3]
    _commit(records, run, 6)
    assert [one.number for one in records.states()] == [2, 3, 6]


@pytest.mark.parametrize("at", [1, 7])
def test_a_state_that_is_not_there_is_none(at):
    """An opened record is no state."""
    records, _ = _committed(2)
    with pytest.raises(ChainError, match=f"has no state {at}; it has 2, 3"):
        records.open(NAMES, at=at)
    assert records.newest().number == 3


def test_what_is_there_stays():
    """Whoever comes second is told what the first one has made."""
    records, run = _committed(1)
    other = Records(records.bucket)
    again = _commit(other, run, 2, kind="aborted", state=1)
    assert again.kind == "committed"
    fresh = other.open(NAMES)
    late = _commit(records, run, 3)
    assert (late.kind, late.incarnation) == ("opened", fresh.incarnation)


def test_states_that_are_not_to_stay_are_not_listed():
    """Whether they are there or not."""
    records, run = _committed(4)
    made = Record(6, "committed", run.incarnation, 1, 6, 0.0, 2, oldest=4)
    records.offer(made)
    assert [one.number for one in records.states()] == [4, 5, 6]


def test_a_number_that_was_removed_long_ago_is_not_made_again():
    """Whoever slept over that finds that there are newer ones of another run."""
    records, run = _committed(2)
    other = Records(records.bucket)
    fresh = other.open(NAMES)
    other.offer(Record(5, "committed", fresh.incarnation, 4, 5, 0.0, 2, oldest=5))
    other.log.remove([1, 2, 3, 4])
    with pytest.raises(BusyError, match="two groups in one place"):
        _commit(records, run, 4)
    assert other.newest().number == 5
    assert [one.number for one in other.states()] == [5]


def test_a_damaged_record_is_not_used():
    """The one before it is the newest, and the next one has a number after it."""
    records, _ = _committed(2)
    key = records.log.key(3)
    records.bucket.objects[key] = records.bucket.objects[key][0][:-5], 0.0
    again = Records(records.bucket)
    assert again.newest().number == 2
    with pytest.raises(ChainError, match="is damaged"):
        again.find(3)
    run = again.open(NAMES)
    assert (run.number, run.state) == (4, 2)


RUN = f"0000000001-{'0' * 16}"


def test_a_record_that_would_take_too_much_memory(tmp_path, monkeypatch):
    """As bytes, or as what its JSON becomes: it is damaged. None is made that could not be read again."""
    records = Records(DirectoryBucket(tmp_path))
    run = records.open(NAMES)
    _commit(records, run, 2)
    path = tmp_path / records.log.key(2)
    with monkeypatch.context() as patch:
        patch.setattr(commits, "_MOST_MEMORY", footprint(path.read_bytes().partition(b"\n")[0]) - 1)
        with pytest.raises(ChainError, match="is damaged: as objects its JSON may take"):
            records.find(2)
        patch.setattr(commits, "_MOST_MEMORY", 500)
        with pytest.raises(ValueError, match="as objects its JSON may take"):
            _commit(records, run, 3)
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(ChainError, match="is damaged: it has 1099511627776 bytes, and at most 134217728"):
        records.find(2)
    assert Records(DirectoryBucket(tmp_path)).newest().number == 1


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"parts": [[1]]},
        {"state": "x"},
        {"names": 3},
        {"world": float("inf")},
        {"oldest": 1.5},
        {"oldest": -1},
        {"oldest": 3, "kept": [1.5]},
        {"oldest": 3, "kept": [2, 1]},
        {"oldest": 3, "kept": [1, 1]},
        {"oldest": 3, "kept": [3]},
        {"oldest": 9, "kept": [4]},
        {"kept": 3},
        {"created": 10**400},
        {"opened": 0},
        {"opened": 4},
        {"state": 2},
        {"kind": "aborted"},  # and a state that is its own: whoever follows these would never come to an end
        {"kind": "opened", "state": 4},
        {"incarnation": "0/../../../victim"},
        {"incarnation": ["0"]},
        {"parts": [["/victim", "0" * 32, 1, ["a"]]]},
        {"parts": [[f"parts/{RUN}/../../..", "0" * 32, 1, ["a"]]]},
        {"parts": [[f"parts/{RUN}/000000\n", "0" * 32, 1, ["a"]]]},
        {"parts": [[f"parts/0000000002-{'0' * 16}/000000", "0" * 32, 1, ["a"]]]},
        {"parts": [[f"parts/{RUN}/000000", "0" * 32, 1, ["a" * 100_000]]]},
        {"parts": [["a" * 100_000, "0" * 32, 1, ["a"]]]},
        {"kind": "a" * 100_000},
        {"incarnation": "a" * 100_000},
        {"kept": [*range(100_000)]},
        {"opened": "a" * 100_000},
    ],
)
def test_a_record_that_says_nothing_is_damaged(change):
    """Whoever made it: nor does one that leads elsewhere, or round in a circle."""
    records, _ = _committed(1)
    body = {
        "kind": "committed",
        "incarnation": "0" * 16,
        "opened": 1,
        "state": 3,
        "world": 2,
        "parts": [],
    }
    assert Records(records.bucket).find(3) is None
    body |= change
    records.log.offer(3, body)
    with pytest.raises(ChainError, match="record 3 of a group says nothing") as caught:
        records.find(3)
    assert len(str(caught.value)) < 1000


def test_the_parts_of_a_damaged_record_are_not_removed(tmp_path):
    """Nothing outside of the group's directory, either."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "thesis").write_text("all of it")
    records = Records(DirectoryBucket(tmp_path / "group", fsync=False))
    records.open(NAMES)
    fresh = records.open(NAMES)
    records.offer(Record(3, "committed", fresh.incarnation, fresh.number, 3, 0.0, 2, oldest=3))
    (tmp_path / "group" / "parts" / "0000000001-0").mkdir(parents=True)
    body = {"opened": 1, "world": 1, "state": 0, "kind": "opened"}
    records.log.remove([1])
    records.log.offer(1, {**body, "incarnation": "0/../../../victim"})
    collect(records, 0.0)
    assert (tmp_path / "victim" / "thesis").read_text() == "all of it"


def test_a_damaged_record_does_not_keep_what_is_superfluous():
    """It stays itself, and all else goes."""
    records, run = _committed(2)
    records.bucket.put_new(f"parts/{run.run}/000000/file", b"x")
    fresh = records.open(NAMES)
    records.offer(Record(5, "committed", fresh.incarnation, fresh.number, 5, 0.0, 2, oldest=5))
    key = records.log.key(1)
    records.bucket.objects[key] = records.bucket.objects[key][0][:-5], records.bucket.objects[key][1]
    collect(records, 0.0)
    assert sorted(records.log.all()) == [1, 4, 5]
    assert not [*records.bucket.find("parts/")]


def test_what_can_not_be_a_record_is_not_made():
    """A part of another run, for instance."""
    records, run = _committed(1)
    part = Part(f"parts/0000000001-{'0' * 16}/000000", "0" * 32, 1, ("a",))
    with pytest.raises(ValueError, match="of another run"):
        records.offer(Record(3, "committed", run.incarnation, 1, 3, 0.0, 1, (part,)))
    assert records.newest().number == 2


def test_a_place_that_replaces_what_is_there_is_refused():
    """Before anything is made."""
    records = Records(ModelBucket())
    records.bucket.keeps_its_word = False
    with pytest.raises(UnsupportedError, match="If-None-Match"):
        records.open(NAMES)


def test_a_run_travels_as_plain_data():
    """By way of JSON."""
    _, run = _committed(1)
    assert as_record(json.loads(json.dumps(run.to_json()))) == run


@pytest.mark.parametrize("kind", ["pipe", "folder", "huge"])
def test_what_is_no_record_is_damaged(tmp_path, kind):
    """Nobody waits for its other end, and no memory is taken for it; the one before it counts."""
    records = Records(DirectoryBucket(tmp_path, fsync=False))
    run = records.open(NAMES)
    path = tmp_path / records.log.key(2)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)
    assert Records(DirectoryBucket(tmp_path)).newest() == run._replace(created=ANY)
    with pytest.raises(ChainError, match="is damaged"):
        records.find(2)


def test_of_a_hundred_thousand_states_the_newest_are_read():
    """By as many requests as of ten, and no more of the older ones than are asked for."""
    records, run = _committed(1)
    body = {"kind": "committed", "incarnation": run.incarnation, "opened": run.number, "world": 2}
    head = {"format": "dirtytrack group", "version": 1, "writer": "0" * 32, "write": 1, "created": 1.0}
    for number in range(3, 100_002):
        data = sealed({**head, **body, "number": number, "state": number, "oldest": 99_997, "parts": []})
        records.bucket.objects[records.log.key(number)] = data, 1.0
    records.bucket.requests.clear()
    newest = Records(records.bucket).newest()
    assert newest.number == 100_001
    assert records.bucket.requests == {"list": 1, "size": 1, "get": 1}
    states = Records(records.bucket).states(newest)
    assert [state.number for state in states] == [*range(99_997, 100_002)]
    assert records.bucket.requests["get"] == 1 + 5


def test_a_folder_that_can_not_be_listed_is_an_error(tmp_path, monkeypatch):
    """It is not taken for an empty one: what lies there would not be there for a moment."""
    bucket = DirectoryBucket(tmp_path, fsync=False)
    bucket.put_new("folder/one", b"1")
    assert [one.key for one in bucket.find("")] == ["folder/one"]
    assert [*bucket.find("no-such-folder/")] == []

    def refuse(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(OSError, match="error"):
        [*bucket.find("")]
