"""What differs between two checkpoints is what differs between their arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _lib.checkpoint import forge
from _lib.checkpoint.forge import BLOCK
from _lib.checkpoint.places import flip
from dirtytrack import ChainError, ClosedError
from dirtytrack.checkpoint import Chain, Checkpointer

pytestmark = pytest.mark.anywhere


def _counts(before, after, itemsize=1):
    """Blocks, bytes and elements that differ, by numpy."""
    differ = np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8)
    blocks = sum(differ[at : at + BLOCK].any() for at in range(0, len(differ), BLOCK))
    elements = np.unique(np.flatnonzero(differ) // itemsize)
    return blocks, int(differ.sum()), len(elements)


def _found(differences):
    return {one.name: (one.kind, (one.blocks, one.nbytes, one.elements)) for one in differences}


@pytest.fixture
def states():
    states, a, b = [], np.zeros(30000, "<f4"), bytearray(50)
    for number in range(1, 5):
        a[number * 3000] = number
        a[100] = 1e9 + number
        b[number % 2] = 7
        states.append({"a": a.tobytes(), "b": bytes(b), "c": bytes(3 * BLOCK), "d": b""})
    return states


@pytest.mark.parametrize("encoding", [forge.RAW, forge.ZSTD])
def test_any_two(place, states, encoding):
    """In either order, by numbers and identifiers."""
    rows = {"a": {"dtype": "<f4", "shape": [30000]}}
    with Chain(forge.write(place, forge.history(states, encoding=encoding, rows=rows))) as chain:
        for one in range(1, 5):
            for other in range(1, 5):
                old, new = states[one - 1], states[other - 1]
                counts = {name: _counts(old[name], new[name], 4 if name == "a" else 1) for name in old}
                expected = {name: ("changed", count) for name, count in counts.items() if count[0]}
                assert _found(chain.diff(one, chain[other].id)) == expected
        assert _found(chain.diff(2)) == _found(chain.diff(2, 4))


def test_one_number_is_one_element(tmp_path):
    """An array without axes has one, of however many bytes."""
    states = [{"a": np.float64(number).tobytes()} for number in (1.1, 2.3)]
    path = forge.write(tmp_path / "chain", forge.history(states, rows={"a": {"dtype": "<f8", "shape": []}}))
    with Chain(path) as chain:
        (found,) = chain.diff(1)
    assert (found.after.shape, found.blocks, found.nbytes, found.elements) == ((), 1, 8, 1)


def test_only_what_differs_is_read(tmp_path, states):
    """Damage in the base they share is not noticed; in a file of one of them alone it is."""
    files = forge.history(states)
    path = forge.write(tmp_path / "chain", files)
    flip(path / files[0].name, 200)
    with Chain(path) as chain:
        assert [one.name for one in chain.diff(2, 3)] == ["a"]
    flip(path / files[2].name, 200)
    with Chain(path) as chain, pytest.raises(ChainError, match=files[2].name):
        chain.diff(2, 3)


def test_across_a_base(tmp_path, states):
    """Which stores everything anew: what is equal is not told all the same."""
    files = forge.history(states)
    files[2] = forge.base_of(files[2], states[2])
    with Chain(forge.write(tmp_path / "chain", files)) as chain:
        for one, other in ((1, 3), (4, 2)):
            old, new = states[one - 1], states[other - 1]
            counts = {name: _counts(old[name], new[name]) for name in old}
            assert _found(chain.diff(one, other)) == {
                name: ("changed", count) for name, count in counts.items() if count[0]
            }


def test_regions_that_come_and_go(tmp_path, tracking_works):
    """They are named, with what they were; what is tied is told under each name."""
    w, moments, table = np.arange(9000.0), np.zeros(5000), np.ones(100)
    with Checkpointer(tmp_path, {"w": w, "tied": w, "moments": moments, "table": table}) as checkpoints:
        checkpoints.save()
        checkpoints.remove("moments")
        checkpoints.rebind({"table": np.ones(200)})
        checkpoints.add("more", np.ones(3))
        w[5:7] = 1
        checkpoints.save()
    with Chain(tmp_path) as chain:
        found = {one.name: one for one in chain.diff(1)}
    assert {name: one.kind for name, one in found.items()} == {
        "w": "changed",
        "tied": "changed",
        "moments": "removed",
        "table": "replaced",
        "more": "added",
    }
    assert found["w"].elements == found["tied"].elements == 2
    assert found["moments"].before.nbytes == 40000
    assert found["table"].after.shape == (200,)
    assert found["more"].before is None


@settings(max_examples=40)
@given(st.data())
def test_any_states(tmp_path_factory, data):
    """Elements of any size, which lie across blocks and pieces."""
    itemsize, count = data.draw(st.sampled_from([1, 3, 8, 5000])), data.draw(st.integers(1, 9000))
    nbytes = itemsize * min(count, 60000 // itemsize)
    states, content = [], bytearray(nbytes)
    for _ in range(3):
        for at in data.draw(st.lists(st.integers(0, nbytes - 1), max_size=9)):
            content[at] = data.draw(st.integers(0, 3))
        states.append({"a": bytes(content)})
    rows = {"a": {"dtype": f"|V{itemsize}", "shape": [nbytes // itemsize]}}
    path = forge.write(tmp_path_factory.mktemp("any") / "chain", forge.history(states, rows=rows))
    with Chain(path) as chain:
        for one, other in ((1, 2), (2, 3), (1, 3)):
            counts = _counts(states[one - 1]["a"], states[other - 1]["a"], itemsize)
            assert _found(chain.diff(one, other)) == ({"a": ("changed", counts)} if counts[0] else {})


def test_a_hostile_length(tmp_path):
    """A region of 2**42 bytes, of which there is one block, takes no time."""
    regions = [forge.region("a", 1 << 42, dtype="<f8", shape=[0, 7])]
    first = forge.File(1, [forge.Run(0, 5, b"x" * BLOCK)], regions)
    second = forge.File(2, [forge.Run(0, 9, b"x" * BLOCK)], regions, forge.DELTA, first.checkpoint)
    with Chain(forge.write(tmp_path / "chain", [first, second])) as chain:
        assert _found(chain.diff(1, 2)) == {"a": ("changed", (1, BLOCK, BLOCK))}


def test_arguments(tmp_path, states):
    """What there is not is an error."""
    with Chain(forge.write(tmp_path / "chain", forge.history(states))) as chain:
        for pair in ((9,), (1, "0" * 32)):
            with pytest.raises(ChainError, match="no complete checkpoint"):
                chain.diff(*pair)
    with pytest.raises(ClosedError):
        chain.diff(1)
