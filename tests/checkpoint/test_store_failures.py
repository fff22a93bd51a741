"""Whichever operation of any store fails: nothing is lost, and the next save has everything."""

from __future__ import annotations

import itertools

import pytest

from _lib.checkpoint.faulty_store import FaultyStore, Trouble
from _lib.checkpoint.places import MemoryPlace
from _lib.checkpoint.world import World, restored
from dirtytrack import CheckpointError, Session
from dirtytrack.checkpoint import Chain, Checkpointer

WAYS = {"once": {}, "lasting": {"lasting": True}, "answer lost": {"late": True}}


class Play:
    """A writer on a store with trouble, and what it has been told is committed."""

    def __init__(self, trouble, session):
        self.trouble = trouble
        self.store = MemoryPlace()
        self.world = World(5, 1)
        self.captured = {}
        self.committed = []
        self._faulty = FaultyStore(self.store, trouble)
        self._session = session

    def __enter__(self):
        try:
            self.checkpoints = Checkpointer(self._faulty, self.world.regions, session=self._session)
        except OSError:
            self.trouble.mend()
            self.checkpoints = Checkpointer(self._faulty, self.world.regions, session=self._session)
        return self

    def __exit__(self, *exc):
        self.checkpoints.close()

    def save(self):
        """Saves until it is committed; told at most once that it was not."""
        for _ in range(2):
            number = self.checkpoints._pipeline.next_number
            self.captured[number] = self.world.contents()
            try:
                save = self.checkpoints.save(wait=True)
            except CheckpointError as error:
                self._told(error.checkpoints == (number,))
            else:
                self.committed.append(save.number)
                return
        pytest.fail("was not saved")

    def _told(self, is_right):
        assert is_right
        assert self.trouble.struck is not None
        self.trouble.mend()

    def compact(self):
        """Compacts, told at most once that it could not be done."""
        for _ in range(2):
            try:
                self.checkpoints.compact(wait=True)
            except OSError:
                self._told(True)
            else:
                self.committed = self.committed[-1:]
                return
        pytest.fail("was not compacted")

    def check(self):
        """All that was committed is there as it was, and what else is there is, too."""
        with Chain(self.store) as chain:
            assert chain.verify() == ()
            assert set(self.committed) <= {checkpoint.number for checkpoint in chain}
            for checkpoint in chain:
                read = {name: chain.read(name, at=checkpoint.id) for name in self.world.sizes}
                assert read == self.captured[checkpoint.number]
        assert restored(self.store, self.world.sizes) == self.world.contents()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_operation_of_a_store_fails_in_turn(way):
    """Of opening, a base, deltas, a compaction and a resume."""
    struck = set()
    with Session() as session:
        for at in itertools.count(1):
            with Play(Trouble(at, **way), session) as play:
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
