"""Making a chain short: a new base for one of its checkpoints, and then without what came before it."""

from __future__ import annotations

import errno
import functools
import secrets
from bisect import bisect_left
from collections.abc import Callable

from dirtytrack._lifetime.background import Background
from dirtytrack.checkpoint.chain import Chain, Checkpoint
from dirtytrack.checkpoint.format import blocks
from dirtytrack.checkpoint.format.structures import BLOCK, RUN_BLOCKS, FileName, Kind, block_count
from dirtytrack.checkpoint.read.state import State
from dirtytrack.checkpoint.store.directory import Directory
from dirtytrack.checkpoint.store.lock import WriterLock
from dirtytrack.checkpoint.write.checkpoint_writer import CheckpointWriter
from dirtytrack.checkpoint.write.compression import Compression
from dirtytrack.errors import ChainError, CheckpointError

Progress = Callable[[int, int], None]


def compact(
    directory: Directory,
    lock: WriterLock,
    compression: Compression,
    keep: int,
    progress: Progress | None = None,
    *,
    at: int | None = None,
) -> int:
    """Writes a base for a checkpoint, the oldest of those to keep, and removes what is older.

    The base is on the disk before the first file is removed. Newer checkpoints stay, of whatever branch, with
    the files that they need. Readers that have the chain open keep what they have.

    Args:
        directory: of the chain.
        lock: the right to write there.
        compression: of the base.
        keep: how many checkpoints stay, of those that lead to *at*.
        progress: is told the bytes of regions done, and in all.
        at: number of a checkpoint. None: the newest.

    Returns:
        The number of the checkpoint that is a base now.

    Raises:
        ChainError: the checkpoint can't be read. Nothing was removed.
        OSError: the base could not be written, or something not removed.
    """
    with Chain(directory.path) as chain:
        directory.check_place()
        checkpoint = chain._lineage(chain.newest if at is None else chain[at])[-keep:][0]
        base = checkpoint._file.name
        if checkpoint.kind != "base":

            def write(state: State) -> FileName:
                return _write_base(directory, lock, compression, checkpoint, state, progress)

            base = chain._with_state(checkpoint, write)
        needed = {base} | _needed_by_branches(chain, checkpoint)
    lock.renew()
    older = (name for name in directory.names() if name.number <= base.number)
    _remove(directory, [name for name in older if name not in needed])
    return checkpoint.number


def _write_base(
    directory: Directory,
    lock: WriterLock,
    compression: Compression,
    checkpoint: Checkpoint,
    state: State,
    progress: Progress | None,
) -> FileName:
    linear = tuple(
        not compression.suits(one.nbytes, functools.partial(_read, state, place))
        for place, one in enumerate(checkpoint.regions)
    )
    writer = CheckpointWriter(directory, checkpoint.regions, compression, linear)
    total = sum(layout.nbytes for layout in checkpoint.regions)
    done = 0
    try:
        for place, layout in enumerate(checkpoint.regions):
            for first in range(0, block_count(layout.nbytes), RUN_BLOCKS):
                done += _copy(writer, state, place, first, layout.nbytes)
                if progress is not None:
                    progress(done, total)
        header = checkpoint._file.header._replace(kind=Kind.BASE, file=secrets.token_bytes(8))
        lock.renew()
        writer.commit(header, checkpoint._file.description, sync=True)
    except BaseException:
        writer.discard()
        raise
    return header.name


def _read(state: State, place: int, piece: slice) -> bytearray:
    return state.read(place, piece.start, piece.stop)


def _copy(writer: CheckpointWriter, state: State, place: int, first: int, nbytes: int) -> int:
    # The blocks of one run, from first on; returns how many bytes they are.
    start, stop = first * BLOCK, min((first + RUN_BLOCKS) * BLOCK, nbytes)
    if not state.is_zero(place, first, block_count(stop) - first):
        data = memoryview(state.read(place, start, stop))
        for run in blocks.runs(first, data, blocks.kinds(data)):
            if run.data is not None:
                writer.store(place, run.first, run.data, linear=True)
        writer.flush()
    return stop - start


def _needed_by_branches(chain: Chain, base: Checkpoint) -> set[FileName]:
    # The files that newer checkpoints stand on, other than by way of the base.
    needed: set[FileName] = set()
    for checkpoint in chain:
        at: Checkpoint | None = checkpoint if checkpoint.number > base.number else None
        while at is not None and at.id != base.id and at._file.name not in needed:
            needed.add(at._file.name)
            at = at._below
    return needed


def _remove(directory: Directory, names: list[FileName]) -> None:
    # The newest first: whatever ends this, what is left of the older checkpoints is complete.
    for name in reversed(names):
        directory.remove(str(name))
    if names:
        directory.sync()


class Compactor:
    """Compacts a chain beside its writer, by itself when there are twice as many checkpoints as have to stay.

    Attributes:
        has_found_damage: whether a checkpoint of the writer's own turned out not to be readable.
    """

    def __init__(
        self,
        directory: Directory,
        lock: WriterLock,
        compression: Compression,
        keep: int | None,
        numbers: list[int],
    ) -> None:
        self._directory = directory
        self._lock = lock
        self._compression = compression
        self._keep = keep
        self._numbers = numbers  # of the checkpoints that lead to the newest, ascending
        self.has_found_damage = False
        self._failure: Exception | None = None
        self._due = 2 * keep if keep else None  # after how many checkpoints
        self._thread = Background("dirtytrack compaction")

    def committed(self, number: int) -> None:
        """Is told of every checkpoint that was committed."""
        self._numbers.append(number)
        if self._is_due():
            self._thread.put(self._compact_if_due)

    def start(self) -> None:
        """Begins, when what is under way is done."""
        self._thread.put(self._compact)

    def wait(self) -> None:
        """Waits until it is done, if it is under way."""
        self._thread.drain()

    def stop(self) -> None:
        """Waits, and ends the thread."""
        self._thread.stop()

    @property
    def is_current(self) -> bool:
        """Whether this is called by its thread."""
        return self._thread.is_current

    def take_failure(self) -> Exception | None:
        """What went wrong, once."""
        failure = self._failure
        if isinstance(failure, OSError) and not isinstance(failure, CheckpointError):
            message = (
                f"the chain was not compacted: {failure.strerror}. "
                "No checkpoint is lost; make room, and try again"
            )
            told = CheckpointError(failure.errno or errno.EIO, message, failure.filename)
            told.__cause__, failure = failure, told
        elif isinstance(failure, ChainError):
            damage = ChainError(f"the chain was not compacted: {failure}. The next save holds everything")
            damage.__cause__, failure = failure, damage
        self._failure = None
        return failure

    def _is_due(self) -> bool:
        return self._due is not None and len(self._numbers) > self._due

    def _compact_if_due(self) -> None:
        if self._is_due():
            self._compact()

    def _compact(self) -> None:
        if not self._numbers:
            return
        head = self._numbers[-1]  # the writer's own, which need not be the newest of all branches
        try:
            base = compact(self._directory, self._lock, self._compression, self._keep or 1, at=head)
        except Exception as error:
            self._failure = error
            self.has_found_damage |= isinstance(error, ChainError)
            if self._keep:  # not again at once
                self._due = len(self._numbers) + self._keep
        else:
            del self._numbers[: bisect_left(self._numbers, base)]  # in place: the worker may be appending
            self._due = 2 * self._keep if self._keep else None
