"""The command line: which verb runs, what becomes of its errors, and the exit codes."""

from __future__ import annotations

import argparse
import errno
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from types import ModuleType

import pytest

from _lib import limits
from dirtytrack import cli
from dirtytrack.errors import ClosedError, kernel_error

Install = Callable[[str, Callable[[argparse.Namespace], int]], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a verb of the test's own in the place of a real one."""

    def put(name: str, run: Callable[[argparse.Namespace], int]) -> None:
        module = ModuleType(f"dirtytrack.cli.{name}", "What the verb is for.")
        module.add_arguments = lambda parser: parser.add_argument("--fast", action="store_true")  # type: ignore[attr-defined]
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return put


def raiser(error: BaseException) -> Callable[[argparse.Namespace], int]:
    """A verb that fails."""

    def run(args: argparse.Namespace) -> int:
        raise error

    return run


def test_without_arguments_help_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All verbs are named, and none runs."""
    monkeypatch.setenv("COLUMNS", "100")
    assert cli.main([]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: dirtytrack ")
    assert err == ""
    assert {"doctor", "demo", "bench", "checkpoint"} <= {line.split()[0] for line in out.splitlines() if line}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "dirtytrack"], capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, out, "")


def test_the_result_of_a_verb_is_the_exit_code(install: Install) -> None:
    """Whichever it is."""
    install("demo", lambda _: 7)
    assert cli.main(["demo"]) == 7


def test_arguments_reach_the_verb(install: Install) -> None:
    """A verb sees its own options."""
    install("bench", lambda args: 3 if args.fast else 4)
    assert cli.main(["bench", "--fast"]) == 3
    assert cli.main(["bench"]) == 4


def test_help_of_a_verb_is_its_docstring(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    """The module's docstring is what --help prints."""
    install("bench", lambda _: 0)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["bench", "--help"])
    assert exit_.value.code == 0
    assert "What the verb is for." in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["doctor", "--nonsense"], ["--"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What argparse does not know, it explains on stderr."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: dirtytrack" in captured.err


@pytest.mark.parametrize(
    "error",
    [
        kernel_error(errno.ENOENT, "UFFDIO_WRITEPROTECT", start=0x1000, stop=0x2000, remedy="Do this."),
        ClosedError("the session\nis closed"),
        FileNotFoundError(errno.ENOENT, "No such file", "/nowhere"),
        ImportError('the demo needs numpy: pip install "dirtytrack[demo]"'),
    ],
    ids=lambda error: type(error).__name__,
)
def test_failure_is_one_line_and_exit_code_1(
    install: Install, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    """An expected failure is told in one line, without a traceback."""
    install("demo", raiser(error))
    assert cli.main(["demo"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"dirtytrack: {str(error).replace(chr(10), ' ')}\n"


def test_bug_is_not_hidden(install: Install) -> None:
    """An exception that no verb raises on purpose keeps its traceback."""
    install("demo", raiser(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["demo"])


def test_interrupt_is_exit_code_130(install: Install) -> None:
    """Ctrl-C ends with the shell's code for it."""
    install("demo", raiser(KeyboardInterrupt()))
    assert cli.main(["demo"]) == 130


def test_version_names_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    """Package, kernel and cffi, in one line."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    for part in (metadata.version("dirtytrack"), metadata.version("cffi"), platform.release()):
        assert part in line


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter."""
    return limits.run([sys.executable, "-c", code])


def test_verbs_are_imported_when_used() -> None:
    """The command line itself imports no verb, and nothing heavy."""
    code = (
        "import sys, dirtytrack.cli as c; c._parser(None);"
        "print([m for m in sys.modules if m.startswith('dirtytrack.cli.') or m == 'numpy'])"
    )
    result = run_python(code)
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_closed_pipe_is_no_traceback() -> None:
    """A reader that has gone, such as head, is not worth a word."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "dirtytrack", "doctor"]
    result = limits.run(command, stdout=writer)
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")
