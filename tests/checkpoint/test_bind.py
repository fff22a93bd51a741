"""Regions come, go and get other memory between two saves; the chain goes on, and every state comes back."""

from __future__ import annotations

import errno
import mmap
import random
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dirtytrack
from _lib.checkpoint.intercept import COMMITTER, Fault, by, intercepted
from _lib.checkpoint.world import World, restored
from _lib.interrupts import STRIDE, interrupted_at, traced
from _lib.support import in_child, resident_bytes
from _lib.tracked import open_cursors
from dirtytrack import ChainError, CheckpointError, RegionLostError, Session
from dirtytrack.checkpoint import Chain, Checkpointer, load, restore

BLOCK = 4096
_MOST = 20_000


def _array(blocks=8, seed=0):
    array = dirtytrack.empty(blocks * BLOCK, np.uint8)
    array[:] = np.random.default_rng(seed).integers(1, 256, array.size)
    return array


def _kinds(place):
    with Chain(place) as chain:
        assert chain.verify() == ()
        return [one.kind for one in chain]


def _expect(place, at, contents):
    found = load(place, at=at)
    assert found.keys() == contents.keys()
    for name, array in contents.items():
        assert (found[name] == array).all(), name


def _copies(**arrays):
    return {name: array.copy() for name, array in arrays.items()}


def test_a_region_comes_and_goes(place):
    """Each checkpoint has the regions of its time, and a file only what is new."""
    a, b, states = _array(seed=1), _array(seed=2), []
    with Checkpointer(place, {"a": a}) as checkpoints:

        def save(**arrays):
            a[5] += 1
            states.append((checkpoints.save(len(states)), _copies(**arrays)))

        save(a=a)
        save(a=a)
        checkpoints.add("b", b)
        save(a=a, b=b)
        b[BLOCK] += 1
        save(a=a, b=b)
        checkpoints.remove("a")
        save(b=b)
        b[0] += 1
        save(b=b)
    assert _kinds(place) == ["base"] + ["delta"] * 5
    assert [done.blocks_stored for done, _ in states] == [8, 1, 1 + 8, 2, 0, 1]
    for number, (done, contents) in enumerate(states):
        assert (done.state, done.consistency, done.number) == ("committed", "proven", number + 1)
        _expect(place, done.number, contents)
    with Chain(place) as chain:
        assert [[one.name for one in each.regions] for each in chain] == [["a"]] * 2 + [["a", "b"]] * 2 + [
            ["b"]
        ] * 2
        assert [each.parent for each in chain][1:] == [each.id for each in chain][:-1]


def test_other_memory_of_the_same_kind_is_a_delta(place):
    """Only what differs is stored, and writes to the new memory are seen, those to the old one are not."""
    a, b = _array(seed=1), _array(seed=2)
    with Checkpointer(place, {"a": a, "b": b}) as checkpoints:
        checkpoints.save()
        other = _array(seed=1)
        other[3 * BLOCK : 3 * BLOCK + 5] += 1
        b[7 * BLOCK] += 1
        checkpoints.rebind({"a": other})
        a[:] = 0
        save = checkpoints.save(wait=True)
        assert (save.kind, save.blocks_written, save.blocks_stored) == ("delta", 8 + 1, 2)
        _expect(place, None, {"a": other, "b": b})
        a[:] = 1
        other[5 * BLOCK] += 1
        save = checkpoints.save(wait=True)
        assert (save.kind, save.blocks_written, save.blocks_stored) == ("delta", 1, 1)
    _expect(place, None, {"a": other, "b": b})


def test_a_table_that_grows(place):
    """Rows are added to an embedding: they are stored, and the checkpoints before have the old shape."""
    table = dirtytrack.empty((10, 1000), np.float32)
    table[:] = 1
    with Checkpointer(place, {"table": table}) as checkpoints:
        checkpoints.save({"rows": 10})
        larger = dirtytrack.empty((15, 1000), np.float32)
        larger[:10], larger[10:] = table, 2
        checkpoints.rebind({"table": larger})
        save = checkpoints.save({"rows": 15}, wait=True)
        # Nine blocks of the old one are whole; its tenth had other bytes.
        assert (save.kind, save.blocks_stored) == ("delta", 15 - 9)
        larger[14] = 3
        assert checkpoints.save({"rows": 15}, wait=True).kind == "delta"
    assert load(place, at=1)["table"].shape == (10, 1000)
    _expect(place, 1, {"table": table})
    _expect(place, None, {"table": larger})


def test_a_lost_region_is_given_other_memory(tmp_path):
    """Which is the way on after a RegionLostError; nothing of the others is lost, and nothing overwritten."""
    a, memory = _array(), mmap.mmap(-1, 4 * BLOCK)
    address = np.frombuffer(memory, np.uint8).ctypes.data
    with Session() as session, Checkpointer(tmp_path, {"a": a, "m": memory}, session=session) as checkpoints:
        checkpoints.save()
        a[BLOCK] += 1
        fresh = mmap.mmap(-1, 4 * BLOCK)
        fresh[:5] = b"fresh"
        session.untrack(session["m"])
        with pytest.raises((RegionLostError, dirtytrack.ClosedError)):
            checkpoints.save()
        checkpoints.rebind({"m": fresh})
        save = checkpoints.save(wait=True)
        assert save.kind == "delta"
        assert {region.name for region in session.regions} == {"a", "m"}
        assert session["m"].address != address
    found = load(tmp_path)
    assert (found["a"] == a).all()
    assert found["m"].tobytes() == fresh[:]


def test_what_moved_by_itself_is_found(tmp_path):
    """An object that got new storage is tracked there with the next change of any region."""

    class Movable:
        def __init__(self, array):
            self.array = array

        @property
        def __array_interface__(self):
            return self.array.__array_interface__

    a, movable = _array(), Movable(_array(seed=3))
    with Checkpointer(tmp_path, {"a": a, "m": movable}) as checkpoints:
        checkpoints.save()
        movable.array = _array(seed=4)
        with pytest.raises(RegionLostError):
            checkpoints.save()
        checkpoints.rebind({})
        assert checkpoints.save(wait=True).kind == "delta"
    _expect(tmp_path, None, {"a": a, "m": movable.array})


def test_names_of_one_memory(place):
    """Tied memory may be untied and tied again: what has been stored under either name is not again."""
    a = _array()
    b = a.copy()
    with Checkpointer(place, {"a": a, "tied": a}) as checkpoints:
        checkpoints.save()
        checkpoints.rebind({"tied": b})
        a[0] += 1
        save = checkpoints.save(wait=True)
        assert (save.kind, save.blocks_stored) == ("delta", 1 + 8)
        _expect(place, None, {"a": a, "tied": b})
        checkpoints.rebind({"tied": a})
        save = checkpoints.save(wait=True)
        assert (save.kind, save.blocks_stored) == ("delta", 0)
        _expect(place, None, {"a": a, "tied": a})
        checkpoints.remove("a")
        save = checkpoints.save(wait=True)
        assert (save.kind, save.blocks_stored) == ("delta", 0)
        _expect(place, None, {"tied": a})
        checkpoints.add("a", a)
        save = checkpoints.save(wait=True)
        assert (save.kind, save.blocks_stored) == ("delta", 0)
        other = a.copy()
        other[9] += 1
        checkpoints.rebind({"a": other, "tied": other})
        assert checkpoints.save(wait=True).kind == "delta"
    _expect(place, None, {"a": other, "tied": other})


def test_others_see_no_page_that_nobody_wrote(tmp_path):
    """Only the checkpointer's own cursor reads all of what it was given."""
    a, b = _array(), _array()
    with Session() as session:
        region = session.track(b, name="theirs")
        with Checkpointer(tmp_path, {"a": a}, session=session) as checkpoints:
            checkpoints.save()
            checkpoints.rebind({"a": b})
            assert checkpoints.save(wait=True).blocks_written == 8
            assert session.collect().pages == 0
        assert session.regions == (region,)
        b[0] += 1
        with session.collect() as epoch:
            assert epoch[region] == {0}


def test_bad_arguments_change_nothing(tmp_path):
    """They name the region, and saves go on as before."""
    a, b = _array(), _array()
    with Session() as session, Checkpointer(tmp_path, {"a": a}, session=session) as checkpoints:
        checkpoints.save()
        before = session.regions
        with pytest.raises(ValueError, match="there is a region 'a' already"):
            checkpoints.add("a", b)
        with pytest.raises(KeyError, match="no region"):
            checkpoints.remove("x")
        with pytest.raises(KeyError, match="no region 'x'"):
            checkpoints.rebind({"a": b, "x": b})
        with pytest.raises(ValueError, match="there is no region"):
            checkpoints.remove("a")
        with pytest.raises(ValueError, match="overlaps"):
            checkpoints.add("b", a[10:20])
        with pytest.raises(TypeError, match="region 'b'"):
            checkpoints.add("b", 5)
        with pytest.raises(TypeError):
            checkpoints.bind(5)
        assert session.regions == before
        a[0] += 1
        assert checkpoints.save(wait=True).kind == "delta"
    with pytest.raises(dirtytrack.ClosedError):
        checkpoints.add("b", b)


def test_memory_that_is_left_out_is_let_go(tmp_path):
    """Its export ends with its tracking, however often that happens."""
    with Session() as session, Checkpointer(tmp_path, {"a": _array()}, session=session) as checkpoints:
        first = bytearray(3 * BLOCK)
        checkpoints.add("b", first)
        for _ in range(20):
            second = bytearray(3 * BLOCK)
            checkpoints.rebind({"b": second})
            first.append(0)  # which an export would forbid
            first = second
        assert len(session.regions) == 2
        assert open_cursors(session) == 2
    assert session.closed


def test_a_failure_before_a_change_is_told_first(tmp_path):
    """The change is not made then; when it is, the next save has everything."""
    a, b = _array(), _array(seed=2)
    with Checkpointer(tmp_path, {"a": a}) as checkpoints:
        checkpoints.save(wait=True)
        a[0] += 1
        captured, done = threading.Event(), threading.Event()  # before the first the save itself is told
        fault = Fault(1, errno.ENOSPC, counts=lambda call: by(COMMITTER)(call) and captured.wait(30))
        with intercepted(fault):
            save = checkpoints.save()
            captured.set()
            save.add_done_callback(lambda _: done.set())
            assert done.wait(30)
        with pytest.raises(CheckpointError):
            checkpoints.add("b", b)
        checkpoints.add("b", b)
        save = checkpoints.save(wait=True)
        assert (save.kind, save.blocks_stored) == ("delta", 1 + 8)
    _expect(tmp_path, None, {"a": a, "b": b})


@pytest.mark.parametrize("change", ["add", "rebind"])
def test_a_change_behind_which_a_save_fails(tmp_path, change):
    """The save that was on its way fails after the change: the next ones have what it had."""
    a, b = _array(), _array(seed=2)
    with Checkpointer(tmp_path, {"a": a, "b": b[: 4 * BLOCK]}) as checkpoints:
        checkpoints.save(wait=True)
        a[3 * BLOCK] += 1
        with intercepted(Fault(1, errno.ENOSPC, counts=by(COMMITTER))):
            checkpoints.save()
            try:
                if change == "add":
                    checkpoints.add("c", b[4 * BLOCK :])
                else:
                    checkpoints.rebind({"b": b[4 * BLOCK :]})
            except CheckpointError:  # it failed before
                checkpoints.rebind({"b": b[4 * BLOCK :]})
            while True:
                try:
                    checkpoints.save(wait=True)
                    break
                except CheckpointError:
                    pass
    found = load(tmp_path)
    assert (found["a"] == a).all()
    assert (found["c" if "c" in found else "b"] == b[4 * BLOCK :]).all()


