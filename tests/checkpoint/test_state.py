"""What a base and deltas add up to, and that nothing is read that does not count."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _lib.checkpoint import forge
from _lib.checkpoint.files import opened
from _lib.checkpoint.forge import BASE, BLOCK, DELTA, RAW, ZSTD, File, Run
from _lib.support import PMD_SIZE, resident_bytes
from dirtytrack._lifetime import interruptible_pool
from dirtytrack.checkpoint.read.checkpoint_file import CheckpointFile
from dirtytrack.checkpoint.read.lineage import arrange
from dirtytrack.checkpoint.read.state import DamagedFile, State
from dirtytrack.kernel.touch import Memory

pytestmark = pytest.mark.anywhere

BLOCKS = 12
NBYTES = BLOCKS * BLOCK - 1000


def _content(first, count, value, nbytes=NBYTES):
    # Blocks that compress, each another.
    data = b"".join(bytes([value, block % 256]) * (BLOCK // 2) for block in range(first, first + count))
    return data[: nbytes - first * BLOCK]


@contextmanager
def _state(directory, files):
    with ExitStack() as stack:
        there = [stack.enter_context(opened(file.write(directory))) for file in files]
        yield State(_node(there))


def _node(files):
    nodes, misfits = arrange(files)
    assert misfits == {}
    return [*nodes.values()][-1]


def _fill(state, target, **more):
    state.fill({0: Memory("the target", memoryview(target), "")}, **more)


def _mapped(state):
    mapping = state.map(0)
    state.complete({0: mapping})
    return mapping


def _files(lists, linear=False, nbytes=NBYTES):
    files = [
        File(
            number,
            runs,
            [forge.region("a", nbytes)],
            DELTA if number > 1 else BASE,
            forge.checkpoint_id(number - 1),
        )
        for number, runs in enumerate(lists, 1)
    ]
    if linear:
        forge.lay_out(files[0])
    return files


@st.composite
def _runs(draw):
    first = draw(st.integers(0, BLOCKS - 1))
    count = draw(st.integers(1, BLOCKS - first))
    later = draw(st.integers(first + count, BLOCKS))  # another run of the segment, if there is room
    if draw(st.booleans()):
        return Run(0, first, count, more=[Run(0, later, 1)] if later < BLOCKS else [])
    value = draw(st.integers(1, 255))
    more = [Run(0, later, _content(later, 1, value))] if later < BLOCKS else []
    return Run(0, first, _content(first, count, value), draw(st.sampled_from([RAW, ZSTD])), more=more)


def _blocks(run):
    return [at for one in [run, *run.more] for at in range(one.first, one.first + one.blocks[2])]


def _apply(model, run):
    for one in [run, *run.more]:
        zeros = bytes(min(one.blocks[2] * BLOCK, NBYTES - one.first * BLOCK))
        data = zeros if isinstance(one.data, int) else one.data
        model[one.first * BLOCK : one.first * BLOCK + len(data)] = data


@given(lists=st.lists(st.lists(_runs(), max_size=5), min_size=1, max_size=4), data=st.data())
def test_later_entries_count(tmp_path_factory, lists, data):
    """Whatever overlaps what, in one file or in several: all, any piece, and what is known to be zeros."""
    model = bytearray(NBYTES)
    zero = [True] * BLOCKS
    for run in (run for runs in lists for run in runs):
        _apply(model, run)
        for block in _blocks(run):
            zero[block] = isinstance(run.data, int)
    with _state(tmp_path_factory.mktemp("state"), _files(lists)) as state:
        target = bytearray(b"\xaa" * NBYTES)
        _fill(state, target)
        assert target == model
        for _ in range(4):
            start = data.draw(st.integers(0, NBYTES))
            stop = data.draw(st.integers(start, NBYTES))
            assert state.read(0, start, stop) == model[start:stop]
        first = data.draw(st.integers(0, BLOCKS - 1))
        count = data.draw(st.integers(1, BLOCKS - first))
        assert state.is_zero(0, first, count) == all(zero[first : first + count])


@given(
    lists=st.lists(st.lists(_runs(), max_size=5), min_size=1, max_size=3), placed=st.sets(st.integers(0, 11))
)
def test_a_linear_base_is_mapped(tmp_path_factory, lists, placed):
    """Some blocks are in place; over them lie runs stored elsewhere, zeros, and deltas.

    Where the base holds a block elsewhere or as zeros, its place in the file may hold anything.
    """
    directory = tmp_path_factory.mktemp("state")
    files = _files(
        [[Run(0, block, _content(block, 1, 99)) for block in sorted(placed)], *lists[1:]], linear=True
    )
    files[0].runs += lists[0]
    model = bytearray(NBYTES)
    for run in (run for file in files for run in file.runs):
        _apply(model, run)
    with _state(directory, files) as state:
        with open(directory / files[0].name, "r+b") as file:
            for block in {block for run in lists[0] for block in _blocks(run)} - placed:
                file.seek(files[0].regions[0]["linear"] + block * BLOCK)
                file.write(b"\xee" * len(_content(block, 1, 0)))
        mapping = _mapped(state)
        assert mapping[:] == model
        mapping[:] = bytes(NBYTES)  # it is private
        assert state.read(0, 0, NBYTES) == model


def test_only_the_base_is_mapped(tmp_path):
    """A run of a delta is read, also if it lies in its file where the base has its blocks."""
    files = _files([[Run(0, at, _content(at, 1, 1)) for at in range(3)], []], linear=True)
    files[1].runs = [Run(0, 1, _content(1, 1, 2), offset=files[0].regions[0]["linear"] + BLOCK)]
    with _state(tmp_path, files) as state:
        assert _mapped(state)[: 3 * BLOCK] == _content(0, 1, 1) + _content(1, 1, 2) + _content(2, 1, 1)


@contextmanager
def _reads(monkeypatch):
    # The segments that are read: number of the checkpoint and first block.
    seen, read = [], CheckpointFile.read

    def spy(file, one, *buffer):
        seen.append((file.name.number, one.runs.native[0].first))
        return read(file, one, *buffer)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFile, "read", spy)
        yield seen


HISTORY = [
    [Run(0, 0, _content(0, 4, 1)), Run(0, 4, _content(4, 4, 2), ZSTD), Run(0, 8, _content(8, 2, 3))],
    [Run(0, 0, _content(0, 4, 4)), Run(0, 5, _content(5, 1, 5))],
    [Run(0, 8, 2)],
]


def test_segments_that_hold_nothing_are_not_read(tmp_path, monkeypatch):
    """Those replaced since, whole or by zeros: nothing of them is looked at, by nobody."""
    with _state(tmp_path, _files(HISTORY)) as state:
        with _reads(monkeypatch) as seen:
            _fill(state, bytearray(NBYTES))
        assert sorted(seen) == [(1, 4), (2, 0), (2, 5)]
        with _reads(monkeypatch) as seen:
            assert state.read(0, 5 * BLOCK + 1, 6 * BLOCK) == _content(5, 1, 5)[1:]
            assert state.read(0, 8 * BLOCK, NBYTES) == bytes(NBYTES - 8 * BLOCK)
        assert seen == [(2, 5)]


@pytest.mark.parametrize("step", [BLOCK, 1000, 3 * BLOCK, 100_000])
def test_reading_on_decodes_a_segment_once(tmp_path, monkeypatch, step):
    """In pieces of any length."""
    whole = [[Run(0, 0, _content(0, 5, 1), ZSTD), Run(0, 5, _content(5, 7, 2), ZSTD)]]
    with _state(tmp_path, _files(whole)) as state, _reads(monkeypatch) as seen:
        data = b"".join(bytes(state.read(0, at, min(at + step, NBYTES))) for at in range(0, NBYTES, step))
    assert data == _content(0, 5, 1) + _content(5, 7, 2)
    assert seen == [(1, 0), (1, 5)]


def test_segments_that_interleave_are_decoded_once(tmp_path, monkeypatch):
    """Every other block replaced: not a decoding for each."""
    lists = [[Run(0, 0, _content(0, 12, 1))], [Run(0, at, _content(at, 1, 2)) for at in range(0, 12, 2)]]
    with _state(tmp_path, _files(lists)) as state, _reads(monkeypatch) as seen:
        for half in (0, 6):
            expected = b"".join(_content(at, 1, 2 - at % 2) for at in range(half, half + 6))
            assert state.read(0, half * BLOCK, min((half + 6) * BLOCK, NBYTES)) == expected
    assert sorted(seen) == [(1, 0), *((2, at) for at in range(0, 12, 2))]


def test_what_is_remembered_is_bounded(tmp_path, monkeypatch):
    """Of what was decoded, the segments that were used last stay."""
    monkeypatch.setattr("dirtytrack.checkpoint.read.state._REMEMBERED", 5 * BLOCK)
    whole = [[Run(0, at, _content(at, 2, 1), ZSTD) for at in (0, 2, 4)]]
    with _state(tmp_path, _files(whole)) as state, _reads(monkeypatch) as seen:
        for at in (0, 2, 1, 4, 0, 2):
            assert state.read(0, at * BLOCK, (at + 1) * BLOCK) == _content(at, 1, 1)
    assert [first for _, first in seen] == [0, 2, 4, 2]


def test_zeros_are_left_to_memory_that_has_them(tmp_path):
    """On request nothing is written where the state is zeros."""
    with _state(tmp_path, _files(HISTORY)) as state:
        target = bytearray(b"\xaa" * NBYTES)
        _fill(state, target, zeroed=True)
    assert target == _content(0, 4, 4) + _content(4, 1, 2) + _content(5, 1, 5) + _content(
        6, 2, 2
    ) + b"\xaa" * (NBYTES - 8 * BLOCK)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("left", [0, 1, 5])
def test_a_huge_sparse_region_takes_no_memory(tmp_path, first, left):
    """Of a TiB, with zeros of any length in between, only the runs count; the blocks next to zeros stay."""
    last = (1 << 28) - 1
    blocks = [0, 1, 1 << 20, last - 5, last - 1, last]
    lists = [
        [Run(0, at, bytes([value]) * BLOCK) for value, at in enumerate(blocks, 1)],
        [Run(0, first, (1 << 28) - first - left)],
        [Run(0, 1 << 20, b"\7" * BLOCK)],
    ]
    model = {at: 0 if first <= at <= last - left else value for value, at in enumerate(blocks, 1)} | {
        1 << 20: 7
    }
    before = resident_bytes()
    with _state(tmp_path, _files(lists, nbytes=1 << 40)) as state:
        for at, value in model.items():
            assert state.read(0, at * BLOCK + 9, at * BLOCK + 12) == bytes([value]) * 3
            assert state.is_zero(0, at, 1) == (value == 0)
        assert state.is_zero(0, 2, (1 << 20) - 2)
        assert not state.is_zero(0, 2, 1 << 20)
    assert resident_bytes() - before < (32 << 20) + 2 * PMD_SIZE


def _damage(path, entry):
    data = bytearray(path.read_bytes())
    data[entry.offset] ^= 1
    path.write_bytes(data)


def test_a_damaged_segment_names_its_file(tmp_path):
    """By every way of reading; and none where the segment does not count any more."""
    files = _files(HISTORY)
    with _state(tmp_path, files) as state:
        _damage(tmp_path / files[1].name, files[1].payload()[1][1])
        _damage(tmp_path / files[0].name, files[0].payload()[1][0])
        for read in (
            lambda: _fill(state, bytearray(NBYTES)),
            lambda: state.read(0, 5 * BLOCK, 5 * BLOCK + 1),
        ):
            with pytest.raises(DamagedFile, match="is damaged: the checksum") as caught:
                read()
            assert str(caught.value.file.name) == files[1].name
        assert state.read(0, 0, 4 * BLOCK) == _content(0, 4, 4)


def test_an_index_that_lies_names_its_file(tmp_path):
    """The plan is made of all indexes, before anything is read."""
    files = _files(HISTORY)
    with ExitStack() as stack:
        there = [stack.enter_context(opened(file.write(tmp_path))) for file in files[:2]]
        path = files[2].write(tmp_path, twist=lambda entries: [(1, *entries[0][1:])])
        there.append(stack.enter_context(opened(path)))
        with pytest.raises(DamagedFile, match="region 1 of 1") as caught:
            State(_node(there))
    assert caught.value.file is there[2]


@pytest.mark.parametrize(
    ("kind", "helper_raises", "signals"),
    [
        (DamagedFile, False, 0),
        (DamagedFile, True, 0),
        (KeyboardInterrupt, False, 0),
        (KeyboardInterrupt, False, 20),
    ],
)
def test_in_the_end_nobody_writes_any_more(tmp_path, monkeypatch, kind, helper_raises, signals):
    """An exception in one thread, and another in the middle of a segment: that is done, and no other begun.

    Nor do interrupts of the wait for it end that.
    """
    (file,) = _files([[Run(0, at, _content(at, 1, 1)) for at in range(BLOCKS)]])
    monkeypatch.setattr(interruptible_pool, "_THREADS", 2)
    monkeypatch.setattr(interruptible_pool, "_TASKS_PER_THREAD", 1)
    read, begun, done, struck = CheckpointFile.read, [], [], []
    main = threading.main_thread()
    both, raising = threading.Barrier(2, timeout=30), threading.Event()

    def spy(file, one, buffer):
        begun.append(one)
        if len(begun) <= 2:
            both.wait()
        if (threading.current_thread() is main) != helper_raises:
            raising.set()
            raise kind(file, "on purpose")
        raising.wait(30)
        for at in range(1_000_000):
            if at >= 2000 and len(struck) == signals:
                break
            if len(struck) < signals and at % 100 == 0:  # one before it waits wakes nobody
                signal.pthread_kill(main.ident, signal.SIGUSR1)
            plain = read(file, one, buffer)
        done.append(one)
        return plain

    def interrupt(number, frame):
        if len(struck) < signals:
            struck.append(number)
            raise KeyboardInterrupt("on purpose")

    monkeypatch.setattr(CheckpointFile, "read", spy)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with _state(tmp_path, [file]) as state:
            with pytest.raises(kind, match="on purpose"):
                _fill(state, bytearray(NBYTES))
            assert (len(begun), len(done), len(struck)) == (2, 1, signals)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_region_too_large_to_read_names_its_file(tmp_path):
    """MemoryError, where the blocks of a region are too many to be told apart."""
    file = File(1, [Run(0, 0, b"a" * BLOCK)], [forge.region("a", 1 << 60)])
    with pytest.raises(MemoryError, match=file.name), _state(tmp_path, [file]):
        pass
