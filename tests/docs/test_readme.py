"""The README's code runs as printed, and what it points to is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_README = _ROOT / "README.md"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_python_block_runs(tmp_path):
    """Each Python block of the README is a program of its own that ends well and warns of nothing."""
    blocks = _BLOCK.findall(_README.read_text(encoding="utf-8"))
    assert blocks
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", block],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), block
        assert done.stdout, "the block says what it found"


_DOCUMENTS = ["README.md", *(f"docs/{name}.md" for name in ("guide", "checkpoint", "snapshot", "barrier"))]


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_relative_links_lead_somewhere(document):
    """Every relative link of the README and the guides names a file of the repository."""
    path = _ROOT / document
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []
