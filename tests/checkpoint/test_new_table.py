"""A delta whose regions are not those of its parent: what it may say, what that makes, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _lib.checkpoint import forge, independent_reader
from _lib.checkpoint.forge import BLOCK, DELTA, RAW, ZSTD, File, Run
from dirtytrack import ChainError
from dirtytrack.checkpoint import Chain, load, restore
from dirtytrack.checkpoint.format.layout import Layout, stored
from dirtytrack.checkpoint.format.new_table import NewTable
from dirtytrack.checkpoint.format.structures import FormatError

pytestmark = pytest.mark.anywhere

A, B, C = forge.region("a", 2 * BLOCK + 9), forge.region("b", BLOCK), forge.region("c", 5)
TIED = forge.region("tied", BLOCK, same_as=1)


def _content(draw, nbytes):
    data = bytearray(nbytes)
    for at in range(0, nbytes, BLOCK):
        value = draw(st.integers(0, 3))
        data[at : at + BLOCK] = bytes([value]) * len(data[at : at + BLOCK])
    return bytes(data)


@st.composite
def _states(draw):
    """Regions by name, some of which go on as they were, with other lengths, or not at all."""
    sizes = st.sampled_from([1, 100, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK - 1, 3 * BLOCK + 7])
    states = []
    for _ in range(draw(st.integers(2, 5))):
        names = draw(st.lists(st.sampled_from("abcd"), min_size=1, unique=True))
        state = {}
        for name in names:
            before = states[-1].get(name) if states else None
            if before is not None and draw(st.booleans()):
                state[name] = before
            else:
                state[name] = _content(draw, draw(sizes) if before is None else len(before))
                if draw(st.integers(0, 3)) == 0:
                    state[name] = (state[name] * 4)[: draw(sizes)]
        states.append(state)
    return states


@settings(max_examples=60, deadline=None)
@given(states=_states(), encoding=st.sampled_from([RAW, ZSTD]), linear=st.booleans(), data=st.data())
def test_every_way_of_reading(tmp_path_factory, states, encoding, linear, data):
    """Gives what the states were; a base in the middle, as a compaction makes it, changes nothing."""
    files = forge.history(states, encoding=encoding, linear=linear)
    if data.draw(st.booleans()):
        at = data.draw(st.integers(1, len(files) - 1))
        files[at] = forge.base_of(files[at], states[at])
        if linear:
            forge.lay_out(files[at])
    folder = forge.write(tmp_path_factory.mktemp("chain") / "chain", files)
    found, problems = independent_reader.read_chain(folder.iterdir())
    assert problems == {}
    with Chain(folder) as chain:
        assert chain.verify() == ()
        chain.export(folder.parent / "copy", at=len(states), fsync=False)
        for number, state in enumerate(states, 1):
            read = found[forge.checkpoint_id(number)]
            assert {row["name"]: read.content(place) for place, row in enumerate(read.table)} == state
            assert [one.name for one in chain[number].regions] == [*state]
            assert {name: chain.read(name, at=number) for name in state} == state
            memory = {name: bytearray(b"\xaa" * len(content)) for name, content in state.items()}
            restore(folder, into=memory, at=number)
            assert memory == state
            for lazy in (False, True) if linear and encoding == RAW else (False,):
                arrays = load(folder, at=number, lazy=lazy)
                assert {name: array.tobytes() for name, array in arrays.items()} == state
            for name, content in state.items():
                for block in range(len(content) // BLOCK + 1):
                    piece = content[block * BLOCK : (block + 1) * BLOCK]
                    known = chain.is_zero(name, block * BLOCK, block * BLOCK + len(piece), at=number)
                    assert not (known and any(piece))
        for one in range(1, len(states) + 1):
            for other in range(1, len(states) + 1):
                assert _found(chain, one, other) == _expected(states[one - 1], states[other - 1])
    copy = load(folder.parent / "copy")
    assert {name: array.tobytes() for name, array in copy.items()} == states[-1]


def _found(chain, one, other):
    return {found.name: (found.kind, found.nbytes) for found in chain.diff(one, other)}


def _expected(before, after):
    expected = dict.fromkeys(after.keys() - before.keys(), ("added", 0))
    expected |= dict.fromkeys(before.keys() - after.keys(), ("removed", 0))
    for name in before.keys() & after.keys():
        if len(before[name]) != len(after[name]):
            expected[name] = "replaced", 0
        elif before[name] != after[name]:
            old, new = (np.frombuffer(one[name], np.uint8) for one in (before, after))
            expected[name] = "changed", int((old != new).sum())
    return expected


BAD = [
    ([], "empty, or a name is in it twice"),
    ({}, "no array"),
    (None, "no array"),
    ([0, 0], "that there is not, or one twice"),
    ([0, 4], "that there is not, or one twice"),
    ([0, 1 << 70], "that there is not, or one twice"),
    ([-1], "something else for a place"),
    ([True], "something else"),
    (["0"], "something else"),
    ([1.0], "something else"),
    ([[0, 1]], "something else"),
    ([2, 3], "not the one that is the same memory"),
    ([3, 1], "not the one that is the same memory"),
    ([0, {**B, "from": 0, "name": "a"}], "that there is not, or one twice"),
    ([{**A, "from": 9}], "that there is not, or one twice"),
    ([{**A, "from": "0"}], "something else for a place"),
    ([{**A, "from": True}], "something else for a place"),
    ([{**A, "from": 3}], "both have to be stored"),
    ([0, {**TIED, "same_as": 0, "nbytes": A["nbytes"], "from": 1}], "both have to be stored"),
    ([0, {**A, "from": 1}], "a name is in it twice"),
    ([{**A, "linear": 65536}], "is linear, and it is a delta"),
    ([{**B, "from": 1, "nbytes": 2 * BLOCK}, 3], "that there is not"),
    ([forge.region("e", 0), 0], "comes after those that have none"),
]


@pytest.mark.parametrize(("items", "reason"), BAD)
def test_what_is_no_table_is_refused(tmp_path, items, reason):
    """By the independent reader, too; the checkpoint before it is the newest."""
    base = File(1, [Run(0, 0, b"1" * BLOCK)], [A, B, C, TIED])
    delta = File(2, [], [A], DELTA, base.checkpoint, more={"table": "b" * 32})
    delta.more["regions"] = items
    folder = forge.write(tmp_path / "chain", [base, delta])
    with Chain(folder) as chain:
        assert [one.number for one in chain] == [1]
        (problem,) = chain.verify()
        assert problem.file == delta.name
        assert reason in problem.reason
        assert len(problem.reason) < 300
    states, problems = independent_reader.read_chain(folder.iterdir())
    assert (len(states), [*problems]) == (1, [delta.name])


def test_runs_are_of_the_new_table(tmp_path):
    """A run of a region that only the parent has is refused when it is read."""
    base = File(1, [], [A, B])
    delta = File(2, [Run(1, 0, b"1" * BLOCK)], [B], DELTA, base.checkpoint, items=[1])
    delta.more["table"] = "b" * 32
    folder = forge.write(tmp_path / "chain", [base, delta])
    with Chain(folder) as chain:
        with pytest.raises(ChainError, match="names region 1 of 1"):
            chain.read("b")
        assert [one.number for one in chain] == [1]


def test_a_table_of_another_name_that_says_nothing_of_it(tmp_path):
    """A delta that does not say which regions it has can't have others than its parent, or the other way."""
    base = File(1, [], [A])
    delta = File(2, [], [A], DELTA, base.checkpoint, more={"table": "b" * 32})
    same = File(2, [], [B], DELTA, base.checkpoint, items=[{**B, "from": 0}])
    for number, file in enumerate((delta, same)):
        with Chain(forge.write(tmp_path / str(number), [base, file])) as chain:
            assert [problem.file for problem in chain.problems] == [file.name]
            assert "differs from that of its parent" in chain.problems[0].reason


