"""What a caller holds of a save is read-only: nothing done to it reaches what is written."""

from __future__ import annotations

from typing import Any

import pytest

from _lib.checkpoint.intercept import Gate, intercepted
from _lib.checkpoint.world import World
from dirtytrack.checkpoint import Chain, Checkpointer, Save

FACTS = [
    *(
        "number",
        "id",
        "meta",
        "created",
        "consistency",
        "consistent",
        "rounds",
        "pause",
        "copying",
        "blocked",
    ),
    *("pause_met", "blocks_written", "kind", "blocks_stored", "nbytes", "ratio", "throughput", "state"),
]


def test_the_meta_of_a_save_is_a_copy_each_time(place):
    """Changed by the caller before and after the commit, it is in no file and in no later answer."""
    gate = Gate(lambda call: call.name == "lockf")
    with intercepted(gate), Checkpointer(place, World(3, 1).regions) as checkpoints:
        gate.arm()
        given: dict[str, Any] = {"step": 1, "deep": {"list": [1, 2]}}
        save = checkpoints.save(given)
        given["deep"]["list"].append(3)
        save.meta["step"] = 999
        save.meta["deep"]["list"].clear()
        gate.open()
        checkpoints.flush()
        checkpoints.meta["step"] = 998
        assert save.meta == checkpoints.meta == {"step": 1, "deep": {"list": [1, 2]}}
    with Chain(place) as chain:
        chain.newest.meta["step"] = 997
        assert chain.newest.meta == {"step": 1, "deep": {"list": [1, 2]}}


def test_the_meta_of_a_resumed_chain_is_a_copy_each_time(place):
    """Until something is saved it is that of the checkpoint that was restored."""
    world = World(3, 1)
    with Checkpointer(place, world.regions) as checkpoints:
        checkpoints.save([1])
    with Checkpointer.resume(place, world.regions) as checkpoints:
        checkpoints.meta.append(2)
        assert checkpoints.meta == [1]


@pytest.mark.parametrize("name", [*FACTS, "anything", "_state"])
def test_a_save_can_not_be_changed(place, name):
    """AttributeError for each of its facts, and for what it does not have."""
    with Checkpointer(place, World(3, 1).regions) as checkpoints:
        save = checkpoints.save(wait=True)
        before = [getattr(save, fact) for fact in FACTS]
        with pytest.raises(AttributeError):
            setattr(save, name, 7)
        assert [getattr(save, fact) for fact in FACTS] == before


def test_what_is_known_of_a_save_before_its_commit(place):
    """The capture's figures; those of the file are None."""
    gate = Gate(lambda call: call.name == "lockf")
    with intercepted(gate), Checkpointer(place, World(3, 1).regions) as checkpoints:
        gate.arm()
        save = checkpoints.save(wait=False)
        unknown = [save.kind, save.blocks_stored, save.nbytes, save.ratio, save.throughput]
        assert (save.state, unknown) == ("captured", [None] * 5)
        assert repr(save).startswith("<Save: checkpoint 1, captured, proven, pause ")
        gate.open()
        checkpoints.flush()
        assert (save.state, save.kind) == ("committed", "base")


def test_a_save_says_when_it_was_made_and_what_it_is(place):
    """In its file too."""
    with Checkpointer(place, World(3, 1).regions) as checkpoints:
        save: Save = checkpoints.save({"step": 1}, wait=True)
    with Chain(place) as chain:
        found = chain.newest
        assert (found.number, found.id, found.created) == (save.number, save.id, save.created)
        assert found.statistics == {
            "pause": save.pause,
            "rounds": save.rounds,
            "blocks_written": save.blocks_written,
            "blocks_stored": save.blocks_stored,
        }
