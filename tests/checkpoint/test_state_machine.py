"""A chain over any sequence of writes, saves, compactions, reopenings and branches, against whole copies."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import dirtytrack
from _lib.checkpoint.places import KINDS, place_of
from _lib.support import PAGE_SIZE
from dirtytrack.checkpoint import Chain, Checkpointer, load
from dirtytrack.checkpoint.store import open_store

SIZES = (5 * PAGE_SIZE + 100, 3000)  # the second begins on the page on which the first ends
OFFSETS = st.sampled_from([0, 1, 4000])


def _memories(offset):
    whole = np.frombuffer(dirtytrack.alloc(8 * PAGE_SIZE), np.uint8)
    first = whole[offset : offset + SIZES[0]]
    return {"first": first, "second": whole[offset + SIZES[0] : offset + sum(SIZES)]}


def _usage(place):
    with contextlib.ExitStack() as undo:
        return open_store(place, undo).usage()


class Chains(RuleBasedStateMachine):
    """The model keeps a whole copy of each checkpoint, its parent, and which of them have to be there."""

    def __init__(self):
        super().__init__()
        self.path = None
        self.checkpoints = None
        self.states = {}  # number: copies
        self.parents = {}  # number: number, or None
        self.required = []  # what has to be there of the branch that is written, the oldest first
        self.keep = None

    @initialize(
        offset=OFFSETS,
        compression=st.sampled_from(["auto", "none", "zstd"]),
        staging=st.sampled_from([None, 4096, 3 * 4096]),
        keep=st.sampled_from([None, 1, 2]),
        kind=st.sampled_from(KINDS),
    )
    def start(self, offset, compression, staging, keep, kind):
        self.path = place_of(kind, Path(tempfile.mkdtemp()))
        self.keep = keep
        self.options = {"compression": compression, "staging_bytes": staging, "keep": keep, "fsync": False}
        self.memories = _memories(offset)
        self.checkpoints = Checkpointer(self.path, self.memories, **self.options)

    @rule(
        name=st.sampled_from(["first", "second"]),
        start=st.integers(0, SIZES[0]),
        length=st.integers(1, 2 * PAGE_SIZE),
        value=st.integers(0, 2),
    )
    def write(self, name, start, length, value):
        """Zeros, and what is there already, among others."""
        memory = self.memories[name]
        start %= len(memory)
        memory[start : start + length] = value

    @rule()
    def write_everything(self):
        for memory in self.memories.values():
            memory[:] = memory + np.uint8(1)

    @rule(wait=st.booleans(), pause=st.booleans())
    def save(self, wait, pause):
        number = len(self.states) + 1
        save = self.checkpoints.save(number, wait=wait, pause=contextlib.nullcontext() if pause else None)
        assert save.consistency == ("paused" if pause else "proven")
        assert save.number == number
        self.states[number] = {name: one.copy() for name, one in self.memories.items()}
        self.parents[number] = self.required[-1] if self.required else None
        self.require([*self.required, number])

    @rule()
    def flush(self):
        self.checkpoints.flush()
        self.look()

    @rule()
    def compact(self):
        self.checkpoints.compact(wait=True)
        if self.required:
            self.required = self.required[-(self.keep or 1) :]
            with Chain(self.path) as chain:
                assert min(checkpoint.number for checkpoint in chain) == self.required[0]

    @precondition(lambda self: self.required)
    @rule(offset=OFFSETS)
    def reopen(self, offset):
        """In other memory: the newest is there again."""
        self.checkpoints.close()
        self.memories = _memories(offset)
        for memory in self.memories.values():
            memory[:] = 99
        self.checkpoints = Checkpointer.open(self.path, self.memories, **self.options)
        assert self.checkpoints.meta == len(self.states)
        self.stand_on(len(self.states))

    @precondition(lambda self: self.required)
    @rule(data=st.data())
    def branch(self, data):
        """Go on from any checkpoint that is there."""
        self.checkpoints.close()
        number = data.draw(st.sampled_from(self.there()))
        self.checkpoints = Checkpointer.resume(self.path, self.memories, at=number, **self.options)
        assert self.checkpoints.meta == number
        self.stand_on(number)

    def stand_on(self, number):
        """The memory holds that checkpoint; it and what leads to it is what counts now."""
        self.check(self.memories, number)
        there, branch = self.there(), []
        while number in there:
            branch.insert(0, number)
            number = self.parents[number]
        self.require(branch)

    def require(self, branch):
        self.required = branch[-self.keep :] if self.keep else branch

    def there(self):
        with Chain(self.path) as chain:
            return [checkpoint.number for checkpoint in chain]

    def check(self, found, number):
        for name, memory in self.states[number].items():
            assert (found[name] == memory).all(), (name, number)

    def look(self):
        """Every checkpoint that is there is as it was, and those that must be there are."""
        if not self.states:
            return
        with Chain(self.path) as chain:
            assert chain.verify() == ()
            there = [checkpoint.number for checkpoint in chain]
            assert set(self.required) <= set(there)
            for checkpoint in chain:
                assert checkpoint.meta == checkpoint.number
                read = {
                    name: np.frombuffer(chain.read(name, at=checkpoint.number), np.uint8)
                    for name in self.memories
                }
                self.check(read, checkpoint.number)
        assert there[-1] == len(self.states)
        self.check(load(self.path), there[-1])

    def teardown(self):
        if self.checkpoints is not None:
            self.checkpoints.close()
            self.look()
            assert not any(usage.is_unfinished for usage in _usage(self.path))
        if isinstance(self.path, Path):
            shutil.rmtree(self.path)


TestChains = Chains.TestCase
if settings.default.max_examples <= 100:
    TestChains.settings = settings(max_examples=60, stateful_step_count=25, phases=[Phase.generate])
