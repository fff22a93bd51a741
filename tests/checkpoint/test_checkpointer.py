"""A chain is written, gone on with, and gives back what was in memory."""

from __future__ import annotations

import array
import gc
import mmap
import os
import re
import threading
import warnings

import numpy as np
import pytest

import dirtytrack
from _lib.checkpoint.places import names_in
from _lib.support import PAGE_SIZE, in_child
from dirtytrack import BusyError, ChainError, CheckpointError, ClosedError, ForkedError, RegionLostError
from dirtytrack.checkpoint import Chain, Checkpointer, _opening, load, restore


def _arrays(seed=0, *, offset=0):
    """Two arrays, the first of which begins *offset* bytes into a page."""
    draw = np.random.default_rng(seed)
    memory = dirtytrack.alloc(64 * PAGE_SIZE)
    whole = np.frombuffer(memory, np.uint8)
    first = whole[offset : offset + 40 * PAGE_SIZE + 123]
    first[:] = draw.integers(0, 256, len(first), np.uint8)
    second = dirtytrack.empty((300, 7))
    second[:] = draw.random((300, 7))
    return {"first": first, "second": second}


def _copy(arrays):
    return {name: one.copy() for name, one in arrays.items()}


def _scribble(arrays, draw):
    """Change a few places of each array, and make some zero."""
    for one in arrays.values():
        flat = one.reshape(-1)
        for _ in range(4):
            start = draw.integers(0, len(flat))
            flat[start : start + draw.integers(1, 6000)] = draw.integers(0, 3)


def _restored(path, like, at=None):
    """What restore gives, into memory that holds something else."""
    into = {name: np.full_like(one, 85) for name, one in like.items()}
    meta = restore(path, into=into, at=at)
    return into, meta


def _equal(one, other):
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def _checkpoints(path):
    with Chain(path) as chain:
        assert chain.problems == ()
        assert chain.verify() == ()
        return chain.checkpoints


@pytest.mark.parametrize("compression", ["auto", "none", "zstd"])
@pytest.mark.parametrize("offset", [0, 1001])
@pytest.mark.parametrize("staging", [None, 2 * 4096])
def test_every_checkpoint_comes_back(place, compression, offset, staging):
    """Whatever the alignment, the compression and the staging memory, at every checkpoint, with its meta."""
    arrays, draw, states = _arrays(offset=offset), np.random.default_rng(1), []
    with Checkpointer(place, arrays, compression=compression, staging_bytes=staging) as checkpoints:
        for step in range(6):
            save = checkpoints.save({"step": step})
            states.append((save, _copy(arrays)))
            _scribble(arrays, draw)
    assert [one.kind for one in _checkpoints(place)] == ["base"] + ["delta"] * 5
    for step, (save, state) in enumerate(states):
        assert (save.state, save.consistency, save.number) == ("committed", "proven", step + 1)
        into, meta = _restored(place, arrays, at=save.number)
        assert _equal(into, state)
        assert meta == {"step": step}
        assert _equal(load(place, at=save.id), state)
    assert _equal(_restored(place, arrays)[0], states[-1][1])


@pytest.mark.parametrize("offset", [0, 77])
def test_resuming_goes_on_with_a_delta(place, offset):
    """Into memory of another alignment; the next save has what changed and no more."""
    arrays = _arrays()
    with Checkpointer(place, arrays) as checkpoints:
        checkpoints.save({"step": 0})
        arrays["first"][5] += 1
        checkpoints.save({"step": 1})
    again = _arrays(seed=9, offset=offset)
    with Checkpointer.resume(place, again) as checkpoints:
        assert _equal(again, arrays)
        assert checkpoints.meta == {"step": 1}
        again["second"][250, 3] = -1
        save = checkpoints.save({"step": 2}, wait=True)
        assert (save.kind, save.number, save.blocks_stored) == ("delta", 3, 1)
        assert checkpoints.meta == {"step": 2}
    assert _equal(_restored(place, again)[0], again)
    checkpoints = _checkpoints(place)
    assert [one.parent for one in checkpoints] == [None, checkpoints[0].id, checkpoints[1].id]


