"""The fixture that watches memory, in test runs of its own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from dirtytrack import PageSet
from dirtytrack.tracking import Geometry

_TEST = """
import dirtytrack, numpy as np
array, other, scalar = np.zeros((20, 30)), bytearray(100), np.zeros(())
crosswise = np.zeros((2, 3, 4)).transpose(1, 0, 2)  # contiguous, but in the order of neither C nor Fortran

class Tensor:
    dtype, __array_interface__ = "float64", array.__array_interface__

def test_it(memory_watch):
    assert dirtytrack.support().works  # the module, which no fixture hides
    with {with_}:
        {act}
"""


def _run(folder, with_, act):
    folder.joinpath("test_it.py").write_text(_TEST.format(with_=with_, act=act), encoding="utf-8")
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "pytest",
            "-q",
            "--rootdir",
            folder,
            folder,
            "-p",
            "no:cacheprovider",
        ],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("with_", "act"),
    [
        ("memory_watch.unchanged(array, other)", "array[3] += 0; other[5] = 0"),
        ("memory_watch.unchanged(array)", "other[0] = 1"),
        ("memory_watch.dirty_at_most(100, other)", "other[:] = bytes(range(1, 101))"),
        ("memory_watch.dirty_at_most('0.5 KiB', other, array)", "other[:] = bytes(range(1, 101))"),
    ],
)
def test_what_is_allowed_passes(tmp_path, with_, act):
    """Equal contents are no change, and neither is what others do."""
    done = _run(tmp_path, with_, act)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("with_", "act", "shown"),
    [
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
        (
            "memory_watch.unchanged(crosswise)",
            "crosswise[0, 1, 0] = 2",
            ["memory 0, bytes [103, 104): 00 -> 40"],
        ),
        ("memory_watch.unchanged(Tensor())", "array[0, 1] = 2", ["memory 0, bytes [15, 16): 00 -> 40"]),
        (
            "memory_watch.dirty_at_most('4 B', other)",
            "other[:5] = b'abcde'",
            ["memory has changed in 5 bytes, more than 4 B:"],
        ),
        (
            "memory_watch.dirty_at_most(0, other)",
            "other[0] = 1",
            ["memory has changed in 1 byte, more than 0:"],
        ),
    ],
)
def test_what_is_not_fails_and_is_shown(tmp_path, with_, act, shown):
    """With elements of arrays and their values, or bytes; and not with our own code."""
    done = _run(tmp_path, with_, act)
    assert done.returncode == 1
    for text in shown:
        assert text in done.stdout
    assert "pytest_dirtytrack.py" not in done.stdout


def test_several_memories_share_the_lines(memory_watch):
    """At most twelve changes are shown, whatever they are of, and the rest is counted."""
    first, second = np.zeros(10), np.zeros(10)
    with pytest.raises(pytest.fail.Exception) as failure, memory_watch.unchanged(first, second):
        first[:] = second[:] = 1
    lines = str(failure.value).splitlines()[1:]
    expected = [f"  memory {n}[{at}]: 0.0 -> 1.0" for n, at in [(0, i) for i in range(10)] + [(1, 0), (1, 1)]]
    assert lines == [*expected, "  and 8 more"]


def test_an_exception_passes_through(tmp_path):
    """What the block raises is what the test fails with."""
    done = _run(tmp_path, "memory_watch.unchanged(array)", "array[0] = 1; raise KeyError('mine')")
    assert "KeyError: 'mine'" in done.stdout
    assert "memory has changed" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["'much'", "-1", "True", "'1 PB'"])
def test_a_size_that_is_none(tmp_path, limit):
    """It says what a size looks like."""
    done = _run(tmp_path, f"memory_watch.dirty_at_most({limit}, array)", "pass")
    assert "is no size: give bytes" in done.stdout


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
