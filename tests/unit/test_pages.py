"""PageSet, Geometry and Runs against sets of Python integers."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dirtytrack import PageSet
from dirtytrack.tracking import Geometry

PAGE = 4096


def as_runs(pages: set[int]) -> list[tuple[int, int]]:
    """The runs of a set, by the book."""
    firsts = sorted(page for page in pages if page - 1 not in pages)
    lasts = sorted(page for page in pages if page + 1 not in pages)
    return [(first, last + 1) for first, last in zip(firsts, lasts, strict=True)]


def bytes_on(geometry: Geometry, pages: set[int]) -> set[int]:
    """The bytes of a small region on *pages*, one by one."""
    return {i for i in range(geometry.nbytes) if (geometry.offset + i) // geometry.page_size in pages}


def members(slices: list[slice]) -> list[int]:
    """Every index of some slices, duplicates included."""
    return [i for piece in slices for i in range(piece.start, piece.stop)]


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Regions of a few dozen tiny pages: the arithmetic does not know that real ones are larger."""
    page_size = draw(st.sampled_from([16, 64]))
    nbytes, offset = draw(st.integers(1, 40 * page_size)), draw(st.integers(0, page_size - 1))
    return Geometry(nbytes, offset, page_size)


@st.composite
def cases(draw: st.DrawFn, count: int = 1) -> tuple[Any, ...]:
    """A geometry, and *count* sets of its pages."""
    geometry = draw(geometries())
    pages = st.sets(st.integers(0, geometry.page_count - 1))
    return geometry, *(draw(pages) for _ in range(count))


def make(geometry: Geometry, pages: set[int]) -> PageSet:
    """The set under test, from single pages in an order of their own."""
    return PageSet(geometry, [(page, page + 1) for page in pages])


@given(cases())
def test_a_set_holds_what_it_was_made_of(case: tuple[Geometry, set[int]]) -> None:
    """Length, iteration, membership and truth are those of the set of integers."""
    geometry, expected = case
    pages = make(geometry, expected)
    assert len(pages) == len(expected)
    assert list(pages) == sorted(expected)
    assert [page for page in range(-2, geometry.page_count + 3) if page in pages] == sorted(expected)
    assert bool(pages) == bool(expected)


OPERATORS = ["|", "&", "-", "^"]


def binary(symbol: str) -> Callable[[Any, Any], Any]:
    """An operator by its symbol."""
    return cast(Callable[[Any, Any], Any], eval(f"lambda a, b: a {symbol} b"))


@given(cases(2), st.sampled_from(OPERATORS))
def test_algebra_is_that_of_sets(case: tuple[Geometry, set[int], set[int]], symbol: str) -> None:
    """The operators agree with Python's, also with sets of numbers; the results are page sets."""
    geometry, left, right = case
    a, b = make(geometry, left), make(geometry, right)
    combine = binary(symbol)
    expected = combine(left, right)
    pairs = [(a, theirs) for theirs in (b, right, frozenset(right), dict.fromkeys(right).keys())]
    for mine, theirs in [*pairs, (left, b), (frozenset(left), b)]:
        result = combine(mine, theirs)
        assert type(result) is PageSet
        assert set(result) == expected
        assert list(result.runs) == as_runs(expected)
        assert result == make(geometry, expected)


@given(cases(), st.sets(st.integers(-3, 45)))
def test_comparisons_are_those_of_sets(case: tuple[Geometry, set[int]], other: set[int]) -> None:
    """All of them agree with Python's, on either side of a set of numbers, in or out of the region."""
    geometry, left = case
    a = make(geometry, left)
    compare = [binary(symbol) for symbol in ("==", "!=", "<=", "<", ">=", ">")]
    for right in (other, frozenset(other), dict.fromkeys(other).keys()):
        assert [act(a, right) for act in compare] == [act(left, right) for act in compare]
        assert [act(right, a) for act in compare] == [act(right, left) for act in compare]
        assert a.isdisjoint(right) == left.isdisjoint(right)


@given(cases(2))
def test_page_sets_compare_as_sets(case: tuple[Geometry, set[int], set[int]]) -> None:
    """Those of one geometry."""
    geometry, left, right = case
    a, b = make(geometry, left), make(geometry, right)
    compare = [binary(symbol) for symbol in ("==", "!=", "<=", "<", ">=", ">")]
    assert [act(a, b) for act in compare] == [act(left, right) for act in compare]
    assert a.isdisjoint(b) == left.isdisjoint(right)


