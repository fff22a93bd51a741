"""The C of the pages compiles without a warning, runs, and prints what they show.

A page's blocks of C are one program. A comment that begins with "c" is C that belongs to it, too, and that no
reader sees: what a block stands in.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from _lib import c_program
from dirtytrack import Session

_DOCS = Path(__file__).parents[2] / "docs"
_C = re.compile(r"^(?:<!-- |```)c\n(.*?)^(?:-->|```)$", re.MULTILINE | re.DOTALL)
_SHOWN = re.compile(r"^```c\n[^`]*?^```\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _pages():
    return [page.name for page in sorted(_DOCS.glob("*.md")) if "```c\n" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("document", _pages())
def test_c_blocks_run(document, tmp_path):
    """The program of the page exits with 0, and its output is what is shown right below a block."""
    text = (_DOCS / document).read_text(encoding="utf-8")
    source = tmp_path / "page.c"
    source.write_text("".join(_C.findall(text)), encoding="utf-8")
    program = c_program.build(tmp_path, source, "-Wno-unused-parameter")
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "".join(_SHOWN.findall(text))


def test_a_collector_gets_the_session():
    """What the page on runtimes hands to C is an address."""
    text = (_DOCS / "runtimes.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    given = []
    names = {"dirtytrack": __import__("dirtytrack"), "collector": type("Stub", (), {"start": given.append})}
    exec(block, names)
    with names["session"] as session:
        assert isinstance(session, Session)
        assert len(given) == 1
        assert given[0]
