"""Whatever a crash of the machine leaves of a writer's files is a state of the chain, and not an old one."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from _lib.checkpoint.crash_states import (
    Files,
    Operation,
    Recorder,
    Rename,
    Sync,
    Told,
    Unlink,
    Write,
    crash_states,
    lay_out,
    promised,
)
from _lib.checkpoint.intercept import SYNCS, Fault, intercepted, stacked, without_disk
from _lib.checkpoint.world import Contents, World, restored
from dirtytrack import CheckpointError
from dirtytrack.checkpoint import Chain, Checkpointer


class Run:
    """What a writer did, and what it had been given.

    Attributes:
        path: of its chain.
        world: its memory.
        contents: of the memory, by the number of the checkpoint that was to be made of them.
        recorder: has the operations.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.world = World(6, 1)
        self.contents: dict[int, Contents] = {}
        self.recorder = Recorder()

    def save(
        self, checkpoints: Checkpointer, *, flush: bool = True, others: dict[str, bytearray] | None = None
    ) -> None:
        """Changes something, has *others* beside or instead of the world's regions, and saves."""
        self.world.scribble()
        if others is not None:
            checkpoints.bind({**self.world.regions, **others})
        contents = self.world.contents() | {name: bytes(data) for name, data in (others or {}).items()}
        self.contents[checkpoints._pipeline.next_number] = contents
        save = checkpoints.save(wait=flush)
        if flush:
            self.recorder.operations.append(Told(save.number))


def _by_hand(run: Run) -> None:
    """A base, deltas, a compaction that is asked for, more deltas."""
    with (
        intercepted(stacked(run.recorder, without_disk)),
        Checkpointer(run.path, run.world.regions) as checkpoints,
    ):
        for _ in range(3):
            run.save(checkpoints)
        checkpoints.compact(wait=True)
        for _ in range(2):
            run.save(checkpoints)


def _by_itself(run: Run) -> None:
    """Compactions in the background, checkpoints that queue up, and a second writer."""
    for compression in ("none", "zstd"):
        with (
            intercepted(stacked(run.recorder, without_disk)),
            Checkpointer.open(run.path, run.world.regions, keep=2, compression=compression) as checkpoints,
        ):
            for step in range(8):
                run.save(checkpoints, flush=step % 3 == 0)


def _with_failures(run: Run) -> None:
    """The sync of a delta's file fails, and later that of the directory, after the file has its name."""
    first, second = (Fault(at, errno.EIO, counts=lambda call: call.name in SYNCS) for at in (8, 9))
    with (
        intercepted(stacked(run.recorder, first, second, without_disk)),
        Checkpointer(run.path, run.world.regions) as checkpoints,
    ):
        failed: list[int] = []
        for _ in range(6):
            try:
                run.save(checkpoints)
            except CheckpointError as error:
                failed += error.checkpoints
        assert failed == [3, 4]


def _with_other_regions(run: Run) -> None:
    """A region comes, grows and goes, another one moves; a compaction in between, and a second writer."""
    some, more = bytearray(b"some" * 700), bytearray(b"more" * 2200)
    moved = {"some": more, "third": bytearray(run.world.regions["third"])}
    with (
        intercepted(stacked(run.recorder, without_disk)),
        Checkpointer(run.path, run.world.regions) as checkpoints,
    ):
        run.save(checkpoints)
        run.save(checkpoints, flush=False, others={"some": some})
        run.save(checkpoints, others={"some": more})
        checkpoints.compact(wait=True)
        run.save(checkpoints, flush=False, others=moved)
        run.save(checkpoints, others={})
    with (
        intercepted(stacked(run.recorder, without_disk)),
        Checkpointer.resume(run.path, run.world.regions | {"some": some}, strict=False) as checkpoints,
    ):
        run.save(checkpoints, others={"some": some})