@given(cases())
def test_a_set_of_its_indices_is_equal_and_hashes_alike(case: tuple[Geometry, set[int]]) -> None:
    """So either finds the other in a dictionary."""
    geometry, expected = case
    pages = make(geometry, expected)
    assert pages == expected
    assert hash(pages) == hash(frozenset(expected))
    assert {pages: 1}[frozenset(expected)] == {frozenset(expected): 1}[pages] == 1


@pytest.mark.parametrize(
    "other", [{0.0, 1.0}, {False, True}, {np.int64(0), np.uint8(1)}, {0, np.float64(1)}, {0.5, 1}]
)
def test_numbers_of_other_types_are_the_same_number(other: Any) -> None:
    """1.0 is 1 for every set of Python's."""
    pages = PageSet(Geometry(10 * PAGE, 0, PAGE), [(0, 2)])
    compare = [binary(symbol) for symbol in ("==", "!=", "<=", "<", ">=", ">")]
    assert [act(pages, other) for act in compare] == [act({0, 1}, other) for act in compare]
    assert [number in pages for number in other] == [number in {0, 1} for number in other]


@pytest.mark.parametrize("other", [[1], (1,), {1: 2}, 1, "1", None, range(2)])
def test_what_is_no_set_is_not_equal(other: object) -> None:
    """As a list is equal to no set."""
    pages = PageSet(Geometry(10 * PAGE, 0, PAGE), [(1, 2)])
    assert pages != other
    assert not pages == other  # noqa: SIM201
    with pytest.raises(TypeError):
        _ = pages <= other  # type: ignore[operator]


@given(cases())
def test_runs_are_maximal_and_ascending(case: tuple[Geometry, set[int]]) -> None:
    """Runs neither touch nor overlap, by index, by slice and by iteration."""
    geometry, expected = case
    runs = make(geometry, expected).runs
    wanted = as_runs(expected)
    assert list(runs) == wanted
    assert len(runs) == len(wanted)
    assert [runs[i] for i in range(len(runs))] == wanted
    assert [runs[i - len(runs)] for i in range(len(runs))] == wanted
    assert runs[1:] == wanted[1:]
    for index in (len(wanted), -len(wanted) - 1):
        with pytest.raises(IndexError):
            runs[index]


@given(cases())
def test_slices_are_the_bytes_on_the_pages(case: tuple[Geometry, set[int]]) -> None:
    """Slices hold each byte of the region on these pages once, and none beyond it."""
    geometry, expected = case
    pages = make(geometry, expected)
    wanted = bytes_on(geometry, expected)
    assert members(pages.slices()) == sorted(wanted)
    assert len(pages.slices()) == len(pages.runs)
    assert pages.nbytes == len(wanted)


@given(cases())
def test_mask_flags_each_page(case: tuple[Geometry, set[int]]) -> None:
    """One byte a page of the whole region, 1 in the set and 0 outside; read-only."""
    geometry, expected = case
    mask = make(geometry, expected).mask()
    assert mask.format == "B"
    assert mask.readonly
    assert mask.tolist() == [int(page in expected) for page in range(geometry.page_count)]


