"""Lightning: its checkpoints in chains, and random states in its checkpoints.

``Trainer(plugins=[ChainCheckpointIO(path)], callbacks=[ModelCheckpoint(...), KeepRandomStates()])``. It needs
lightning, which is imported only here.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

try:
    from lightning.fabric.plugins import CheckpointIO
    from lightning.pytorch import Callback
except ImportError as error:
    raise ImportError("dirtytrack.torch.lightning needs lightning: pip install lightning") from error

from dirtytrack.checkpoint import Chain, Checkpointer
from dirtytrack.checkpoint.records import Root
from dirtytrack.errors import ChainError, StoreError
from dirtytrack.torch._links import Link
from dirtytrack.torch._plan import Plan
from dirtytrack.torch._random import RandomStates
from dirtytrack.torch._saver import OPTIONS, StateSaver
from dirtytrack.torch._sources import sources_of, states_of
from dirtytrack.torch.loading import load

_FORMAT = "dirtytrack checkpoint of lightning"
_OF_MIRRORS = {"mirror", "mirror_timeout", "mirror_bandwidth"}
_WHOLE = "checkpoint"  # what the chain calls the checkpoint


class ChainCheckpointIO(CheckpointIO):
    """A CheckpointIO plugin for Lightning's Trainer that writes what has changed.

    All that saves by the trainer then does so incrementally: ModelCheckpoint, ``trainer.save_checkpoint``.
    What it puts under the name of a checkpoint is a small file that says which checkpoint of which chain it
    is; the chains are below the path that is given here. A process writes a chain of its own, so its first
    save is a base. What Lightning removes goes from the chain, too.

    Tensors on the CPU are tracked where they lie. It is for strategies that save in one process, such as
    those of one device and DDP; hyperparameters, and what callbacks save, have to be data.
    """

    def __init__(self, path: str | os.PathLike[str], *, keep: int = 8, **options: Any) -> None:
        """Prepares; nothing is made before the first save.

        Args:
            path: the directory for the chains, which is made if it is not there; or a URL, as for
                `Checkpointer`. What Lightning names may lie at a URL, too, and then takes its options.
            keep: as for `Checkpointer`: of a chain so many newest checkpoints stay, and all that Lightning
                has not removed. Whenever there are twice as many, a base is written behind the training.
            **options: more keywords of `Checkpointer`, such as compression, fsync or store_options.

        Raises:
            TypeError: there is no such keyword.
            StoreError: of the URL, or of its options.
        """
        if unknown := options.keys() - (OPTIONS - _OF_MIRRORS):
            raise TypeError(f"ChainCheckpointIO takes no {', '.join(sorted(unknown))}")
        self._store_options = options.get("store_options")
        self._root = Root.of(path, self._store_options, fsync=options.get("fsync", True))
        self._chain = self._root.place
        self._options = {"keep": keep, **options}
        self._saver: StateSaver | None = None
        self._files: dict[Link, str] = {}  # the checkpoints of this chain, by their files

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Saves a checkpoint; it is on the disk when this returns.

        Raises:
            TypeError, ValueError: an entry is no data, or can't be saved; it is named. Nothing was saved.
            Others: as for `Checkpointer.save`.
        """
        if storage_options is not None:
            raise TypeError("ChainCheckpointIO takes no storage_options")
        file = Link.at(path)
        parts = states_of(sources_of({_WHOLE: checkpoint}, rng=False, strict=True))
        if self._saver is None:
            plan, self._chain = Plan(parts), self._root.below(secrets.token_hex(8))
            self._saver = StateSaver(plan, Checkpointer(self._chain, plan.regions, **self._options))
        save = self._saver.save(parts, {"file": str(file.place)}, wait=True)
        content = {"format": _FORMAT, "chain": file.towards(self._chain), "id": save.id}
        file.write(content, self._store_options)
        self._files[file] = save.id
        self._retain()

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = None,  # noqa: ARG002 - it is copied to where the module is
        weights_only: bool | None = None,  # noqa: ARG002 - nothing is unpickled
    ) -> dict[str, Any]:
        """Loads a checkpoint into new memory on the CPU; nothing is unpickled.

        Raises:
            ChainError: the file is none of this plugin, or names a URL not below its own; or the chain is
                damaged or gone.
        """
        chain, identifier = self._read(Link.at(path))
        options = self._store_options if isinstance(chain, str) else None
        found: dict[str, Any] = load(chain, only=_WHOLE, at=identifier, store_options=options)
        return found

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Removes a checkpoint; a chain of an earlier process is removed with its last one."""
        file = Link.at(path)
        with suppress(FileNotFoundError):
            chain, _ = self._read(file)
            file.remove(self._store_options)
            if self._files.pop(file, None) is not None:
                self._retain()
            elif self._saver is None or chain != self._chain:
                self._remove_if_unused(chain)

    def teardown(self) -> None:
        """Ends the tracking. A later save begins another chain."""
        saver, self._saver = self._saver, None
        self._files = {}
        if saver is not None:
            saver.checkpoints.close()

    def _retain(self) -> None:
        if self._saver is not None:
            self._saver.checkpoints.retain(self._files.values())

    def _read(self, file: Link) -> tuple[Path | str, str]:
        # The chain and the checkpoint that a file names.
        try:
            found = file.read(self._store_options)
            if found["format"] != _FORMAT:
                raise ValueError(found["format"])
            chain, identifier = file.locate(found["chain"]), str(found["id"])
        except (ValueError, TypeError, KeyError, RecursionError, StoreError) as error:
            raise ChainError(
                f"{file.place} was not saved by ChainCheckpointIO: load it without the plugin"
            ) from error
        if isinstance(chain, str) and chain.rpartition("/")[0] != self._root.place:
            raise ChainError(f"{file.place} names a chain at {chain}, which is not below {self._root.place}")
        return chain, identifier

    def _remove_if_unused(self, chain: Path | str) -> None:
        # A checkpoint counts as long as the file that it was saved for names it.
        options = self._store_options if isinstance(chain, str) else None
        try:
            with Chain(chain, store_options=options) as opened:
                for checkpoint in opened:
                    with suppress(FileNotFoundError, ChainError):
                        file = Link.at(checkpoint.meta["file"])
                        if self._read(file) == (chain, checkpoint.id):
                            return
        except (FileNotFoundError, ChainError, KeyError, TypeError):
            return
        if isinstance(chain, Path):
            shutil.rmtree(chain, ignore_errors=True)
        else:
            bucket = self._root.bucket()
            bucket.delete([one.key for one in bucket.find(f"{chain.rpartition('/')[2]}/")])


class KeepRandomStates(Callback):
    """A callback that has the random states of Python, numpy and torch in Lightning's checkpoints.

    A training that goes on from one then shuffles and drops out as if it had not ended, where the checkpoint
    is of the end of an epoch and the data is loaded in this process.
    """

    def state_dict(self) -> dict[str, Any]:
        """What they are now."""
        return RandomStates().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Sets them: nothing that the trainer does before the next step uses them but that step's data."""
        RandomStates().load_state_dict(state_dict)
