"""A training's state without the training."""

from __future__ import annotations

import os
from typing import Any

from dirtytrack.checkpoint import Chain, restore
from dirtytrack.errors import ChainError
from dirtytrack.torch._saved import Saved


def load(
    path: str | os.PathLike[str],
    *,
    only: str | None = None,
    at: int | str | None = None,
    store_options: dict[str, Any] | None = None,
) -> Any:
    """Reads the state of a `TorchCheckpointer`'s chain into new memory, as ``torch.load`` does of a file.

    ``model.load_state_dict(load(path, only="model"))`` takes a model out of a training. No object that was
    saved is needed, and nothing is unpickled.

    Args:
        path: the directory of the chain, or its URL.
        only: name of what `TorchCheckpointer.open` was given, such as "model": its state alone, and no more
            is read. None: the states of all, by name.
        at: the checkpoint, by number or identifier. None: the newest that is intact.
        store_options: of a URL, as for `Checkpointer`.

    Raises:
        ChainError: the chain was not written by a `TorchCheckpointer`, has no such name or checkpoint, or is
            damaged.
        MemoryError: there is no memory for it.
        Others: as for `Chain`.
    """
    with Chain(path, store_options=store_options) as chain:
        while True:
            known = len(chain.problems)
            checkpoint = chain.newest if at is None else chain[at]
            try:
                return _read(Saved(chain, checkpoint), path, only, store_options)
            except ChainError:
                chain.verify()
                if at is not None or len(chain.problems) == known:
                    raise  # it is not the files


def _read(saved: Saved, path: Any, only: str | None, store_options: Any) -> Any:
    memories = saved.make(only)
    if only is not None and only not in saved.state:
        raise ChainError(f"{saved.title} has nothing of {only!r}. It has {', '.join(map(str, saved.state))}")
    if memories:
        restore(path, into=memories, at=saved.id, store_options=store_options)
    return saved.state if only is None else saved.state[only]
