"""The verbs about recordings: record, report, forecast, attach."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from _lib.profile.recordings import RECORDING
from _lib.support import optional
from _lib.works import tracking_works
from dirtytrack import cli
from dirtytrack.profile import Report

__all__ = ["tracking_works"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, which is the current one; with a recording in it."""
    monkeypatch.chdir(tmp_path)
    Report(RECORDING).save("run.dirtytrack")
    return tmp_path


@pytest.mark.slow
def test_record_and_report(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A program runs with its arguments and its exit code; the file has its name, and can be shown."""
    (folder / "train.py").write_text("import sys\nprint(sys.argv[1:])\nsys.exit(5)\n")
    assert cli.main(["record", "--every", "0.05", "train.py", "--phase", "x", "-o"]) == 5
    out, err = capfd.readouterr()
    assert out == "['--phase', 'x', '-o']\n"
    assert "Next: dirtytrack report train.dirtytrack" in err
    assert cli.main(["report", "train.dirtytrack"]) == 0
    assert capfd.readouterr().out.startswith("train.py --phase x -o: ")
    assert cli.main(["record", "-m", "timeit", "-n1", "-r1", "pass"]) == 0
    assert "1 loop" in capfd.readouterr().out
    assert (folder / "timeit.dirtytrack").exists()


@pytest.mark.slow
def test_a_recording_is_not_replaced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the program runs; with --force it is."""
    (folder / "run.py").write_text("print('ran')\n")
    before = (folder / "run.dirtytrack").read_bytes()
    assert cli.main(["record", "run.py"]) == 1
    assert "--force replaces it" in capsys.readouterr().err
    assert (folder / "run.dirtytrack").read_bytes() == before
    assert cli.main(["record", "--force", "run.py"]) == 0
    assert (folder / "run.dirtytrack").read_bytes() != before


def test_what_can_not_be_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is no such program; nothing is left of it."""
    assert cli.main(["record", "nothing.py"]) == 1
    assert "there is no program 'nothing.py'" in capsys.readouterr().err
    assert not (folder / "nothing.dirtytrack").exists()
    for bad in (
        ["record"],
        ["record", "--every", "0", "x.py"],
        ["record", "--phase", "x", "x.py"],
        ["attach", "zero"],
        ["report"],
    ):
        with pytest.raises(SystemExit) as exit_:
            cli.main(bad)
        assert exit_.value.code == 2


def test_reports_in_all_forms(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each where it was asked for; without one the table."""
    command = ["report", "run.dirtytrack"]
    assert cli.main([*command, "--html", "a.html", "--perfetto", "a.trace", "--speedscope", "a.scope"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.split() == ["wrote", "a.html", "wrote", "a.trace", "wrote", "a.scope"]
    assert (folder / "a.html").read_text().startswith("<!doctype html>")
    assert "traceEvents" in json.loads((folder / "a.trace").read_text())
    assert cli.main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(Report(RECORDING).to_dict()))
    assert cli.main(command) == 0
    assert capsys.readouterr().out == str(Report(RECORDING)) + "\n"


def test_two_recordings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What each phase wrote to each area in a second, those that differ most first."""
    faster = replace(RECORDING, duration=RECORDING.duration / 2)
    Report(faster).save("other.dirtytrack")
    assert cli.main(["report", "run.dirtytrack", "other.dirtytrack"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("first:  train.py")
    assert lines[4].split()[-7:] == ["2.9", "KiB/s", "5.8", "KiB/s", "2.00x", "3", "3"]
    assert cli.main(["report", "run.dirtytrack", "other.dirtytrack", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["phase"] == "step/embed"


def test_no_recording(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of something else, and no file."""
    (folder / "x").write_text("hello")
    for verb in ("report", "forecast"):
        assert cli.main([verb, "x"]) == 1
        assert "x is no recording of dirtytrack that can be read" in capsys.readouterr().err
        assert cli.main([verb, "missing"]) == 1


def test_a_terminal_gets_colours_and_a_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """As wide as it is; without colours where NO_COLOR asks for that, and in ASCII where it has no more."""
    pytest.importorskip("rich")
    from dirtytrack.cli import _recording

    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm-256color")

    class Terminal(StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    shown = {}
    for name, value in (("colours", None), ("plain", "1")):
        if value is None:
            monkeypatch.delenv("NO_COLOR", raising=False)
        else:
            monkeypatch.setenv("NO_COLOR", value)
        stream = Terminal()
        _recording.show(RECORDING, stream)
        shown[name] = stream.getvalue()
    assert "\x1b[38;" in shown["colours"]
    assert "\u2580" in shown["colours"]
    assert "\x1b[38;" not in shown["plain"]
    assert "@" in shown["plain"]
    assert "\u2580" not in shown["plain"]
    for text in shown.values():
        assert "rows [0, 11)" in text
        assert "a note" in text


def test_a_pipe_gets_plain_text(folder: Path) -> None:
    """ASCII, also where rich is there."""
    command = [sys.executable, "-W", "error", "-m", "dirtytrack", "report", "run.dirtytrack"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout.decode("ascii") == str(Report(RECORDING)) + "\n"


def test_forecast(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the working sets: those that the recording has whole."""
    assert cli.main(["forecast", "run.dirtytrack"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines[2].split()) == "a save every holds at most of all in an hour tracking pays"
    assert lines[3].split() == ["1", "s", "8.0", "KiB", "12.0", "KiB", "25.6%", "28.1", "MiB", "yes"]
    assert len(lines) == 6
    assert cli.main(["forecast", "run.dirtytrack", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["base"] == 32000
    assert data["deltas"][0] == {
        "interval": 1.0,
        "nbytes": 8192.0,
        "peak": 12288,
        "fraction": 0.256,
        "pays": True,
    }
    hot = replace(RECORDING, collects=5)
    Report(hot).save("hot.dirtytrack")
    assert cli.main(["forecast", "hot.dirtytrack"]) == 0


@pytest.mark.skipif(hasattr(sys, "remote_exec"), reason="it is there from Python 3.14 on")
def test_attach_needs_a_later_python(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And says what to do instead; no file is left."""
    assert cli.main(["attach", str(os.getpid())]) == 1
    assert "from Python 3.14 on, which both programs need" in capsys.readouterr().err
    assert not list(folder.glob("*.dirtytrack.*"))
    assert not (folder / f"{os.getpid()}.dirtytrack").exists()


_TARGET = """
import numpy as np, sys
table = np.zeros((1000, 512))
print("up", flush=True)
import time
deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    table[100:110] += 1
    time.sleep(0.001)
    if table[100, 0] > 1e9: break
"""


def test_attach(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program that runs: its arrays have their names; it goes on, and can be attached to again."""
    optional(hasattr(sys, "remote_exec"), "sys.remote_exec is of Python 3.14")
    with subprocess.Popen([sys.executable, "-c", _TARGET], stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "up\n"
            for _ in range(2):
                assert cli.main(["attach", str(program.pid), "--for", "0.5", "--force"]) == 0
                recording = Report.load(f"{program.pid}.dirtytrack").recording
                table = next(area for area in recording.areas if area.name == "table")
                assert (table.kind, table.shape, table.itemsize) == ("array", (1000, 512), 8)
                hottest = recording.hottest(1)[0]
                assert hottest[0].name == "table"
                first, stop = re.findall(r"\d+", hottest[0].place(hottest[1], hottest[2]))
                assert 99 <= int(first) < int(stop) <= 111
            assert program.poll() is None
            program.send_signal(signal.SIGTERM)
        finally:
            program.kill()
    assert cli.main(["attach", "4194304"]) == 1
    assert capsys.readouterr().err


def test_attach_to_what_is_no_python(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An error that says so."""
    optional(hasattr(sys, "remote_exec"), "sys.remote_exec is of Python 3.14")
    with subprocess.Popen(["sleep", "60"]) as program:
        assert cli.main(["attach", str(program.pid)]) == 1
        program.kill()
    assert f"process {program.pid} can't be attached to" in capsys.readouterr().err
