"""What a Checkpointer says of its next save, beside what that save then is."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

import dirtytrack
from dirtytrack.checkpoint import Checkpointer

BLOCK = 4096
PAGE = mmap.PAGESIZE


@pytest.fixture
def array():
    """Eight hundred pages of what can't be compressed."""
    array = dirtytrack.empty(800 * PAGE, np.uint8)
    array[:] = np.random.default_rng(1).integers(0, 256, array.size, np.uint8)
    return array


def test_pages_are_exact(place, array):
    """First everything, then what was written, and nothing when nothing was; a look takes nothing away."""
    with Checkpointer(place, {"a": array}) as checkpoints:
        first = checkpoints.forecast()
        assert (first.kind, first.pages, first.nbytes, first.saves) == ("base", 800, 800 * PAGE, 0)
        checkpoints.save(wait=True)
        for pages in ((), (3,), range(50), range(0, 800, 7)):
            for page in pages:
                array[page * PAGE] ^= 0xFF
            told = checkpoints.forecast()
            assert (told.kind, told.pages) == ("delta", len(pages))
            assert checkpoints.forecast() == told
            save = checkpoints.save(wait=True)
            assert save.blocks_written == told.pages * PAGE // BLOCK


def test_memory_that_lies_askew(place):
    """A page of it has parts of two blocks: both are counted, as the save does."""
    backing = dirtytrack.empty(100 * PAGE, np.uint8)
    backing[:] = 1
    array = backing[100 : 60 * PAGE + 50]
    with Checkpointer(place, {"a": array}) as checkpoints:
        checkpoints.save(wait=True)
        array[5 * PAGE] += 1
        told = checkpoints.forecast()
        save = checkpoints.save(wait=True)
        assert told.pages == 1
        assert told.nbytes == save.blocks_written * BLOCK


def test_the_size_is_learned(place, array):
    """Half of the blocks that are written are as they were: after some saves it is told so, and right."""
    with Checkpointer(place, {"a": array}, compression="none") as checkpoints:
        checkpoints.save(wait=True)
        for turn in range(6):
            array[: 100 * PAGE : PAGE] += 1
            array[100 * PAGE : 200 * PAGE : PAGE] += 0  # stored to, and the same
            told = checkpoints.forecast()
            save = checkpoints.save(wait=True)
            assert told.pages == 200
            assert told.saves == turn
            if turn:
                assert told.nbytes == pytest.approx(save.nbytes, rel=0.05)
        assert told.pause > 0


def test_compression_is_learned(place):
    """Zeros with a counter: the file is a small part of the blocks."""
    array = dirtytrack.empty(400 * PAGE, np.uint8)
    array[:] = 7
    with Checkpointer(place, {"a": array}, compression="zstd") as checkpoints:
        checkpoints.save(wait=True)
        for turn in range(1, 5):
            array[::PAGE] = turn
            told = checkpoints.forecast()
            save = checkpoints.save(wait=True)
        assert told.nbytes == pytest.approx(save.nbytes, rel=0.2)
        assert told.nbytes < 400 * PAGE // 4


def test_without_a_checkpointer(place, array):
    """A closed one raises, as every method."""
    with Checkpointer(place, {"a": array}) as checkpoints:
        pass
    with pytest.raises(dirtytrack.ClosedError):
        checkpoints.forecast()
