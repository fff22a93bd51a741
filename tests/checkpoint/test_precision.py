"""Deltas are as small as what changed, and nothing but the user's bytes goes to the disk."""

from __future__ import annotations

import re

import numpy as np
import pytest

import dirtytrack
from _lib.support import PAGE_SIZE
from dirtytrack.checkpoint import Checkpointer, load, restore

BLOCK = 4096
OVERHEAD = 1500  # header, footer, description
PER_RUN = 48


@pytest.fixture
def array():
    """4 MiB of noise, page-aligned."""
    memory = dirtytrack.empty(1 << 22, np.uint8)
    memory[:] = np.random.default_rng(0).integers(0, 256, len(memory), np.uint8)
    return memory


@pytest.fixture
def checkpoints(place, array):
    """A chain that has its base."""
    with Checkpointer(place, {"a": array}, compression="none") as opened:
        opened.save(wait=True)
        yield opened


def _blocks_per_page():
    return PAGE_SIZE // BLOCK


def test_a_delta_holds_the_written_pages_and_no_more(checkpoints, array):
    """The size of a file is that of the pages, but for some bytes for each run and for the file."""
    draw = np.random.default_rng(1)
    for count in (1, 10, 100):
        pages = draw.choice(len(array) // PAGE_SIZE, count, replace=False)
        array[pages * PAGE_SIZE] += 1
        save = checkpoints.save(wait=True)
        assert save.blocks_written == count * _blocks_per_page()
        assert save.blocks_stored == count  # of a larger page the other blocks hold what they held
        assert count * BLOCK < save.nbytes <= count * (BLOCK + PER_RUN) + OVERHEAD


def test_an_idle_save_is_almost_nothing(checkpoints):
    """Nothing written, nothing stored."""
    save = checkpoints.save(wait=True)
    assert (save.blocks_written, save.blocks_stored) == (0, 0)
    assert save.nbytes < OVERHEAD


def test_the_same_content_is_not_stored_again(checkpoints, array):
    """Rewritten with what was committed last: reported, copied, dropped. So is what was changed back."""
    array[: 10 * PAGE_SIZE] = array[: 10 * PAGE_SIZE].copy()
    save = checkpoints.save(wait=True)
    assert (save.blocks_written, save.blocks_stored) == (10 * _blocks_per_page(), 0)
    array[0] += 1
    assert checkpoints.save(wait=True).blocks_stored == 1
    array[0] -= 1
    assert checkpoints.save(wait=True).blocks_stored == 1  # it is not what was committed last
    array[:BLOCK] += 1
    array[:BLOCK] -= 1
    assert checkpoints.save(wait=True).blocks_stored == 0


def test_content_is_compared_with_what_was_committed(place, array):
    """After a resume too, where it is known from the restored bytes."""
    with Checkpointer(place, {"a": array}) as checkpoints:
        checkpoints.save()
    again = array.copy()
    with Checkpointer.resume(place, {"a": again}) as checkpoints:
        again[:] = array
        save = checkpoints.save(wait=True)
        assert (save.kind, save.blocks_stored) == ("delta", 0)


def test_zeros_are_not_stored(place):
    """A base of zeros is a few hundred bytes; memory that becomes zeros is an entry for each run."""
    array = dirtytrack.empty(1 << 24, np.uint8)
    with Checkpointer(place, {"a": array}) as checkpoints:
        assert checkpoints.save(wait=True).nbytes < OVERHEAD
        array[: 1 << 20] = 1
        checkpoints.save(wait=True)
        array[: 1 << 20] = 0
        save = checkpoints.save(wait=True)
        assert save.blocks_stored == 256
        assert save.nbytes < OVERHEAD + 16 * PER_RUN
    assert not load(place)["a"].any()


def test_zero_blocks_are_holes_of_an_uncompressed_base(tmp_path, array):
    """Its length is that of memory; on the disk it takes what is not zero."""
    array[1 << 20 :] = 0
    with Checkpointer(tmp_path, {"a": array}, compression="none") as checkpoints:
        checkpoints.save()
    (base,) = tmp_path.glob("*.base")
    assert base.stat().st_size > len(array)
    assert base.stat().st_blocks * 512 < (1 << 20) + (1 << 18)


def test_what_is_written_entirely_becomes_a_base(place, checkpoints, array):
    """A delta of all blocks would be as large as a base, and needs a parent besides."""
    array[PAGE_SIZE:] += 1
    assert checkpoints.save(wait=True).kind == "delta"
    array[:] += 1
    save = checkpoints.save(wait=True)
    assert (save.kind, save.number) == ("base", 3)
    array[0] += 1
    assert checkpoints.save(wait=True).kind == "delta"
    for path in [*place.glob("0000000001-*"), *place.glob("0000000002-*")]:
        path.unlink()
    assert (load(place)["a"] == array).all()


@pytest.mark.parametrize("offset", [1, 4095])
def test_neighbours_on_a_shared_page_stay_private(tmp_path, offset):
    """A secret on the first or last page of an unaligned array is in no file, though its page is saved."""
    memory = np.frombuffer(dirtytrack.alloc(6 * PAGE_SIZE), np.uint8)
    secret = np.frombuffer(b"hunter2!", np.uint8)
    array = memory[PAGE_SIZE + offset + 8 : 5 * PAGE_SIZE - offset]
    memory[PAGE_SIZE + offset : PAGE_SIZE + offset + 8] = secret
    memory[5 * PAGE_SIZE - offset : 5 * PAGE_SIZE - offset + 8] = secret
    array[:] = 200
    with Checkpointer(tmp_path, {"a": array}, compression="none") as checkpoints:
        checkpoints.save(wait=True)
        for value in range(3):
            array[0] = array[-1] = value
            checkpoints.save(wait=True)
            memory[PAGE_SIZE + offset : PAGE_SIZE + offset + 8] = secret
            checkpoints.save(wait=True)
    files = [path.read_bytes() for path in tmp_path.iterdir()]
    assert sum(map(len, files)) > len(array)
    assert [data for data in files if b"hunter2" in data] == []
    into = np.full_like(array, 1)
    restore(tmp_path, into={"a": into})
    assert (into == array).all()


def test_staging_memory_does_not_leak_what_it_held(tmp_path):
    """A short last block is followed in the staging memory by older contents, which are not written."""
    array = dirtytrack.empty(BLOCK + 10, np.uint8)  # neighbours on its pages would cost another round
    array[:] = np.frombuffer((b"hunter2!" * BLOCK)[: len(array)], np.uint8)
    with Checkpointer(tmp_path, {"a": array}, compression="none", staging_bytes=2 * BLOCK) as checkpoints:
        checkpoints.save(wait=True)
        for path in tmp_path.glob("*.base"):
            path.rename(tmp_path / "away")
        array[:] = 1
        for value in range(4):
            array[-1] = value + 2
            checkpoints.save(wait=True)
    for path in tmp_path.glob("0*"):
        assert not re.search(rb"hunter2", path.read_bytes())
    assert len(list(tmp_path.glob("0*"))) == 4


def test_compression_where_it_pays(place):
    """Noise is stored as it is, in place; what compresses is compressed; each by itself."""
    noise = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8)
    counts = np.arange(1 << 18, dtype=np.uint32) // 64
    with Checkpointer(place, {"noise": noise, "counts": counts}) as checkpoints:
        save = checkpoints.save(wait=True)
        assert noise.nbytes < save.nbytes < noise.nbytes + counts.nbytes // 2
        assert save.ratio > 1.3
        noise[: 1 << 19] = np.random.default_rng(1).integers(0, 256, 1 << 19, np.uint8)
        counts[:] += 1
        save = checkpoints.save(wait=True)
        assert 1 << 19 < save.nbytes < (1 << 19) + counts.nbytes // 2
    found = load(place)
    assert (found["noise"] == noise).all()
    assert (found["counts"] == counts).all()


def test_figures_of_a_save(place, checkpoints, array):
    """They are what is on the disk and on the clock."""
    array[: 3 * PAGE_SIZE] += 1
    save = checkpoints.save()
    assert save.pause <= save.blocked
    checkpoints.flush()
    (path,) = place.glob("*.delta")
    assert save.nbytes == len(path.read_bytes())
    assert save.ratio == pytest.approx(3 * PAGE_SIZE / save.nbytes)
    assert 0 < save.throughput < 3 * PAGE_SIZE / save.blocked
