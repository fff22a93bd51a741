"""The tensors of a training's checkpoint as one file for other programs."""

from __future__ import annotations

import functools
import json
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

import torch

from dirtytrack.checkpoint import Chain, Checkpoint, Layout
from dirtytrack.checkpoint.export import Part, check_target, export_parts
from dirtytrack.errors import ChainError
from dirtytrack.objects import describe
from dirtytrack.torch._plan import STATE, Leaf, names_of
from dirtytrack.torch._saved import NONSENSE, Saved
from dirtytrack.torch._tree import Path, are_tensors


def export(
    path: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    only: str | None = None,
    at: int | str | None = None,
    format: Literal["safetensors", "npz"] = "safetensors",
    fsync: bool = True,
    progress: Callable[[int, int], None] | None = None,
    store_options: dict[str, Any] | None = None,
) -> Checkpoint:
    """Writes the tensors of a `TorchCheckpointer`'s checkpoint to a file, as `Chain.export` does.

    ``export(path, "model.safetensors", only="model")`` makes what ``load_model`` of safetensors.torch takes,
    or ``load_file`` and ``load_state_dict``. Tensors below a page are among them; tied ones are in a file of
    safetensors once. Values that are no tensors, and arrays of numpy, are left out. No model is needed, and
    nothing of the chain is unpickled.

    Args:
        path: the directory of the chain, or its URL.
        to: the path of the file, which must not be there.
        only: name of what `TorchCheckpointer.open` was given, such as "model": its tensors alone, by the
            names that they have in its state. None: all, "model.0.weight" and so on.
        at: the checkpoint, by number or identifier. None: the newest that is intact.
        format: "safetensors" or "npz", which has no bfloat16 and float8.
        fsync: whether it is on the disk when this returns.
        progress: called now and then with the bytes done, and in all.
        store_options: of a URL, as for `Checkpointer`.

    Returns:
        The checkpoint.

    Raises:
        ChainError: the chain was not written by a `TorchCheckpointer`, has no such name or checkpoint, or is
            damaged; or a tensor can't be in such a file, as quantized ones, and is named.
        Others: as for `Chain.export`.
    """
    if format not in ("safetensors", "npz"):
        raise ValueError(f'format is "safetensors" or "npz", not {format!r}')
    target = check_target(to)
    with Chain(path, store_options=store_options) as chain:
        while True:
            checkpoint = chain.newest if at is None else chain[at]
            metadata = {"format": "pt", "id": checkpoint.id, "meta": json.dumps(checkpoint.meta)}
            try:
                parts = _parts(chain, checkpoint, only)
                export_parts(parts, target, format, metadata=metadata, fsync=fsync, progress=progress)
            except ChainError:
                if at is not None or checkpoint in chain:
                    raise  # it is not the files
            else:
                return checkpoint


def _parts(chain: Chain, checkpoint: Checkpoint, only: str | None) -> list[Part]:
    saved = Saved(chain, checkpoint)
    try:
        chosen = dict(_chosen(saved, only))
        names = names_of([path if only is None else path[1:] or path for path in chosen])
    except ChainError:
        raise
    except NONSENSE as error:
        raise saved.unreadable(error) from error
    regions = {layout.name: layout for layout in checkpoint.regions if layout.name != STATE}
    parts: list[Part] = []
    first: dict[str, str] = {}  # by the region that has the memory
    for name, leaf in zip(names, chosen.values(), strict=True):
        if leaf.region is None:
            parts.append(_unpacked(name, saved.unpacked(leaf)))
            continue
        layout = regions.get(leaf.region)
        if layout is None:
            raise ChainError(f"{saved.title} has no tensor {leaf.region!r}, and its state says that it has")
        owner = leaf.region if layout.same_as is None else checkpoint.regions[layout.same_as].name
        twin = first.setdefault(owner, name)
        read = functools.partial(_read, chain, checkpoint.id, leaf.region)
        parts.append(Part(replace(layout, name=name), read, None if twin == name else twin))
    return parts


def _chosen(saved: Saved, only: str | None) -> Iterator[tuple[Path, Leaf]]:
    is_tensor = are_tensors(saved.form.form)
    leaves = [pair for pair, is_one in zip(saved.leaves.items(), is_tensor, strict=True) if is_one]
    there = [*dict.fromkeys(str(path[0]) for path, _ in leaves)]
    if only is not None and only not in there:
        has = ", ".join(there) or "none"
        raise ChainError(f"{saved.title} has no tensors of {only!r}. It has some of: {has}")
    return (pair for pair in leaves if only in (None, pair[0][0]))


def _unpacked(name: str, tensor: torch.Tensor) -> Part:
    found = describe(tensor, empty=True)
    return Part(Layout.of(name, found, mmap.PAGESIZE), lambda start, stop: bytes(found.view[start:stop]))


def _read(chain: Chain, at: str, region: str, start: int, stop: int) -> bytes:
    return chain.read(region, start, stop, at=at)
