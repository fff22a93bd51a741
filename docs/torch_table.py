"""Measures the table of torch.md: saves of an embedding, by us and by others, in one run on a tmpfs.

``python docs/torch_table.py [MiB]``, in an environment with torch, safetensors, jax, orbax-checkpoint and
dirtytrack. It takes nine times so much memory. The figures are medians.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import safetensors.torch
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from contests import measure

from dirtytrack.checkpoint import restore
from dirtytrack.torch import DcpReader, DcpWriter, TorchCheckpointer

FOLDERS = {"dcp.save": "dcp", "dcp.async_save": "async"}  # which are there once


def nbytes(path: Path) -> int:
    """What a file takes, or all below a directory."""
    return sum(one.stat().st_size for one in [path, *path.rglob("*")] if one.is_file())


class Contest:
    """An embedding, and ways to save and to load it."""

    def __init__(self, folder: Path, pages: int) -> None:
        self.folder, self.pages = folder, pages
        self.embedding = torch.nn.Embedding(pages, 1024)
        self.weight = self.embedding.weight.detach()
        self.state = {"weight": self.weight}
        self.chain = TorchCheckpointer.open(
            folder / "chain", model=self.embedding, compression="none", keep=2
        )
        self.writer = DcpWriter(folder / "writer", compression="none", keep=2)
        self.orbax = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())

    # Each returns what waits until it is durable, and says how many bytes were written.
    def save(self) -> dict[str, Callable[[], Callable[[], int]]]:
        folder, state = self.folder, self.state

        def chain() -> Callable[[], int]:
            save = self.chain.save()
            return lambda: (save.wait(), save.nbytes)[1]

        def writer() -> Callable[[], int]:
            dcp.save(state, storage_writer=self.writer)
            return lambda: self.writer.save.nbytes

        def torch_save() -> Callable[[], int]:
            torch.save(state, folder / "torch")
            return lambda: nbytes(folder / "torch")

        def dcp_save() -> Callable[[], int]:
            dcp.save(state, checkpoint_id=folder / "dcp")
            return lambda: nbytes(folder / "dcp")

        def async_save() -> Callable[[], int]:
            done = dcp.async_save(state, checkpoint_id=folder / "async")
            return lambda: (done.result(), nbytes(folder / "async"))[1]

        def save_file() -> Callable[[], int]:
            safetensors.torch.save_file(state, folder / "safetensors")
            return lambda: nbytes(folder / "safetensors")

        def orbax() -> Callable[[], int]:
            tree = ocp.args.PyTreeSave({"weight": self.weight.numpy()})
            self.orbax.save(folder / "orbax", args=tree, force=True)
            return lambda: (self.orbax.wait_until_finished(), nbytes(folder / "orbax"))[1]

        return {
            "TorchCheckpointer": chain,
            "dcp.save with DcpWriter": writer,
            "torch.save": torch_save,
            "dcp.save": dcp_save,
            "dcp.async_save": async_save,
            "safetensors": save_file,
            "Orbax": orbax,
        }

    def load(self) -> dict[str, Callable[[], object]]:
        folder, into = self.folder, torch.empty_like(self.weight)

        def dcp_load(**keywords: Any) -> object:
            return dcp.load({"weight": into}, **keywords)

        return {
            "TorchCheckpointer": lambda: restore(folder / "chain", into={"model.weight": into}),
            "dcp.save with DcpWriter": lambda: dcp_load(storage_reader=DcpReader(folder / "writer")),
            "torch.save": lambda: into.copy_(torch.load(folder / "torch")["weight"]),
            "dcp.save": lambda: dcp_load(checkpoint_id=folder / "dcp"),
            "dcp.async_save": lambda: dcp_load(checkpoint_id=folder / "async"),
            "safetensors": lambda: into.copy_(safetensors.torch.load_file(folder / "safetensors")["weight"]),
            "Orbax": lambda: into.copy_(
                torch.from_numpy(np.asarray(self.orbax.restore(folder / "orbax")["weight"]))
            ),
        }

    def write(self, fraction: float, seed: int) -> None:
        if fraction == 1:
            self.weight.add_(1)
            return
        rows = np.random.default_rng(seed).choice(self.pages, int(self.pages * fraction), replace=False)
        self.weight.index_add_(0, torch.from_numpy(rows), torch.ones(len(rows), 1024))

    def forget(self, name: str) -> None:
        if name in FOLDERS:
            shutil.rmtree(self.folder / FOLDERS[name], ignore_errors=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    jax.config.update("jax_platforms", "cpu")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
        dist.init_process_group("gloo", init_method=f"file://{path}/meeting", rank=0, world_size=1)
        contest = Contest(Path(path), int(sys.argv[1] if len(sys.argv) > 1 else 256) << 8)
        measure(contest)
        contest.chain.close()
        contest.writer.close()
        contest.orbax.close()
        dist.destroy_process_group()
        sys.stdout.flush()
        shutil.rmtree(path, ignore_errors=True)
        os._exit(0)  # without waiting for threads of the others