def test_a_state_without_stored_regions(tmp_path):
    """Nothing of what the files before it hold counts for it."""
    base = File(1, [Run(0, 0, b"1" * BLOCK)], [B])
    empty = forge.region("empty", 0, dtype="<f4", shape=[0])
    delta = File(2, [], [empty], DELTA, base.checkpoint, items=[empty])
    delta.more["table"] = "b" * 32
    folder = forge.write(tmp_path / "chain", [base, delta])
    assert [(name, array.size) for name, array in load(folder).items()] == [("empty", 0)]
    assert load(folder, at=1)["b"].tobytes() == b"1" * BLOCK


def _layouts(draw, names):
    layouts = [
        Layout(name, draw(st.sampled_from([1, BLOCK])), None, None, None, 4096)
        for name in draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    ]
    own = len(layouts)
    for name in draw(st.lists(st.sampled_from(names.upper()), unique=True)):
        owner = draw(st.integers(0, own - 1))
        layouts.append(Layout(name, layouts[owner].nbytes, None, None, None, 4096, same_as=owner))
    return tuple(layouts)


@given(st.data())
def test_what_is_said_is_what_follows(data):
    """Any table after any other one, whatever goes on with what; through a file's JSON."""
    before, after = _layouts(data.draw, "abcd"), _layouts(data.draw, "abcd")
    free = [*range(len(stored(before)))]
    origins = []
    for _ in stored(after):
        origin = data.draw(st.sampled_from([None, *free]))
        origins.append(origin)
        if origin is not None:
            free.remove(origin)
    new_table = NewTable.of(before, after, origins)
    said = new_table.to_json()
    assert NewTable.from_json(said).follow(before) == (after, tuple(origins))
    assert new_table.changes(before) == ((after, origins) != (before, [*range(len(stored(before)))]))
    numbers = {one.name: place for place, one in enumerate(before)}
    for place, layout in enumerate(stored(after)):  # what is as it was is a number
        origin = origins[place]
        if origin is not None and before[origin] == layout:
            assert said[place] == numbers[layout.name]


def test_a_linear_region_goes_on_as_any():
    """Where a base has it is no part of a delta's table."""
    before = (Layout("a", BLOCK, None, None, None, 4096, linear=65536),)
    new_table = NewTable.of(before, (before[0].at(None),), [0])
    assert new_table.to_json() == [0]
    assert new_table.follow(before).layouts == (before[0].at(None),)
    with pytest.raises(FormatError):
        NewTable.from_json([before[0].to_json()])
