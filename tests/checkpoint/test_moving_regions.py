"""Regions that come, go, grow, shrink, move, are tied and renamed, through failures and restarts.

Every checkpoint gives back what the memory held, by every way of reading, and so does an independent reader.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import dirtytrack
from _lib.checkpoint import independent_reader
from _lib.checkpoint.intercept import COMMITTER, Fault, by, intercepted
from dirtytrack import ChainError, CheckpointError, Session
from dirtytrack.checkpoint import Chain, Checkpointer, load

BLOCK = 4096
NAMES = "abcdef"
PLACES = st.integers(0, len(NAMES) - 1)
SIZES = st.sampled_from([1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 5])
_MOST = 5  # regions


class Regions(RuleBasedStateMachine):
    """The model keeps a copy of all regions by name for each checkpoint."""

    def __init__(self):
        super().__init__()
        self.checkpoints = None
        self.states = {}  # number: {name: copy}
        self.memories = {}
        self.made = []  # memory, and the region of it where we track it ourselves

    @initialize(
        staging=st.sampled_from([None, BLOCK]),
        keep=st.sampled_from([None, 2]),
        compression=st.sampled_from(["auto", "none", "zstd"]),
    )
    def start(self, staging, keep, compression):
        self.path, self.session = Path(tempfile.mkdtemp()), Session()
        self.options = {
            "staging_bytes": staging,
            "keep": keep,
            "compression": compression,
            "fsync": False,
            "session": self.session,
        }
        self.memories = {"a": self.make(2 * BLOCK + 9, False)}
        self.checkpoints = Checkpointer(self.path, self.given(), **self.options)

    def make(self, nbytes, ours, value=1):
        """New memory on pages of its own, as a number; *ours* is tracked by us, sparse or not."""
        memory = np.frombuffer(dirtytrack.alloc(4 * BLOCK), np.uint8)[:nbytes]
        if value:
            memory[:] = value
        sparse = ours == "sparse"
        region = self.session.track(memory, name=f"ours {len(self.made)}", sparse=sparse) if ours else None
        self.made.append((memory, region))
        return len(self.made) - 1

    def given(self):
        return {name: self.made[at][1] or self.made[at][0] for name, at in self.memories.items()}

    def copies(self):
        return {name: self.made[at][0].tobytes() for name, at in self.memories.items()}

    def pick(self, place):
        """The name of a region that there is."""
        return [*self.memories][place % len(self.memories)]

    @rule(
        place=PLACES, at=st.integers(0, 4 * BLOCK), length=st.integers(1, 2 * BLOCK), value=st.integers(0, 2)
    )
    def write(self, place, at, length, value):
        memory = self.made[self.memories[self.pick(place)]][0]
        at %= len(memory)
        memory[at : at + length] = value

    @precondition(lambda self: len(self.memories) < _MOST)
    @rule(
        name=st.sampled_from(NAMES),
        nbytes=SIZES,
        ours=st.sampled_from([False, False, True, "sparse"]),
        value=st.integers(0, 2),
    )
    def add(self, name, nbytes, ours, value):
        if name not in self.memories:
            self.memories[name] = self.make(nbytes, ours, value)
            made = self.made[self.memories[name]]
            self.checkpoints.add(name, made[1] or made[0])

    @precondition(lambda self: len(self.memories) > 1)
    @rule(place=PLACES)
    def remove(self, place):
        name = self.pick(place)
        del self.memories[name]
        self.checkpoints.remove(name)

    @rule(place=PLACES, nbytes=SIZES, ours=st.sampled_from([False, True, "sparse"]))
    def resize(self, place, nbytes, ours):
        """Into new memory, with what it held as far as that goes, some of it zeros by now."""
        name = self.pick(place)
        old = self.made[self.memories[name]][0]
        self.memories[name] = self.make(nbytes, ours, 0)
        memory = self.made[self.memories[name]][0]
        memory[BLOCK : len(old)] = old[BLOCK : len(memory)]
        self.checkpoints.rebind({name: self.given()[name]})

    @rule(place=PLACES, other=PLACES)
    def tie(self, place, other):
        """One memory under two names, or other ones exchanged between names."""
        name = self.pick(place)
        self.memories[name] = self.memories[self.pick(other)]
        self.checkpoints.rebind({name: self.given()[name]})

    @rule(names=st.permutations(NAMES), data=st.data())
    def bind(self, names, data):
        """Other names for what there is, some of it left out, some of it that was left out before."""
        there = [*dict.fromkeys(self.memories.values())]
        kept = data.draw(st.lists(st.sampled_from(there), min_size=1, max_size=_MOST))
        if data.draw(st.booleans()):
            kept[-1] = data.draw(st.integers(0, len(self.made) - 1))
        self.memories = dict(zip(names, kept, strict=False))
        self.checkpoints.bind(self.given())

    @rule(wait=st.booleans())
    def save(self, wait):
        number = self.checkpoints._pipeline.next_number
        self.states[number] = self.copies()
        save = self.checkpoints.save(number, wait=wait)
        assert (save.number, save.consistency) == (number, "proven")

    @rule(again=st.booleans())
    def fail(self, again):
        """A save that is not written, or two."""
        self.checkpoints.flush()
        number = self.checkpoints._pipeline.next_number
        with intercepted(Fault(1, errno.ENOSPC, counts=by(COMMITTER))):
            with contextlib.suppress(CheckpointError):
                save = self.checkpoints.save("lost")
                self.states[save.number] = self.copies()
                if again:
                    self.states[save.number + 1] = self.copies()
                    self.checkpoints.save("lost, too")
            with contextlib.suppress(CheckpointError):
                self.checkpoints.flush()
        there = self.there()
        self.states = {one: state for one, state in self.states.items() if one < number or one in there}

    @precondition(lambda self: self.states)
    @rule()
    def compact(self):
        self.checkpoints.compact(wait=True)

    @precondition(lambda self: self.states)
    @rule(strict=st.booleans(), data=st.data())
    def restart(self, strict, data):
        """From any checkpoint, into new memory; without *strict* into some of it, with some more."""
        self.checkpoints.close()
        self.look()
        there = self.there()[-1:] if self.options["keep"] else self.there()  # which others are is a race
        at = data.draw(st.sampled_from(there))
        state, self.memories = self.states[at], {}
        for name, content in state.items():
            self.memories[name] = self.make(len(content), data.draw(st.sampled_from([False, True, "sparse"])))
        with Chain(self.path) as chain:
            for place, layout in enumerate(table := chain[at].regions):
                if layout.same_as is not None and (strict or data.draw(st.booleans())):
                    self.memories[table[place].name] = self.memories[table[layout.same_as].name]
        kept = [*state]
        if not strict:
            kept = data.draw(st.lists(st.sampled_from(kept), min_size=1, unique=True))
            self.memories = {name: self.memories[name] for name in kept}
            if data.draw(st.booleans()) and (new := {*NAMES} - {*state}):
                self.memories[min(new)] = self.make(data.draw(SIZES), False, 2)
        options = {**self.options, "strict": strict}
        self.checkpoints = Checkpointer.resume(self.path, self.given(), at=at, **options)
        assert {name: self.copies()[name] for name in kept} == {name: state[name] for name in kept}

    def there(self):
        with contextlib.suppress(ChainError), Chain(self.path) as chain:
            return [one.number for one in chain]
        return []

    def look(self):
        """By every way of reading."""
        states, problems = independent_reader.read_chain(self.path.iterdir())
        assert problems == {}
        if not self.states:
            return
        with Chain(self.path) as chain:
            assert chain.verify() == ()
            numbers = [one.number for one in chain]
            for checkpoint in chain:
                expected = self.states[checkpoint.number]
                assert {name: chain.read(name, at=checkpoint.number) for name in expected} == expected
                assert {one.name for one in checkpoint.regions} == expected.keys()
                state = states[bytes.fromhex(checkpoint.id)]
                found = {row["name"]: state.content(place) for place, row in enumerate(state.table)}
                assert found == expected
            for one in numbers[-3:]:
                self.compare(chain, one, numbers[-1])
                self.compare(chain, numbers[-1], one)
        assert numbers[-1] == max(self.states)
        for number in numbers[-2:]:
            loaded = load(self.path, at=number)
            assert {name: one.tobytes() for name, one in loaded.items()} == self.states[number]
            with contextlib.suppress(ChainError):  # a delta that has everything is a base, and not laid out
                lazy = load(self.path, at=number, lazy=True)
                assert {name: one.tobytes() for name, one in lazy.items()} == self.states[number]

    def compare(self, chain, one, other):
        """What differs, by numpy."""
        before, after = self.states[one], self.states[other]
        expected = dict.fromkeys(after.keys() - before.keys(), ("added", 0))
        expected |= dict.fromkeys(before.keys() - after.keys(), ("removed", 0))
        for name in before.keys() & after.keys():
            if len(before[name]) != len(after[name]):
                expected[name] = "replaced", 0
            elif before[name] != after[name]:
                differ = np.frombuffer(before[name], np.uint8) != np.frombuffer(after[name], np.uint8)
                expected[name] = "changed", int(differ.sum())
        assert {found.name: (found.kind, found.nbytes) for found in chain.diff(one, other)} == expected

    def teardown(self):
        if self.checkpoints is None:
            return
        try:
            self.checkpoints.close()
            self.look()
        finally:
            self.session.close()
            shutil.rmtree(self.path)


TestRegions = Regions.TestCase
if settings.default.max_examples <= 100:
    TestRegions.settings = settings(
        max_examples=60, stateful_step_count=25, deadline=None, phases=[Phase.generate]
    )