class TestResumingWithOthers:
    """strict=False, as load_state_dict has it."""

    def test_what_both_have_is_restored(self, place):
        """What is missing stays as it is and is saved, what is too many is left out; the rest is not new."""
        a, b = _array(seed=1), _array(seed=2)
        with Checkpointer(place, {"a": a, "b": b}) as checkpoints:
            checkpoints.save("old")
        fresh, c = _array(seed=7), _array(seed=8)
        for opening in (Checkpointer.resume, Checkpointer.open):
            with pytest.raises(ChainError, match="strict=False"):
                opening(place, {"a": fresh, "c": c})
        assert (fresh != a).any()
        with Checkpointer.resume(place, {"a": fresh, "c": c}, strict=False) as checkpoints:
            assert (checkpoints.meta, checkpoints.resumed) == ("old", True)
            assert (fresh == a).all()
            assert (c == _array(seed=8)).all()
            save = checkpoints.save("new", wait=True)
            assert (save.kind, save.number, save.blocks_stored) == ("delta", 2, 8)
            fresh[0] += 1
            assert checkpoints.save(wait=True).kind == "delta"
        _expect(place, 1, {"a": a, "b": b})
        _expect(place, None, {"a": fresh, "c": c})

    def test_what_was_left_out_comes_back(self, place):
        """With other memory: what the chain has of it is not known, so nothing counts as unchanged."""
        a, b = _array(seed=1), _array(seed=2)
        with Checkpointer(place, {"a": a, "b": b}) as checkpoints:
            checkpoints.save()
        fresh = np.zeros_like(b)
        fresh[3 * BLOCK] = 1
        with Checkpointer.resume(place, {"a": a}, strict=False) as checkpoints:
            checkpoints.add("b", fresh)
            checkpoints.save(wait=True)
        _expect(place, None, {"a": a, "b": fresh})

    def test_names_that_are_untied_or_of_which_one_is_left(self, place):
        """Each is restored from the one memory that they were, and saved from its own."""
        a = _array(seed=1)
        with Checkpointer(place, {"a": a, "tied": a}) as checkpoints:
            checkpoints.save()
        one, other = np.zeros_like(a), np.zeros_like(a)
        with Checkpointer.resume(place, {"a": one, "tied": other}, strict=False) as checkpoints:
            assert (one == a).all()
            assert (other == a).all()
            assert checkpoints.save(wait=True).blocks_stored == 8
            _expect(place, None, {"a": a, "tied": a})
        with Checkpointer.resume(place, {"tied": one}, strict=False, at=1) as checkpoints:
            one[0] += 1
            assert checkpoints.save(wait=True).blocks_stored == 1
        _expect(place, None, {"tied": one})

    def test_where_all_fits_it_goes_on_with_a_delta(self, place):
        """As if it had not been said."""
        a = _array(seed=1)
        with Checkpointer.open(place, {"a": a}, strict=False) as checkpoints:
            checkpoints.save()
        with Checkpointer.open(place, {"a": a}, strict=False) as checkpoints:
            a[0] += 1
            assert checkpoints.save(wait=True).blocks_stored == 1

    def test_other_sizes_are_refused(self, place):
        """And other names alone; nothing is written."""
        a = _array(seed=1)
        with Checkpointer(place, {"a": a}) as checkpoints:
            checkpoints.save()
        for other in ({"a": _array(blocks=4), "c": a}, {"c": a}):
            before = _copies(**other)
            with pytest.raises(ChainError, match=r"'a' has 32768 bytes|has none of the regions"):
                Checkpointer.resume(place, other, strict=False)
            assert all((array == before[name]).all() for name, array in other.items())


def test_sparse_memory_that_is_new(tmp_path):
    """Nothing of it is touched that has no page, and what there is not is zeros, whatever had its name."""
    a, b = _array(seed=1), _array(seed=2)
    memory = dirtytrack.alloc(1 << 33)
    memory[5 * BLOCK : 5 * BLOCK + 5] = b"first"
    with Session() as session, Checkpointer(tmp_path, {"a": a, "b": b}, session=session) as checkpoints:
        checkpoints.save()
        region = session.track(memory, name="sparse", sparse=True)
        before = resident_bytes()
        checkpoints.rebind({"b": region})
        checkpoints.add("c", _array(blocks=1))
        save = checkpoints.save(wait=True)
        assert (save.kind, save.blocks_stored) == ("delta", 1 + 1)
        memory[1 << 30] = 7
        checkpoints.remove("c")
        save = checkpoints.save(wait=True)
        assert (save.kind, save.blocks_stored) == ("delta", 1)
        assert resident_bytes() - before < 64 << 20
        with Chain(tmp_path) as chain:
            assert chain.read("b", 0, 8 * BLOCK) == bytes(5 * BLOCK) + b"first" + bytes(3 * BLOCK - 5)
            assert chain.read("b", 1 << 30, (1 << 30) + 2) == b"\7\0"
            assert chain.read("b", at=1) == b.tobytes()


