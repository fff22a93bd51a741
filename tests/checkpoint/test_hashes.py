"""Which blocks are to be stored: a model that keeps whole copies says the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _lib.checkpoint.packed import Packed
from dirtytrack.checkpoint.format.structures import BLOCK
from dirtytrack.checkpoint.write.block_hashes import BlockHashes
from dirtytrack.kernel.touch import Memory

pytestmark = pytest.mark.anywhere

NBYTES = 5 * BLOCK + 100  # the last block is short


def _content(values: list[int]) -> bytes:
    """A region whose blocks are each filled with one value."""
    return b"".join(bytes([value]) * BLOCK for value in values)[:NBYTES]


def _changes(hashes, data, first, stop):
    """What is to be stored of blocks [first, stop), as (block, bytes or None) for each block."""
    packed = Packed(hashes, [NBYTES])
    segments = packed.add([(0, first, data[first * BLOCK : min(stop * BLOCK, NBYTES)])])
    return sorted((block, content) for (_, block), content in packed.blocks(segments).items())


def _learn(hashes, region, data):
    memory = Memory("a copy", memoryview(bytearray(data)), "")
    return hashes.learn(region, memory, 0, -(-len(data) // BLOCK))


def _expected(before, after, first, stop):
    """The same from whole copies."""
    found = []
    for block in range(first, stop):
        part = slice(block * BLOCK, min((block + 1) * BLOCK, NBYTES))
        if before[part] != after[part]:
            found.append((block, after[part] if any(after[part]) else None))
    return found


VALUES = st.lists(st.integers(0, 2), min_size=6, max_size=6)


@given(start=VALUES, steps=st.lists(st.tuples(VALUES, st.integers(0, 5), st.integers(1, 6), st.booleans())))
def test_blocks_are_stored_when_their_content_is_new(start, steps):
    """A block is stored just if it differs from what was last committed or, within a save, last seen."""
    hashes, committed = BlockHashes([NBYTES]), bytearray(_content(start))
    assert _learn(hashes, 0, committed) == sum(map(bool, start))
    working = bytearray(committed)
    for values, first, stop, arrives in steps:
        data, stop = _content(values), max(first + 1, stop)
        assert _changes(hashes, data, first, stop) == _expected(working, data, first, stop)
        part = slice(first * BLOCK, min(stop * BLOCK, NBYTES))
        working[part] = data[part]
        if arrives:
            hashes.commit()
            committed[:] = working
        else:
            hashes.abort()
            working[:] = committed


def test_a_base_has_all_but_zeros():
    """For a base every block counts but those of zeros, whatever was there before."""
    hashes, data = BlockHashes([NBYTES]), _content([1, 0, 2, 2, 0, 1])
    _learn(hashes, 0, data)
    packed = Packed(hashes, [NBYTES])
    assert {block for _, block in packed.blocks(packed.add([(0, 0, data)], everything=True))} == {0, 2, 3, 5}


def test_a_base_begins_with_zeros():
    """What it does not hold is zeros when it is committed, and what it was when it fails."""
    data = _content([1, 0, 2, 2, 0, 1])
    for arrives in (False, True):
        hashes = BlockHashes([NBYTES])
        _learn(hashes, 0, data)
        hashes.begin_base()
        Packed(hashes, [NBYTES]).add([(0, 2, data[2 * BLOCK : 4 * BLOCK])], everything=True)
        (hashes.commit if arrives else hashes.abort)()
        changed = [block for block, _ in _changes(hashes, data, 0, 6)]
        assert changed == ([0, 5] if arrives else [])


def test_regions_do_not_mix():
    """The same block of another region is another block."""
    hashes, data = BlockHashes([BLOCK, BLOCK]), bytes([7]) * BLOCK
    assert [_learn(hashes, 0, data), _learn(hashes, 1, bytes(BLOCK))] == [1, 0]
    packed = Packed(hashes, [BLOCK, BLOCK])
    assert packed.blocks(packed.add([(0, 0, data), (1, 0, data)])) == {(1, 0): data}


def test_every_writer_hashes_with_a_key_of_its_own():
    """So nobody can prepare two blocks that are taken for one; and it is random to the last bit."""
    hashes = [BlockHashes([BLOCK]) for _ in range(64)]
    keys = [tuple(one.native.key) for one in hashes]
    for half in zip(*keys, strict=True):
        assert len(set(half)) == 64
        for bit in range(64):
            assert 8 < sum(key >> bit & 1 for key in half) < 56


def test_a_block_that_came_twice_is_as_it_was_when_that_fails():
    """The log is played back from its end."""
    hashes = BlockHashes([NBYTES])
    _learn(hashes, 0, _content([1] * 6))
    for value in (2, 3, 1, 2):
        _changes(hashes, _content([value] * 6), 0, 6)
    hashes.abort()
    assert _changes(hashes, _content([1] * 6), 0, 6) == []


@given(values=VALUES, first=st.integers(0, 5))
def test_hashes_made_beforehand_are_the_same(values, first):
    """Of any blocks, short and zero ones among them, in the middle of a run too."""
    hashes, data = BlockHashes([NBYTES]), _content(values)
    packed = Packed(hashes, [NBYTES])
    packed.add([(0, first, data[first * BLOCK :])], everything=True, skip=first, hashes=hashes)
    assert _changes(hashes, data, first, 6) == []
