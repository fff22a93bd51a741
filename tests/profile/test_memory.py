"""Which area an address of a recorded program belongs to, against a model of pages."""

from __future__ import annotations

import random
from typing import Any

import pytest

from _lib.support import PAGE_SIZE
from dirtytrack.kernel.pagemap import Category, PageRegion
from dirtytrack.profile import Recording, _memory
from dirtytrack.profile._ledger import Ledger
from dirtytrack.profile._memory import Array, Memory, arrays_of

pytestmark = pytest.mark.anywhere

_BASE = 1 << 40


class _Userfaultfd:
    def register(self, start: int, stop: int) -> None:
        """All is fine."""


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the kernel says: mappings, and what was written."""
    world: dict[str, Any] = {"mappings": [], "written": []}
    stretch = _memory.mappings.Stretch
    monkeypatch.setattr(
        _memory.mappings,
        "writable",
        lambda pid, shared: [
            stretch(_BASE, 1 << 46, [(start, stop, "") for start, stop in world["mappings"]])
        ],
    )
    monkeypatch.setattr(
        _memory.pagemap,
        "scan_all",
        lambda start, stop, **_: [PageRegion(one, other, Category(0)) for one, other in world["written"]],
    )
    return world


def page(number: int) -> int:
    """The address of a page."""
    return _BASE + number * PAGE_SIZE


def result(ledger: Ledger) -> Recording:
    """What was found."""
    return ledger.recording("record", program="p", started=0.0, overhead=0.0, watched=0)


def test_every_written_page_is_counted_once(world: dict[str, Any]) -> None:
    """In the array that has it, or else in its mapping, while mappings grow, go and come again."""
    draw = random.Random(2)
    for _ in range(20):
        ledger = Ledger([])
        memory = Memory(1, _Userfaultfd(), ledger)  # type: ignore[arg-type]
        total, of_arrays = 0, 0
        for _ in range(6):
            borders = sorted(draw.sample(range(3 * 8192 * 2), 8))
            world["mappings"] = [(page(borders[i]), page(borders[i + 1])) for i in range(0, 8, 2)]
            arrays = []
            for start, stop in world["mappings"]:
                at = start + draw.randrange(16, 5 * PAGE_SIZE)
                if at + PAGE_SIZE < stop:
                    nbytes = draw.randrange(1, min(stop - at, 40 * PAGE_SIZE))
                    arrays.append(Array(draw.choice("ab"), at, nbytes, (), 1))
            memory.name(arrays)
            covered = {one // PAGE_SIZE for array in arrays for one in range(*array.pages, PAGE_SIZE)}
            pages = set()
            for start, stop in world["mappings"]:
                low, high = start // PAGE_SIZE, stop // PAGE_SIZE
                pages |= {draw.randrange(low, high) for _ in range(20)}
            world["written"] = [(one * PAGE_SIZE, (one + 1) * PAGE_SIZE) for one in sorted(pages)]
            ledger.add("", total, list(memory.scan()))
            total += len(pages)
            of_arrays += len(pages & covered)
        memory.finish()
        areas = result(ledger).areas
        assert sum(area.writes for area in areas) == total
        assert sum(area.writes for area in areas if area.kind == "array") == of_arrays
        assert all(area.distinct <= area.page_count for area in areas)
        assert all(
            count.stop * area.cell <= area.page_count + area.cell for area in areas for count in area.counts
        )


def test_an_array_that_moves_keeps_its_area(world: dict[str, Any]) -> None:
    """The same name, size and place within a page: one row, also where it lies elsewhere by now."""
    ledger = Ledger([])
    memory = Memory(1, _Userfaultfd(), ledger)  # type: ignore[arg-type]
    world["mappings"] = [(page(0), page(10_000))]
    for turn, at in enumerate((page(100) + 16, page(900) + 16, page(100) + 16)):
        memory.name([Array("x", at, 20 * PAGE_SIZE, (20 * PAGE_SIZE // 8,), 8)])
        world["written"] = [(at // PAGE_SIZE * PAGE_SIZE, at // PAGE_SIZE * PAGE_SIZE + PAGE_SIZE)]
        ledger.add("", turn, list(memory.scan()))
    areas = [area for area in result(ledger).areas if area.kind == "array"]
    assert [(area.name, area.writes, area.distinct) for area in areas] == [("x", 3, 1)]
    assert result(ledger).phases[0].tallies[0].nbytes == 3 * (PAGE_SIZE - 16)


def test_what_a_program_says_is_not_trusted() -> None:
    """Whatever it tells of its arrays: what can't be is left out."""
    good = {"name": "a", "address": 4096, "nbytes": 8, "shape": [1], "itemsize": 8}
    bad: list[Any] = [
        None,
        3,
        {},
        {**good, "address": 0},
        {**good, "address": "x"},
        {**good, "nbytes": 1 << 60},
        {**good, "nbytes": -1},
        {**good, "shape": [1] * 100},
        {**good, "shape": None},
    ]
    assert [array.name for array in arrays_of([*bad, good])] == ["a"]
    assert arrays_of("nonsense") == []
    assert len(arrays_of([{**good, "name": "x" * 10_000}])[0].name) == 200
