"""docs/design.md names what is there: files, tests, functions, classes, locks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.anywhere

_ROOT = Path(__file__).parents[2]
_PACKAGE, _TESTS = _ROOT / "dirtytrack", _ROOT / "tests"
_TEXT = (_ROOT / "docs" / "design.md").read_text(encoding="utf-8")
_DIAGRAMS = "\n".join(line for line in _TEXT.splitlines() if line.startswith("     "))
_QUOTED = set(re.findall(r"`([^`]+)`", _TEXT))
_KINDS = ("py", "pyi", "c", "h", "txt")
_OTHERS = {"Condition", "Barrier", "Queue", "acquire", "vfork"}  # Python's and the system's


def _words(*places: Path) -> set[str]:
    """All words of the sources there but for this one, and the names of files and folders."""
    paths = [path for place in places for kind in _KINDS for path in place.rglob(f"*.{kind}")]
    texts = [path.read_text(encoding="utf-8") for path in paths if path != Path(__file__)]
    parts = {part for path in paths for part in (path.stem, *path.relative_to(_ROOT).parts)}
    return set(re.findall(r"\w+", " ".join(texts))) | parts


def _exists(path: str) -> bool:
    places = (_ROOT, _PACKAGE, _PACKAGE / "native", _PACKAGE / "checkpoint")
    return any((place / path).exists() for place in places) or any(_PACKAGE.rglob(path))


def test_every_path_leads_somewhere() -> None:
    """From the root, the package, or the folder that the page is speaking of."""
    paths = {one for one in _QUOTED if re.fullmatch(r"[\w/]+(/|\.(py|c|h|txt|md))", one)}
    assert len(paths) > 20
    assert {path for path in paths if not _exists(path.rstrip("/"))} == set()


def test_every_test_is_there() -> None:
    """No rule rests on a test that is gone."""
    named = {one for one in _QUOTED if re.fullmatch(r"test_\w+", one)}
    sources = "".join(path.read_text(encoding="utf-8") for path in _TESTS.rglob("test_*.py"))
    assert len(named) > 50
    assert named - set(re.findall(r"^def (test_\w+)", sources, re.MULTILINE)) == set()


def test_every_name_is_used() -> None:
    """Whatever stands in backticks, or in a diagram like a name of the code, is a word of the sources."""
    names = {word for one in _QUOTED for word in re.findall(r"[A-Za-z_]\w+", one)}
    diagrams = re.findall(r"\b(?:dt_\w+|[A-Z]\w+[.]\w+|\w+[.]c)\b", _DIAGRAMS)
    names.update(word for name in diagrams for word in name.split("."))
    assert len(names) > 150
    assert names - _words(_PACKAGE, _TESTS) - _OTHERS == set()


def test_the_glossary_is_sorted_and_says_each_word_once() -> None:
    """So that a word is found, or is not there."""
    _, _, glossary = _TEXT.partition("## 6. Glossary")
    words = re.findall(r"^\| ([^|]+) \|", glossary, re.MULTILINE)[1:]
    assert len(words) > 60
    assert words == sorted(set(words))
