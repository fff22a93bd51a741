"""Diffs as values: what they hold, how they are combined, sent and applied."""

from __future__ import annotations

import mmap
import pickle
import random
import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dirtytrack
from _lib.raw import Raw
from _lib.snapshot.oracle import changes
from _lib.support import PAGE_SIZE
from dirtytrack import DiffError, Session
from dirtytrack.errors import KernelPermissionError
from dirtytrack.snapshot import Diff, Snapshot

SIZE = 3 * PAGE_SIZE


def _diff(before, after, **options):
    """The diff of lists of bytes, of regions "one", "two" and so on."""
    with Session() as session:
        regions = [session.track(bytearray(old), name=f"r{place}") for place, old in enumerate(before)]
        with Snapshot(session, *regions) as snapshot:
            for region, new in zip(regions, after, strict=True):
                region.view[:] = new
            return snapshot.diff(**options)


def _mutate(draw, content):
    mutated = bytearray(content)
    for _ in range(draw.randrange(6)):
        at = draw.randrange(len(mutated))
        for place in range(at, min(at + draw.choice([1, 2, 9, 300]), len(mutated))):
            mutated[place] = draw.randrange(3)
    return bytes(mutated)


def _contents(seed, count):
    """So many successive contents of two regions."""
    draw = random.Random(seed)
    contents = [[bytes(700), draw.randbytes(5000)]]
    for _ in range(count - 1):
        contents.append([_mutate(draw, one) for one in contents[-1]])
    return contents


def _spans(diff):
    return [(int(one.region[1:]), one.start, one.stop) for one in diff]


def test_a_sequence_of_changes():
    """Indexed, sliced, iterated, counted; of a region by name; read-only views without a copy."""
    before, after = [bytes(5000), bytes(100)], [bytearray(5000), bytearray(100)]
    after[0][10:14], after[0][4990:], after[1][0] = b"abcd", b"0123456789", 9
    diff = _diff(before, after)
    assert (len(diff), diff.nbytes, diff.sizes) == (3, 15, {"r0": 5000, "r1": 100})
    assert [one.start for one in diff] == [10, 4990, 0]
    assert diff[-1] == diff[2]
    assert diff[:2] == diff.of("r0")
    assert [bytes(one.after) for one in diff.of("r1")] == [b"\t"]
    assert diff[0] in diff
    assert diff[0].after.readonly
    assert diff[0].after.obj is diff[1].after.obj
    assert repr(diff) == "<Diff: 3 changes, 15 bytes: 'r0' [10, 14), 'r0' [4990, 5000), 'r1' [0, 1)>"
    assert repr(diff[0]) == "Change('r0', 10, 14, 00 00 00 00 -> 61 62 63 64)"
    with pytest.raises(IndexError):
        diff[3]
    with pytest.raises(KeyError, match="no region 'x'"):
        diff.of("x")
    with pytest.raises(TypeError, match="made by"):
        Diff()


@settings(max_examples=40)
@given(seed=st.integers(0, 1 << 30), gap=st.sampled_from([0, 1, 3, 8, 255, 256, 5000]))
def test_gaps(seed, gap):
    """Exactly what a loop over the bytes finds, for any gap."""
    before, after = _contents(seed, 2)
    diff = _diff(before, after, gap=gap)
    assert _spans(diff) == changes(before, after, gap)
    for one in diff:
        place = int(one.region[1:])
        assert (one.before, one.after) == (
            before[place][one.start : one.stop],
            after[place][one.start : one.stop],
        )


def test_a_limit():
    """What is more than that is refused; what is not is not. A change takes 32 bytes, and what it says."""
    for after, most in (b"\1" * 50 + bytes(50), 32 + 100), (b"\1\0" * 50, 50 * (32 + 2)):
        assert _diff([bytes(100)], [after], max_nbytes=most).nbytes == 50
        with pytest.raises(DiffError, match=f"take more than {most - 1} bytes of memory: raise max_nbytes"):
            _diff([bytes(100)], [after], max_nbytes=most - 1)
    assert _diff([bytes(100)], [b"\1\0" * 50], gap=1, max_nbytes=32 + 2 * 99).nbytes == 99


@settings(max_examples=40)
@given(seed=st.integers(0, 1 << 30))
def test_there_and_back_and_on(seed):
    """apply, invert, merge and the way through bytes, against the contents themselves."""
    one, two, three = _contents(seed, 3)
    first, second = _diff(one, two), _diff(two, three)
    memory = [bytearray(content) for content in one]
    first.apply(*memory, check=True)
    assert memory == two
    first.invert().apply({"r1": memory[1], "r0": memory[0]}, check=True)
    assert memory == one
    both = first.merge(second)
    assert _spans(both) == changes(one, three)
    both.apply(*memory, check=True)
    assert memory == three
    assert both == _diff(one, three)
    assert hash(both) == hash(_diff(one, three))
    assert both.invert().invert() == both
    assert len(first.merge(first.invert())) == 0
    for diff in (first, both):
        assert Diff.from_bytes(diff.to_bytes()) == diff
        assert pickle.loads(pickle.dumps(diff)) == diff


def test_what_does_not_follow_can_not_be_merged():
    """The byte in question is named; so are other regions."""
    first, second = _diff([bytes(10)], [b"\1" * 10]), _diff([b"\2" * 10], [b"\3" * 10])
    with pytest.raises(DiffError, match="byte 0 of 'r0' is 1 after the first diff and 2 before the second"):
        first.merge(second)
    with pytest.raises(DiffError, match="can't be followed"):
        first.merge(_diff([bytes(11)], [b"\1" * 11]))
    with pytest.raises(TypeError, match="takes a Diff"):
        first.merge(b"")


