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


def _program(document: str, fence: str) -> str:
    """The blocks opened by *fence* as one program, every line on its line number in the document."""
    lines: list[str] = []
    inside = ""
    for line in (_DOCS / document).read_text(encoding="utf-8").splitlines():
        mark = _FENCE.match(line)
        lines.append(line if not mark and inside == fence else "")
        if mark:
            inside = "" if inside else mark[1]
    assert any(lines)
    return "\n".join(lines)


def _preamble(document: str, fence: str) -> str:
    """What a page has at its end and its program begins with, on one line."""
    if f"```{fence} first" not in (_DOCS / document).read_text(encoding="utf-8"):
        return ""
    return f"exec({_program(document, f'{fence} first')!r})\n"


@pytest.mark.parametrize(
    ("document", "fence"),
    [
        ("guide.md", "python"),
        pytest.param("guide.md", "python torch", marks=pytest.mark.torch),
        pytest.param("torch.md", "python torch", marks=pytest.mark.torch),
        ("checkpoint.md", "python"),
        ("beyond.md", "python"),
        ("snapshot.md", "python"),
        ("barrier.md", "python"),
        ("backends.md", "python"),
    ],
)
def test_python_blocks_run(document, fence, tmp_path):
    """A guide's Python blocks, one after the other in one process, end well and warn of nothing."""
    if "torch" in fence:
        library("torch")
    program = tmp_path / "guide.py"
    program.write_text(_preamble(document, fence) + _program(document, fence), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