def test_open_starts_and_then_resumes(tmp_path):
    """The same line of code both times; meta tells which it was."""
    path, arrays = tmp_path / "new" / "chain", _arrays()
    with Checkpointer.open(path, arrays) as checkpoints:
        assert checkpoints.meta is None
        checkpoints.save(7)
    again = _arrays(seed=3)
    with Checkpointer.open(path, again) as checkpoints:
        assert checkpoints.meta == 7
    assert _equal(again, arrays)


def test_starting_over_a_chain_is_refused(place):
    """FileExistsError says what to do, and the chain stays as it is."""
    arrays = _arrays()
    with Checkpointer(place, arrays) as checkpoints:
        checkpoints.save()
    before = names_in(place)
    with pytest.raises(FileExistsError, match="resume"):
        Checkpointer(place, arrays)
    assert names_in(place) == before


def test_open_does_not_start_over_what_is_damaged(place):
    """A chain whose base is damaged might still be repaired."""
    arrays = _arrays()
    with Checkpointer(place, arrays) as checkpoints:
        checkpoints.save()
    (file,) = place.glob("*.base")
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ChainError, match=file.name):
        Checkpointer.open(place, arrays)


def test_a_branch_from_an_older_checkpoint(place):
    """Resumed at 1, the chain goes on beside 2 and 3, and the newest is the branch's."""
    arrays = _arrays()
    states = {}
    with Checkpointer(place, arrays) as checkpoints:
        for value in (1, 2, 3):
            arrays["first"][:10] = value
            states[checkpoints.save().number] = _copy(arrays)
    with Checkpointer.resume(place, arrays, at=1) as checkpoints:
        assert _equal(arrays, states[1])
        arrays["second"][0] = 99
        states[checkpoints.save().number] = _copy(arrays)
    checkpoints = _checkpoints(place)
    assert [one.number for one in checkpoints] == [1, 2, 3, 4]
    assert checkpoints[3].parent == checkpoints[0].id
    for number, state in states.items():
        assert _equal(_restored(place, arrays, at=number)[0], state)
    assert _equal(_restored(place, arrays)[0], states[4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one.pop("second"), "missing for 'second'"),
        (lambda one: one.update(third=np.zeros(3)), "it has no 'third'"),
        (lambda one: one.update(second=np.zeros(2100 - 1)), "'second' has 16800 bytes"),
        (lambda one: one.update(second=np.zeros((300, 7), np.int64)), "'second' has the dtype <f8"),
        (lambda one: one.update(second=np.zeros((7, 300))), "'second' has the shape"),
    ],
)
def test_resuming_into_another_layout_is_refused(place, change, message):
    """Names, sizes, element types and shapes have to fit; no byte of the memory is changed."""
    arrays = _arrays()
    with Checkpointer(place, arrays) as checkpoints:
        checkpoints.save()
    other = _arrays(seed=5)
    change(other)
    before, files = _copy(other), names_in(place)
    with dirtytrack.Session() as session:
        with pytest.raises(ChainError, match=message):
            Checkpointer.resume(place, other, session=session)
        assert session.regions == ()
    assert _equal(other, before)
    assert names_in(place) == files


def test_bytes_fit_any_elements(place):
    """Memory that knows no elements takes those of any region, and the other way round."""
    numbers = array.array("d", range(1000))
    with Checkpointer(place, {"a": numbers}) as checkpoints:
        checkpoints.save()
    plain = bytearray(8000)
    with Checkpointer.resume(place, {"a": plain}) as checkpoints:
        assert plain == numbers.tobytes()
        plain[0] = 1
        checkpoints.save()
    assert load(place)["a"].dtype == np.float64
    assert load(place)["a"].tobytes() == plain


