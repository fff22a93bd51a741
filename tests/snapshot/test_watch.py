"""The two-line form: wrongly used, in another process, and without numpy."""

from __future__ import annotations

import subprocess
import sys

import pytest

import dirtytrack
from _lib.raw import Raw
from _lib.support import PAGE_SIZE, in_child
from dirtytrack import RegionLostError
from dirtytrack.snapshot import Diff

_WITHOUT_NUMPY = """
import sys
sys.modules["numpy"] = None
import dirtytrack
from dirtytrack.snapshot import Diff, History, Snapshot
memory = dirtytrack.alloc(10000)
with dirtytrack.watch(memory) as changes:
    memory[5000:5003] = b"abc"
assert [(one.start, bytes(one.after)) for one in changes] == [(5000, b"abc")]
assert Diff.from_bytes(changes.to_bytes()) == changes
changes.invert().apply(memory, check=True)
assert not any(bytes(memory))
with Snapshot(None, memory) as snapshot, History(None, snapshot.regions[0]) as history:
    state = history.save()
    memory[7] = 1
    assert history.restore(state) == 1
    memory[7] = 1
    assert snapshot.rollback() == 1
changes.elements(memory)
"""


def test_without_numpy():
    """All but elements() works, and that names the extra."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _WITHOUT_NUMPY], capture_output=True, text=True, check=False
    )
    assert done.stderr.endswith('ImportError: Diff.elements needs numpy: pip install "dirtytrack[numpy]"\n')


@pytest.mark.parametrize(("gap", "error"), [(-1, ValueError), (1 << 63, ValueError), ("1", TypeError)])
def test_a_bad_gap(gap, error):
    """Is refused before the block, whose work would be lost."""
    with pytest.raises(error):
        dirtytrack.watch(bytearray(10), gap=gap)


@pytest.mark.parametrize(
    "use",
    [
        len,
        bool,
        list,
        hash,
        Diff.to_bytes,
        Diff.invert,
        lambda watch: watch[0],
        lambda watch: watch == watch,
        lambda watch: watch.sizes,
        lambda watch: watch.nbytes,
        lambda watch: watch.of("0"),
        lambda watch: watch.apply(bytearray(10)),
        lambda watch: watch.merge(watch),
    ],
)
def test_used_too_early(use):
    """Before the block and in it there is nothing to be seen, and that is no empty diff."""
    watch = dirtytrack.watch(bytearray(10))
    with pytest.raises(RuntimeError, match="when the block"):
        use(watch)
    with watch, pytest.raises(RuntimeError, match="when the block"):
        use(watch)
    assert not watch


def test_bad_memory_is_told_at_the_beginning():
    """As a snapshot does; the block is not run, and nothing stays tracked."""
    for memories, error in [((), ValueError), (("text",), TypeError), ((bytes(10),), ValueError)]:
        with pytest.raises(error), dirtytrack.watch(*memories):
            raise AssertionError
    assert dirtytrack.default_session().regions == ()


def test_memory_that_is_lost_meanwhile():
    """Is told at the end of the block; there is no diff."""
    with Raw(4) as memory:
        watch = dirtytrack.watch(memory.pair)
        with pytest.raises(RegionLostError), watch:
            memory.map_over(1, 2)
        with pytest.raises(RuntimeError, match="when the block"):
            len(watch)
    assert dirtytrack.default_session().regions == ()


def test_in_a_forked_child():
    """Parent and child watch the same buffer, each its own copy of it."""
    memory = bytearray(5 * PAGE_SIZE)

    def child() -> list[int]:
        with dirtytrack.watch(memory) as changes:
            memory[PAGE_SIZE] = 1
        return [one.start for one in changes]

    with dirtytrack.watch(memory) as changes:
        assert in_child(child).check() == [PAGE_SIZE]
        memory[3] = 1
    assert [one.start for one in changes] == [3]


def test_what_notebooks_show_before_it_is_left():
    """That there are no changes yet; then the changes."""
    memory = dirtytrack.alloc(PAGE_SIZE)
    with dirtytrack.watch(memory) as changes:
        memory[5] = 1
        assert changes._repr_html_() == "&lt;dirtytrack.watch: not left yet&gt;"
    assert "1 change" in changes._repr_html_()
