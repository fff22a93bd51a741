"""torch.distributed.checkpoint, incremental: a storage writer and a storage reader."""

from __future__ import annotations

import io
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import Metadata, SavePlan, SavePlanner, StorageReader, StorageWriter
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem, WriteItemType
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from dirtytrack._lifetime.closable import Closable
from dirtytrack.checkpoint import Chain, Checkpointer, Save, restore
from dirtytrack.checkpoint.records import Root, StoreOptions
from dirtytrack.errors import ChainError, ClosedError
from dirtytrack.torch._commits import Commits
from dirtytrack.torch._dcp_metadata import Stored, from_json_of, key_of, to_json_of
from dirtytrack.torch._leaves import Spec, own_memory
from dirtytrack.torch._plan import Plan
from dirtytrack.torch._saved import Saved
from dirtytrack.torch._saver import OPTIONS, StateSaver
from dirtytrack.torch._tree import take_apart

_TENSORS, _BYTES = "tensors", "bytes"
_OF_MIRRORS = {"mirror", "mirror_timeout", "mirror_bandwidth"}


class DcpWriter(Closable, StorageWriter):
    """A storage writer of torch.distributed.checkpoint that writes what has changed.

    ``dcp.save(state, storage_writer=writer)``, again and again with one writer; ``DcpReader(path)`` loads.
    Each process writes a chain of its own below the path, which all of them see. A state is committed by a
    small file that the coordinator makes, once all processes have theirs. The first save of a writer is a
    base.

    `dcp.save` gives the live tensors, which are tracked. `dcp.async_save` gives copies of them: it works, and
    stores what differs, but reads everything for that; ``DcpWriter(path, wait=False)`` does better.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, wait: bool = True, keep: int | None = None, **options: Any
    ) -> None:
        """Prepares a writer; nothing is written before the first save.

        Args:
            path: the directory, which is made if it is not there, and which all processes see; or a URL, as
                for `Checkpointer`.
            wait: whether `dcp.save` returns when the state is committed, which is the default. If False it
                returns when it is captured. The next save, or `close`, waits until it is on the disk, and
                raises what went wrong; until then a reader takes the state before it.
            keep: number of newest states that stay, and one more before them, since the newest may not be
                whole yet. None, the default: all.
            **options: keywords of `Checkpointer` for each process's chain.

        Raises:
            TypeError, ValueError: of the arguments.
            StoreError: of the URL, or of its options.
        """
        if unknown := options.keys() - (OPTIONS - _OF_MIRRORS):
            raise TypeError(f"DcpWriter takes no {', '.join(sorted(unknown))}")
        if keep is not None and keep < 1:
            raise ValueError(f"keep={keep}: at least one state has to stay; None keeps all")
        super().__init__()
        self._root = Root.of(path, options.get("store_options"), fsync=options.get("fsync", True))
        self._wait, self._keep, self._options = wait, keep, options
        self._commits = Commits(self._root)
        self._token = secrets.token_hex(8)
        self._saver: StateSaver | None = None
        self._last: Save | None = None
        self._label: str | None = None
        self._has_begun = False
        self._rank = 0
        self._mutex = threading.RLock()
        self._closed = False

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Takes the name that `dcp.save` was given for this state; a reader can ask for it."""
        self._check()
        self._label = None if checkpoint_id is None else str(checkpoint_id)

    def set_up_storage_writer(self, is_coordinator: bool, *_args: Any, **kwargs: Any) -> None:
        """Is told which rank this is, if its last argument is called like that."""
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._rank = kwargs.get("rank", torch.distributed.get_rank() if distributed else 0)
        if is_coordinator and not self._has_begun:
            self._commits.begin()
            self._has_begun = True

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Leaves it as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Leaves them as they are."""
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Saves this process's part.

        Raises:
            TypeError, ValueError: a tensor can't be saved; it is named.
            CheckpointError: it could not be written, or the one before it.
            Others: as for `Checkpointer`.
        """
        tensors: dict[str, Any] = {}
        others: dict[str, bytes] = {}
        for item in plan.items:
            data = planner.resolve_data(item)
            if item.type is WriteItemType.BYTE_IO:
                others[key_of(item.index)] = data.getvalue()
            else:
                tensors[key_of(item.index)] = data.detach()
        with self._mutex:
            self._check()
            chain, save = self._save({_TENSORS: tensors, _BYTES: others})
        results = [
            WriteResult(item.index, 0, Stored(chain, save.id, key_of(item.index))) for item in plan.items
        ]
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Commits the state, in the coordinator.

        Raises:
            BusyError: another run has committed to the path since this one began.
        """
        items = {one.index: one.storage_data for some in results for one in some}
        content = to_json_of(metadata, items)
        content["label"] = self._label
        self._commits.make(content)
        if self._keep is not None:
            self._forget(self._keep)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:  # noqa: ARG003
        """Any name will do."""
        return True

    @property
    def path(self) -> Path | str:
        """The directory, or the URL."""
        return self._root.place

    @property
    def save(self) -> Save | None:
        """The last save of this process, with its figures; None before the first."""
        return self._last

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._closed

    def close(self) -> None:
        """Waits until what was captured is on the disk, and ends the tracking; idempotent.

        Raises:
            CheckpointError: it could not be written.
        """
        with self._mutex:
            self._closed = True
            saver, self._saver = self._saver, None
            if saver is not None:
                saver.checkpoints.close()

    def _check(self) -> None:
        if self._closed:
            raise ClosedError(f"the DcpWriter on {self.path} is closed: make another one")

    def _save(self, state: dict[str, Any]) -> tuple[str, Save]:
        chain = f"rank-{self._rank:05d}-{self._token}"
        parts = take_apart(state)
        if self._last is not None:
            self._last.wait()  # so that all processes have the state before the last one
        if self._saver is None:
            plan = Plan(parts)
            keep = None if self._keep is None else self._keep + 2  # those that others may not have yet
            checkpoints = Checkpointer(self._root.below(chain), plan.regions, keep=keep, **self._options)
            self._saver = StateSaver(plan, checkpoints)
        self._last = self._saver.save(parts, {"label": self._label})
        if self._wait:
            self._last.wait()
        return chain, self._last

    def _forget(self, keep: int) -> None:
        # Commits that are not to stay, and chains of earlier runs that no other commit needs.
        numbers = self._commits.numbers()
        old, needed = (
            {chain for number in some for chain in self._chains_of(number)}
            for some in (numbers[: -keep - 1], numbers[-keep - 1 :])
        )
        self._commits.remove(numbers[: -keep - 1], old - needed)

    def _chains_of(self, number: int) -> list[str]:
        commit = self._commits.read(number)
        return [chain for chain, _ in commit["chains"]] if commit else []


class DcpReader(StorageReader):
    """A storage reader of torch.distributed.checkpoint for what `DcpWriter` writes.

    ``dcp.load(state, storage_reader=DcpReader(path))`` loads the newest state that is whole, on whatever
    number of processes; with ``checkpoint_id=`` the newest of that name. Whether there is one `states` says:
    where there is none it is a ChainError, among processes DCP's own CheckpointException. Nothing of it is
    pickled but what DCP itself pickles: objects that are no tensors, which its planner loads with
    ``weights_only=False``. So it is not for directories of strangers.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        at: int | None = None,
        store_options: dict[str, Any] | None = None,
    ) -> None:
        """Prepares a reader.

        Args:
            path: of the writer.
            at: number of the state. None, the default: the newest that is whole.
            store_options: of a URL, as for `Checkpointer`.
        """
        super().__init__()
        self._root = Root.of(path, store_options)
        self._at = at
        self._label: str | None = None
        self._commits = Commits(self._root)

    @property
    def path(self) -> Path | str:
        """The directory, or the URL."""
        return self._root.place

    def states(self) -> Iterator[tuple[int, str | None]]:
        """The numbers and names of the states that are whole, the newest first."""
        for number in reversed(self._commits.numbers()):
            commit = self._commits.read(number)
            if commit is not None and self._is_whole(commit):
                yield number, commit["label"]

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Takes the name of the state to load."""
        self._label = None if checkpoint_id is None else str(checkpoint_id)

    def read_metadata(self, *_args: Any, **_kwargs: Any) -> Metadata:
        """What there is in the state.

        Raises:
            ChainError: there is no such state that is whole.
        """
        for number, label in self.states():
            if self._at in (None, number) and self._label in (None, label):
                commit = self._commits.read(number)
                assert commit is not None
                return from_json_of(commit)
        wanted = "" if self._label is None else f" of the name {self._label!r}"
        wanted += "" if self._at is None else f" of number {self._at}"
        raise ChainError(f"{self.path} holds no state{wanted} that is whole on all ranks")

    def set_up_storage_reader(self, metadata: Metadata, *_args: Any, **_kwargs: Any) -> None:
        """Is told what is to be loaded."""
        self._items: dict[Any, Stored] = metadata.storage_data

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Leaves it as it is."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Leaves them as they are."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Reads what the plan wants, and nothing else.

        Raises:
            ChainError: a file is damaged, or gone.
        """
        by_part: dict[tuple[str, str], list[tuple[ReadItem, str]]] = {}
        for item in plan.items:
            stored = self._items[item.storage_index]
            by_part.setdefault((stored.chain, stored.state), []).append((item, stored.key))
        for (chain, state), items in by_part.items():
            with self._open(chain) as opened:
                _Part(opened, state, self._root.options).load(items, planner)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:  # noqa: ARG003
        """Any name will do."""
        return True

    def _open(self, chain: str) -> Chain:
        return Chain(self._root.below(chain), store_options=self._root.options)

    def _is_whole(self, commit: Mapping[str, Any]) -> bool:
        try:
            with ExitStack() as undo:
                return all(
                    any(one.id == state for one in undo.enter_context(self._open(chain)))
                    for chain, state in commit["chains"]
                )
        except (FileNotFoundError, ChainError):
            return False


