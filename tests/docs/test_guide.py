"""The code of the guides runs as printed, and prints what they show.

A block of Python may be followed by one of text, which is what it prints. A comment that begins with "check"
has Python that runs there, too, and that no reader sees: what makes the example a test.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from _lib.printed import Printed
from _lib.support import library

_TESTS = Path(__file__).parents[1]
_DOCS = _TESTS.parent / "docs"
_FORKS = "ignore:This process:DeprecationWarning"  # which Python 3.15 says of a page that forks
_BLOCK = re.compile(
    r"^(?:<!-- (?P<comment>[^\n]*) -->\n)?"
    r"```(?P<kind>\w*)\n(?P<body>.*?)^```$|^<!-- check\n(?P<check>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)


def _program(document: str, chosen: str = "") -> str:
    """The Python blocks with that comment before them, and what checks them, each line on its own number."""
    text = (_DOCS / document).read_text(encoding="utf-8")
    lines = [""] * text.count("\n")
    runs, end = False, 0
    for block in _BLOCK.finditer(text):
        adjoins = not text[end : block.start()].strip()
        end = block.end()
        body = block["check"] or block["body"] or ""
        line = text.count("\n", 0, end) - body.count("\n") - 1
        if block["kind"] == "python":
            runs = (block["comment"] or "") == chosen
        if runs and block["kind"] == "text" and adjoins:
            lines[line] = f"_printed.check({body!r})"
        elif runs and block["kind"] in ("python", None):
            lines[line] = "_printed.begin()" if block["kind"] else ""
            lines[line + 1 : line + 1 + body.count("\n")] = body.splitlines()
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("document", "chosen"),
    [
        ("index.md", ""),
        ("guide.md", ""),
        pytest.param("guide.md", "torch", marks=pytest.mark.torch),
        pytest.param("torch.md", "torch", marks=pytest.mark.torch),
        ("checkpoint.md", ""),
        ("beyond.md", ""),
        ("snapshot.md", ""),
        ("barrier.md", ""),
        ("backends.md", ""),
        ("format.md", ""),
        ("kernel.md", ""),
        ("profile.md", ""),
    ],
)
def test_python_blocks_run(document, chosen, tmp_path):
    """A guide's Python blocks, one after the other in one process, end well and warn of nothing."""
    if chosen == "torch":
        library("torch")
    blocks = _program(document, chosen)
    assert blocks.strip()
    # What the program begins with may stand at the end of its page; on one line, to shift no number.
    first = _program(document, f"{chosen} first".strip())
    preamble = (
        f"import sys; from _lib.printed import Printed; _printed = sys.stdout = Printed(); exec({first!r})\n"
    )
    program = tmp_path / "guide.py"
    program.write_text(preamble + blocks, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", _FORKS, program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(_TESTS), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr, done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("printed", "shown", "same"),
    [
        ("5 pages\n", "5 pages", True),
        ("6 pages\n", "5 pages", False),
        ("took 1.25 ms,  at 0x7f01\n", "took 13.0 ms, at 0xabc0", True),
        ("took 12 ms\n", "took 13 ms", False),
        ("one\n", "one\ntwo", False),
    ],
)
def test_what_is_printed_is_compared(printed, shown, same):
    """To the letter, but for measurements, which have a point, and for addresses."""
    page = Printed()
    page.write("before")
    page.begin()
    page.write(printed)
    if same:
        page.check(shown)
    else:
        with pytest.raises(AssertionError):
            page.check(shown)
