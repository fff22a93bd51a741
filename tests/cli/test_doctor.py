"""The doctor's table, JSON and exit code: the truth here, and under a filter that plays another kernel."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import re
import subprocess
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path

import pytest

from _lib import seccomp
from _lib.support import in_child, require
from dirtytrack.checkpoint import directory_support
from dirtytrack.cli import main
from dirtytrack.kernel.support import Support, support

NO_SYSCALL = seccomp.Refuse("userfaultfd", errno.EPERM)
NO_DEVICE = seccomp.refuse_ioctl(seccomp.USERFAULTFD_IOC_NEW, errno.EPERM)
NO_SCAN = seccomp.refuse_ioctl(seccomp.PAGEMAP_SCAN, errno.ENOTTY)


def doctor(*arguments: str, under: tuple[seccomp.Refuse, ...] = ()) -> tuple[int, str, Support]:
    """Exit code, output and findings of the doctor in a child, under a seccomp filter if rules are given."""

    def child() -> tuple[int, str, Support]:
        if under:
            seccomp.install(*under)
        with redirect_stdout(io.StringIO()) as output:
            code = main(["doctor", *arguments])
        return code, output.getvalue(), support()

    result: tuple[int, str, Support] = in_child(child).check()
    return result


@pytest.fixture
def works() -> None:
    """A kernel that can track, to be as it is or to play one that can't."""
    require(support().works, "tracking does not work here")


@pytest.mark.usefixtures("works")
def test_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tracking works the exit code is 0, every check is shown and no remedy is."""
    monkeypatch.setenv("COLUMNS", "400")
    code, text, found = doctor()
    assert code == 0
    assert text.endswith("Tracking works here.\n")
    lines = text.splitlines()
    for check in found.checks:
        assert any(check.name in line and check.detail in line for line in lines), check
    assert "->" not in text
    assert "\033" not in text


@pytest.mark.usefixtures("works")
@pytest.mark.parametrize(
    ("rules", "cause"),
    [((NO_SYSCALL, NO_DEVICE), "seccomp"), ((NO_SCAN,), "kernel")],
    ids=["forbidden", "old kernel"],
)
def test_table_names_cause_and_remedy(
    monkeypatch: pytest.MonkeyPatch, rules: tuple[seccomp.Refuse, ...], cause: str
) -> None:
    """Where it does not work the exit code is 1, and the failing line and the last one carry the remedy."""
    monkeypatch.setenv("COLUMNS", "400")
    code, text, _ = doctor(under=rules)
    assert code == 1
    lines = text.splitlines()
    assert f"Tracking does not work here. Cause: {cause}." in lines
    (failed,) = [number for number, line in enumerate(lines) if line.startswith("NO")]
    assert lines[failed + 1].strip() == f"-> {lines[-1]}"


@pytest.mark.usefixtures("works")
@pytest.mark.parametrize(
    "rules", [(), (NO_SYSCALL, NO_DEVICE), (NO_SCAN,)], ids=["", "forbidden", "old kernel"]
)
def test_json_says_the_same(rules: tuple[seccomp.Refuse, ...]) -> None:
    """The JSON carries cause, remedy and checks, with the same exit code."""
    code, text, _ = doctor("--json", under=rules)
    found = json.loads(text)
    assert code == (0 if found["works"] else 1)
    assert found["works"] is (rules == ())
    assert (found["cause"] is None) is found["works"]
    remedies = {check["remedy"] for check in found["checks"]} - {""}
    assert remedies == ({found["remedy"]} if rules else set())


def test_its_page_shows_it() -> None:
    """The page that says what to do has every line of the table, and the cause's remedy."""
    page = (Path(__file__).parents[2] / "docs/kernel.md").read_text(encoding="utf-8")
    _, _, found = doctor(under=(NO_SYSCALL, NO_DEVICE))
    shown = re.findall(r"^(?:ok|--|NO)  (\S+(?: \S+)*)  ", page, re.MULTILINE)
    assert {check.name for check in support().checks} == set(shown)
    assert f"Tracking does not work here. Cause: {found.cause}.\n" in page
    assert f"### {found.cause}\n" in page


