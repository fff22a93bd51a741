"""Making a chain short: a new base for one of its checkpoints, and then without what came before it."""

from __future__ import annotations

import functools
import json
import secrets
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, NamedTuple

from dirtytrack.checkpoint.format.layout import Layout, stored
from dirtytrack.checkpoint.format.structures import BLOCK, SEGMENT_BYTES, FileName, Kind, block_count
from dirtytrack.checkpoint.read.archive import Archive, disk_usage, opened
from dirtytrack.checkpoint.read.lineage import Node
from dirtytrack.checkpoint.read.state import State
from dirtytrack.checkpoint.store import Place, open_store
from dirtytrack.checkpoint.store.lock import LockName
from dirtytrack.checkpoint.store.protocol import Claim, Store
from dirtytrack.checkpoint.store.urls import StoreOptions
from dirtytrack.checkpoint.write.checkpoint_writer import CheckpointWriter
from dirtytrack.checkpoint.write.compression import Compression, CompressionName, Sampled
from dirtytrack.checkpoint.write.keep import Candidate, Keep
from dirtytrack.checkpoint.write.options import Options
from dirtytrack.checkpoint.write.retained import NOTHING, Retained
from dirtytrack.native import ffi

Progress = Callable[[int, int], None]


class Compacted(NamedTuple):
    """What `compact` has done.

    Attributes:
        number: of the checkpoint that the chain begins with, a base.
        removed: names of the files that are gone, those that dead writers had left among them; sorted.
        freed_bytes: how much less of the disk the chain takes; negative if it is more.
    """

    number: int
    removed: tuple[str, ...]
    freed_bytes: int


def compact(
    path: Place,
    keep: int | Keep = 1,
    *,
    compression: CompressionName = "auto",
    fsync: bool = True,
    lock: LockName = "record",
    retain: Iterable[str] = (),
    progress: Progress | None = None,
    store_options: StoreOptions | None = None,
    grace_period: float | None = None,
) -> Compacted:
    """Makes a chain short: the oldest of the newest *keep* checkpoints becomes a base, others are removed.

    The base is there before the first file is removed. What is not compressed lies in it as memory has it,
    so that it can be loaded lazily. Newer checkpoints stay, of whatever branch, with the files that they
    need. Readers that have the chain open keep what they have.

    Args:
        path: the directory of the chain. While a Checkpointer has it, only its own ``compact`` can do this.
            Or its URL: a Checkpointer that writes there gets a BusyError from its next save then. What is
            superfluous is removed there when the grace period has passed, by whatever compaction comes next.
        keep: how many checkpoints stay, at least 1; or a `Keep`.
        compression: of the base, as for `Checkpointer`.
        fsync: whether the base is on the disk before the first file is removed. Without, a crash of the
            machine may cost the chain.
        lock: as for `Checkpointer`.
        retain: identifiers of checkpoints that stay all the same, as `Checkpointer.retain` has them.
        progress: called now and then with the bytes of regions done so far, and in all.
        store_options: as for `Checkpointer`.
        grace_period: the same.

    Raises:
        BusyError: a Checkpointer has the chain, here or in the process that the message names.
        UnsupportedError: the file system has no record locks: lock="none".
        ChainError: there is no checkpoint, or the oldest to keep can't be read. Nothing was removed.
        OSError: the base could not be written, or something not removed.
        TypeError, ValueError: of the arguments.
        ImportError: the library for the compression is missing.
    """
    options = Options(
        keep=keep,
        compression=compression,
        fsync=fsync,
        lock=lock,
        store_options=store_options,
        grace_period=grace_period,
    )
    retained = Retained.of(retain)
    with ExitStack() as undo:
        store = open_store(
            path,
            undo,
            fsync=options.fsync,
            lock=options.lock,
            options=options.store_options,
            grace_period=options.grace_period,
        )
        with opened(store) as archive:
            _ = archive.newest  # or there is nothing to keep, and nothing to claim
        before = disk_usage(store)
        claim = store.claim()
        undo.callback(claim.close)
        number = shorten(
            store, claim, Compression(compression), options.policy or Keep(), progress, retained=retained
        )
        after = disk_usage(store)
    removed = tuple(sorted(before.keys() - after.keys()))
    return Compacted(number, removed, sum(before.values()) - sum(after.values()))


