"""Memory that was hardly touched stays so: through a restore, resuming, and the first save."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

import pytest

from _lib.support import PAGE_SIZE
from dirtytrack import CheckpointError, Session
from dirtytrack.checkpoint import Checkpointer, restore
from dirtytrack.native import ffi

NBYTES = 64 << 20
PAGES = NBYTES // PAGE_SIZE
USED = {0, 7, 8, 900, PAGES - 1}


def _reservation(nbytes=NBYTES):
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def _use(memory, pages=USED):
    for page in pages:
        memory[page * PAGE_SIZE + 5] = 1 + page % 255


def _populated(memory):
    """The pages that have an entry in the page table, those of the zero page among them."""
    start = int(ffi.cast("uintptr_t", ffi.from_buffer(memory))) // PAGE_SIZE
    with Path("/proc/self/pagemap").open("rb", buffering=0) as file:
        file.seek(start * 8)
        entries = file.read(len(memory) // PAGE_SIZE * 8)
    return {page for page, (entry,) in enumerate(struct.iter_unpack("<Q", entries)) if entry >> 62}


def _resident():
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * mmap.PAGESIZE


@pytest.fixture
def chain(tmp_path):
    memory = _reservation()
    _use(memory)
    with Checkpointer(tmp_path / "chain", {"a": memory}) as checkpoints:
        checkpoints.save()
    return tmp_path / "chain"


def test_a_restore_populates_what_holds_something(chain):
    """And what the memory held is gone."""
    memory = _reservation()
    memory[100 * PAGE_SIZE + 1] = 9
    restore(chain, into={"a": memory})
    assert _populated(memory) == USED | {100}
    expected = _reservation()
    _use(expected)
    assert memory[:] == expected[:]


def test_memory_that_is_not_aligned(chain):
    """What shares its pages is left alone."""
    memory = _reservation(NBYTES + 2 * PAGE_SIZE)
    memory[:] = b"\x55" * len(memory)
    view = memoryview(memory)[1001 : 1001 + NBYTES]
    restore(chain, into={"a": view})
    expected = _reservation()
    _use(expected)
    assert view == memoryview(expected)[:]
    assert memory[:1001] == b"\x55" * 1001
    assert memory[1001 + NBYTES :].strip(b"\x55") == b""


def test_resuming_populates_what_holds_something(chain):
    """Others are told of these pages, and of no more."""
    memory = _reservation()
    with Session() as session:
        region = session.track(memory, name="a", sparse=True)
        with session.cursor("other") as other, Checkpointer.resume(chain, {"a": region}) as checkpoints:
            assert _populated(memory) == USED
            assert set(other.collect()[region]) == USED
            memory[5000 * PAGE_SIZE] = 3
            memory[7 * PAGE_SIZE + 5] = 0
            save = checkpoints.save(wait=True)
            assert (save.kind, save.blocks_stored) == ("delta", 2)
            expected = memory[:]
    copy = bytearray(NBYTES)
    restore(chain, into={"a": copy})
    assert copy == expected


def test_the_first_save_touches_nothing(tmp_path):
    """Others are told nothing, and it takes no memory for what was never touched."""
    memory = _reservation(1 << 30)
    _use(memory)
    with Session() as session:
        region = session.track(memory, name="a", sparse=True)
        with session.cursor("other") as other:
            _warm_up(tmp_path / "other")
            before = _resident()
            with Checkpointer(tmp_path / "chain", {"a": region}) as checkpoints:
                save = checkpoints.save(wait=True)
                assert save.kind == "base"
                assert save.consistent
                assert _resident() - before < 24 << 20
            assert not other.collect()[region]
    copy = _reservation(1 << 30)
    restore(tmp_path / "chain", into={"a": copy})
    assert _populated(copy) == USED


def test_memory_that_is_tracked_dense(tmp_path):
    """Its zeros take neither staging memory nor hashes."""
    memory = _reservation(1 << 30)
    _use(memory)
    _warm_up(tmp_path / "other")
    with Checkpointer(tmp_path / "chain", {"a": memory}) as checkpoints:
        before = _resident()
        checkpoints.save(wait=True)
        assert _resident() - before < 24 << 20
    with Checkpointer.resume(tmp_path / "chain", {"a": memory}) as checkpoints:
        assert _resident() - before < 24 << 20
        memory[8 * PAGE_SIZE + 5] = 77
        assert checkpoints.save(wait=True).blocks_stored == 1


def _warm_up(path):
    # What threads and libraries take once.
    memory = bytearray(os.urandom(10 * PAGE_SIZE))
    with Checkpointer(path, {"a": memory}) as checkpoints:
        checkpoints.save(wait=True)
    restore(path, into={"a": memory})


def test_a_base_after_pages_were_dropped(tmp_path):
    """It has zeros there; what comes back later is stored though it was committed once."""
    memory = _reservation()
    with Session() as session:
        region = session.track(memory, name="a", sparse=True)
        with Checkpointer(tmp_path / "chain", {"a": region}) as checkpoints:
            _use(memory)
            checkpoints.save(wait=True)
            (base,) = (tmp_path / "chain").glob("*.base")
            base.unlink()
            memory.madvise(mmap.MADV_DONTNEED, 7 * PAGE_SIZE, PAGE_SIZE)
            memory[0] = 5
            with pytest.raises(CheckpointError, match="removed"):
                checkpoints.save(wait=True)
            assert checkpoints.save(wait=True).kind == "base"
            memory[7 * PAGE_SIZE + 5] = 8
            save = checkpoints.save(wait=True)
            assert (save.kind, save.blocks_stored) == ("delta", 1)
            expected = memory[:]
    copy = bytearray(NBYTES)
    restore(tmp_path / "chain", into={"a": copy})
    assert copy == expected
