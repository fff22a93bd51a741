"""Measures the table of beyond.md: states of two processes, by us and by others, in one run on a tmpfs.

``python docs/group_table.py [MiB]``, in an environment with torch, jax, orbax-checkpoint, icechunk and
dirtytrack. Each process has so many MiB, 128 if nothing is said. Orbax and Icechunk save what both have from
one process: across processes they need jax.distributed, and a merge of sessions that is the caller's. The
figures are medians.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import icechunk
import jax
import numpy as np
import orbax.checkpoint as ocp
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import zarr
from contests import measure

from dirtytrack.group import GroupChain, GroupCheckpointer, torch_coordinator

WORLD = 2
WIDTH = 1024  # elements of a row: a page
CHUNK = 256  # rows


def nbytes(path: Path) -> int:
    """What all files below a directory take."""
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())


class Contest:
    """A shard of an embedding in each process, and ways to save and to load all of them."""

    def __init__(self, folder: Path, rank: int, rows: int) -> None:
        self.folder, self.rank, self.rows = folder, rank, rows
        self.shards = [torch.zeros(rows, WIDTH) for _ in range(WORLD)]  # of the others for who saves alone
        for shard in self.shards:
            shard.normal_()
        self.own = {f"shard-{rank}": self.shards[rank]}
        self.group = GroupCheckpointer.open(
            folder / "group", self.own, coordinator=torch_coordinator(), compression="none", keep=2
        )
        if rank == 0:
            self.orbax = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())
            self.repository = icechunk.Repository.create(
                icechunk.local_filesystem_storage(str(folder / "icechunk"))
            )
            session = self.repository.writable_session("main")
            root = zarr.group(store=session.store)
            for at in range(WORLD):
                root.create_array(
                    f"shard-{at}",
                    shape=(rows, WIDTH),
                    chunks=(CHUNK, WIDTH),
                    dtype="float32",
                    compressors=None,
                )
            session.commit("begin")

    # Each returns what waits until it is durable for all, and says how many bytes this process has written.
    def save(self) -> dict[str, Callable[[], Callable[[], int]]]:
        folder = self.folder

        def group() -> Callable[[], int]:
            save = self.group.save()
            return lambda: (save.wait(), save.part.nbytes if save.part else 0)[1]

        def dcp_save() -> Callable[[], int]:
            dcp.save(self.own, checkpoint_id=folder / "dcp")
            return lambda: nbytes(folder / "dcp") // WORLD

        def async_save() -> Callable[[], int]:
            done = dcp.async_save(self.own, checkpoint_id=folder / "async")
            return lambda: (done.result(), nbytes(folder / "async") // WORLD)[1]

        def orbax() -> Callable[[], int]:
            if self.rank:
                return lambda: 0
            tree = {f"shard-{at}": shard.numpy() for at, shard in enumerate(self.shards)}
            self.orbax.save(folder / "orbax", args=ocp.args.PyTreeSave(tree), force=True)
            return lambda: (self.orbax.wait_until_finished(), nbytes(folder / "orbax"))[1]

        def chunks() -> Callable[[], int]:
            if self.rank:
                return lambda: 0
            before = nbytes(folder / "icechunk")
            session = self.repository.writable_session("main")
            root = zarr.open_group(session.store)
            for at, shard in enumerate(self.shards):
                array: Any = root[f"shard-{at}"]
                array[:] = shard.numpy()
            session.commit("step")
            return lambda: nbytes(folder / "icechunk") - before

        return {
            "GroupCheckpointer": group,
            "dcp.save": dcp_save,
            "dcp.async_save": async_save,
            "Orbax": orbax,
            "Icechunk": chunks,
        }

    def load(self) -> dict[str, Callable[[], object]]:
        folder, name = self.folder, f"shard-{self.rank}"
        into = torch.empty_like(self.shards[0])

        def orbax() -> None:
            if self.rank == 0:
                found = self.orbax.restore(folder / "orbax")
                for at in range(WORLD):
                    into.copy_(torch.from_numpy(np.asarray(found[f"shard-{at}"])))

        def chunks() -> None:
            if self.rank == 0:
                root = zarr.open_group(self.repository.readonly_session("main").store, mode="r")
                for at in range(WORLD):
                    array: Any = root[f"shard-{at}"]
                    into.copy_(torch.from_numpy(array[:]))

        return {
            "GroupCheckpointer": lambda: GroupChain(folder / "group").restore(into={name: into}),
            "dcp.save": lambda: dcp.load({name: into}, checkpoint_id=folder / "dcp"),
            "dcp.async_save": lambda: dcp.load({name: into}, checkpoint_id=folder / "async"),
            "Orbax": orbax,
            "Icechunk": chunks,
        }

    def write(self, fraction: float, seed: int) -> None:
        for shard in self.shards:
            if fraction == 1:
                shard.add_(1)
            else:
                draw = np.random.default_rng(seed)
                rows = draw.choice(self.rows, int(self.rows * fraction), replace=False)
                shard.index_add_(0, torch.from_numpy(rows), torch.ones(len(rows), WIDTH))

    def forget(self, name: str) -> None:
        """What is there once goes, before the next one is saved."""
        if self.rank == 0 and name in ("dcp.save", "dcp.async_save"):
            shutil.rmtree(self.folder / {"dcp.save": "dcp", "dcp.async_save": "async"}[name], True)
        dist.barrier()


def run(path: str, rank: int, rows: int) -> None:
    """One of the processes."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    jax.config.update("jax_platforms", "cpu")
    dist.init_process_group("gloo", init_method=f"file://{path}/meeting", rank=rank, world_size=WORLD)
    contest = Contest(Path(path), rank, rows)

    def total(written: int) -> float:
        added = torch.tensor(written)
        dist.all_reduce(added)
        return float(added)

    measure(contest, print if rank == 0 else lambda _: None, total, dist.barrier)
    contest.group.close()
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # without waiting for threads of the others


if __name__ == "__main__":
    mebibytes = int(sys.argv[1] if len(sys.argv) > 1 else 128)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        spawn = multiprocessing.get_context("spawn")
        started = [spawn.Process(target=run, args=(folder, rank, mebibytes << 8)) for rank in range(WORLD)]
        for process in started:
            process.start()
        for process in started:
            process.join()
        if any(process.exitcode for process in started):
            raise SystemExit(1)
