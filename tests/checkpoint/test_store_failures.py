"""Whichever operation of any store fails: nothing is lost, and the next save has everything."""

from __future__ import annotations

import itertools

import pytest

from _lib.checkpoint.faulty_store import FaultyStore, Trouble
from _lib.checkpoint.places import MemoryPlace
from _lib.checkpoint.play import WAYS, Play
from _lib.checkpoint.world import restored
from dirtytrack import Session
from dirtytrack.checkpoint import Checkpointer


def _play(trouble, session):
    store = MemoryPlace()
    return Play(trouble, session, store, FaultyStore(store, trouble))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_operation_of_a_store_fails_in_turn(way):
    """Of opening, a base, deltas, a compaction and a resume."""
    struck = set()
    with Session() as session:
        for at in itertools.count(1):
            with _play(Trouble(at, **way), session) as play:
                for _ in range(2):
                    play.world.scribble()
                    play.save()
                play.check()
                play.compact()
                play.check()
                play.world.touch()
                play.save()
            play.check()
            with Checkpointer.resume(play.store, play.world.regions, session=session) as again:
                assert play.world.contents() == play.captured[play.committed[-1]]
                play.world.touch("third")
                again.save(wait=True)
            assert restored(play.store, play.world.sizes) == play.world.contents()
            assert not play.store.unfinished
            if play.trouble.struck is None:
                break
            struck.add(play.trouble.struck)
    assert struck >= {"claim", "names", "create", "write", "renew", "publish", "open", "read_into", "remove"}
    assert at > 20
