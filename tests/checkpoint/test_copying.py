"""A copy of a chain: it has what the chain has, while that is written and compacted, or it is not there."""

from __future__ import annotations

import os
import resource

import numpy as np
import pytest

from _lib.checkpoint import forge
from _lib.checkpoint.forge import BLOCK, DELTA, RAW, Run
from _lib.checkpoint.intercept import intercepted
from _lib.checkpoint.places import KINDS, flip, names_in, place_of
from _lib.support import in_child
from dirtytrack import BusyError, ChainError, ClosedError
from dirtytrack.checkpoint import Chain, Checkpointer, load
from dirtytrack.checkpoint.store.directory import Directory

NBYTES = 40 * BLOCK + 17


def _states():
    content, states = bytearray(NBYTES), []
    for number in range(1, 5):
        content[number * BLOCK : number * BLOCK + 5] = bytes([number] * 5)
        states.append({"a": bytes(content)})
    return states


STATES = _states()


@pytest.fixture
def files():
    return forge.history(STATES)


@pytest.fixture
def chain(place, files):
    with Chain(forge.write(place, files)) as opened:
        yield opened


@pytest.fixture(params=KINDS)
def target(request, tmp_path):
    """Where the copy goes."""
    return place_of(request.param, tmp_path / "copy")


def _check(place, numbers):
    with Chain(place) as copy:
        assert [one.number for one in copy] == numbers
        assert copy.verify() == ()
        for number in numbers:
            assert copy.read("a", at=number) == STATES[number - 1]["a"]


@pytest.mark.anywhere
def test_all_of_it(chain, target, files):
    """The same files with the same bytes, and nothing else but a lock."""
    told = []
    names = chain.export(target, progress=lambda done, total: told.append((done, total)))
    assert names == tuple(file.name for file in files)
    assert [name for name in names_in(target) if name != "lock"] == [*names]
    for file in files:
        assert (target / file.name).read_bytes() == file.build()
    assert told[-1] == (sum(len(file.build()) for file in files),) * 2
    assert told == sorted(told)
    _check(target, [1, 2, 3, 4])


@pytest.mark.anywhere
@pytest.mark.parametrize("number", [1, 3, 4])
def test_one_of_it(chain, target, files, number):
    """With what it stands on, by number or identifier."""
    at = number if number != 3 else forge.checkpoint_id(3).hex()
    assert chain.export(target, at=at) == tuple(file.name for file in files[:number])
    _check(target, [*range(1, number + 1)])


@pytest.mark.anywhere
def test_what_was_compacted_meanwhile(chain, target, place, files):
    """It is what the chain knew, whatever became of its files, and without what came later."""
    forge.base_of(files[3], STATES[3]).write(place)
    for file in files:
        (place / file.name).unlink()
    chain.export(target)
    _check(target, [1, 2, 3, 4])


@pytest.mark.anywhere
def test_bases_made_later_need_no_deltas(place, target, files):
    """Of two files for a state the base is copied; branches go with the rest."""
    base = forge.base_of(files[2], STATES[2])
    base.write(forge.write(place, files))
    for file in files[:2]:
        (place / file.name).unlink()
    with Chain(place) as chain:
        assert chain.export(target) == (base.name, files[3].name)
    _check(target, [3, 4])


@pytest.mark.anywhere
def test_holes_stay_holes(tmp_path):
    """A copy takes no more room than the chain."""
    regions = [forge.region("a", 1 << 24, linear=65536)]
    runs = [Run(0, at, b"x" * BLOCK, offset=65536 + at * BLOCK) for at in (0, 2000)]
    file = forge.File(1, runs, regions)
    data = file.build()
    (tmp_path / "chain").mkdir()
    with open(tmp_path / "chain" / file.name, "wb") as made:
        made.truncate(len(data))
        for at in range(0, len(data), BLOCK):
            if data[at : at + BLOCK].strip(b"\0"):
                made.seek(at)
                made.write(data[at : at + BLOCK])
    with Chain(tmp_path / "chain") as chain:
        chain.export(tmp_path / "copy")
    copy = tmp_path / "copy" / file.name
    assert copy.read_bytes() == data
    assert os.stat(copy).st_blocks * 512 < 1 << 20


@pytest.mark.anywhere
def test_what_is_damaged_is_left_out(place, target, files):
    """With what stands on it; both are problems of the chain then. What was asked for by name is an error."""
    forge.write(place, files)
    flip(place / files[2].name, files[2].payload()[1][0][4])
    with Chain(place) as chain, pytest.raises(ChainError, match="no complete checkpoint 4"):
        chain.export(target, at=4)
    assert [name for name in names_in(target) if name != "lock"] == []
    with Chain(place) as chain:
        assert chain.export(target) == tuple(file.name for file in files[:2])
        assert [int(problem.file[:10]) for problem in chain.problems] == [3, 4]
    _check(target, [1, 2])