def test_regions_under_other_names(tmp_path):
    """Memory that stays tracked goes on under another name, and what has its old one begins anew."""
    a, b, other = _array(seed=1), _array(seed=2), _array(seed=3)
    with Session() as session:
        regions = {"a": session.track(a, name="a"), "b": session.track(b, name="b")}
        with Checkpointer(tmp_path, regions, session=session) as checkpoints:
            checkpoints.save()
            checkpoints.bind({"a": regions["b"], "c": regions["a"], "b": other})
            a[BLOCK] += 1
            save = checkpoints.save(wait=True)
            assert (save.kind, save.blocks_stored) == ("delta", 1 + 8)
            _expect(tmp_path, None, {"a": b, "c": a, "b": other})
            # Its tie to the memory that goes is no reason for the other name to lose it.
            checkpoints.bind({"a": regions["b"], "c": regions["b"]})
            checkpoints.bind({"a": _array(seed=4), "c": regions["b"]})
            save = checkpoints.save(wait=True)
            assert (save.kind, save.blocks_stored) == ("delta", 8)
    _expect(tmp_path, None, {"a": _array(seed=4), "c": b})


def test_a_small_region_beside_a_large_one(tmp_path):
    """What a save writes of a change is what is new, and a number for each region that goes on."""
    large, few = _array(blocks=1000), {f"few {at}": np.full(10, at) for at in range(300)}
    with Checkpointer(tmp_path, {"large": large, **few}) as checkpoints:
        checkpoints.save(wait=True)
        checkpoints.add("new", np.ones(BLOCK // 8))
        save = checkpoints.save(wait=True)
        assert (save.kind, save.blocks_stored) == ("delta", 1)
        with Chain(tmp_path) as chain:
            assert chain.newest.nbytes < 3 * BLOCK
            assert len(chain.newest.regions) == 302


def test_compaction_across_changes(place):
    """Whatever the regions of the state that it makes a base."""
    a, b = _array(seed=1), _array(seed=2)
    with Checkpointer(place, {"a": a}, keep=2) as checkpoints:
        for number in range(12):
            if number == 4:
                checkpoints.add("b", b)
            if number == 8:
                checkpoints.remove("a")
            a[number] += 1
            b[number] += 1
            checkpoints.save(wait=True)
    _expect(place, None, {"b": b})
    with Chain(place) as chain:
        assert chain.verify() == ()
        assert 2 <= len(chain) <= 4


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_sequence_of_changes(data):
    """Against copies: every committed state, at the end and after a resume with the last regions."""
    draw = random.Random(data.draw(st.integers(0, 1 << 32)))
    states = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        arrays = {"a": _array(3, 0)}
        with Checkpointer(path, arrays, fsync=False, staging_bytes=draw.choice([None, BLOCK])) as checkpoints:
            for step in range(data.draw(st.integers(1, 12))):
                verb = draw.choice(["write", "add", "remove", "rebind", "grow", "bind"])
                name = draw.choice([*arrays])
                if verb == "add":
                    arrays[f"r{step}"] = _array(draw.randint(1, 4), step)[draw.randint(0, 99) :]
                    checkpoints.add(f"r{step}", arrays[f"r{step}"])
                elif verb == "remove" and len(arrays) > 1:
                    del arrays[name]
                    checkpoints.remove(name)
                elif verb in ("rebind", "grow"):
                    old = arrays[name]
                    fresh = _array(9, step)[: old.size + (verb == "grow")]
                    fresh[: old.size // 2] = old[: old.size // 2]
                    arrays[name] = fresh
                    checkpoints.rebind({name: fresh})
                elif verb == "bind":
                    arrays = {
                        one: array for one, array in arrays.items() if draw.random() < 0.7 or one == name
                    }
                    arrays[name] = arrays[name].copy()
                    checkpoints.bind(arrays)
                for array in arrays.values():
                    array[draw.randrange(array.size)] ^= 255
                save = checkpoints.save(step)
                states[save.number] = _copies(**arrays)
        for number, contents in states.items():
            _expect(path, number, contents)
        into = {name: np.zeros_like(array) for name, array in arrays.items()}
        with Checkpointer.resume(path, into, fsync=False) as checkpoints:
            assert all((into[name] == array).all() for name, array in arrays.items())
            assert checkpoints.save(wait=True).blocks_stored == 0


@pytest.mark.slow
@traced
@pytest.mark.parametrize("verb", ["add", "remove", "rebind"])
def test_an_interrupted_change_is_made_or_not(tmp_path, verb):
    """At every point in turn: the handler's save is whole, and nothing stays tracked in the end."""

    def interrupted(session, world, count):
        path = tmp_path / str(count)
        path.mkdir()
        fresh = bytearray(b"f" * len(world.regions["third"]))
        before = dict(world.regions)
        if verb == "add":
            del before["third"]
        with Checkpointer(path, before, session=session, fsync=False) as checkpoints:
            checkpoints.save()
            world.touch()
            after = dict(before)
            if verb == "add":
                after["third"] = world.regions["third"]
            elif verb == "remove":
                del after["third"]
            else:
                after["third"] = fresh
            try:
                with interrupted_at(count):
                    if verb == "add":
                        checkpoints.add("third", world.regions["third"])
                    elif verb == "remove":
                        checkpoints.remove("third")
                    else:
                        checkpoints.rebind({"third": fresh})
            except KeyboardInterrupt:
                checkpoints.save(wait=True)
                finished = False
            else:
                checkpoints.save(wait=True)
                finished = True
            expected = [{name: bytes(memory) for name, memory in one.items()} for one in (before, after)]
            found = {name: array.tobytes() for name, array in load(path).items()}
            assert found in expected[finished:]
        assert session.regions == ()
        assert open_cursors(session) == 1
        return not finished

    def child():
        with Session() as session:
            world = World(3, 1)
            return next(count for count in range(1, _MOST, STRIDE) if not interrupted(session, world, count))

    assert in_child(child).check() > 20


@pytest.mark.slow
@traced
@pytest.mark.parametrize("outer", ["save", "rebind", "flush"])
def test_a_change_within_another_call(tmp_path, outer):
    """At every point in turn: the handler of a signal gives a region other memory, and both take effect."""

    def point(session, world, count):
        path, handled = tmp_path / str(count), []
        path.mkdir()
        second, third = bytearray(b"2" * 7), bytearray(b"3" * len(world.regions["third"]))
        with Checkpointer(path, world.regions, session=session, fsync=False) as checkpoints:

            def handle():
                handled.append(1)
                checkpoints.rebind({"third": third})

            checkpoints.save()
            world.touch()
            with interrupted_at(count, by=handle):
                if outer == "save":
                    checkpoints.save()
                elif outer == "rebind":
                    checkpoints.rebind({"second": second})
                else:
                    checkpoints.flush()
            checkpoints.save(wait=True)
            expected = world.contents()
            if handled:
                expected["third"] = bytes(third)
            if outer == "rebind":
                expected["second"] = bytes(second)
            assert restored(path, world.sizes) == expected
            assert len(session.regions) == 3
        assert session.regions == ()
        return bool(handled)

    def child():
        with Session() as session:
            world = World(3, 1)
            return next(count for count in range(1, _MOST, STRIDE) if not point(session, world, count))

    assert in_child(child).check() > 20


def test_restoring_by_name_from_any_time(place):
    """A region that came later is not in the states before it, and the message says so."""
    a, b = _array(seed=1), _array(seed=2)
    with Checkpointer(place, {"a": a}) as checkpoints:
        checkpoints.save()
        checkpoints.add("b", b)
        checkpoints.save()
    into = np.zeros_like(b)
    restore(place, into={"b": into})
    assert (into == b).all()
    with pytest.raises(ChainError, match="no region 'b'"):
        restore(place, into={"b": into}, at=1)
