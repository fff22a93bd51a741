"""Which blocks are to be stored: a model that keeps whole copies says the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dirtytrack.checkpoint.format import blocks
from dirtytrack.checkpoint.format.structures import BLOCK
from dirtytrack.checkpoint.write.block_hashes import BlockHashes

pytestmark = pytest.mark.anywhere

NBYTES = 5 * BLOCK + 100  # the last block is short


def _content(values: list[int]) -> bytes:
    """A region whose blocks are each filled with one value."""
    return b"".join(bytes([value]) * BLOCK for value in values)[:NBYTES]


def _changes(hashes, data, first, stop, everything=False):
    """What is to be stored of blocks [first, stop), as (block, bytes or None) for each block."""
    piece = memoryview(data)[first * BLOCK : min(stop * BLOCK, NBYTES)]
    found = []
    for run in hashes.changes(0, first, piece, everything=everything):
        for block in range(run.blocks):
            part = None if run.data is None else bytes(run.data[block * BLOCK : (block + 1) * BLOCK])
            found.append((run.first + block, part))
    return found


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
    hashes.learn(0, 0, memoryview(committed))
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
    hashes.learn(0, 0, memoryview(data))
    assert [block for block, _ in _changes(hashes, data, 0, 6, everything=True)] == [0, 2, 3, 5]


def test_regions_do_not_mix():
    """The same block of another region is another block."""
    hashes, data = BlockHashes([BLOCK, BLOCK]), memoryview(bytes([7]) * BLOCK)
    hashes.learn(0, 0, data)
    hashes.learn(1, 0, memoryview(bytes(BLOCK)))
    assert len(list(hashes.changes(0, 0, data, everything=False))) == 0
    assert len(list(hashes.changes(1, 0, data, everything=False))) == 1


def test_every_writer_hashes_with_a_seed_of_its_own():
    """Equal blocks have other hashes in another writer, so nobody can prepare two that are taken for one."""
    block = memoryview(bytes([7]) * BLOCK)
    assert len({BlockHashes([BLOCK])._hash(block, blocks.classify(block)) for _ in range(4)}) == 4


class _Scarce(bytearray):
    """A table that fails at an access, after so many."""

    left = -1

    def __getitem__(self, where):
        self._count()
        return super().__getitem__(where)

    def __setitem__(self, where, what):
        self._count()
        super().__setitem__(where, what)

    def _count(self):
        _Scarce.left -= 1
        if _Scarce.left == 0:
            raise MemoryError


def test_no_memory_at_any_access_makes_nothing_wrong():
    """What was committed stays so, and what failed is stored when it comes again."""
    steps = [
        ([1] * 6, True),
        ([2, 1, 3, 1, 1, 3], False),
        ([2, 2, 1, 1, 1, 3], True),
        ([1, 2, 0, 1, 1, 3], True),
    ]
    for at in range(1, 100):
        hashes, committed = BlockHashes([NBYTES]), bytearray(NBYTES)
        hashes._committed[:] = [_Scarce(hashes._committed[0])]
        hashes._working[:] = [_Scarce(hashes._working[0])]
        hashes.learn(0, 0, memoryview(committed))
        _Scarce.left, struck = at, False
        for values, arrives in [*steps, *steps]:
            working, data = bytearray(committed), _content(values)
            try:
                for first, stop in ((0, 3), (2, 6), (1, 4)):
                    assert _changes(hashes, data, first, stop) == _expected(working, data, first, stop)
                    part = slice(first * BLOCK, min(stop * BLOCK, NBYTES))
                    working[part] = data[part]
            except MemoryError:
                struck, arrives = True, False
            if arrives:
                hashes.commit()
                committed[:] = working
            else:
                hashes.abort()
                hashes.abort()
        if not struck:
            break
    assert at > 40