class Judge:
    """Lays crash states out on the disk, reads them, and says what is wrong; each that differs once."""

    def __init__(self, run: Run, path: Path) -> None:
        self._run, self._path = run, path
        self._known: dict[frozenset[tuple[str, bytes]], int | str] = {}

    def wrongs(self, operations: list[Operation]) -> Iterator[str]:
        """Over all states after each of the operations."""
        draw = random.Random(1)
        for count in range(len(operations) + 1):
            done = operations[:count]
            floor = promised(done, self._run.path)
            for files in crash_states(done, self._run.path, draw):
                found = self._look_up(files)
                if isinstance(found, str) or found < floor:
                    yield f"after {count} operations: {found}, and {floor} was committed"

    def states(self) -> list[tuple[Files, int | str]]:
        """Those that were read, and the newest checkpoint of each."""
        return [(dict(files), newest) for files, newest in self._known.items()]

    def _look_up(self, files: Files | None) -> int | str:
        key = frozenset((files or {}).items())
        if key not in self._known:
            self._known[key] = self._read(dict(key))
        return self._known[key]

    def _read(self, files: Files) -> int | str:
        # The number of the newest checkpoint; 0: there is none; or what is wrong.
        lay_out(files, self._path)
        try:
            if not any(name.endswith((".base", ".delta")) for name in files):
                return 0
            with Chain(self._path) as chain:
                for checkpoint in chain:
                    read = {one.name: chain.read(one.name, at=checkpoint.id) for one in checkpoint.regions}
                    if read != self._run.contents[checkpoint.number]:
                        return f"checkpoint {checkpoint.number} is something else"
                newest = chain.newest.number
                sizes = {one.name: one.nbytes for one in chain.newest.regions}
            if restored(self._path, sizes) != self._run.contents[newest]:
                return f"checkpoint {newest} is restored as something else"
            return newest
        except Exception as error:
            return repr(error)
        finally:
            shutil.rmtree(self._path)


@pytest.mark.parametrize(
    "scenario",
    [
        _by_hand,
        _with_other_regions,
        *(pytest.param(one, marks=pytest.mark.slow) for one in (_by_itself, _with_failures)),
    ],
)
def test_every_crash_leaves_what_was_committed(tmp_path: Path, scenario: Callable[[Run], None]) -> None:
    """The newest checkpoint that is left is bit for bit what was saved, and no older than promised."""
    run = Run(tmp_path / "made" / "chain")
    scenario(run)
    judge = Judge(run, tmp_path / "crashed")
    assert list(judge.wrongs(run.recorder.operations)) == []
    for files, newest in random.Random(1).sample(judge.states(), 20):
        _go_on(run, files, newest, tmp_path / "crashed")


def _go_on(run: Run, files: Files, newest: int | str, path: Path) -> None:
    # The next writer finds its way, and leaves nothing of the one before.
    lay_out(files, path)
    world = World(6, 2, offset=5)
    with Checkpointer.open(path, world.regions, strict=False) as checkpoints:
        assert newest == 0 or world.contents().items() <= run.contents[int(newest)].items()
        world.scribble()
        checkpoints.save(wait=True)
    assert restored(path, run.world.sizes) == world.contents()
    assert not any(name.endswith(".tmp") for name in os.listdir(path))
    shutil.rmtree(path)


Operations = list[Operation]


def _unsynced_files(operations: Operations, path: Path) -> Operations:
    return [one for one in operations if not (isinstance(one, Sync) and isinstance(one.what, int))]


def _unsynced_directory(operations: Operations, path: Path) -> Operations:
    return [one for one in operations if one != Sync(path)]


def _unsynced_above(operations: Operations, path: Path) -> Operations:
    return [one for one in operations if one not in (Sync(path.parent), Sync(path.parent.parent))]


def _late_headers(operations: Operations, path: Path) -> Operations:
    # The last write to a file comes after its sync.
    changed: Operations = []
    for one in operations:
        if isinstance(one, Sync) and isinstance(one.what, int):
            at = max(
                at
                for at, before in enumerate(changed)
                if isinstance(before, Write) and before.node == one.what
            )
            one, changed[at] = changed[at], one
        changed.append(one)
    return changed


def _early_removals(operations: Operations, path: Path) -> Operations:
    # What a compaction makes superfluous is removed before the sync of what replaces it.
    early = [one for one in operations if isinstance(one, Unlink)]
    changed = [one for one in operations if one not in early]
    last = max(at for at, one in enumerate(changed) if isinstance(one, Rename) and one.new.endswith(".base"))
    return changed[: last + 1] + early + changed[last + 1 :]


@pytest.mark.parametrize(
    "wrong", [_unsynced_files, _unsynced_directory, _unsynced_above, _late_headers, _early_removals]
)
def test_a_writer_that_did_less_would_be_found(
    tmp_path: Path, wrong: Callable[[Operations, Path], Operations]
) -> None:
    """Without one of the syncs, or with one at the wrong time, some crash costs a committed checkpoint."""
    run = Run(tmp_path / "made" / "chain")
    _by_hand(run)
    judge = Judge(run, tmp_path / "crashed")
    assert any(judge.wrongs(wrong(run.recorder.operations, run.path)))
