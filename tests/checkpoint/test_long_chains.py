"""Chains of more files than a process may open: all that can be done with others can be done with them."""

from __future__ import annotations

import os
import resource
import threading

import numpy as np
import pytest

from _lib.checkpoint import forge
from _lib.checkpoint.forge import BLOCK, DELTA, Run
from _lib.support import in_child
from dirtytrack.checkpoint import Chain, Checkpointer, compact, load, restore
from dirtytrack.checkpoint.store.directory import Directory

COUNT, LIMIT = 300, 64
NBYTES = 20 * BLOCK + 7


def _block(number):
    return number.to_bytes(8, "little") * (BLOCK // 8)


def _state(number):
    # Checkpoint n has written block n % 20.
    state = bytearray(NBYTES)
    for at in range(max(1, number - 19), number + 1):
        state[at % 20 * BLOCK : (at % 20 + 1) * BLOCK] = _block(at)
    return bytes(state)


@pytest.fixture(scope="module")
def made():
    regions = [forge.region("a", NBYTES)]
    files = [forge.File(1, [Run(0, 1, _block(1))], regions)]
    files += [
        forge.File(at, [Run(0, at % 20, _block(at))], regions, DELTA, forge.checkpoint_id(at - 1))
        for at in range(2, COUNT + 1)
    ]
    return files


@pytest.fixture
def path(tmp_path, made):
    return forge.write(tmp_path / "chain", made)


def _own():
    return len(os.listdir("/proc/self/fd"))


def _limited(act, limit=LIMIT):
    # In a process that may open so many files, which uses only half of them for a chain.
    def run():
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        result = act()
        assert _own() < limit - 8
        return result

    return in_child(run).check()


def _compacted(path, made, at=COUNT - 10):
    # As a compaction to a checkpoint leaves it, by somebody else.
    forge.base_of(made[at - 1], {"a": _state(at)}).write(path)
    for file in made[:at]:
        (path / file.name).unlink()


@pytest.mark.anywhere
def test_every_checkpoint_is_read(path):
    """And verified, in any order, beside another chain that is open."""

    def act():
        with Chain(path) as chain, Chain(path) as other:
            assert len(chain) == COUNT
            for at in (COUNT, 1, 150, 299, 2):
                assert chain.read("a", at=at) == other.read("a", at=at) == _state(at)
            assert chain.verify() == ()
            assert _own() < LIMIT - 8
        into = bytearray(NBYTES)
        assert restore(path, into={"a": into}) == {"step": COUNT}
        assert into == _state(COUNT)
        assert load(path, at=7)["a"].tobytes() == _state(7)

    _limited(act)


@pytest.mark.anywhere
def test_many_regions_are_mapped(tmp_path):
    """A lazy load takes no descriptor for each of them."""
    count = 200
    regions = [forge.region(f"{at}", BLOCK, linear=65536 * (at + 1)) for at in range(count)]
    runs = [Run(at, 0, _block(at), offset=65536 * (at + 1)) for at in range(count)]
    path = forge.write(tmp_path / "chain", [forge.File(1, runs, regions)])

    def act():
        arrays = load(path, lazy=True)
        return all(arrays[f"{at}"].tobytes() == _block(at) for at in range(count))

    assert _limited(act)


@pytest.mark.anywhere
def test_many_threads_read(path):
    """Each its own chain: what one gives up another is not reading, or goes on reading."""

    def read(wrong):
        with Chain(path) as chain:
            for at in range(20, COUNT, 60):
                if chain.read("a", at=at) != _state(at):
                    wrong.append(at)

    def act():
        wrong = []
        threads = [threading.Thread(target=read, args=(wrong,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return wrong

    assert _limited(act) == []


def test_it_is_resumed_and_compacted(path):
    """By its writer, and where there is none."""

    def act():
        array = np.zeros(NBYTES, np.uint8)
        with Checkpointer.open(path, {"a": array}, fsync=False) as checkpoints:
            assert checkpoints.resumed
            assert array.tobytes() == _state(COUNT)
            array[5] ^= 1
            checkpoints.save(wait=True)
            checkpoints.compact(wait=True)
            array[6] ^= 1
            checkpoints.save(wait=True)
        with Chain(path) as chain:
            assert [one.kind for one in chain] == ["base", "delta"]
        assert compact(path).number == COUNT + 2
        assert load(path)["a"].tobytes() == array.tobytes()

    _limited(act)


@pytest.mark.anywhere
def test_compacting_needs_no_writer(path):
    """Of the chain as it was made."""
    assert _limited(lambda: compact(path, keep=3, fsync=False).number) == COUNT - 2
    with Chain(path) as chain:
        assert len(chain) == 3
        assert chain.read("a", at=COUNT) == _state(COUNT)


@pytest.mark.anywhere
def test_what_is_kept_stays_readable(path, made):
    """All of it, where the limit permits twice as many."""

    def act():
        with Chain(path) as chain:
            _compacted(path, made)
            assert [chain.read("a", at=at) == _state(at) for at in (1, 150, COUNT)] == [True] * 3
            assert chain.verify() == ()

    _limited(act, 3 * COUNT)


@pytest.mark.anywhere
def test_what_was_removed_and_not_kept_is_an_error(path, made):
    """It names the file and says what to do; a checkpoint that needs no such file is read."""

    def act():
        with Chain(path) as chain:
            _compacted(path, made)
            for use in (lambda: chain.read("a", at=150), chain.verify):
                with pytest.raises(FileNotFoundError, match="open the chain again") as caught:
                    use()
                assert caught.value.filename.startswith(str(path))
            assert (len(chain), chain.problems) == (COUNT, ())
        with Chain(path) as chain:
            assert len(chain) == 11
            assert chain.read("a") == _state(COUNT)

    _limited(act)


@pytest.mark.anywhere
@pytest.mark.parametrize("verb", ["restore", "load"])
def test_a_compaction_beside_it_costs_no_state(path, made, monkeypatch, verb):
    """The newest one is given back, by the files that are there by then, and never an older one."""
    names, seen = Directory.names, []

    def list_then_compact(directory):
        found = names(directory)
        seen.append(found)
        if len(seen) == 3:  # the files are open, as far as they can be
            _compacted(path, made)
        return found

    def act():
        if verb == "load":
            return load(path)["a"].tobytes()
        into = bytearray(NBYTES)
        restore(path, into={"a": into})
        return bytes(into)

    monkeypatch.setattr(Directory, "names", lambda directory: list_then_compact(directory))
    assert _limited(act) == _state(COUNT)


@pytest.mark.anywhere
def test_a_file_that_changed_while_it_was_closed(path, made):
    """Is damaged: its length tells."""

    def act():
        with Chain(path) as chain:
            with open(path / made[49].name, "ab") as file:
                file.write(b"more")
            found = {int(problem.file[:10]): problem.reason for problem in chain.verify()}
            assert found[50] == "its length has changed"
            assert chain.newest.number == 49

    _limited(act)
