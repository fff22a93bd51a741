"""Bad input: a clear error before anything is touched."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest

import dirtytrack
from dirtytrack.checkpoint import Chain, Checkpointer

REGION = {"a": np.zeros(10)}

SHARED = np.zeros(100, np.uint8)


def _read_only():
    array = np.zeros(10)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("regions", "error", "message"),
    [
        ({}, ValueError, "no region"),
        ([np.zeros(3)], TypeError, "mapping of names"),
        ({"": np.zeros(3)}, ValueError, "1 to 255 bytes"),
        ({"x" * 256: np.zeros(3)}, ValueError, "1 to 255 bytes"),
        ({"ä" * 128: np.zeros(3)}, ValueError, "has 256"),
        ({"\ud800": np.zeros(3)}, ValueError, "UTF-8"),
        ({7: np.zeros(3)}, TypeError, "is a str"),
        ({"w": _read_only()}, ValueError, "region 'w'.*read-only"),
        ({"w": np.zeros((4, 4))[:, ::2]}, ValueError, "region 'w'.*not contiguous"),
        ({"w": np.array([{}])}, TypeError, "region 'w'.*Python objects"),
        ({"w": "text"}, TypeError, "region 'w'.*no memory"),
        ({"w": b"bytes"}, ValueError, "region 'w'.*read-only"),
        ({"w": SHARED, "b": SHARED[1:]}, ValueError, "the memory of 'w' and of 'b' overlaps"),
        ({"w": SHARED[:60], "c": np.zeros(3), "b": SHARED[50:]}, ValueError, "'w' and of 'b' overlaps"),
    ],
)
def test_regions(tmp_path, regions, error, message):
    """What can't be tracked, and names that can't be written, name the region; no directory is made."""
    for make in (Checkpointer, Checkpointer.open, Checkpointer.resume):
        with pytest.raises(error, match=message):
            make(tmp_path / "chain", regions)
    assert os.listdir(tmp_path) == []


def test_a_description_that_is_too_long(tmp_path):
    """A record type whose field has a name of 34 MB is refused before a file is made."""
    with pytest.raises(ValueError, match="at most 33550336"):
        Checkpointer(tmp_path / "chain", {"a": np.zeros(9, np.dtype([("x" * 34_000_000, "u1")]))})
    assert os.listdir(tmp_path) == []


def test_numbers_of_numpy(tmp_path):
    """A number is a number: twice an uint8 of 200 is 400."""
    with Checkpointer(tmp_path, REGION, keep=np.uint8(200), staging_bytes=np.uint64(1 << 20)) as checkpoints:
        for _ in range(3):
            checkpoints.save(wait=True)
        checkpoints.flush()
    with Chain(tmp_path) as chain:
        assert len(chain) == 3


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"keep": 0}, ValueError),
        ({"keep": -1}, ValueError),
        ({"keep": "two"}, TypeError),
        ({"keep": 1.5}, TypeError),
        ({"compression": "lzma"}, ValueError),
        ({"compression": None}, ValueError),
        ({"lock": "flock"}, ValueError),
        ({"lock": None}, ValueError),
        ({"lock": False}, ValueError),
        ({"staging_bytes": 4095}, ValueError),
        ({"staging_bytes": "1 MiB"}, TypeError),
        ({"max_pause": -0.1}, ValueError),
        ({"max_pause": math.inf}, ValueError),
        ({"max_pause": math.nan}, ValueError),
        ({"session": "mine"}, TypeError),
        ({"speed": 3}, TypeError),
    ],
)
def test_options(tmp_path, option, error):
    """Each is named, and no directory is made."""
    for make in (Checkpointer, Checkpointer.open, Checkpointer.resume):
        with pytest.raises(error, match=next(iter(option))):
            make(tmp_path / "chain", REGION, **option)
    assert os.listdir(tmp_path) == []


def _nested():
    value = []
    for _ in range(200):
        value = [value]
    return value


def _in_itself():
    value = {}
    value["me"] = value
    return value


@pytest.mark.parametrize(
    ("meta", "error", "message"),
    [
        (b"bytes", TypeError, "meta must be JSON"),
        ({"step": np.int64(3)}, TypeError, "int64"),
        ({1: "one"}, TypeError, "the key 1"),
        ({"a": [{"b": {None: 1}}]}, TypeError, r"meta\['a'\]\[0\]\['b'\] has the key None"),
        (math.nan, ValueError, "meta must be JSON"),
        ([math.inf], ValueError, "meta must be JSON"),
        pytest.param({"a": [10**4300]}, ValueError, r"meta\['a'\]\[0\] is an integer of more", id="integer"),
        (_nested(), ValueError, "nested"),
        (_in_itself(), ValueError, "in itself"),
        pytest.param("x" * (1 << 25), ValueError, "large data belongs into a region", id="long"),
        pytest.param([[]] * 4_000_000, ValueError, "too many values: .*, and at most 512.0 MiB", id="many"),
        (np.zeros(3), TypeError, "meta must be JSON"),
    ],
)
def test_meta(tmp_path, meta, error, message):
    """What would not come back as it is is refused, and nothing is saved."""
    with Checkpointer(tmp_path, REGION) as checkpoints:
        with pytest.raises(error, match=message):
            checkpoints.save(meta)
        checkpoints.flush()
        assert os.listdir(tmp_path) == ["lock"]


def test_the_pause_is_a_context_manager(tmp_path):
    """A number of seconds, or a function, is none."""
    with Checkpointer(tmp_path, REGION) as checkpoints:
        for pause in (-1, 0.5, lambda: None):
            with pytest.raises(TypeError, match="context manager"):
                checkpoints.save(pause=pause)


def test_a_path_that_is_a_file(tmp_path):
    """NotADirectoryError, with the path; nothing stays tracked."""
    path = tmp_path / "file"
    path.write_text("mine")
    with dirtytrack.Session() as session:
        for make in (Checkpointer, Checkpointer.open, Checkpointer.resume):
            with pytest.raises(NotADirectoryError, match="file"):
                make(path, REGION, session=session)
        assert session.regions == ()
    assert path.read_text() == "mine"


def test_a_directory_that_is_not_there(tmp_path):
    """Resuming needs one; starting makes it, and those above it."""
    with pytest.raises(FileNotFoundError):
        Checkpointer.resume(tmp_path / "a" / "b", REGION)
    assert os.listdir(tmp_path) == []
    Checkpointer(tmp_path / "a" / "b", REGION).close()
    assert (tmp_path / "a" / "b").is_dir()


def test_a_region_of_another_session(tmp_path):
    """A region given as such belongs to the session that saves it."""
    with dirtytrack.Session() as one, dirtytrack.Session() as other:
        region = one.track(np.zeros(10))
        with pytest.raises(ValueError, match="another session"):
            Checkpointer(tmp_path / "chain", {"a": region}, session=other)
    assert os.listdir(tmp_path) == []
