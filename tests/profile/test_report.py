"""What a report says: the table to the letter, the numbers as JSON, traces as other programs read them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from _lib.profile.recordings import FAMILY, RECORDING
from dirtytrack.profile import Phase, Recording, Report, Tally
from dirtytrack.profile.comparison import compare

pytestmark = pytest.mark.anywhere

_TABLE = r"""
train.py --fast: 12.5 s, 77 collects of 31.2 KiB, 250 ms of waiting for them (2.0%)

phase       region               page-writes     bytes   share  pages  each
step/embed  <table> \u2028 \xe9            9  36.0 KiB  100.0%      3  3.0x

written         mean      most  windows
within 1 s   8.0 KiB  12.0 KiB       12
within 60 s        -         -        0

hottest              where          pages  page-writes
<table> \u2028 \xe9  rows [0, 11)       2            5
<table> \u2028 \xe9  rows [20, 40)      4            4

a note
"""


def test_the_table() -> None:
    """Phases, working sets, hottest ranges and notes, in ASCII."""
    assert str(Report(RECORDING)) == _TABLE.strip()
    assert repr(Report(RECORDING)) == "<dirtytrack.profile.Report: 9 page-writes in 2 phases, 12.5 s>"


def test_an_empty_recording() -> None:
    """Has titles and nothing below them, in every form."""
    empty = Recording("record", "p", 0.0, 0.0, 0, 0.0, 0, 0, "3", "6", (), (), (), ())
    assert str(Report(empty)).splitlines()[0] == "p: 0 us, 0 collects of 0 B, 0 us of waiting for them (0.0%)"
    assert Report(empty).to_dict()["phases"] == {}
    assert "<html" in Report(empty)._repr_html_().replace("&lt;", "<")


def test_long_tables_are_cut() -> None:
    """Phases are shown by what they wrote; the rest is counted."""
    phases = tuple(Phase(f"p{n}", 1, 1.0, (Tally(0, n + 1, n + 1, 1),)) for n in range(100))
    lines = str(Report(replace(RECORDING, phases=phases))).splitlines()
    assert lines[3].split()[0] == "p99"
    assert lines[43].startswith("and 60 more")


def test_json(tmp_path: Path) -> None:
    """Page-writes are counted over all collects, distinct pages once."""
    Report(RECORDING).to_json(tmp_path / "r.json")
    data = json.loads((tmp_path / "r.json").read_text())
    phase = data["phases"]["step/embed"]
    assert (phase["pages"], phase["distinct"], phase["nbytes"], phase["collects"]) == (9, 3, 9 * 4096, 70)
    name = "<table> \u2028 é"
    assert phase["regions"][name] == {"pages": 9, "distinct": 3, "nbytes": 9 * 4096, "rewritten": 3.0}
    assert data["phases"]["(outside)"]["seconds"] == 1.5
    assert [one["mean"] for one in data["working_sets"]] == [8192.0, 0.0]
    assert data["hottest"][0] == {"region": name, "start": 0, "stop": 2, "pages": 5}
    assert sum(one["pages"] for one in data["over_time"]) == data["pages"] == 9


def test_perfetto(tmp_path: Path) -> None:
    """Each event has what Chrome's format asks for; counters go back to zero; phases follow each other."""
    Report(RECORDING).to_perfetto(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert all({"name", "ph", "pid"} <= set(event) for event in events)
    slices = [event for event in events if event["ph"] == "X"]
    assert [(one["name"], one["ts"], one["dur"]) for one in slices] == [
        ("(outside)", 0.0, 1.5e6),
        ("step/embed", 1.5e6, 4.5e6),
        ("step/embed", 6e6, 6.5e6),
    ]
    counters = [(one["ts"], one["args"]["bytes"]) for one in events if one["ph"] == "C"]
    assert counters == [(0.0, 4 * 4096), (6e6, 4 * 4096)]


def test_names_that_are_there_twice() -> None:
    """Each has its numbers: an array that was made anew, regions of one name."""
    area = RECORDING.areas[0]
    twins = replace(RECORDING, areas=(area, replace(area, writes=1), replace(area, name=f"{area.name} (2)")))
    data = Report(twins).to_dict()
    assert {name: one["pages"] for name, one in data["regions"].items()} == {
        area.name: 9,
        f"{area.name} (2)": 1,
        f"{area.name} (2) (2)": 9,
    }
    assert len({one["region"] for one in data["hottest"]}) == 3


def test_forked_children(tmp_path: Path) -> None:
    """Each has a row, a track of its own in a trace, and is one of the children where runs are compared."""
    lines = str(Report(FAMILY)).splitlines()
    titles = next(place for place, line in enumerate(lines) if line.split()[:2] == ["process", "from"])
    assert lines[titles + 1].split() == ["4712,", "of", "4711", "1", "s", "11", "s", "9", "3", "12.0", "KiB"]
    assert lines[titles + 2].split() == ["4711", "0", "us", "12.5", "s", "0", "0", "0", "B"]
    assert Report(FAMILY).to_dict()["processes"][1]["parent"] == 4711
    Report(FAMILY).to_perfetto(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sorted((one["tid"], one["ts"], one["dur"]) for one in events if one["ph"] == "X") == [
        (1, 4.5e6, 1.5e6),
        (2, 1.5e6, 4.5e6),
        (2, 6e6, 6.5e6),
    ]
    other = replace(FAMILY, processes=(FAMILY.processes[0], replace(FAMILY.processes[1], pid=99)))
    other = replace(other, phases=(FAMILY.phases[0], replace(FAMILY.phases[1], name="process 99/step")))
    assert [row.phase for row in compare(FAMILY, other)] == ["(children)/step"]


def test_speedscope(tmp_path: Path) -> None:
    """Stacks of frames that there are, weights that add up."""
    Report(RECORDING).to_speedscope(tmp_path / "scope.json")
    data = json.loads((tmp_path / "scope.json").read_text())
    frames = [frame["name"] for frame in data["shared"]["frames"]]
    written, spent = data["profiles"]
    assert [[frames[i] for i in stack] for stack in written["samples"]] == [
        ["step", "embed", "[<table> \u2028 é]"]
    ]
    assert (written["weights"], written["endValue"], written["unit"]) == ([9 * 4096], 9 * 4096, "bytes")
    assert spent["endValue"] == 12.5
    assert all(one["type"] == "sampled" for one in data["profiles"])


def test_notebooks_are_not_touched() -> None:
    """The page is in a frame without rights, and no name of memory gets out of it."""
    hostile = replace(RECORDING.areas[0], name='"></iframe><script>alert(1)</script>')
    shown = Report(replace(RECORDING, areas=(hostile,), program="</title><b>"))._repr_html_()
    assert shown.startswith('<iframe srcdoc="')
    assert shown.endswith("></iframe>")
    assert 'sandbox="allow-scripts"' in shown
    assert shown.count("<") == 2
