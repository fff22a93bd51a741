"""The sums of a profile, against a plain model; and that hours of it stay small."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dirtytrack.native import ffi
from dirtytrack.profile import Area, Recording, _limits, file
from dirtytrack.profile._counters import Written
from dirtytrack.profile._ledger import Ledger

pytestmark = pytest.mark.anywhere

PAGE = 4096


def area(pages: int, name: str = "a") -> Area:
    """An area of so many pages."""
    return Area(name, "region", 0, pages * PAGE, 0, PAGE)


def written(index: int, pages: Iterable[int]) -> Written:
    """What a collect has found."""
    runs: list[list[int]] = []
    for page in sorted(set(pages)):
        if runs and runs[-1][1] == page:
            runs[-1][1] = page + 1
        else:
            runs.append([page, page + 1])
    count = len(set(pages))
    return Written(
        index, ffi.new("struct dt_run[]", [tuple(run) for run in runs]), len(runs), count, count * PAGE
    )


def recording(ledger: Ledger) -> Recording:
    """All that it knows."""
    return ledger.recording("profile", program="p", started=0.0, overhead=0.0, watched=0)


def expanded(recording: Recording, index: int) -> Counter[int]:
    """Page-writes by cell."""
    return Counter(
        {cell: writes for start, stop, writes in recording.areas[index].counts for cell in range(start, stop)}
    )


class _Window:
    """A working set as a set."""

    def __init__(self, interval: float) -> None:
        self.interval, self.began = interval, 0.0
        self.pages: set[tuple[int, int]] = set()
        self.sizes: list[int] = []

    def add(self, now: float, pages: set[tuple[int, int]]) -> None:
        self.pages |= pages
        if now - self.began >= self.interval:
            self.sizes.append(len(self.pages) * PAGE)
            self.began, self.pages = now, set()


_FOUND = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "a/c"]),
        st.floats(0, 3),
        st.dictionaries(st.integers(0, 2), st.sets(st.integers(0, 299), min_size=1, max_size=20), max_size=3),
    ),
    max_size=60,
)


@settings(max_examples=40)
@given(_FOUND)
def test_sums_are_those_of_a_model(found: list[tuple[str, float, dict[int, set[int]]]]) -> None:
    """By phase and area, by page, by working set, and over time, whatever was thinned."""
    ledger = Ledger([1.0, 4.0])
    for _ in range(3):
        ledger.area(area(300))
    writes: Counter[tuple[str, int]] = Counter()
    pages: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
    by_page: dict[int, Counter[int]] = defaultdict(Counter)
    now = 0.0
    windows = [_Window(1.0), _Window(4.0)]
    for phase, seconds, by_area in found:
        now += seconds
        ledger.add(phase, now, [written(index, numbers) for index, numbers in by_area.items()])
        for index, numbers in by_area.items():
            writes[phase, index] += len(numbers)
            pages[phase, index] |= numbers
            by_page[index].update(numbers)
        for window in windows:
            window.add(now, {(index, page) for index, numbers in by_area.items() for page in numbers})
    result = recording(ledger)
    tallies = {(phase.name, one.area): one for phase in result.phases for one in phase.tallies}
    assert {key: one.writes for key, one in tallies.items()} == dict(writes)
    assert {key: one.distinct for key, one in tallies.items()} == {
        key: len(one) for key, one in pages.items()
    }
    for index in range(3):
        assert expanded(result, index) == by_page[index]
        assert result.areas[index].distinct == len(by_page[index])
        assert result.areas[index].writes == sum(by_page[index].values())
    assert sum(column.writes for column in result.columns) == result.writes == sum(writes.values())
    assert [(one.windows, one.nbytes) for one in result.working_sets] == [
        (len(window.sizes), sum(window.sizes)) for window in windows
    ]


def test_an_hour_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a simulated clock, at a collect every 300 ms: columns, memory and the file do not grow with time."""
    monkeypatch.setattr(_limits, "COLUMN_COUNTS", 4000)
    draw = random.Random(1)
    ledger = Ledger([0.05, 60.0])
    for _ in range(4):
        ledger.area(area(1000))
    sizes = []
    total = 0
    for turn in range(12_000):
        pages = {draw.randrange(1000) for _ in range(4)}
        total += len(pages)
        ledger.add(f"phase {turn % 7}", turn * 0.3, [written(turn % 4, pages)])
        if turn in (8_000, 11_999):
            sizes.append(len(json.dumps(file.encode(recording(ledger)))))
    result = recording(ledger)
    assert result.writes == total
    assert sum(column.writes for column in result.columns) == total
    assert 4 <= len(result.columns) <= 241
    assert all(
        one.stop == other.start for one, other in zip(result.columns, result.columns[1:], strict=False)
    )
    assert sizes[1] < 1.3 * sizes[0]
    assert [one.windows for one in result.working_sets] == [11_999, 59]


def test_many_phases_and_areas_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beyond it is put together, and nothing is lost; areas beyond it are refused."""
    monkeypatch.setattr(_limits, "PHASES", 11)
    monkeypatch.setattr(_limits, "AREAS", 3)
    ledger = Ledger([])
    assert [ledger.area(area(8)) for _ in range(5)] == [0, 1, 2, None, None]
    for turn in range(100):
        ledger.add(f"phase {turn}", turn, [written(0, {turn % 8})])
    result = recording(ledger)
    assert len(result.phases) == 11
    assert {phase.name: phase.writes for phase in result.phases}["(others)"] == 90
    assert result.writes == 100


def test_large_areas_have_larger_cells() -> None:
    """A count for each page up to 65,536 of them, then for pages together; also at the end that is cut."""
    for pages, cell in ((1, 1), (65_536, 1), (65_537, 2), (1_000_001, 16)):
        ledger = Ledger([])
        ledger.area(area(pages))
        ledger.add("", 1.0, [written(0, {0, pages - 1})])
        found = recording(ledger).areas[0]
        assert found.cell == cell
        assert found.distinct == len({0, pages - 1})
        assert sum(one.writes * (one.stop - one.start) for one in found.counts) == len({0, pages - 1})
        assert found.counts[-1].stop * cell >= pages


def test_a_file_of_it_can_always_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """More counts than it may have are put together in larger cells."""
    monkeypatch.setattr(_limits, "COUNTS", 300)
    ledger = Ledger([])
    for pages in (1000, 600, 10):
        ledger.area(area(pages))
    for index, pages in enumerate((1000, 600, 10)):
        ledger.add("", 1.0 + index, [written(index, range(0, pages, 2))])
    result = recording(ledger)
    assert sum(len(one.counts) for one in result.areas) <= 300
    assert [one.writes for one in result.areas] == [500, 300, 5]
    assert result.areas[2].cell == 1
    file.write(result, tmp_path / "r", force=False)
    assert file.read(tmp_path / "r") == result


def test_time_that_goes_back_is_no_time() -> None:
    """A collect that another thread has overtaken."""
    ledger = Ledger([1.0])
    ledger.add("a", 5.0, [])
    ledger.add("b", 4.0, [])
    assert [(phase.name, phase.seconds) for phase in recording(ledger).phases] == [("a", 5.0), ("b", 0.0)]
