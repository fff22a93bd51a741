"""Where the state of the C core lies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.anywhere

_SOURCES = sorted((Path(__file__).parents[2] / "dirtytrack/native").glob("*/*.[ch]"))
_HEAP = re.compile(r"(?<![\w.>])(?:malloc|calloc|realloc|reallocarray|free|strdup|asprintf|fopen)\(")


def test_the_core_has_no_malloc() -> None:
    """Mappings of its own have its state: a user who tracks the heap must not track the tracker."""
    sources = [path for path in _SOURCES if path.name != "_core.c"]
    assert len(sources) > 30
    assert [path.name for path in sources if _HEAP.search(path.read_text(encoding="utf-8"))] == []


def test_a_call_of_malloc_would_be_found() -> None:
    """And a method of a backend that is called free is none."""
    assert _HEAP.search("\tchar *copy = malloc(10);")
    assert not _HEAP.search("\tbackend->free(session); dt_free(copy, 10); free_region(region);")