def test_memory_of_every_kind(place):
    """Buffers, a bare address, and a region that is tracked already."""
    mapped, owner = mmap.mmap(-1, 3 * PAGE_SIZE), dirtytrack.alloc(2 * PAGE_SIZE)
    address = np.frombuffer(owner, np.uint8).ctypes.data
    with dirtytrack.Session() as session:
        region = session.track(bytearray(b"tracked" * 100), name="other")
        memories = {"mmap": mapped, "address": (address, len(owner)), "region": region}
        with Checkpointer(place, memories, session=session) as checkpoints:
            mapped[:3], owner[:3], region.view[:3] = b"abc", b"def", b"ghi"
            checkpoints.save()
        assert session.regions == (region,)
    found = load(place)
    assert found["mmap"].tobytes() == mapped[:]
    assert found["address"].tobytes() == owner[:]
    assert found["region"].tobytes().startswith(b"ghicked")


def test_arrays_of_every_shape_come_back_as_they_were(place):
    """Structures, Fortran order, any order of axes, no axis at all."""
    arrays = {
        "structure": np.array([(1, 2.5, [1, 2])], [("a", "<i4"), ("b", "<f8"), ("c", "<i2", (2,))]),
        "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "axes": np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
        "scalar": np.array(3.5),
        "time": np.array(["2026-01-02"], "M8[D]"),
        "big-endian": np.arange(5, dtype=">i4"),
    }
    with Checkpointer(place, arrays) as checkpoints:
        checkpoints.save()
    for name, found in load(place).items():
        assert found.dtype == arrays[name].dtype
        assert found.shape == arrays[name].shape
        assert found.strides == arrays[name].strides
        assert (found == arrays[name]).all()


def test_other_cursors_see_what_they_would_have_seen(place):
    """A checkpointer takes nothing from others of the session, nor they from it."""
    arrays = _arrays()
    with dirtytrack.Session() as session, Checkpointer(place, arrays, session=session) as checkpoints:
        region = next(one for one in session.regions if one.name == "first")
        other = session.cursor("other")
        checkpoints.save()
        arrays["first"][2 * PAGE_SIZE] ^= 1
        checkpoints.save()
        with other.collect(region) as epoch:
            assert set(epoch[region]) == {2}
        arrays["first"][3 * PAGE_SIZE] ^= 1
        with other.collect(region) as epoch:
            assert set(epoch[region]) == {3}
        assert checkpoints.save(wait=True).blocks_stored == 1
    assert _equal(_restored(place, arrays)[0], arrays)


def test_marked_bytes_are_saved(place):
    """What no page table sees is declared with mark, and then saved."""
    memory = np.zeros(10 * PAGE_SIZE, np.uint8)
    with (
        dirtytrack.Session() as session,
        Checkpointer(place, {"a": memory}, session=session) as checkpoints,
    ):
        checkpoints.save(wait=True)
        session.mark(session.regions[0], 5 * PAGE_SIZE, 5 * PAGE_SIZE + 1)
        assert checkpoints.save(wait=True).blocks_written >= 1


def test_only_one_writes(place):
    """A second Checkpointer is refused and names the process, here and elsewhere; the first one goes on."""
    arrays = _arrays()
    with Checkpointer(place, arrays) as checkpoints:
        checkpoints.save()
        for make in (Checkpointer, Checkpointer.open, Checkpointer.resume):
            with pytest.raises(BusyError, match=str(os.getpid())):
                make(place, _arrays())
        arrays["first"][0] += 1
        checkpoints.save(wait=True)
    assert _equal(_restored(place, arrays)[0], arrays)


def test_a_forked_child_writes_nothing(tmp_path):
    """Every call but close raises ForkedError there; the parent goes on, and keeps its lock."""
    arrays = _arrays()
    with Checkpointer(tmp_path, arrays) as checkpoints:
        checkpoints.save(wait=True)
        before = sorted(os.listdir(tmp_path))

        def child():
            for call in (checkpoints.save, checkpoints.flush, checkpoints.compact, checkpoints.__enter__):
                with pytest.raises(ForkedError):
                    call()
            checkpoints.close()
            checkpoints.close()
            with pytest.raises(BusyError):
                Checkpointer.open(tmp_path, _arrays())

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: a fork beside threads
            in_child(child).check()
        assert sorted(os.listdir(tmp_path)) == before
        arrays["second"][0] = 5
        checkpoints.save()
    assert _equal(_restored(tmp_path, arrays)[0], arrays)


