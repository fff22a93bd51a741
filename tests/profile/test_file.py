"""Files of recordings: what is written is read back, and what somebody else made of one does no harm."""

from __future__ import annotations

import copy
import gzip
import json
import os
import random
import stat
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from _lib import limits
from _lib.profile.recordings import FAMILY, RECORDING
from dirtytrack import RecordingError
from dirtytrack.profile import Column, Count, Phase, Process, Recording, Report, Share, Tally, _limits, file
from dirtytrack.profile._ledger import Ledger

pytestmark = pytest.mark.anywhere


def stored(folder: Path, data: Any) -> Path:
    """A file of these data."""
    path = folder / "stored"
    path.write_bytes(gzip.compress(json.dumps(data).encode()))
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """All of it, and as JSON that other programs can read."""
    path = tmp_path / "run.dirtytrack"
    Report(FAMILY).save(path)
    assert Report.load(path).recording == FAMILY
    Report(RECORDING).save(path, force=True)
    assert Report.load(path).recording == RECORDING
    assert Report.load(str(path)).recording == RECORDING
    data = json.loads(gzip.decompress(path.read_bytes()))
    assert (data["format"], data["version"]) == ("dirtytrack recording", 1)
    assert [other.name for other in tmp_path.iterdir()] == ["run.dirtytrack"]


def test_no_file_is_replaced_unless_it_is_asked_for(tmp_path: Path) -> None:
    """And with the same recording the bytes are the same."""
    path = tmp_path / "run.dirtytrack"
    Report(RECORDING).save(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="--force"):
        Report(RECORDING).save(path)
    assert path.read_bytes() == before
    path.write_bytes(b"other")
    Report(RECORDING).save(path, force=True)
    assert path.read_bytes() == before


def test_a_file_that_can_not_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an empty one nor a part."""

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        Report(RECORDING).save(tmp_path / "run.dirtytrack")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        Report(RECORDING).save(tmp_path / "missing" / "run.dirtytrack")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut off"),
        (b"dirtytrack", "incorrect header"),
        (gzip.compress(b"{}")[:-3], "cut off"),
        (gzip.compress(b"{}") + b"x", "behind its end"),
        (gzip.compress(b"{}"), "no 'format'"),
        (gzip.compress(b"[]"), "no 'format'"),
        (gzip.compress(b"null"), "no 'format'"),
        (gzip.compress(b"\xff\xff"), "decode"),
        (gzip.compress(b"[" * 100_000), "recursion|RecursionError|depth|Stack"),
        (gzip.compress(b'{"format": "other"}'), "something else"),
        (
            gzip.compress(b'{"format": "dirtytrack recording", "version": 2}'),
            "of version 2, and this dirtytrack",
        ),
        (gzip.compress(b"9" * 5000), "Exceeds the limit"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    """And the error says what it is instead."""
    path = tmp_path / "stored"
    path.write_bytes(data)
    with pytest.raises(RecordingError, match=message):
        Report.load(path)


def test_too_much_is_refused_before_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file, and a small one that becomes large."""
    monkeypatch.setattr(file, "_MOST_TEXT", 1 << 20)
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(b" " * (1 << 22)))
    with pytest.raises(RecordingError, match="more than 1048576 bytes of JSON"):
        Report.load(path)
    monkeypatch.setattr(file, "_MOST_FILE", 1000)
    path.write_bytes(random.Random(1).randbytes(2000))
    with pytest.raises(RecordingError, match="more than 1000 bytes"):
        Report.load(path)


def _numbers(count: int, cells: int) -> tuple[Count, ...]:
    return tuple(Count(cell, cell + 1, (1 << 31) + cell) for cell in range(min(count, cells)))


