"""A writer whose store fails once, or from some moment on: what it has to keep."""

from __future__ import annotations

import pytest

from _lib.checkpoint.world import World, restored
from dirtytrack import CheckpointError
from dirtytrack.checkpoint import Chain, Checkpointer

WAYS = {"once": {}, "lasting": {"lasting": True}, "answer lost": {"late": True}}


class Play:
    """A writer on a store with trouble, and what it has been told is committed.

    Attributes:
        store: the same one without trouble.
    """

    def __init__(self, trouble, session, store, faulty):
        self.trouble = trouble
        self.store = store
        self.world = World(5, 1)
        self.captured = {}
        self.committed = []
        self._faulty = faulty
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
        with Chain(self.store) as chain:
            assert chain.verify() == ()
            assert set(self.committed) <= {checkpoint.number for checkpoint in chain}
            for checkpoint in chain:
                read = {name: chain.read(name, at=checkpoint.id) for name in self.world.sizes}
                assert read == self.captured[checkpoint.number]
        assert restored(self.store, self.world.sizes) == self.world.contents()