def test_close_commits_and_is_idempotent(place):
    """Everything captured is there; then every call but close raises ClosedError."""
    arrays = _arrays()
    checkpoints = Checkpointer(place, arrays)
    save = checkpoints.save()
    checkpoints.close()
    checkpoints.close()
    assert save.state == "committed"
    assert checkpoints.closed
    for call in (checkpoints.save, checkpoints.flush, checkpoints.compact, checkpoints.__enter__):
        with pytest.raises(ClosedError, match="closed"):
            call()
    Checkpointer.resume(place, arrays).close()


def test_a_leaked_one_warns_and_commits(place):
    """Nothing captured is lost by forgetting to close, and the directory is free again."""
    arrays = _arrays()
    checkpoints = Checkpointer(place, arrays)
    checkpoints.save()
    with pytest.warns(ResourceWarning, match="never closed"):
        del checkpoints
        gc.collect()
    assert _equal(_restored(place, arrays)[0], arrays)


def test_a_region_that_is_gone(place):
    """Unmapped memory is RegionLostError and no checkpoint; what is left of the chain can be restored."""
    memory = mmap.mmap(-1, 4 * PAGE_SIZE)
    address = np.frombuffer(memory, np.uint8).ctypes.data
    with Checkpointer(place, {"a": (address, 4 * PAGE_SIZE)}) as checkpoints:
        memory[:3] = b"abc"
        checkpoints.save(wait=True)
        memory.close()
        with pytest.raises(RegionLostError):
            checkpoints.save()
    assert load(place)["a"].tobytes().startswith(b"abc")


def test_an_array_cannot_be_resized_meanwhile(place):
    """The buffer is exported while it is saved, and free again after close."""
    memory = bytearray(10000)
    with Checkpointer(place, {"a": memory}) as checkpoints:
        checkpoints.save()
        with pytest.raises(BufferError):
            memory.append(1)
    memory.append(1)


def test_a_session_that_was_closed_first(place):
    """Saving says so; closing works."""
    arrays = _arrays()
    session = dirtytrack.Session()
    checkpoints = Checkpointer(place, arrays, session=session)
    checkpoints.save()
    session.close()
    with pytest.raises(ClosedError):
        checkpoints.save()
    checkpoints.close()
    assert _equal(_restored(place, arrays)[0], arrays)


def test_methods_take_turns(place):
    """Many threads save at once: every save has its own number, and the last one has everything."""
    arrays, saves = _arrays(), []

    def work():
        saves.extend(checkpoints.save() for _ in range(10))

    with Checkpointer(place, arrays) as checkpoints:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(one.number for one in saves) == list(range(1, 41))
    assert len(_checkpoints(place)) == 40


def test_the_meta_is_that_of_the_instant(place):
    """What is done to it after the save does not matter, and it comes back as JSON has it."""
    meta = {"list": (1, 2), "name": "ä\u0000\U0001f40d", "big": 1 << 100, "none": None, "deep": {"x": [0.1]}}
    with Checkpointer(place, _arrays()) as checkpoints:
        checkpoints.save(meta)
        meta.clear()
        checkpoints.flush()
        expected = {
            "list": [1, 2],
            "name": "ä\u0000\U0001f40d",
            "big": 1 << 100,
            "none": None,
            "deep": {"x": [0.1]},
        }
        assert checkpoints.meta == expected
    assert _checkpoints(place)[0].meta == expected


def test_the_order_of_the_regions_does_not_matter(place):
    """Names are what counts when a chain is resumed."""
    arrays = _arrays()
    with Checkpointer(place, arrays) as checkpoints:
        checkpoints.save()
    again = _arrays(seed=1)
    with Checkpointer.resume(place, dict(reversed(again.items()))) as checkpoints:
        again["second"][1] = 4
        assert checkpoints.save(wait=True).blocks_stored == 1
    assert _equal(_restored(place, again)[0], again)


