"""Checkpoints of torch trainings beside torch's own, on a tmpfs, with an embedding of noise."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from dirtytrack.checkpoint import Checkpointer

from .fixtures import PAGE, memory_folder, size, some_pages
from .harness import Budget, Outcome, Scale, Side, Unavailable, compare, require_memory, row

_ROW = PAGE // 4  # numbers on a page


class _Table:
    """An embedding with as many rows as pages, and places for checkpoints of it."""

    def __init__(self, nbytes: int, folder: Path, torch: Any) -> None:
        require_memory(5 * nbytes)
        self.folder = folder
        self.embedding = torch.nn.Embedding(nbytes // PAGE, _ROW)
        self.weight = self.embedding.weight.detach()
        self._torch = torch

    def dirty(self, fraction: float, seed: int) -> None:
        """Changes rows, each a page."""
        pages = some_pages(len(self.weight), fraction, seed).astype("int64")
        if fraction == 1:  # every number, so that every block is another one
            self.weight.add_(1)
        else:
            self.weight.index_add_(0, self._torch.from_numpy(pages), self._torch.ones(len(pages), _ROW))

    def fresh(self, name: str) -> Path:
        """A place where nothing is."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return self.folder / name


@contextmanager
def _table(scale: Scale, *, gib: float = 1) -> Iterator[_Table]:
    try:
        import torch
    except ImportError:
        raise Unavailable('needs torch: pip install "dirtytrack[torch]"') from None
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DCP warns of a single process
        yield _Table(int(scale.gib(2) * gib) // 2, Path(folder), torch)


@row("torch-pause", Budget(1.3))
def torch_pause(scale: Scale) -> Iterator[Outcome]:
    """All of TorchCheckpointer.save, beside Checkpointer.save of the same tensor; each has written pages."""
    with _table(scale) as table:
        from dirtytrack.torch import TorchCheckpointer

        options: dict[str, Any] = {"compression": "none", "fsync": False}
        with (
            TorchCheckpointer.open(table.fresh("ours"), model=table.embedding, **options) as ours,
            Checkpointer(table.fresh("plain"), {"weight": table.weight}, **options) as plain,
        ):

            def prepare(pair: int) -> None:
                ours.flush()
                plain.flush()
                table.dirty(0.01, pair)

            ours.save()
            plain.save()
            yield compare(
                f"TorchCheckpointer.save, 1 % of {size(table.weight.nbytes)} written",
                Side(ours.save, prepare),
                Side(plain.save, prepare, "Checkpointer.save of the tensor"),
                pairs=scale.repeat(15),
            )


@row("torch-many")
def torch_many(scale: Scale) -> Iterator[Outcome]:
    """All of a save of one written page among 4,000 tensors: 1,000 parameters of 8 KiB, with Adam's state."""
    with _table(scale, gib=0.01) as table:
        import torch

        from dirtytrack.torch import TorchCheckpointer

        model = torch.nn.ParameterList([torch.nn.Parameter(torch.randn(2048)) for _ in range(1000)])
        optimizer = torch.optim.Adam(model.parameters())
        for parameter in model:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        states = optimizer.state_dict()["state"].values()
        tensors = [*model, *(tensor for state in states for tensor in state.values() if tensor.numel() > 1)]
        options: dict[str, Any] = {"compression": "none", "fsync": False}
        regions = {str(place): tensor for place, tensor in enumerate(tensors)}
        with (
            TorchCheckpointer.open(table.fresh("ours"), model=model, optimizer=optimizer, **options) as ours,
            Checkpointer(table.fresh("plain"), regions, **options) as plain,
        ):

            def prepare(pair: int) -> None:
                ours.flush()
                plain.flush()
                model[pair % 1000].detach()[5] += 1

            ours.save()
            plain.save()
            yield compare(
                "TorchCheckpointer.save, one page among 4,000 tensors written",
                Side(ours.save, prepare),
                Side(plain.save, prepare, "Checkpointer.save of 3,000 of them"),
                pairs=scale.repeat(15),
                note="the other 1,000 are the optimizer's steps, of 4 bytes each",
            )


def _dcp(scale: Scale, fraction: float, *, faster: bool) -> Iterator[Outcome]:
    with _table(scale) as table:
        import torch.distributed.checkpoint as dcp

        from dirtytrack.torch import DcpWriter

        state = {"weight": table.weight}
        with closing(DcpWriter(table.fresh("ours"), keep=1, compression="none")) as writer:

            def ours() -> None:
                dcp.save(state, storage_writer=writer, no_dist=True)

            def theirs() -> None:
                dcp.save(state, checkpoint_id=table.folder / "dcp", no_dist=True)

            def prepare(pair: int) -> None:
                table.fresh("dcp")
                table.dirty(fraction, pair)

            ours()
            yield compare(
                f"dcp.save with DcpWriter, {fraction:.0%} of the pages of {size(table.weight.nbytes)}",
                Side(ours, prepare),
                Side(theirs, prepare, "dcp.save with DCP's own writer"),
                pairs=scale.repeat(5),
                faster=faster,
                note="committed when it returns",
            )


@row("torch-dcp", Budget(10, faster=True))
def torch_dcp(scale: Scale) -> Iterator[Outcome]:
    """One page in a hundred written."""
    yield from _dcp(scale, 0.01, faster=True)


@row("torch-dcp-all", Budget(1.2))
def torch_dcp_all(scale: Scale) -> Iterator[Outcome]:
    """Everything written."""
    yield from _dcp(scale, 1.0, faster=False)


def _peers(table: _Table) -> dict[str, Callable[[], None]]:
    import torch
    import torch.distributed.checkpoint as dcp

    state = {"weight": table.weight}

    def torch_save() -> None:
        torch.save(state, table.folder / "torch.pt")

    def dcp_save() -> None:
        dcp.save(state, checkpoint_id=table.folder / "dcp", no_dist=True)

    peers = {"torch.save": torch_save, "dcp.save": dcp_save}
    try:
        from safetensors.torch import save_file
    except ImportError:
        return peers

    def safetensors() -> None:
        save_file(state, table.folder / "safetensors")

    return {**peers, "safetensors' save_file": safetensors}


@row("torch-peers")
def torch_peers(scale: Scale) -> Iterator[Outcome]:
    """Until the training goes on, and until the state is written, beside what writes everything."""
    with _table(scale, gib=0.5) as table:
        from dirtytrack.torch import TorchCheckpointer

        path = table.fresh("ours")
        with TorchCheckpointer.open(path, model=table.embedding, keep=1, compression="none") as ours:

            def durable() -> None:
                ours.save(wait=True)

            ours.save(wait=True)
            for fraction in (0.01, 0.1, 1.0):
                for name, write in _peers(table).items():

                    def prepare(pair: int, fraction: float = fraction) -> None:
                        ours.flush()
                        table.fresh("dcp")
                        table.dirty(fraction, pair)

                    for what, act in (("save", ours.save), ("save, committed", durable)):
                        yield compare(
                            f"{what}, {fraction:.0%} of {size(table.weight.nbytes)} written",
                            Side(act, prepare),
                            Side(write, prepare, name),
                            pairs=scale.repeat(5),
                            faster=True,
                        )
