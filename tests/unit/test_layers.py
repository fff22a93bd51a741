"""The house: imports go down, nobody reaches for another part's private names, nothing goes in a circle.

Imports count wherever they stand, also within functions and under TYPE_CHECKING. Where a class has to name
one above it, a Protocol beside it does.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import dirtytrack
from _lib.layers import House, strongly_connected

# Lowest first. What stands in one line does not know each other.
LAYERS = (
    ("errors", "native", "c_interface", "_zstd", "_text", "_html"),
    ("_json", "_progress"),
    ("_lifetime",),
    ("kernel",),
    ("objects",),
    ("tracking",),
    ("snapshot", "checkpoint", "barrier"),
    ("group", "profile"),
    ("torch",),
    ("",),  # dirtytrack/__init__.py
    ("benchmarks",),
    ("cli",),
    ("__main__",),
)
CHECKPOINT = ("format", "store", "read", "write", "")
SHARED = frozenset({"_html", "_json", "_lifetime", "_progress", "_text", "_zstd"})


def test_the_house_is_in_order() -> None:
    """No rule is broken."""
    house = House.read(
        Path(dirtytrack.__file__).parent,
        layers=LAYERS,
        inner={"dirtytrack.checkpoint": CHECKPOINT},
        shared=SHARED,
    )
    assert len(house.sources) > 90
    found = house.violations()
    assert not found, "\n" + "\n".join(map(str, found))


def house(sources: dict[str, str]) -> House:
    """A small one: three layers, of which the middle one has two parts and the lowest has folders."""
    files = {
        name: (f"{name.replace('.', '/')}{'/__init__' if is_package else ''}.py", text)
        for name, text in {"p": "", **sources}.items()
        for is_package in [any(other.startswith(f"{name}.") for other in sources) or name == "p"]
    }
    layers = [["ground", "_shared"], ["left", "right"], [""], ["roof"]]
    return House("p", files, layers, {"p.ground": ("low", "high", "")}, frozenset({"_shared"}))


def broken(**sources: str) -> list[str]:
    """What is wrong with modules whose names have two underscores where a dot is."""
    named = {f"p.{name.replace('__', '.')}": text for name, text in sources.items()}
    return [str(one) for one in house(named).violations()]


def test_what_goes_down_is_fine() -> None:
    """Absolute and relative imports, of modules and of names in them, of what is shared."""
    assert not broken(
        ground="def f(): ...",
        _shared="def g(): ...",
        left="from p.ground import f\nfrom p import _shared, ground\nimport os",
        right="from . import ground\nfrom .ground import f\nfrom p._shared import g",
        roof="import p\nfrom p.left import x\nfrom p.right import y",
    )


@pytest.mark.parametrize(
    "statement",
    [
        "from p.roof import x",
        "import p.roof",
        "from . import roof",
        "from .roof import x",
        "def f():\n    from p.roof import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.roof import x",
        "try:\n    import p.roof as r\nexcept ImportError:\n    pass",
    ],
)
def test_what_goes_up_is_found_wherever_it_stands(statement: str) -> None:
    """With file and line."""
    line = len(statement.splitlines()) - statement.count("except") * 2
    assert broken(left=statement, roof="x = 1") == [
        f"p/left.py:{line}: p.left imports p.roof, which is not below it"
    ]


def test_what_goes_sideways_is_found() -> None:
    """Parts of one layer don't know each other, also by way of the package itself."""
    assert broken(left="from p.right import x", right="x = 1") == [
        "p/left.py:1: p.left imports p.right, which is not below it"
    ]
    assert broken(left="from p import x") == ["p/left.py:1: p.left imports p, which is not below it"]


def test_a_part_without_a_layer_is_found() -> None:
    """A new package has to be given its place."""
    assert broken(attic="from p.ground import x", ground="x = 1") == [
        "p/attic.py:1: p.attic imports p.ground: no layer has 'attic'"
    ]


def test_the_order_within_a_part_is_kept() -> None:
    """Folders from the first to the last, the modules beside them above; others may use these alone."""
    sources = {
        "ground__low__a": "from p.ground.low import b",
        "ground__low__b": "x = 1",
        "ground__high__c": "from p.ground.low.b import x",
        "ground__door": "from p.ground.high.c import x",
    }
    assert not broken(**sources, left="from p.ground.door import x")
    assert broken(**sources, left="from p.ground.low.b import x") == [
        "p/left.py:1: p.left imports p.ground.low.b, which is not for those outside"
    ]
    assert broken(**{**sources, "ground__low__b": "from p.ground.high import d", "ground__high__d": ""}) == [
        "p/ground/low/b.py:1: p.ground.low.b imports p.ground.high.d, which is not below it"
    ]
    assert broken(**{**sources, "ground__low__b": "from p.ground.door import y"}) == [
        "p/ground/door.py:1: these import each other: p.ground.door, p.ground.high.c, p.ground.low.b",
        "p/ground/low/b.py:1: p.ground.low.b imports p.ground.door, which is not below it",
    ]


def test_private_modules_and_names_are_found() -> None:
    """Of another part; one's own are one's own."""
    sources = {"ground___a": "x = _y = 1", "ground__b": "from p.ground._a import x, _y"}
    assert not broken(**sources)
    assert broken(**sources, left="from p.ground._a import x\nfrom p.ground.b import _y") == [
        "p/left.py:1: p.left imports p.ground._a.x, which is private",
        "p/left.py:2: p.left imports p.ground.b._y, which is private",
    ]


@pytest.mark.parametrize(
    "definition",
    [
        "class A:\n    def __init__(self):\n        self._x = 1",
        "class A:\n    _x: int",
        "class A:\n    _x = 1",
        "class A:\n    def _x(self): ...",
        "class A:\n    __slots__ = ('_x', 'y')",
        "_x = 1",
        "class _x: ...",
    ],
)
def test_private_attributes_are_found(definition: str) -> None:
    """What another part defines; what this one does, in any of its modules, is its own."""
    assert broken(ground=definition, left="a._x\nself._x\ncls._x\na.b()._x = 1") == [
        "p/left.py:1: p.left reaches for a._x, which is private to another part",
        "p/left.py:4: p.left reaches for a.b()._x, which is private to another part",
    ]
    assert not broken(left__a=definition, left__b="a._x\na.b._x")


def test_what_only_looks_private_is_left_alone() -> None:
    """Named tuples, names of protocols, and what the standard library calls its own."""
    assert not broken(
        left="import os, sys as s\na._replace()\na.__class__\na._type_\nos._exit(0)\ns._getframe()"
    )
    assert broken(left="import p.ground as g\ng._x", ground="_x = 1") == [
        "p/left.py:2: p.left reaches for g._x, which is private to another part"
    ]


def test_circles_are_found_in_any_number_of_steps() -> None:
    """Once each, at a place that is a part of it."""
    assert broken(
        left__a="from p.left import b",
        left__b="def f():\n    from p.left import c",
        left__c="from p.left.a import x\nfrom p.left import d",
        left__d="",
    ) == ["p/left/a.py:1: these import each other: p.left.a, p.left.b, p.left.c"]


def test_strongly_connected_components() -> None:
    """Against a definition: who reaches whom and is reached."""
    edges = {"a": "bc", "b": "a", "c": "de", "d": "f", "e": "d", "f": "c", "g": "ag", "h": ""}

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for after in edges[todo.pop()]:
                if after not in seen:
                    seen.add(after)
                    todo.append(after)
        return seen

    expected = {frozenset([a, *(b for b in edges if b in reach(a) and a in reach(b))]) for a in edges}
    assert {frozenset(circle) for circle in strongly_connected(edges)} == expected