def _largest() -> Recording:
    # As much of everything as there may be, at a time.
    name, path = "\U0001f600" * (_limits.NAME - 6), "\U0001f600" * (_limits.TEXT - 4)
    shape = (*[1] * (_limits.AXES - 2), 128, 4096)
    counts = _numbers(_limits.COUNTS // _limits.AREAS, 128)
    area = replace(RECORDING.areas[0], shape=shape, itemsize=1, nbytes=128 * 4096, offset=0, counts=counts)
    area = replace(area, writes=1 << 60, distinct=128, cell=1)
    tallies = [Tally(place, 1 << 60, 1 << 61, 128) for place in range(_limits.TALLIES // _limits.PHASES)]
    shares = tuple(Share(phase, 1 / 3, 1 << 60) for phase in range(_limits.PHASES))
    runs = {place: (Count(0, 127, 1 << 40),) for place in range(_limits.COLUMN_COUNTS // _limits.COLUMNS)}
    return replace(
        RECORDING,
        program="\U0001f600" * _limits.TEXT,
        areas=tuple(replace(area, name=f"{name}{place}") for place in range(_limits.AREAS)),
        phases=tuple(
            Phase(f"{path}{place}", 1 << 60, 1 / 3, tuple(tallies)) for place in range(_limits.PHASES)
        ),
        columns=tuple(Column(turn, turn + 1.0, shares, runs) for turn in range(_limits.COLUMNS)),
        working_sets=(RECORDING.working_sets[0],) * _limits.WORKING_SETS,
        processes=(Process(1 << 22, 1 << 22, 1 / 3, 2 / 3, 1 << 60, 1 << 60, 1 << 60, 1 << 60),)
        * _limits.PROCESSES,
        notes=("\U0001f600" * _limits.TEXT,) * _limits.NOTES,
    )


@pytest.mark.slow
def test_the_largest_recording_is_read_again(tmp_path: Path) -> None:
    """At each limit at a time, and within those of the file."""
    recording = _largest()
    path = tmp_path / "largest"
    Report(recording).save(path)
    assert Report.load(path).recording == recording
    text = gzip.decompress(path.read_bytes())
    assert len(text) < file._MOST_TEXT
    assert path.stat().st_size < file._MOST_FILE


@pytest.mark.parametrize(
    ("limit", "value"), [("COUNTS", 1), ("TALLIES", 0), ("COLUMN_COUNTS", 1), ("AREAS", 0), ("PHASES", 1)]
)
def test_what_could_not_be_read_again_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    """One more than there may be of anything, in a recording that somebody has put together."""
    monkeypatch.setattr(_limits, limit, value)
    with pytest.raises(ValueError, match=f"read again: .*(at most|more than) {value}\\b"):
        Report(RECORDING).save(tmp_path / "more")
    assert list(tmp_path.iterdir()) == []


_MILLIONS: dict[str, Callable[[], bytes]] = {
    "lists": lambda: b"[%s]" % b",".join([b"[]"] * 4_000_000),
    "objects": lambda: b"[%s]" % b",".join([b"{}"] * 4_000_000),
    "numbers": lambda: b"[%s]" % b",".join([b"1e9"] * 8_000_000),
    "texts": lambda: b"[%s]" % b",".join([b'"ab"'] * 4_000_000),
    "wide texts": lambda: b'["%s\\ud83d\\ude00"]' % (b"a" * 33_000_000),
    "keys": lambda: b"{%s}" % b",".join(b'"%d":0' % key for key in range(2_000_000)),
    "nesting": lambda: b"[" * 33_000_000,
}
_READ = """
import resource, sys
from dirtytrack import RecordingError
from dirtytrack.profile import Report

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

before = peak()
try:
    Report.load(sys.argv[1])
except RecordingError:
    print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", _MILLIONS)
def test_hostile_files_take_bounded_memory(tmp_path: Path, what: str) -> None:
    """Some 100 KiB, of which more would be made than there is memory for."""
    path = tmp_path / "hostile"
    path.write_bytes(gzip.compress(_MILLIONS[what](), 1))
    done = limits.run([sys.executable, "-c", _READ, path])
    assert not done.stderr
    assert int(done.stdout) < 512  # MiB


def test_texts_that_can_not_be_kept_are_cut_or_escaped(tmp_path: Path) -> None:
    """Long names and paths, arguments that are no characters, too many notes: the file is read again."""
    ledger = Ledger([1.0])
    ledger.area(replace(RECORDING.areas[0], name="a\udcff" + "b" * 5000))
    ledger.add("phase\udcff/" * 1000, 1.0, [])
    notes = [f"{number}" * 3000 for number in range(1, 100)]
    recording = ledger.recording(
        "record", program="x.py \udcff" + " y" * 3000, started=0.0, overhead=0.0, watched=0, notes=notes
    )
    Report(recording).save(tmp_path / "run")
    read = Report.load(tmp_path / "run").recording
    assert read == recording
    assert read.program.startswith("x.py \\udcff y y")
    assert read.areas[0].name.startswith("a\\udcffbbb")
    assert len(read.notes) == 64


@pytest.mark.parametrize("kind", ["directory", "fifo", "link"])
def test_only_regular_files_are_replaced(tmp_path: Path, kind: str) -> None:
    """Whatever is asked for: no device, no pipe, no link."""
    path, other = tmp_path / "there", tmp_path / "other"
    other.write_bytes(b"other")
    {"directory": path.mkdir, "fifo": lambda: os.mkfifo(path), "link": lambda: path.symlink_to(other)}[kind]()
    before = path.lstat()
    with pytest.raises(FileExistsError, match="no regular file"):
        Report(RECORDING).save(path, force=True)
    assert path.lstat() == before
    assert other.read_bytes() == b"other"


def test_a_recording_is_for_its_owner(tmp_path: Path) -> None:
    """Whatever the umask permits: names of variables and arguments are in it."""
    path = tmp_path / "run"
    before = os.umask(0)
    try:
        Report(RECORDING).save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o644)
        Report(RECORDING).save(path, force=True)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


_CHANGES: list[tuple[tuple[Any, ...], Any]] = [
    (("kind",), "other"),
    (("program",), 3),
    (("program",), "x" * 5000),
    (("program",), "\ud800"),
    (("started",), "now"),
    (("duration",), -1),
    (("duration",), float("nan")),
    (("duration",), float("inf")),
    (("duration",), True),
    (("collects",), 1.5),
    (("collects",), 1 << 80),
    (("notes",), {}),
    (("notes",), [1]),
    (("areas",), {"0": 1}),
    (("areas", 0, "kind"), "elephant"),
    (("areas", 0, "nbytes"), 0),
    (("areas", 0, "nbytes"), 1 << 60),
    (("areas", 0, "page_size"), 1000),
    (("areas", 0, "page_size"), 0),
    (("areas", 0, "offset"), 4096),
    (("areas", 0, "cell"), 0),
    (("areas", 0, "column_cell"), 3),
    (("areas", 0, "shape"), [40, 99]),
    (("areas", 0, "shape"), [0]),
    (("areas", 0, "shape"), [1] * 65),
    (("areas", 0, "distinct"), 10),
    (("areas", 0, "counts"), [0, 1]),
    (("areas", 0, "counts"), [0, 100, 1]),
    (("areas", 0, "counts"), [1, 1, 1]),
    (("areas", 0, "counts"), [0, 2, 1, 1, 3, 1]),
    (("areas", 0, "counts"), [0, 1, 0]),
    (("phases", 1, "name"), None),
    (("phases", 1, "tallies"), [[1, 9, 9, 3]]),
    (("phases", 1, "tallies"), [[0, 9, 9]]),
    (("phases", 1, "tallies"), [[0, 1, 9, 3]]),
    (("columns", 0, "shares"), [[2, 1.0, 0]]),
    (("columns", 0, "shares"), [[0, 1.0]]),
    (("columns", 0, "stop"), 7.0),
    (("columns", 0, "start"), 7.0),
    (("columns", 0, "counts"), [[1, []]]),
    (("columns", 0, "counts"), [[0, [0, 9, 1]]]),
    (("columns", 0, "counts"), [[0]]),
    (("working_sets", 0, "interval"), []),
    (("phases", 1, "process"), 2),
    (("processes", 1, "pid"), -1),
    (("processes", 1, "stop"), 0.5),
    (("processes", 1, "distinct"), 10),
    (("processes",), None),
]


@pytest.mark.parametrize(("place", "value"), _CHANGES)
def test_each_part_is_checked(tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    """What is no such number, name or list; and whatever is missing."""
    for missing in (False, True):
        data = copy.deepcopy(json.loads(json.dumps(file.encode(FAMILY))))
        inner = data
        for step in place[:-1]:
            inner = inner[step]
        if missing:
            del inner[place[-1]]
        else:
            inner[place[-1]] = value
        with pytest.raises(RecordingError):
            Report.load(stored(tmp_path, data))


def test_more_areas_than_there_may_be(tmp_path: Path) -> None:
    """Counts of things are bounded, too."""
    data = file.encode(RECORDING)
    data["areas"] = data["areas"] * 5000
    with pytest.raises(RecordingError, match="at most 4096"):
        Report.load(stored(tmp_path, data))


def test_random_damage(tmp_path: Path) -> None:
    """It is refused, or what is read can be shown in all forms."""
    draw = random.Random(5)
    text = json.dumps(file.encode(RECORDING)).encode()
    path = tmp_path / "damaged"
    read = 0
    for _ in range(120):
        damaged = bytearray(text)
        for _ in range(draw.randrange(1, 4)):
            at = draw.randrange(len(damaged))
            damaged[at : at + draw.randrange(3)] = draw.choice(
                [b"", b"9", b"-", b"null", b"0", b'"', b"[", b"1e9"]
            )
        path.write_bytes(gzip.compress(bytes(damaged), 1))
        try:
            report = Report.load(path)
        except RecordingError:
            continue
        read += 1
        assert str(report)
        report.to_dict()
        report.to_html(tmp_path / "page.html")
        report.to_perfetto(tmp_path / "trace")
        report.to_speedscope(tmp_path / "scope")
    assert 0 < read < 120
    compressed = bytearray(zlib.compress(text))
    compressed[20] ^= 1
    path.write_bytes(bytes(compressed))
    with pytest.raises(RecordingError):
        Report.load(path)