def test_saves_without_fsync(place):
    """The files are the same; only when they are on the disk is left to the system."""
    arrays = _arrays()
    with Checkpointer(place, arrays, fsync=False) as checkpoints:
        checkpoints.save()
        arrays["first"][9] += 1
        checkpoints.save()
    assert _equal(_restored(place, arrays)[0], arrays)


def test_files_are_private(tmp_path):
    """Mode 0600 for all of them."""
    with Checkpointer(tmp_path, _arrays()) as checkpoints:
        checkpoints.save()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_repr_that_says_it(place):
    """Of the checkpointer and of a save, in every state."""
    with Checkpointer(place, _arrays()) as checkpoints:
        assert "next checkpoint 1" in repr(checkpoints)
        save = checkpoints.save()
        checkpoints.flush()
        assert "base 1, committed, proven" in repr(save)
    assert "closed" in repr(checkpoints)


def test_neither_can_be_pickled(place):
    """It stands for memory of this process."""
    with Checkpointer(place, _arrays()) as checkpoints, pytest.raises(TypeError, match="can't be copied"):
        checkpoints.__reduce__()


def test_garbage_collected_by_its_own_thread_is_closed_at_exit(place):
    """It can't wait for itself: what was captured is committed all the same."""
    arrays = _arrays()
    checkpoints = Checkpointer(place, arrays)
    save = checkpoints.save()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        checkpoints._pipeline.committer._thread.put(checkpoints.__del__)
        checkpoints._pipeline.committer.drain()
    assert not checkpoints.closed
    assert save.state == "committed"
    _opening._close_all()
    assert checkpoints.closed


def test_a_number_out_of_reach_is_refused(place):
    """A file that claims the last number there is leaves none for the next save."""
    arrays = _arrays()
    with Checkpointer(place, arrays) as checkpoints:
        checkpoints.save()
    (place / f"{2**63 - 1}-0123456789abcdef.base").write_bytes(b"")
    with pytest.raises(ChainError, match=f"claims to be checkpoint {2**63 - 1}.*move it away"):
        Checkpointer.resume(place, arrays)


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_all_are_closed_at_exit(tmp_path, broken):
    """Also when one of them can't be; that is told."""
    arrays = [_arrays(seed) for seed in range(3)]
    ones = [Checkpointer(tmp_path / str(seed), one) for seed, one in enumerate(arrays)]
    (tmp_path / str(broken) / "lock").unlink()
    saves = [one.save() for one in ones]
    with pytest.raises(BaseExceptionGroup, match=r"still open when Python ended: .*lock") as caught:
        _opening._close_all()
    assert [type(error) for error in caught.value.exceptions] == [CheckpointError]
    assert all(one.closed for one in ones)
    for seed, save in enumerate(saves):
        assert save.state == ("failed" if seed == broken else "committed")


@pytest.mark.parametrize("meta", [None, 0, {}, {"step": 3}])
def test_whether_it_goes_on_with_a_chain(place, meta):
    """It says so whatever the meta was, and goes on saying what it was when it began."""
    arrays = _arrays()
    with Checkpointer.open(place, arrays) as checkpoints:
        assert not checkpoints.resumed
        checkpoints.save(meta, wait=True)
        assert not checkpoints.resumed
    with Checkpointer.open(place, arrays) as checkpoints:
        assert checkpoints.resumed
        assert checkpoints.meta == meta
    with Checkpointer.resume(place, arrays) as checkpoints:
        assert checkpoints.resumed


@pytest.mark.parametrize("make", [Checkpointer, Checkpointer.open, Checkpointer.resume])
def test_a_keyword_that_there_is_not_is_told_of_what_was_called(tmp_path, make):
    """And of nothing behind it; nothing was made."""
    name = (
        "Checkpointer.__init__"
        if make is Checkpointer
        else make.__qualname__.replace("Opened", "Checkpointer")
    )
    with pytest.raises(TypeError, match=rf"^{re.escape(name)}\(\) got an unexpected keyword argument 'kepp'"):
        make(tmp_path / "run", {"a": np.zeros(3)}, kepp=3)
    assert not (tmp_path / "run").exists()
