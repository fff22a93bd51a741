"""The code of the guides runs as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from _lib.support import library

_DOCS = Path(__file__).parents[2] / "docs"
_FENCE = re.compile(r"^```(.*)$")
_COMMENT = re.compile(r"^<!-- (.*) -->$")


def _program(document: str, chosen: str = "") -> str:
    """The Python blocks with that comment before them as one program, each line on its own number."""
    lines: list[str] = []
    inside, comment = "", ""
    for line in (_DOCS / document).read_text(encoding="utf-8").splitlines():
        mark = _FENCE.match(line)
        lines.append(line if not mark and inside == f"python {chosen}" else "")
        if mark:
            inside = "" if inside else f"{mark[1]} {comment}"
        said = _COMMENT.match(line)
        comment = said[1] if said else ""
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
    preamble = f"exec({_program(document, f'{chosen} first')!r})\n"
    program = tmp_path / "guide.py"
    program.write_text(preamble + blocks, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
