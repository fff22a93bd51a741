"""docs/guarantees.md says what the tests show, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dirtytrack import BlindSpot

_TESTS = Path(__file__).parents[2]
_DOCS = _TESTS.parent / "docs"
_TEXT = (_DOCS / "guarantees.md").read_text()
_NAMED = set(re.findall(r"`(test_\w+)`", _TEXT))


def _tests_in(pattern: str) -> set[str]:
    found: set[str] = set()
    for path in _TESTS.glob(pattern):
        found.update(re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))
    return found


def test_every_test_that_is_named_exists() -> None:
    """No statement rests on a test that is not there."""
    others = "".join((_DOCS / f"{name}.md").read_text() for name in ("backends", "containers"))
    named = _NAMED | set(re.findall(r"`(test_\w+)`", others))
    assert named - _tests_in("**/test_*.py") == set()


def test_every_guarantee_is_written_down() -> None:
    """What the tests of the guarantees show is in the document."""
    here = _tests_in("tracking/guarantees/test_doc.py")
    assert _tests_in("tracking/guarantees/test_*.py") - here - _NAMED == set()


@pytest.mark.parametrize("spot", BlindSpot)
def test_every_blind_spot_has_a_remedy(spot: BlindSpot) -> None:
    """Each has a section of its own with what to do."""
    _, _, rest = _TEXT.partition(f"### `BlindSpot.{spot.name}`\n")
    section = re.split(r"^##", rest, maxsplit=1, flags=re.MULTILINE)[0]
    assert "*What to do:*" in section


def test_every_row_of_a_table_names_its_test() -> None:
    """A row without a test is a claim without proof."""
    rows = [line for line in _TEXT.splitlines() if line.startswith("| ")]
    heads = [line for line in rows if line.endswith("shown by |")]
    assert len(heads) > 10
    assert [line for line in rows if not re.search(r"`test_\w+`", line)] == heads
