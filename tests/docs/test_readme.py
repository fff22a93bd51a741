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


_DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in _ROOT.glob("docs/*.md"))]


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_relative_links_lead_somewhere(document):
    """Every relative link names a file of the repository, and a heading in it if it names one."""
    path = _ROOT / document
    assert [link for link in _relative_links(path) if not _leads_somewhere(path, link)] == []


def test_links_are_found_and_followed():
    """The test above would see one that leads nowhere."""
    readme = _ROOT / "README.md"
    assert {"docs/guide.md", "docs/kernels.md"} <= set(_relative_links(readme))
    assert not _leads_somewhere(readme, "docs/nothing.md")
    assert not _leads_somewhere(readme, "docs/kernels.md#nothing")
    assert _leads_somewhere(readme, "docs/kernels.md#tested-kernels")


def _relative_links(path: Path) -> list[str]:
    return re.findall(r"\]\(([^):]+)\)", path.read_text(encoding="utf-8"))


def _leads_somewhere(path: Path, link: str) -> bool:
    file, _, heading = link.partition("#")
    target = path.parent / file if file else path
    return target.exists() and (not heading or heading in _headings(target))


def _headings(path: Path) -> list[str]:
    """The headings of a document as links name them."""
    found = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found]
