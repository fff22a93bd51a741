"""Whatever goes wrong with the files, nothing is lost: it is told once, and the next save has everything."""

from __future__ import annotations

import ctypes
import errno
import gc
import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from _lib.checkpoint.intercept import (
    COMMITTER,
    COMPACTION,
    Call,
    Fault,
    Gate,
    by,
    intercepted,
    stacked,
    unobserved,
    without_disk,
)
from _lib.checkpoint.world import BLOCK, Contents, World, restored
from _lib.raw import open_descriptors
from _lib.support import idle_threads, in_child, require_root
from _lib.tracked import open_cursors
from dirtytrack import ChainError, CheckpointError, Session
from dirtytrack.checkpoint import Chain, Checkpointer, Save
from dirtytrack.checkpoint.format.description import Description
from dirtytrack.checkpoint.store import new_file
from dirtytrack.checkpoint.write import checkpoint_writer, pipeline
from dirtytrack.checkpoint.write.job import Job
from dirtytrack.kernel._descriptor import own_pagemap

ONCE: dict[str, bool] = {}
LASTING = {"lasting": True}  # until somebody mends it
TORN = {"torn": True}  # if it is a write, it writes a half, and fails then

in_each_way = pytest.mark.parametrize(
    ("code", "how"),
    [
        (errno.ENOSPC, TORN),
        (errno.EDQUOT, ONCE),
        (errno.EIO, ONCE),
        (errno.EIO, LASTING),
        (errno.EROFS, LASTING),
        (errno.EINTR, ONCE),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "".join(value) or "once",
)


def _errno_of(act: Callable[[], None]) -> int | None:
    try:
        act()
    except OSError as error:
        return error.errno
    return None


class Scene:
    """Regions with a checkpointer, a cursor of somebody else's beside it, and a list of what was committed.

    Attributes:
        path: of the chain.
        world: the memory.
        session: that tracks it.
        checkpoints: the writer.
        committed: numbers of checkpoints, in order.
        captured: contents by number.
    """

    def __init__(self, path: Path, blocks: int = 5, fault: Fault | None = None, **keywords: Any) -> None:
        self.path = path
        self.world = World(blocks, 1)
        self.session = Session()
        self.committed: list[int] = []
        self.captured: dict[int, Contents] = {}
        self._ids: list[str | None] = [None]
        self._regions = {name: self.session.track(one, name=name) for name, one in self.world.regions.items()}
        self._other = self.session.cursor("somebody else's")
        self.world.written.clear()
        self.checkpoints = self._open(fault, **keywords)

    def _open(self, fault: Fault | None, **keywords: Any) -> Checkpointer:
        try:
            return Checkpointer(self.path, self._regions, **keywords)
        except OSError as error:
            refused = error
        assert fault is not None
        assert refused.errno == fault.errno
        assert open_cursors(self.session) == 2
        fault.mend()
        return Checkpointer(self.path, self._regions, **keywords)

    def capture(self) -> Save:
        """Saves, and does not wait."""
        self.captured[self.checkpoints._pipeline.next_number] = self.world.contents()
        return self.checkpoints.save()

    def save(self) -> Save:
        """Saves, waits, and compares."""
        save = self.capture()
        self.checkpoints.flush()
        self.expect(save)
        with unobserved():
            assert restored(self.path, self.world.sizes) == self.world.contents()
        return save

    def expect(self, save: Save) -> None:
        """It is committed, and follows what was committed before."""
        assert save.state == "committed"
        with unobserved(), Chain(self.path) as chain:
            assert chain[save.number].parent == self._ids[-1]
        self._ids.append(save.id)
        self.committed.append(save.number)

    def check_failed(self, error: CheckpointError, code: int, numbers: list[int], **orphans: bool) -> None:
        """The error says it all, and the chain has what it had."""
        assert type(error) is CheckpointError
        assert (error.errno, list(error.checkpoints)) == (code, numbers)
        assert error.filename.startswith(str(self.path))
        self.check(**orphans)

    def check(self, *, orphans: bool = False) -> None:
        """The chain has all committed checkpoints, no other but orphans, and each as it was captured."""
        if not any(name.endswith((".base", ".delta")) for name in os.listdir(self.path)):
            assert not self.committed
            return
        with unobserved(), Chain(self.path) as chain:
            assert chain.verify() == ()
            assert orphans or [checkpoint.number for checkpoint in chain] == self.committed
            assert {checkpoint.number for checkpoint in chain} >= set(self.committed)
            for checkpoint in chain:
                read = {name: chain.read(name, at=checkpoint.id) for name in self.world.sizes}
                assert read == self.captured[checkpoint.number]

    def end(self, fault: Fault | None = None, **orphans: bool) -> None:
        """Closes it; nothing remains but the chain, and the other cursor has seen every write and no more."""
        assert _errno_of(self.checkpoints.close) in (None, fault and fault.errno)
        with self._other.collect() as epoch:
            for name, region in self._regions.items():
                assert set(epoch[region]) == self.world.pages(name)
        if fault is not None:
            fault.mend()
        self.check(**orphans)
        with Checkpointer.resume(self.path, self._regions):
            assert self.world.contents() == self.captured[self.committed[-1]]
        assert not any(name.endswith(".tmp") for name in os.listdir(self.path))
        self.session.close()


@pytest.fixture
def scenes() -> Iterator[Callable[..., Scene]]:
    """`Scene`, with what is left of them closed at the end."""
    made: list[Scene] = []

    def make(*arguments: Any, **keywords: Any) -> Scene:
        made.append(Scene(*arguments, **keywords))
        return made[-1]

    yield make
    for scene in made:
        with suppress(OSError):
            scene.checkpoints.close()
        scene.session.close()


@pytest.mark.slow
@in_each_way
def test_every_call_fails_in_turn(
    tmp_path: Path, scenes: Callable[..., Scene], code: int, how: dict[str, bool], monkeypatch: Any
) -> None:
    """One save fails, or the constructor: told once, nothing changed, and the next one has it all."""
    monkeypatch.setattr(new_file, "_WRITEBACK", 1)
    gc.collect()  # what an earlier test left open must not go meanwhile
    own_pagemap()  # which stays open once it is
    before = open_descriptors()
    for at in itertools.count(1):
        fault = Fault(at, code, **how)
        with intercepted(stacked(fault, without_disk)):
            scene = scenes(tmp_path / str(at) / "chain", fault=fault)
            for _ in range(2):
                scene.world.scribble()
                try:
                    scene.save()
                except CheckpointError as error:
                    number = scene.checkpoints._pipeline.next_number - 1
                    scene.check_failed(error, code, [number], orphans=how is LASTING)
                    fault.mend()
                    assert scene.save().kind == ("base" if len(scene.committed) == 1 else "delta")
            scene.end(fault, orphans=how is LASTING)
        assert open_descriptors() == before
        if fault.struck is None:
            break
    assert at > 30


def _commits(call: Call) -> bool:
    return call.name == "lockf"  # the first call of a commit


@pytest.mark.slow
@in_each_way
@pytest.mark.parametrize("bases", [0, 1])
def test_what_is_queued_behind_a_failure_fails_with_it(
    tmp_path: Path, scenes: Callable[..., Scene], code: int, how: dict[str, bool], bases: int
) -> None:
    """All of it in one error, whichever call it was; what came before stays, and the next save has it all."""
    for at in itertools.count(1):
        gate = Gate(_commits)
        fault = Fault(at, code, counts=_behind(gate), **how)
        with intercepted(stacked(gate, fault, without_disk)):
            scene = scenes(tmp_path / str(at), blocks=40)
            for _ in range(bases):
                scene.save()
            gate.arm()
            saves = []
            for place in ("second", "first", "third"):
                scene.world.touch(place)
                saves.append(scene.capture())
            gate.reached.wait()
            gate.open()
            _fails_from_somewhere_on(scene, saves, fault, orphans=how is LASTING)
            scene.world.touch()
            assert scene.save().kind == ("delta" if len(scene.committed) > 1 else "base")
            scene.end(fault, orphans=how is LASTING)
        if fault.struck is None:
            break
    assert at > 20


def _behind(gate: Gate) -> Callable[[Call], bool]:
    return lambda call: gate.reached.is_set() and by(COMMITTER)(call)


def _fails_from_somewhere_on(scene: Scene, saves: list[Save], fault: Fault, **orphans: bool) -> None:
    try:
        scene.checkpoints.flush()
    except CheckpointError as error:
        lost = list(error.checkpoints)
        assert lost
        assert lost == [save.number for save in saves][-len(lost) :]
        for save in saves[: -len(lost)]:
            scene.expect(save)
        assert [save.state for save in saves[-len(lost) :]] == ["failed"] * len(lost)
        scene.check_failed(error, fault.errno, lost, **orphans)
        scene.checkpoints.flush()
    else:
        for save in saves:
            scene.expect(save)
    fault.mend()


@pytest.mark.parametrize("bases", [0, 1])
def test_a_failure_that_is_noticed_by_the_next_save(
    tmp_path: Path, scenes: Callable[..., Scene], bases: int
) -> None:
    """That save saves nothing and says so; the one after it has everything."""
    fault = Fault(1 + bases, errno.EIO, counts=lambda call: call.name == "dt_rename_new")
    with intercepted(stacked(fault, without_disk)):
        scene = scenes(tmp_path)
        for _ in range(bases):
            scene.save()
        scene.world.touch()
        failed = scene.capture()
        scene.checkpoints._pipeline.committer.drain()
        scene.world.touch("third")
        with pytest.raises(CheckpointError) as caught:
            scene.checkpoints.save()
        scene.check_failed(caught.value, errno.EIO, [failed.number])
        assert scene.save().kind == ("delta" if bases else "base")
        scene.end()


def test_a_failure_that_comes_while_the_next_save_begins(
    tmp_path: Path, scenes: Callable[..., Scene], monkeypatch: Any
) -> None:
    """A base fails after the next save has looked for failures and before it begins: that is no delta."""
    gate, fault = Gate(_commits), Fault(1, errno.EIO, counts=lambda call: call.name == "dt_rename_new")
    with intercepted(stacked(gate, fault, without_disk)):
        scene = scenes(tmp_path)
        gate.arm()
        scene.capture()
        scene.world.touch()

        def begin(*arguments: Any) -> Job:
            gate.open()
            scene.checkpoints._pipeline.committer.drain()
            return Job(*arguments)

        with monkeypatch.context() as patch, pytest.raises(CheckpointError) as caught:
            patch.setattr(pipeline, "Job", begin)
            scene.checkpoints.save(wait=True)
        assert caught.value.checkpoints[0] == 1
        assert scene.save().kind == "base"
        scene.end()


@pytest.mark.parametrize("bases", [0, 1])
def test_close_tells_what_failed_and_closes(tmp_path: Path, scenes: Callable[..., Scene], bases: int) -> None:
    """The checkpoints are not there; nothing is left open, locked or tracked."""
    before = open_descriptors()
    gate, fault = (
        Gate(_commits),
        Fault(1 + bases, errno.ENOSPC, counts=lambda call: call.name == "dt_rename_new"),
    )
    with intercepted(stacked(gate, fault, without_disk)):
        scene = scenes(tmp_path, blocks=40)
        for _ in range(bases):
            scene.save()
        gate.arm()
        saves = [scene.capture(), scene.capture()]
        gate.open()
        with pytest.raises(CheckpointError) as caught:
            scene.checkpoints.close()
        assert scene.checkpoints.closed
        scene.check_failed(caught.value, errno.ENOSPC, [save.number for save in saves])
        scene.checkpoints.close()
    assert open_cursors(scene.session) == 2
    assert not any(name.endswith(".tmp") for name in os.listdir(tmp_path))
    with Checkpointer.open(tmp_path, scene.world.regions, session=scene.session) as again:
        again.save()
    scene.session.close()
    assert open_descriptors() == before


def test_no_memory_is_a_failure_like_any_other(
    tmp_path: Path, scenes: Callable[..., Scene], monkeypatch: Any
) -> None:
    """The worker survives what is no OSError, and says ENOMEM."""

    def fail(description: object, regions: object) -> int:
        raise MemoryError

    scene = scenes(tmp_path)
    scene.save()
    scene.world.touch()
    with monkeypatch.context() as patch, pytest.raises(CheckpointError) as caught:
        patch.setattr(Description, "encode_uncounted", fail)
        scene.save()
    scene.check_failed(caught.value, errno.ENOMEM, [2])
    assert scene.save().kind == "delta"
    scene.end()


def test_a_description_that_is_too_long_for_readers(
    tmp_path: Path, scenes: Callable[..., Scene], monkeypatch: Any
) -> None:
    """It would be no checkpoint to any of them."""
    scene = scenes(tmp_path)
    scene.save()
    scene.world.touch()
    with monkeypatch.context() as patch, pytest.raises(CheckpointError) as caught:
        patch.setattr(checkpoint_writer, "MAX_DESCRIPTION", 100)
        scene.save()
    scene.check_failed(caught.value, errno.EFBIG, [2])
    scene.save()
    scene.end()


def test_what_nobody_foresaw_ends_the_writing_and_loses_nothing(
    tmp_path: Path, scenes: Callable[..., Scene], monkeypatch: Any
) -> None:
    """After the commit, where nothing should fail: it is committed, nothing else is, and all are told."""

    def fail(number: int) -> None:
        raise MemoryError("on purpose")

    scene = scenes(tmp_path, staging_bytes=4096)
    scene.save()
    scene.world.touch()
    captured = scene.world.contents()
    monkeypatch.setattr(scene.checkpoints._pipeline.committer, "_committed", fail)
    save = scene.checkpoints.save()
    for verb in (Checkpointer.flush, Checkpointer.save, Checkpointer.compact, Checkpointer.flush):
        scene.world.touch("third")
        with pytest.raises(CheckpointError, match=r"gave up.*on purpose.*another directory"):
            verb(scene.checkpoints)
    with pytest.raises(CheckpointError, match="gave up"):
        scene.checkpoints.close()
    assert scene.checkpoints.closed
    assert save.state == "committed"
    assert restored(tmp_path, scene.world.sizes) == captured


def test_a_disk_that_hangs_does_not_fill_the_memory(
    tmp_path: Path, scenes: Callable[..., Scene], monkeypatch: Any
) -> None:
    """However small the saves are: after 64 the next one waits."""
    gate = Gate(_commits)
    with intercepted(stacked(gate, without_disk)):
        scene = scenes(tmp_path)
        scene.save()
        gate.arm()
        ours, before = scene.checkpoints._pipeline, []
        wait = ours.wait

        def waiting() -> None:
            before.append(len(ours._in_flight))
            gate.open()
            wait()

        monkeypatch.setattr(ours, "wait", waiting)
        saves = [scene.capture() for _ in range(64)]
        assert before == []
        saves.append(scene.capture())
        assert before == [64]
        monkeypatch.undo()
        scene.checkpoints.flush()
        for save in saves:
            scene.expect(save)
        scene.end()


def _compact(checkpoints: Checkpointer) -> list[tuple[Any, ...]]:
    """What is told of it: errno and checkpoints of a CheckpointError, nothing of a ChainError."""
    try:
        checkpoints.compact(wait=True)
    except CheckpointError as error:
        return [(error.errno, error.checkpoints)]
    except ChainError:
        return [()]
    return []


@pytest.mark.slow
@in_each_way
def test_every_call_of_a_compaction_fails_in_turn(
    tmp_path: Path, scenes: Callable[..., Scene], code: int, how: dict[str, bool]
) -> None:
    """What had to stay stays, whichever call it was; told once; and later it can be done."""
    for at in itertools.count(1):
        fault = Fault(at, code, counts=by(COMPACTION), **how)
        with intercepted(stacked(fault, without_disk)):
            scene = scenes(tmp_path / str(at), compression="none")
            for _ in range(3):
                scene.world.scribble()
                scene.save()
            told = _compact(scene.checkpoints)
            assert told in ([], [(code, ())], [()])
            assert bool(told) <= (fault.struck is not None)
            left = _numbers(scene.path)
            assert left in ([3], [1, 3], [1, 2, 3])
            fault.mend()
            scene.checkpoints.flush()
            scene.world.touch()
            scene.committed = left
            assert scene.save().kind == ("base" if told == [()] else "delta")  # what can't be read is no base
            scene.checkpoints.compact(wait=True)
            scene.committed = [4]
            scene.end()
        if fault.struck is None:
            break
    assert at > 30


def _numbers(path: Path) -> list[int]:
    with unobserved(), Chain(path) as chain:
        assert chain.problems == ()
        return [checkpoint.number for checkpoint in chain]


def _syncs_directory(call: Call) -> bool:
    return call.name == "dt_sync_directory" and by(COMMITTER)(call)


def test_a_compaction_builds_on_nothing_that_may_yet_fail(
    tmp_path: Path, scenes: Callable[..., Scene]
) -> None:
    """It reads the chain while a checkpoint has its name; that fails, and the next one needs its parent."""
    compaction, named = Gate(by(COMPACTION)), Gate(_syncs_directory)
    fault = Fault(1, errno.EIO, counts=lambda call: named.reached.is_set() and _syncs_directory(call))
    with intercepted(stacked(compaction, named, fault)):
        scene = scenes(tmp_path, blocks=40, keep=1)
        compaction.arm()
        for _ in range(3):  # the third one starts a compaction
            scene.world.touch()
            scene.expect(_committed(scene))
        compaction.reached.wait()
        named.arm()
        scene.world.touch()
        failed = scene.capture()
        named.reached.wait()
        compaction.open()
        scene.checkpoints._pipeline.compactor.wait()
        named.open()
        with pytest.raises(CheckpointError) as caught:
            scene.checkpoints.flush()
        scene.committed = [3]
        scene.check_failed(caught.value, errno.EIO, [failed.number])
        scene.save()
        scene.end()


def _committed(scene: Scene) -> Save:
    save = scene.capture()
    scene.checkpoints._pipeline.committer.drain()
    return save


def test_a_compaction_builds_on_nothing_that_has_failed(tmp_path: Path, scenes: Callable[..., Scene]) -> None:
    """Nor on a file that could not be removed when it had failed."""
    fault = Fault(
        3, errno.EIO, lasting=True, counts=lambda call: call.name == "unlink" or _syncs_directory(call)
    )
    with intercepted(stacked(fault, without_disk)):
        scene = scenes(tmp_path)
        for _ in range(2):
            scene.save()
        scene.world.touch()
        scene.capture()
        with pytest.raises(CheckpointError) as caught:
            scene.checkpoints.flush()
        scene.check_failed(caught.value, errno.EIO, [3], orphans=True)
        fault.mend()
        scene.checkpoints.compact(wait=True)
        scene.committed = [2]
        assert _numbers(tmp_path) == [2, 3]
        scene.save()
        scene.end(orphans=True)


def test_a_compaction_does_not_take_another_chain_for_its_own(
    tmp_path: Path, scenes: Callable[..., Scene]
) -> None:
    """Where the directory was moved, and another chain lies at its path by now, it goes on in its own."""
    scene, path, moved = scenes(tmp_path / "chain"), tmp_path / "chain", tmp_path / "moved"
    for _ in range(2):
        scene.world.touch()
        scene.save()
    path.rename(moved)
    with Checkpointer(path, scene.world.regions, session=scene.session) as other:
        for _ in range(4):
            other.save()
    scene.checkpoints.compact(wait=True)
    assert _numbers(path) == [1, 2, 3, 4]
    assert _numbers(moved) == [2]
    scene.world.touch()
    scene.checkpoints.save(wait=True)
    assert restored(moved, scene.world.sizes) == scene.world.contents()
    scene.checkpoints.close()
    scene.session.close()


def test_a_directory_that_is_removed(tmp_path: Path, scenes: Callable[..., Scene]) -> None:
    """Each save says so; a new writer in a new directory has everything."""
    scene = scenes(tmp_path / "chain")
    scene.save()
    shutil.rmtree(scene.path)
    for number in (2, 3):
        with pytest.raises(CheckpointError) as caught:
            scene.save()
        assert (caught.value.errno, caught.value.checkpoints) == (errno.ENOENT, (number,))
        assert caught.value.filename.startswith(str(scene.path))
    scene.checkpoints.close()
    with Checkpointer.open(scene.path, scene.world.regions, session=scene.session) as again:
        assert again.save(wait=True).kind == "base"
    assert restored(scene.path, scene.world.sizes) == scene.world.contents()
    scene.session.close()


def test_a_directory_that_is_moved_and_replaced_by_a_file(
    tmp_path: Path, scenes: Callable[..., Scene]
) -> None:
    """The writer goes on in the directory that it has."""
    scene, moved = scenes(tmp_path / "chain"), tmp_path / "moved"
    scene.save()
    scene.path.rename(moved)
    scene.path.touch()
    scene.world.touch()
    scene.checkpoints.save(wait=True)
    scene.checkpoints.close()
    assert restored(moved, scene.world.sizes) == scene.world.contents()
    scene.session.close()


def test_a_directory_that_becomes_read_only(tmp_path: Path) -> None:
    """The save says so, and the next one is good when it can be written to again."""

    def child() -> None:
        scene = Scene(tmp_path)
        scene.save()
        scene.world.touch()
        tmp_path.chmod(0o500)
        if is_root:
            os.seteuid(65534)
        with pytest.raises(CheckpointError) as caught:
            scene.save()
        os.seteuid(os.getuid())
        tmp_path.chmod(0o700)
        scene.check_failed(caught.value, errno.EACCES, [2])
        scene.save()
        scene.end()

    is_root = os.geteuid() == 0
    in_child(child).check()


def _in_small_tmpfs(act: Callable[[Path], None], path: Path, options: str) -> None:
    """Run *act* in a child that has a tmpfs of its own at *path*."""

    def call(name: str, *arguments: Any) -> None:
        if getattr(libc, name)(*arguments):
            code = ctypes.get_errno()
            raise OSError(code, f"{name}: {os.strerror(code)}")

    def child() -> None:
        call("unshare", 0x20000)  # CLONE_NEWNS
        call("mount", b"none", b"/", None, ctypes.c_ulong(0x44000), None)  # MS_REC | MS_PRIVATE
        call("mount", b"none", bytes(path), b"tmpfs", ctypes.c_ulong(0), options.encode())
        act(path)

    libc = ctypes.CDLL(None, use_errno=True)
    in_child(child).check()


def _fill(path: Path) -> list[Path]:
    """Files until there is no room for more."""
    made = []
    with suppress(OSError):
        for number in itertools.count():
            made.append(path / f"ballast {number}")
            made[-1].write_bytes(bytes(1 << 16))
    return made


@pytest.mark.parametrize(("bases", "others"), [(0, 0), (1, 0), (1, 1)])
@pytest.mark.parametrize(
    ("options", "left"),
    [("size=512k", 0), ("size=512k", 2), ("size=512k", 5), ("size=64m,nr_inodes=20", 0)],
)
def test_a_full_disk_with_room_again(
    tmp_path: Path, options: str, left: int, bases: int, others: int
) -> None:
    """The system itself says ENOSPC, at once or after what was left; then room is made.

    Beside another thread it says that to native code, which has no GIL.
    """
    require_root("to mount a file system")

    def act(path: Path) -> None:
        with idle_threads(others):
            fill_and_make_room(path)

    def fill_and_make_room(path: Path) -> None:
        scene = Scene(path, blocks=20, compression="none")
        for _ in range(bases):
            scene.save()
        ballast = _fill(path)
        os.truncate(ballast[0], ballast[0].stat().st_size - left * BLOCK)
        for block in range(20):
            scene.world.touch(at=block * BLOCK)
        with pytest.raises(CheckpointError) as caught:
            scene.save()
        scene.check_failed(caught.value, errno.ENOSPC, [1 + bases])
        for file in ballast:
            file.unlink(missing_ok=True)
        scene.save()
        scene.end()

    _in_small_tmpfs(act, tmp_path, options)


@contextmanager
def _counted_signals(number: int) -> Iterator[list[int]]:
    arrived: list[int] = []
    before = signal.signal(number, lambda number, frame: arrived.append(number))
    try:
        yield arrived
    finally:
        signal.signal(number, before)


def test_signals_do_not_disturb_saves(tmp_path: Path, scenes: Callable[..., Scene]) -> None:
    """A timer that strikes all the time, with a handler that returns."""
    scene = scenes(tmp_path)
    with _counted_signals(signal.SIGVTALRM) as arrived:
        signal.setitimer(signal.ITIMER_VIRTUAL, 1e-4, 1e-4)
        while len(arrived) < 20:
            scene.world.scribble()
            scene.save()
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    scene.end()


def test_another_writer_that_slipped_in(tmp_path: Path, scenes: Callable[..., Scene]) -> None:
    """Its checkpoints stay, ours are not put beside them: told at every save; a resume goes on from them."""
    scene = scenes(tmp_path)
    scene.save()
    shutil.copytree(tmp_path, tmp_path.with_name(tmp_path.name + "-copy"))  # costs us the lock

    def slip_in() -> None:
        with Session() as session:
            other = {name: bytearray(nbytes) for name, nbytes in scene.world.sizes.items()}
            with Checkpointer.resume(tmp_path, other, session=session) as checkpoints:
                other["first"][0] ^= 1
                checkpoints.save("theirs")

    in_child(slip_in).check()
    for number in (2, 3):
        with pytest.raises(CheckpointError, match="Another writer has been here") as caught:
            scene.save()
        assert (caught.value.errno, caught.value.checkpoints) == (errno.EBUSY, (number,))
    scene.checkpoints.close()
    with Chain(tmp_path) as chain:
        assert [checkpoint.meta for checkpoint in chain] == [None, "theirs"]