def test_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is wider than the terminal, and folding loses no word."""
    monkeypatch.setenv("COLUMNS", "72")
    _, text, _ = doctor(under=(NO_SYSCALL, NO_DEVICE))
    assert max(map(len, text.splitlines())) <= 72
    monkeypatch.setenv("COLUMNS", "400")
    _, wide, _ = doctor(under=(NO_SYSCALL, NO_DEVICE))
    assert text.split() == wide.split()


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colour_on_a_terminal_only(environment: dict[str, str], coloured: bool) -> None:
    """A terminal gets colour, unless NO_COLOR is set."""
    master, slave = pty.openpty()
    inherited = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    command = [sys.executable, "-m", "dirtytrack", "doctor"]
    process = subprocess.Popen(command, stdout=slave, env=inherited | environment)
    os.close(slave)
    text = b""
    with suppress(OSError):  # EIO: the other end is closed
        while piece := os.read(master, 4096):
            text += piece
    os.close(master)
    assert process.wait() == (0 if support().works else 1)
    assert b"WP_ASYNC" in text
    assert (b"\033[" in text) is coloured


def test_forced_blindness_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor says which hole reporting is in force, and that the environment set it."""
    monkeypatch.setenv("DIRTYTRACK_HOLE_REPORTING", "blind")
    code, text, _ = doctor("--json")
    assert code == (0 if support().works else 1)
    assert json.loads(text)["hole_reporting"] == "blind"
    monkeypatch.setenv("DIRTYTRACK_HOLE_REPORTING", "nine")
    assert in_child(lambda: main(["doctor"])).check() == 1


def test_a_directory_is_told_what_it_can_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check with what follows from it, the exit code 0, and nothing is left there."""
    monkeypatch.setenv("COLUMNS", "400")
    with redirect_stdout(io.StringIO()) as output:
        assert main(["doctor", str(tmp_path)]) == 0
    lines = output.getvalue().splitlines()
    found = directory_support(tmp_path)
    for check in found.checks[1:]:  # how much room there is may change
        assert any(check.name in line and check.detail in line for line in lines), check
    assert lines[-1] == f"A chain of checkpoints can be kept in {tmp_path}."
    with redirect_stdout(io.StringIO()) as output:
        assert main(["doctor", str(tmp_path), "--json"]) == 0
    assert json.loads(output.getvalue())["checks"][1:] == found.as_dict()["checks"][1:]
    assert os.listdir(tmp_path) == []


def test_a_directory_that_can_not_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code is 1; the failing line says what to do, and the last one what that means."""
    monkeypatch.setenv("COLUMNS", "400")
    with redirect_stdout(io.StringIO()) as output:
        assert main(["doctor", "/proc"]) == 1
    lines = output.getvalue().splitlines()
    (failed,) = [at for at, line in enumerate(lines) if line.startswith("NO  write")]
    assert lines[failed + 1].strip() == "-> choose another directory"
    assert lines[-1] == "A chain of checkpoints can't be kept in /proc with the default options."
    with redirect_stdout(io.StringIO()) as output:
        assert main(["doctor", "/proc", "--json"]) == 1
    assert json.loads(output.getvalue())["works"] is False


def test_what_is_no_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line on stderr names it, and says what to do."""
    assert main(["doctor", str(tmp_path / "no")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "make it, or name the one above it" in err
    assert str(tmp_path / "no") in err


def test_a_url_is_told_what_it_can_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every check with what follows from it, and nothing is left there; and what is no URL."""
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["doctor", "memory://doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "ok  put if absent  of two writers one commits" in lines
    assert lines[-1] == "A chain of checkpoints can be kept in memory://doctor."
    assert main(["doctor", "memory://doctor", "--json"]) == 0
    found = directory_support("memory://doctor")
    assert json.loads(capsys.readouterr().out) == found.as_dict()
    assert [one.name for one in found.checks] == [
        *("write", "read", "put if absent", "upload", "list", "order", "remove")
    ]
    assert main(["doctor", "ftp://x/y"]) == 1
    assert "of no known kind" in capsys.readouterr().err