@given(cases(), st.sampled_from([1, 2, 3, 8, 24, 100]))
def test_elements_are_the_smallest_cover(case: tuple[Geometry, set[int]], size: int) -> None:
    """An element is listed, once, if and only if one of its bytes lies on a page in the set."""
    geometry, expected = case
    wanted = {byte // size for byte in bytes_on(geometry, expected)}
    assert members(make(geometry, expected).elements(size)) == sorted(wanted)


@pytest.mark.parametrize("dtype", [8, "f8", np.float64, np.dtype("f8"), float, np.zeros(1)])
def test_elements_take_anything_with_a_size(dtype: Any) -> None:
    """A size in bytes, a numpy type in each of its spellings, or an array."""
    pages = PageSet(Geometry(10 * PAGE, 0, PAGE), [(1, 2)])
    assert pages.elements(dtype) == [slice(PAGE // 8, PAGE // 4)]


@pytest.mark.parametrize("size", [0, -8])
def test_elements_refuse_a_size_that_is_none(size: int) -> None:
    """An element has at least one byte."""
    with pytest.raises(ValueError, match="at least 1"):
        PageSet(Geometry(PAGE, 0, PAGE)).elements(size)


@given(cases())
def test_pickle_and_copy_keep_everything(case: tuple[Geometry, set[int]]) -> None:
    """A set survives pickle and copy without its region: equal, of equal hash and geometry."""
    geometry, expected = case
    pages = make(geometry, expected)
    for twin in (pickle.loads(pickle.dumps(pages)), copy.copy(pages), copy.deepcopy(pages)):
        assert twin == pages
        assert hash(twin) == hash(pages)
        assert twin.geometry == geometry
        assert set(twin) == expected


@given(cases(2))
def test_equality_and_hash_go_by_contents(case: tuple[Geometry, set[int], set[int]]) -> None:
    """Sets are equal if their pages are, however they came about; equal ones have equal hashes."""
    geometry, left, right = case
    a, b = make(geometry, left), make(geometry, right)
    assert (a == b) == (left == right)
    again = PageSet(geometry, as_runs(left))
    assert again == a
    assert hash(again) == hash(a)
    assert (a - b) | (a & b) == a
    assert hash((a - b) | (a & b)) == hash(a)


@pytest.mark.parametrize("other", [(10 * PAGE, 1, PAGE), (9 * PAGE, 0, PAGE), (10 * PAGE, 0, 2 * PAGE)])
def test_sets_of_different_geometry_have_nothing_to_do_with_each_other(other: tuple[int, int, int]) -> None:
    """They don't combine, and neither is a part of the other: page 0 of one is not page 0 of the other."""
    a, b = PageSet(Geometry(10 * PAGE, 0, PAGE), [(0, 1)]), PageSet(Geometry(*other), [(0, 1)])
    for symbol in OPERATORS:
        with pytest.raises(ValueError, match="geometry"):
            binary(symbol)(a, b)
    with pytest.raises(ValueError, match="geometry"):
        a.isdisjoint(b)
    assert a != b
    assert not any(binary(symbol)(a, b) for symbol in ("==", "<=", "<", ">=", ">"))


@pytest.mark.parametrize("symbol", OPERATORS)
@pytest.mark.parametrize("other", [[1], (1,), {1: 2}, 1, None, range(2)])
def test_only_sets_combine(symbol: str, other: object) -> None:
    """Anything else on either side is a TypeError, as for sets."""
    pages = PageSet(Geometry(10 * PAGE, 0, PAGE), [(0, 1)])
    for pair in ((pages, other), (other, pages)):
        with pytest.raises(TypeError, match="unsupported operand"):
            binary(symbol)(*pair)


@pytest.mark.parametrize("symbol", OPERATORS)
@pytest.mark.parametrize("number", [-1, 10, 2**64 + 1, 2**70, -(2**70)])
def test_numbers_outside_of_the_region_do_not_combine(symbol: str, number: int) -> None:
    """Somebody has counted wrongly."""
    pages = PageSet(Geometry(10 * PAGE, 0, PAGE), [(0, 1)])
    for pair in ((pages, {0, number}), ({0, number}, pages)):
        with pytest.raises(ValueError, match=f"page {number} is not one of the 10"):
            binary(symbol)(*pair)


@pytest.mark.parametrize("symbol", OPERATORS)
def test_what_is_no_number_does_not_combine(symbol: str) -> None:
    """A set may hold anything."""
    pages = PageSet(Geometry(10 * PAGE, 0, PAGE), [(0, 1)])
    with pytest.raises(TypeError, match="integer"):
        binary(symbol)(pages, {"0"})


def test_in_place_operators_make_a_new_set() -> None:
    """As with frozenset."""
    before = pages = PageSet(Geometry(10 * PAGE, 0, PAGE), [(0, 1)])
    pages |= {5}
    assert pages == {0, 5}
    assert before == {0}


@pytest.mark.parametrize("thing", ["1", None, 1.5, -1, 10, 2**64 + 1, 2**70, -(2**70)])
def test_what_is_no_page_is_not_in_a_set(thing: object) -> None:
    """Membership of anything else, however large, is False."""
    assert thing not in PageSet(Geometry(10 * PAGE, 0, PAGE), [(0, 10)])


def test_numpy_integers_are_page_numbers() -> None:
    """Membership and construction take what numpy computes."""
    pages = PageSet(Geometry(10 * PAGE, 0, PAGE), np.array([[1, 3], [5, 6]], dtype=np.uint64))
    assert np.uint64(2) in pages
    assert np.int32(3) not in pages


@pytest.mark.parametrize("run", [(3, 3), (4, 3), (-1, 2), (9, 11), (10, 11), (2**64, 2**64 + 1)])
def test_runs_outside_of_the_region_are_refused(run: tuple[int, int]) -> None:
    """Empty, backward and outlying runs are a ValueError."""
    with pytest.raises(ValueError, match="not within"):
        PageSet(Geometry(10 * PAGE, 0, PAGE), [run])


def test_runs_that_are_no_integers_are_refused() -> None:
    """Page numbers are integers."""
    with pytest.raises(TypeError):
        PageSet(Geometry(10 * PAGE, 0, PAGE), [(0.5, 2)])  # type: ignore[list-item]


def test_overlapping_runs_merge() -> None:
    """Runs may come in any order, twice, nested or touching."""
    pages = PageSet(Geometry(10 * PAGE, 0, PAGE), [(5, 7), (0, 3), (1, 2), (3, 4), (5, 7), (6, 8)])
    assert list(pages.runs) == [(0, 4), (5, 8)]
    assert len(pages) == 7


def test_runs_are_an_array_without_a_copy() -> None:
    """Numpy sees (n, 2) uint64 numbers in the set's own memory, read-only, and keeps them alive."""
    pages = PageSet(Geometry(10 * PAGE, 0, PAGE), [(1, 3), (5, 6)])
    first, second = np.asarray(pages.runs), np.asarray(pages.runs)
    assert first.dtype == np.uint64
    assert first.tolist() == [[1, 3], [5, 6]]
    assert np.shares_memory(first, second)
    assert first.ctypes.data == pages.runs.__array_interface__["data"][0]
    assert not first.flags.writeable
    del pages, second
    gc.collect()
    assert first.tolist() == [[1, 3], [5, 6]]


def test_an_empty_set_is_complete() -> None:
    """No page: no runs, slices or elements, an all-zero mask, and an array of shape (0, 2)."""
    pages = PageSet(Geometry(10 * PAGE, 0, PAGE))
    assert (len(pages), pages.nbytes, list(pages), list(pages.runs)) == (0, 0, [], [])
    assert pages.slices() == []
    assert pages.elements(8) == []
    assert pages.mask().tolist() == [0] * 10
    array = np.asarray(pages.runs)
    assert array.shape == (0, 2)
    assert array.dtype == np.uint64


def test_a_large_set_is_listed_in_full() -> None:
    """Iteration in pieces loses no run at the joints."""
    geometry = Geometry(10_000 * PAGE, 0, PAGE)
    wanted = [(page, page + 1) for page in range(0, 10_000, 2)]
    pages = PageSet(geometry, wanted)
    assert list(pages.runs) == wanted
    assert len(pages) == 5000


def test_repr_is_short() -> None:
    """A thousand runs print as a line that says how many."""
    pages = PageSet(Geometry(2000 * PAGE, 0, PAGE), [(page, page + 1) for page in range(0, 2000, 2)])
    assert "1000 of 2000 pages" in repr(pages)
    assert len(repr(pages)) < 300


@given(geometries(), st.data())
def test_geometry_finds_the_pages_of_bytes(geometry: Geometry, data: st.DataObject) -> None:
    """Pages of bytes, and bytes of pages, agree with counting them one by one."""
    start = data.draw(st.integers(0, geometry.nbytes))
    stop = data.draw(st.integers(start, geometry.nbytes))
    touched = {(geometry.offset + i) // geometry.page_size for i in range(start, stop)}
    assert set(range(*geometry.pages_of(start, stop))) == touched
    for first, last in as_runs(touched):
        piece = geometry.bytes_of(first, last)
        assert set(range(piece.start, piece.stop)) == bytes_on(geometry, set(range(first, last)))


def test_elements_of_a_size_that_is_a_numpy_integer() -> None:
    """A size in bytes is a size, also where its own type has an item size."""
    pages = PageSet(Geometry(4 * PAGE, 0, PAGE), [(1, 2)])
    assert pages.elements(np.int64(4)) == pages.elements(4)
    for nonsense in (None, True):
        with pytest.raises(TypeError, match="no element type"):
            pages.elements(nonsense)