@pytest.mark.anywhere
def test_another_way_round_damage(place, target, files):
    """A damaged base of a state whose deltas are there."""
    base = forge.base_of(files[2], STATES[2])
    offset = next(entry[4] for entry in base.payload()[1] if entry[1] == RAW)
    flip(base.write(forge.write(place, files)), offset)
    with Chain(place) as chain:
        assert chain.export(target, at=4) == tuple(file.name for file in files)
    _check(target, [1, 2, 3, 4])


@pytest.mark.anywhere
def test_nothing_intact(place, tmp_path, files):
    """No directory is made for nothing."""
    forge.write(place, files)
    flip(place / files[0].name, 0)
    with Chain(place) as chain:
        for at in (None, 3):
            with pytest.raises(ChainError, match="no complete checkpoint"):
                chain.export(tmp_path / "new" / "copy", at=at)
    assert "new" not in os.listdir(tmp_path)


@pytest.mark.anywhere
def test_places_that_are_taken(chain, target, tmp_path):
    """A chain that is there is not mixed with another, nor is the copy put where the chain is."""
    chain.export(target)
    before = names_in(target)
    with pytest.raises(FileExistsError, match="choose another directory"):
        chain.export(target)
    assert names_in(target) == before
    with pytest.raises(FileExistsError):
        chain.export(chain._archive.store)
    directory = Directory(tmp_path / "busy", create=True)
    lock = directory.claim()
    with pytest.raises(BusyError):
        chain.export(tmp_path / "busy")
    lock.close()
    directory.close()


@pytest.mark.anywhere
@pytest.mark.parametrize("arguments", [{"format": "npy"}, {"lock": "flock"}], ids=["format", "lock"])
def test_arguments(chain, tmp_path, arguments):
    """What is not offered is refused before anything is made."""
    with pytest.raises(ValueError, match=f"^{next(iter(arguments))} is "):
        chain.export(tmp_path / "copy", **arguments)
    assert "copy" not in os.listdir(tmp_path)


@pytest.mark.anywhere
def test_a_closed_chain(chain, tmp_path):
    """Can't be copied."""
    chain.close()
    with pytest.raises(ClosedError):
        chain.export(tmp_path / "copy")


@pytest.mark.anywhere
@pytest.mark.parametrize("error", [OSError(28, "full"), KeyboardInterrupt()])
def test_a_copy_that_fails_leaves_nothing(tmp_path, files, error):
    """Whatever ends it: full disks, interrupts."""
    path = forge.write(tmp_path / "chain", files)
    count = 0

    def hook(call):
        nonlocal count
        if call.name == "dt_write_all":
            count += 1
            if count == 6:
                raise error
        return call.run()

    with Chain(path) as chain:
        with intercepted(hook), pytest.raises(type(error)):
            chain.export(tmp_path / "copy")
        assert os.listdir(tmp_path / "copy") == ["lock"]
        chain.export(tmp_path / "copy")
    _check(tmp_path / "copy", [1, 2, 3, 4])


@pytest.mark.anywhere
def test_a_chain_too_long_to_keep_open(tmp_path):
    """Is copied, with few descriptors."""
    regions = [forge.region("a", 5)]
    files = [forge.File(1, [Run(0, 0, b"small")], regions)]
    files += [forge.File(at, [], regions, DELTA, forge.checkpoint_id(at - 1)) for at in range(2, 201)]
    path = forge.write(tmp_path / "chain", files)

    def act():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        with Chain(path) as chain:
            return len(chain.export(tmp_path / "copy", fsync=False))

    assert in_child(act).check() == 200
    with Chain(tmp_path / "copy") as copy:
        assert len(copy) == 200


def test_the_copy_goes_on(place, target):
    """Beside the writer of the chain; each goes on by itself."""
    array = np.zeros(NBYTES, np.uint8)
    with Checkpointer(place, {"a": array}, keep=1) as checkpoints:
        for step in range(3):
            array[step] = 7
            checkpoints.save(step)
        checkpoints.flush()
        with Chain(place) as chain:
            checkpoints.compact(wait=True)
            array[9] = 9
            checkpoints.save(wait=True)
            chain.export(target)
        copied = np.zeros(NBYTES, np.uint8)
        with Checkpointer.resume(target, {"a": copied}) as other:
            assert (copied[:3] == 7).all()
            assert copied[9] == 0
            copied[100] = 1
            other.save(wait=True)
    assert load(target)["a"][[2, 9, 100]].tolist() == [7, 0, 1]
    assert load(place)["a"][[2, 9, 100]].tolist() == [7, 9, 0]
