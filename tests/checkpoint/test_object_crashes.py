"""Whatever a dead writer leaves in a bucket is a state of the chain, and not an old one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from _lib.checkpoint.buckets import Change, ModelBucket
from _lib.checkpoint.world import Contents, World, restored
from dirtytrack.checkpoint import Chain, Checkpointer
from dirtytrack.checkpoint.store.objects import ObjectStore

Changes = list[Change | int]


class Run:
    """What a writer did to a bucket, and what it had been given.

    Attributes:
        bucket: its clock runs a thousand seconds from each save to the next.
        changes: of objects, in order, with the numbers of checkpoints where its caller was told of them.
        contents: of the memory, by the number of the checkpoint that was to be made of them.
    """

    def __init__(self) -> None:
        self.bucket = ModelBucket()
        self.changes: Changes = self.bucket.changes  # type: ignore[assignment]
        self.store = ObjectStore(self.bucket)
        self.world = World(6, 1)
        self.contents: dict[int, Contents] = {}

    def save(self, checkpoints: Checkpointer, *, flush: bool = True) -> None:
        """Changes something, and saves it."""
        self.world.scribble()
        self.contents[checkpoints._pipeline.next_number] = self.world.contents()
        save = checkpoints.save(wait=flush)
        self.bucket.now += 1000
        if flush:
            self.changes.append(save.number)


def _by_hand(run: Run) -> None:
    """A base, deltas, compactions that are asked for, and an older state that is gone on with."""
    with Checkpointer(run.store, run.world.regions) as checkpoints:
        for _ in range(3):
            run.save(checkpoints)
        checkpoints.compact(wait=True)
        for _ in range(2):
            run.save(checkpoints)
    with Checkpointer.resume(run.store, run.world.regions, at=4) as checkpoints:
        for _ in range(6):
            run.save(checkpoints)
        checkpoints.compact(wait=True)
        run.save(checkpoints)
        checkpoints.compact(wait=True)


def _by_itself(run: Run) -> None:
    """Compactions in the background, checkpoints that queue up, and a second writer."""
    for compression in ("none", "zstd"):
        with Checkpointer.open(run.store, run.world.regions, keep=2, compression=compression) as checkpoints:
            for step in range(16):
                run.save(checkpoints, flush=step % 3 == 0)


class Judge:
    """Reads what a crash leaves after each of the changes, and says what is wrong."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def wrongs(self, changes: Changes) -> Iterator[str]:
        """In order; a writer that is killed leaves all that it has done, and nothing else."""
        objects: dict[str, bytes] = {}
        promised = 0
        for count, change in enumerate(changes):
            if isinstance(change, int):
                promised = change
                continue
            if change.data is None:
                del objects[change.key]
            else:
                objects[change.key] = change.data
            found = self._read(objects)
            if isinstance(found, str) or found < promised:
                yield f"after {count} changes: {found}, and {promised} was committed"

    def _read(self, objects: dict[str, bytes]) -> int | str:
        # The number of the newest checkpoint; 0: there is none; or what is wrong.
        store = ObjectStore(ModelBucket(objects))
        try:
            if not store.newest_names():
                return 0
            with Chain(store) as chain:
                if chain.problems:
                    return str(chain.problems)
                for checkpoint in chain:
                    read = {name: chain.read(name, at=checkpoint.id) for name in self._run.world.sizes}
                    if read != self._run.contents[checkpoint.number]:
                        return f"checkpoint {checkpoint.number} is something else"
                newest = chain.newest.number
            if restored(store, self._run.world.sizes) != self._run.contents[newest]:
                return f"checkpoint {newest} is restored as something else"
            return newest
        except Exception as error:
            return repr(error)


@pytest.mark.parametrize("scenario", [_by_hand, _by_itself])
def test_every_crash_leaves_what_was_committed(scenario: Callable[[Run], None]) -> None:
    """The newest checkpoint that is left is bit for bit what was saved, and no older than promised."""
    run = Run()
    scenario(run)
    changes = [*run.changes]
    assert any(isinstance(one, Change) and one.data is None for one in changes)  # garbage was collected
    assert list(Judge(run).wrongs(changes)) == []


@pytest.mark.parametrize("count", [0, 1, 2, 5, 9, 14, 20, 26])
def test_the_next_writer_goes_on_with_it(count: int) -> None:
    """From whatever is left, and in the end nothing superfluous is."""
    run = Run()
    _by_hand(run)
    objects: dict[str, bytes] = {}
    for change in [one for one in run.changes if isinstance(one, Change)][:count]:
        objects[change.key] = change.data or b""
        if change.data is None:
            del objects[change.key]
    store = ObjectStore(ModelBucket(objects), grace_period=0)
    world = World(6, 2, offset=5)
    with Checkpointer.open(store, world.regions) as checkpoints:
        assert not checkpoints.resumed or world.contents() in run.contents.values()
        world.scribble()
        checkpoints.save(wait=True)
        checkpoints.compact(wait=True)
    assert restored(store, run.world.sizes) == world.contents()
    kinds = sorted(key.partition("/")[0] for key in store.bucket.objects)
    assert kinds == ["commits", "data"]


def _late_data(changes: Changes) -> Changes:
    # A commit before what it names.
    changed = [*changes]
    for at in range(len(changed) - 1):
        one, other = changed[at], changed[at + 1]
        if isinstance(one, Change) and isinstance(other, Change) and other.key.startswith("commits/"):
            changed[at], changed[at + 1] = other, one
    return changed


def _short_lists(changes: Changes) -> Changes:
    # Everything that was ever removed is removed as soon as the next commit is there.
    removed = {one.key for one in changes if isinstance(one, Change) and one.data is None}
    changed: Changes = []
    for one in changes:
        changed.append(one)
        if isinstance(one, Change) and one.data is not None and one.key in removed:
            changed.append(Change(one.key, None))
    return [one for one in changed if isinstance(one, int) or one.data is not None or one.key in removed]


@pytest.mark.parametrize("wrong", [_late_data, _short_lists])
def test_a_writer_that_did_less_would_be_found(wrong: Callable[[Changes], Changes]) -> None:
    """With its changes in another order some crash costs a committed checkpoint."""
    run = Run()
    _by_hand(run)
    with pytest.raises((AssertionError, KeyError)):
        assert list(Judge(run).wrongs(wrong([*run.changes]))) == []