def shorten(
    store: Store,
    claim: Claim,
    compression: Compression,
    policy: Keep,
    progress: Progress | None = None,
    *,
    at: int | None = None,
    retained: Retained = NOTHING,
    lay_out: bool = True,
) -> int:
    """Does what `compact` does, for who has the claim, of the checkpoints that lead to number *at*.

    The *retained* ones stay, too. What is a base already is written anew only where that is to *lay_out* as
    memory is what it holds otherwise.

    Returns:
        The number of the checkpoint that is a base now.

    Raises:
        BusyError, ChainError, OSError: as `compact`.
    """
    with opened(store) as archive:
        head = archive.newest if at is None else archive.find(at)
        lineage = archive.lineage(head)
        first = max(0, len(lineage) - policy.newest)
        node = lineage[min([first, *[at for at, one in enumerate(lineage) if one.id == retained.since]])]
        # Of those that an earlier compaction has kept, the parents are gone: they are in nobody's lineage.
        chosen = policy.chosen([_record(one) for one in archive.nodes if one.number <= head.number])

        def make_base(one: Node) -> FileName:
            is_base = one.file.name.kind is Kind.BASE

            def write(state: State) -> FileName:
                linear = _linear(store, compression, state)
                if is_base and all(map(_is_laid_out, stored(state.layouts), linear)):
                    return one.file.name
                return _write_base(store, claim, compression, one, state, linear, progress)

            return one.file.name if is_base and not lay_out else archive.read(one, write)

        kept = [one for one in archive.nodes if one.number in chosen and one.number < node.number]
        bases = {make_base(one): one for one in [*kept, node]}
        base = next(reversed(bases))
        needed = {*bases} | _needed_by_branches(archive, node)
        others = retained.ids - {one.id for one in bases.values()}
        older = [one for one in archive.nodes if one.number < node.number and one.id in others]
        needed |= {file.name for one in older for file in one.files()}  # the newer ones stand on the base
    claim.renew()
    there = [name for name in FileName.among(store.names()) if name.number <= base.number]
    # The newest first: whatever ends this, what is left of the older checkpoints is complete.
    superfluous = [str(name) for name in reversed(there) if name not in needed]
    instead = [([str(file.name) for file in one.files()], str(name)) for name, one in bases.items()]
    store.remove(superfluous, instead[::-1])
    return node.number


def _record(node: Node) -> Candidate:
    described = node.file.description
    return Candidate(node.number, described.created, json.loads(described.meta))


def _linear(store: Store, compression: Compression, state: State) -> tuple[bool, ...]:
    # For each region that is stored, whether a base is to lay it out as memory is.
    layouts = stored(state.layouts)
    if not store.maps:
        return (False,) * len(layouts)
    sampled = [
        Sampled(one.nbytes, functools.partial(_read, state, place)) for place, one in enumerate(layouts)
    ]
    return tuple(not is_suited for is_suited in compression.suited(sampled))


def _is_laid_out(layout: Layout, is_linear: bool) -> bool:
    return layout.linear is not None or not is_linear


def _write_base(
    store: Store,
    claim: Claim,
    compression: Compression,
    node: Node,
    state: State,
    linear: tuple[bool, ...],
    progress: Progress | None,
) -> FileName:
    own = stored(state.layouts)
    header = node.file.header._replace(kind=Kind.BASE, file=secrets.token_bytes(8))
    total = sum(layout.nbytes for layout in own)
    writer = CheckpointWriter(store, header, state.layouts, compression.encoder(), total, linear=linear)
    done = 0
    try:
        gathered = _Gathered(writer)
        for place, layout in enumerate(own):
            first, stop = 0, block_count(layout.nbytes)
            state.expect(place, 0, layout.nbytes)
            while first < stop:
                count = min(stop - first, gathered.room)
                if not state.is_zero(place, first, count):
                    end = min((first + count) * BLOCK, layout.nbytes)
                    gathered.add(place, first, count, state.read(place, first * BLOCK, end))
                first += count
                if progress is not None:
                    progress(done + min(first * BLOCK, layout.nbytes), total)
            done += layout.nbytes
        gathered.store()
        claim.renew()
        writer.commit(Kind.BASE, node.file.description, footing=None, counts=False)
    except BaseException:
        writer.discard()
        raise
    return header.name


def _read(state: State, place: int, piece: slice) -> bytearray:
    return state.read(place, piece.start, piece.stop)


class _Gathered:
    # Blocks on their way to a writer, those of many small regions at once.

    def __init__(self, writer: CheckpointWriter) -> None:
        self._writer = writer
        self._memory = bytearray(SEGMENT_BYTES)
        self._runs: list[tuple[int, int, int]] = []
        self.room = SEGMENT_BYTES // BLOCK  # for so many, at least one

    def add(self, place: int, first: int, count: int, data: bytearray) -> None:
        """Adds adjacent blocks of a region, of which there are more, or that are its last."""
        start = len(self._memory) - self.room * BLOCK
        self._memory[start : start + len(data)] = data
        self._runs.append((place, first, count))
        self.room -= count
        if not self.room:
            self.store()

    def store(self) -> None:
        """Stores what there is."""
        if self._runs:
            runs: Any = ffi.new("struct dt_block_run[]", self._runs)
            with ffi.from_buffer("uint8_t[]", self._memory) as data:
                blocks = SEGMENT_BYTES // BLOCK - self.room
                batch = (runs, 0, data, blocks, True)
                self._writer.store(ffi.new("struct dt_captured *", batch))
        self._runs, self.room = [], SEGMENT_BYTES // BLOCK


def _needed_by_branches(archive: Archive, base: Node) -> set[FileName]:
    # The files that newer checkpoints stand on, other than by way of the base.
    needed: set[FileName] = set()
    for node in archive.nodes:
        at: Node | None = node if node.number > base.number else None
        while at is not None and at.id != base.id and at.file.name not in needed:
            needed.add(at.file.name)
            at = at.below
    return needed
