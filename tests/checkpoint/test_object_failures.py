"""Whichever request to a bucket fails: nothing is lost, nobody is told the wrong thing, and it goes on."""

from __future__ import annotations

import itertools

import pytest

from _lib.checkpoint.buckets import FaultyBucket, ModelBucket
from _lib.checkpoint.faulty_store import Trouble
from _lib.checkpoint.world import World, restored
from dirtytrack import CheckpointError, Session
from dirtytrack.checkpoint import Chain, Checkpointer
from dirtytrack.checkpoint.store.objects import ObjectStore

WAYS = {"once": {}, "lasting": {"lasting": True}, "answer lost": {"late": True}}


class Play:
    """A writer on a bucket with trouble, and what it has been told is committed."""

    def __init__(self, trouble, session):
        self.trouble = trouble
        self.bucket = ModelBucket()
        self.sound = ObjectStore(self.bucket)
        self.world = World(5, 1)
        self.captured = {}
        self.committed = []
        self._store = ObjectStore(FaultyBucket(self.bucket, trouble), grace_period=0)
        self._session = session

    def __enter__(self):
        try:
            self.checkpoints = Checkpointer(self._store, self.world.regions, session=self._session)
        except OSError:
            self.trouble.mend()
            self.checkpoints = Checkpointer(self._store, self.world.regions, session=self._session)
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

    def _told(self, is_right=True):
        assert is_right
        assert self.trouble.struck is not None
        self.trouble.mend()

    def compact(self):
        """Compacts, told at most once that it could not be done."""
        for _ in range(2):
            try:
                self.checkpoints.compact(wait=True)
            except OSError:
                self._told()
            else:
                self.committed = self.committed[-1:]
                return
        pytest.fail("was not compacted")

    def check(self):
        """All that was committed is there as it was, and what else is there is, too."""
        with Chain(self.sound) as chain:
            assert chain.verify() == ()
            assert set(self.committed) <= {checkpoint.number for checkpoint in chain}
            for checkpoint in chain:
                read = {name: chain.read(name, at=checkpoint.id) for name in self.world.sizes}
                assert read == self.captured[checkpoint.number]
        assert restored(self.sound, self.world.sizes) == self.world.contents()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_request_fails_in_turn(way):
    """Of opening, a base, deltas, a compaction with its garbage, and a resume."""
    struck, step = set(), 1 if way.get("late") else 2
    with Session() as session:
        for at in itertools.count(1, step):
            with Play(Trouble(at, **way), session) as play:
                for _ in range(2):
                    play.world.scribble()
                    play.save()
                play.check()
                play.compact()
                play.check()
                play.world.touch()
                play.save()
                play.world.touch()
                play.save()
                play.compact()
            play.check()
            with Checkpointer.resume(play.sound, play.world.regions, session=session) as again:
                assert play.world.contents() == play.captured[play.committed[-1]]
                play.world.touch("third")
                again.save(wait=True)
            assert restored(play.sound, play.world.sizes) == play.world.contents()
            if play.trouble.struck is None:
                break
            struck.add(play.trouble.struck)
    if way.get("late"):
        assert struck == {"list", "size", "put_new", "put", "get", "get_range", "delete"}
    assert at > 40


def test_readers_try_again():
    """A request that only reads, and fails once, is made again; nobody hears of it."""
    with Session() as session:
        play = Play(Trouble(0), session)
        with Checkpointer(play.sound, play.world.regions, session=session) as checkpoints:
            checkpoints.save()
    for at in itertools.count(1):
        trouble = Trouble(at)
        store = ObjectStore(FaultyBucket(play.bucket, trouble))
        assert restored(store, play.world.sizes) == play.world.contents()
        if trouble.struck is None:
            break
