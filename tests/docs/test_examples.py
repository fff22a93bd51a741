"""Every example runs as it stands and proves what it says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

_FOLDER = Path(__file__).parents[2] / "examples"
_EXAMPLES = sorted(_FOLDER.glob("*.py"))
_FOLDERS = ("collector", "emulator", "fuzzing", "shared_heap")
_RUN = [
    pytest.param(path, id=path.stem, marks=pytest.mark.torch if path.stem.startswith("torch_") else ())
    for path in [*_EXAMPLES, *(_FOLDER / f"{name}/{name}.py" for name in _FOLDERS)]
]


@pytest.mark.parametrize("path", _RUN)
def test_example_holds(path, tmp_path):
    """The example exits with 0, states at least one thing proven and warns of nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error", path], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.count("holds: ") >= 2 or done.stdout.startswith("skipped: "), done.stdout


@pytest.mark.parametrize("path", _EXAMPLES, ids=lambda path: path.stem)
def test_example_fits_a_page(path):
    """An example has fewer than 60 lines and says at its top what it shows."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith('"""')
    assert len(text.splitlines()) < 60


@pytest.mark.parametrize("path", sorted(_FOLDER.rglob("*.py")), ids=lambda path: path.stem)
def test_example_uses_public_names(path):
    """A stranger can copy it: it imports nothing private of the library."""
    imported = [
        f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    names = [name.split(".") for name in imported if name.startswith("dirtytrack")]
    assert not [name for name in names if any(part.startswith("_") for part in name)]
