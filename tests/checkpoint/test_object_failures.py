"""Whichever request to a bucket fails: nothing is lost, nobody is told the wrong thing, and it goes on."""

from __future__ import annotations

import itertools

import pytest

from _lib.checkpoint.buckets import FaultyBucket, ModelBucket
from _lib.checkpoint.faulty_store import Trouble
from _lib.checkpoint.play import WAYS, Play
from _lib.checkpoint.world import restored
from dirtytrack import Session
from dirtytrack.checkpoint import Checkpointer
from dirtytrack.checkpoint.store.objects import ObjectStore


def _play(trouble, session, bucket):
    faulty = ObjectStore(FaultyBucket(bucket, trouble), grace_period=0)
    return Play(trouble, session, ObjectStore(bucket), faulty)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_request_fails_in_turn(way):
    """Of opening, a base, deltas, a compaction with its garbage, and a resume."""
    struck, step = set(), 1 if way.get("late") else 2
    with Session() as session:
        for at in itertools.count(1, step):
            with _play(Trouble(at, **way), session, ModelBucket()) as play:
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
            with Checkpointer.resume(play.store, play.world.regions, session=session) as again:
                assert play.world.contents() == play.captured[play.committed[-1]]
                play.world.touch("third")
                again.save(wait=True)
            assert restored(play.store, play.world.sizes) == play.world.contents()
            if play.trouble.struck is None:
                break
            struck.add(play.trouble.struck)
    if way.get("late"):
        assert struck == {"list", "size", "put_new", "put", "get", "get_range", "delete"}
    assert at > 40


def test_readers_try_again():
    """A request that only reads, and fails once, is made again; nobody hears of it."""
    with Session() as session:
        bucket = ModelBucket()
        play = _play(Trouble(0), session, bucket)
        with Checkpointer(play.store, play.world.regions, session=session) as checkpoints:
            checkpoints.save()
    for at in itertools.count(1):
        trouble = Trouble(at)
        store = ObjectStore(FaultyBucket(bucket, trouble))
        assert restored(store, play.world.sizes) == play.world.contents()
        if trouble.struck is None:
            break
