"""The fixture that watches memory, in test runs of its own."""

from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from dirtytrack import PageSet
from dirtytrack.tracking import Geometry

_SETTING = """
import dirtytrack, numpy as np, pytest

class Tensor:
    def __init__(self, array):
        self.dtype, self.__array_interface__ = "float64", array.__array_interface__

@pytest.fixture(autouse=True)
def setting():
    array = np.zeros((20, 30))
    globals().update(
        array=array, other=bytearray(100), scalar=np.zeros(()), tensor=Tensor(array),
        crosswise=np.zeros((2, 3, 4)).transpose(1, 0, 2),  # dense, but in the order of neither C nor Fortran
    )
"""
_TEST = """
def test_{number}(memory_watch):
    assert dirtytrack.support().works  # the module, which no fixture hides
    with {with_}:
        {act}
"""
_ALLOWED = [
    ("memory_watch.unchanged(array, other)", "array[3] += 0; other[5] = 0"),
    ("memory_watch.unchanged(array)", "other[0] = 1"),
    ("memory_watch.dirty_at_most(100, other)", "other[:] = bytes(range(1, 101))"),
    ("memory_watch.dirty_at_most('0.5 KiB', other, array)", "other[:] = bytes(range(1, 101))"),
]
_NOT_ALLOWED = [
    ("memory_watch.unchanged(other, array)", "array[3, 4] = 2", ["memory 1[3, 4]: 0.0 -> 2.0"]),
    ("memory_watch.unchanged(array.T)", "array[3, 4] = 2", ["memory 0[4, 3]: 0.0 -> 2.0"]),
    ("memory_watch.unchanged(scalar)", "scalar[...] = 2", ["memory 0: 0.0 -> 2.0"]),
    ("memory_watch.unchanged(other)", "other[7:9] = b'ab'", ["memory 0, bytes [7, 9): 00 00 -> 61 62"]),
    ("memory_watch.unchanged(array)", "array[3] = 1", ["memory has changed in 60 bytes:", "and 18 more"]),
    (
        "memory_watch.unchanged(other, array)",
        "other[::2] = b'a' * 50; array[3, 4] = 2",
        ["memory has changed in 51 bytes:", "bytes [22, 23): 00 -> 61", "and 39 more"],
    ),
    ("memory_watch.unchanged(crosswise)", "crosswise[0, 1, 0] = 2", ["memory 0, bytes [103, 104): 00 -> 40"]),
    ("memory_watch.unchanged(tensor)", "array[0, 1] = 2", ["memory 0, bytes [15, 16): 00 -> 40"]),
    (
        "memory_watch.dirty_at_most('4 B', other)",
        "other[:5] = b'abcde'",
        ["memory has changed in 5 bytes, more than 4 B:"],
    ),
    ("memory_watch.dirty_at_most(0, other)", "other[0] = 1", ["memory has changed in 1 byte, more than 0:"]),
]
_RAISES = ("memory_watch.unchanged(array)", "array[0] = 1; raise KeyError('mine')")
_NO_SIZES = [
    (f"memory_watch.dirty_at_most({limit}, array)", "pass") for limit in ("'much'", -1, True, "'1 PB'")
]
_CASES = [*_ALLOWED, *((with_, act) for with_, act, _ in _NOT_ALLOWED), _RAISES, *_NO_SIZES]


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """A run of pytest with a test for each case: what it printed of one that failed, None if it passed."""
    folder = tmp_path_factory.mktemp("run")
    tests = [_TEST.format(number=n, with_=with_, act=act) for n, (with_, act) in enumerate(_CASES)]
    (folder / "test_it.py").write_text(_SETTING + "".join(tests), encoding="utf-8")
    report = folder / "report.xml"
    words = ["-W", "error", "-m", "pytest", "-q", "--rootdir", folder, "-p", "no:cacheprovider"]
    subprocess.run([sys.executable, *words, "--junitxml", report, folder], capture_output=True, check=False)
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        outcomes[_CASES[int(case.get("name").removeprefix("test_"))]] = case.findtext("failure")
        assert case.find("error") is None
    assert len(outcomes) == len(_CASES)
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize(("with_", "act"), _ALLOWED)
def test_what_is_allowed_passes(printed, with_, act):
    """Equal contents are no change, and neither is what others do."""
    assert printed[with_, act] is None


@pytest.mark.slow
@pytest.mark.parametrize(("with_", "act", "shown"), _NOT_ALLOWED)
def test_what_is_not_fails_and_is_shown(printed, with_, act, shown):
    """With elements of arrays and their values, or bytes; and not with our own code."""
    for text in shown:
        assert text in printed[with_, act]
    assert "pytest_dirtytrack.py" not in printed[with_, act]


@pytest.mark.slow
def test_an_exception_passes_through(printed):
    """What the block raises is what the test fails with."""
    assert "KeyError: 'mine'" in printed[_RAISES]
    assert "memory has changed" not in printed[_RAISES]


@pytest.mark.slow
@pytest.mark.parametrize(("with_", "act"), _NO_SIZES)
def test_a_size_that_is_none(printed, with_, act):
    """It says what a size looks like."""
    assert "is no size: give bytes" in printed[with_, act]


def test_several_memories_share_the_lines(memory_watch):
    """At most twelve changes are shown, whatever they are of, and the rest is counted."""
    first, second = np.zeros(10), np.zeros(10)
    with pytest.raises(pytest.fail.Exception) as failure, memory_watch.unchanged(first, second):
        first[:] = second[:] = 1
    lines = str(failure.value).splitlines()[1:]
    expected = [f"  memory {n}[{at}]: 0.0 -> 1.0" for n, at in [(0, i) for i in range(10)] + [(1, 0), (1, 1)]]
    assert lines == [*expected, "  and 8 more"]


def _page_set(*pages: int, count: int = 100) -> PageSet:
    return PageSet(Geometry(count * 4096, 0, 4096), [(page, page + 1) for page in pages])


@pytest.mark.anywhere
def test_a_page_set_that_is_not_equal_says_which_pages():
    """Those that it has beyond the other one, and those that it lacks, on either side of the sign."""
    with pytest.raises(AssertionError) as failure:
        assert _page_set(2, 3, 7) == {2, 99, 100}
    assert str(failure.value).splitlines()[0].startswith("assert pages {2, 3, 7} == {2, 99, 100}")
    assert "Only in the left: {3, 7}" in str(failure.value)
    assert "Only in the right: {99, 100}" in str(failure.value)
    with pytest.raises(AssertionError, match=r"Only in the left: \{1\}"):
        assert frozenset({1}) <= _page_set(2)
    with pytest.raises(AssertionError, match=r"Only in the left: \{0, 2, 4, .*, 22, and 38 more\}"):
        assert _page_set(*range(0, 100, 2)) == set()


@pytest.mark.anywhere
def test_page_sets_of_two_regions_say_so():
    """Their numbers may be the same."""
    with pytest.raises(AssertionError, match=r"lie differently: .*nbytes=409600.* and .*nbytes=36864"):
        assert _page_set(2) == _page_set(2, count=9)


@pytest.mark.anywhere
@pytest.mark.parametrize("other", [{"a"}, [2], None])
def test_what_is_no_set_of_pages_is_shown_as_ever(other):
    """And nothing goes wrong by it."""
    with pytest.raises(AssertionError, match="<PageSet: 1 o"):
        assert _page_set(2) == other


@pytest.mark.anywhere
def test_who_does_not_ask_does_not_pay():
    """The plugin that pytest loads imports nothing of the library."""
    code = "import sys, pytest_dirtytrack; print([n for n in sys.modules if n.startswith('dirtytrack')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