class _Part:
    # What one process has saved.

    def __init__(self, chain: Chain, state: str, options: StoreOptions | None) -> None:
        self._chain, self._options = chain, options
        self._saved = Saved(chain, chain[state])

    def load(self, items: list[tuple[ReadItem, str]], planner: LoadPlanner) -> None:
        whole: dict[str, torch.Tensor] = {}
        later = []
        for item, key in items:
            if item.type is LoadItemType.BYTE_IO:
                planner.load_bytes(item, io.BytesIO(self._saved.value((_BYTES, key))))
                continue
            leaf = self._saved.leaf((_TENSORS, key))
            target = planner.resolve_tensor(item).detach()
            is_whole = tuple(item.lengths) == leaf.spec.shape
            if leaf.region and is_whole and leaf.region not in whole and _takes(target, leaf.spec):
                whole[leaf.region] = target
                later.append((item, target))
            else:
                pieces = zip(item.storage_offsets, item.lengths, strict=True)
                found = self._saved.read(leaf, [slice(start, start + length) for start, length in pieces])
                target.copy_(found.reshape(target.shape))
                planner.commit_tensor(item, target)
        if whole:
            restore(self._chain.path, into=whole, at=self._saved.id, store_options=self._options)
            torch.autograd.graph.increment_version(list(whole.values()))
        for item, target in later:
            planner.commit_tensor(item, target)


def _takes(target: torch.Tensor, spec: Spec) -> bool:
    # Whether a region can be restored right into a tensor.
    return spec.fits(target) and own_memory(target) is not None