def test_apply_checks_everything_first():
    """Other numbers, names, sizes, contents, read-only and overlapping memory: not a byte is written."""
    diff = _diff([bytes(10), bytes(20)], [b"\1" * 10, b"\1" * 20])
    good, memory = bytearray(20), bytearray(30)
    with Session() as session:
        region = session.track(bytearray(10), name="other")
        for arguments, error, match in [
            ((good,), DiffError, "memory was given for 1"),
            ((bytearray(11), good), DiffError, "'r0' has 10 bytes, and the memory given for it has 11"),
            ((region, good), DiffError, "region 'other' was given for the changes of 'r0'"),
            (({"r0": bytearray(10), "x": good},), DiffError, "'x'"),
            ((memoryview(bytes(10)), good), ValueError, None),
            (("text", good), TypeError, None),
            ((memoryview(memory)[:10], memoryview(memory)[5:25]), ValueError, "overlaps"),
        ]:
            with pytest.raises(error, match=match):
                diff.apply(*arguments)
    second = bytearray(19) + b"\7"
    first = bytearray(10)
    with pytest.raises(DiffError, match=r"bytes \[0, 20\) of 'r1' are not what they were"):
        diff.apply(first, second, check=True)
    assert not any(good + memory + first + second[:19])
    with Raw(2) as raw:
        raw.protect(0, 1, mmap.PROT_READ)
        with pytest.raises(KernelPermissionError, match="apply to 'r0'"):
            diff.apply((raw.start, 10), good)
        assert not any(good)


@pytest.mark.parametrize("dtype", ["u1", "<f4", ">i8", "c16", "M8[s]"])
@pytest.mark.parametrize("shape", [(), (300,), (20, 15), (5, 6, 10)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_elements(dtype, shape, order):
    """As indices and as slices, what a comparison of the arrays finds; half an element counts."""
    draw = np.random.default_rng(1)
    with Session() as session:
        array = np.zeros(shape, dtype, order)
        raw = np.ndarray(array.nbytes, np.uint8, array)
        with Snapshot(session, raw) as snapshot:
            pristine = raw.copy()
            raw[draw.integers(0, len(raw), 7)] = draw.integers(1, 256, 7)
            found = snapshot.diff().elements(array)
    expected = (raw != pristine).reshape(-1, array.itemsize).any(axis=1)
    flat = np.zeros(array.size, bool)
    for piece in found.slices:
        assert not flat[piece].any()
        flat[piece] = True
    assert (flat == expected).all()
    assert all(one.stop < other.start for one, other in pairwise(found.slices))
    marked = np.zeros(shape, bool, order)
    marked[found.indices] = True
    assert (marked.ravel(order="K") == expected).all()


def test_bad_arguments_of_elements():
    """Another size, no array, not contiguous, and regions to choose from."""
    diff = _diff([bytes(8), bytes(8)], [b"\1" * 8, bytes(8)])
    for arguments, error, match in [
        ((np.zeros(1),), ValueError, "say which region"),
        ((np.zeros(2), "r0"), DiffError, "16 bytes"),
        ((np.zeros((2, 2), "f4")[:, 0], "r0"), ValueError, "contiguous"),
        ((bytes(8), "r0"), TypeError, "numpy array"),
        ((np.zeros(1), "x"), KeyError, "'x'"),
    ]:
        with pytest.raises(error, match=match):
            diff.elements(*arguments)
    assert diff.elements(np.zeros(1), "r1").slices == []


def test_watch():
    """The diff, once it is left: nested, on the way of an exception, and not before."""
    one, two = dirtytrack.empty(100, np.uint8), dirtytrack.empty(100, np.uint8)
    with dirtytrack.watch(one, two) as outer:
        assert repr(outer) == "<dirtytrack.watch: not left yet>"
        one[3] = 1
        with pytest.raises(ZeroDivisionError), dirtytrack.watch(two) as inner:
            two[5:7] = 1
            with pytest.raises(RuntimeError, match="when the block"):
                len(inner)
            1 / 0  # noqa: B018
        assert [(change.start, change.stop) for change in inner] == [(5, 7)]
    assert [(change.region, change.start) for change in outer] == [("0", 3), ("1", 5)]
    assert Diff.from_bytes(outer.to_bytes()) == outer
    with pytest.raises(RuntimeError, match="entered already"), outer:
        pass
    with dirtytrack.watch(one, gap=10) as changes_:
        one[0], one[9] = 5, 5
    assert len(changes_) == 1
    assert dirtytrack.default_session().regions == ()


def test_what_the_block_raises_comes_first():
    """Also where the memory is lost, so that there is no diff."""
    with Raw(4) as memory, pytest.raises(ZeroDivisionError), dirtytrack.watch(memory.pair):
        memory.map_over(1, 2)
        1 / 0  # noqa: B018
    with Raw(4) as memory, pytest.raises(dirtytrack.RegionLostError), dirtytrack.watch(memory.pair):
        memory.map_over(1, 2)


def test_watches_of_many_threads():
    """Each finds its own, though all share the default session."""
    arrays, found = [dirtytrack.empty(5000, np.uint8) for _ in range(4)], {}

    def work(number):
        for turn in range(25):
            with dirtytrack.watch(arrays[number]) as changes_:
                arrays[number][turn * 100 + number] = 1
            found[number, turn] = [(one.start, one.stop) for one in changes_]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (number, turn), spans in found.items():
        assert spans == [(turn * 100 + number, turn * 100 + number + 1)]
    assert len(found) == 100
