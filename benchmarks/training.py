"""Checkpoints of torch trainings, beside torch's own and beside none, on a tmpfs."""

from __future__ import annotations

import importlib
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import dirtytrack
from dirtytrack.checkpoint import Checkpointer

from .fixtures import PAGE, memory_folder, size, some_pages, warm
from .harness import Budget, Outcome, Scale, Side, Unavailable, compare, require_memory, row

_ROW = PAGE // 4  # numbers on a page
_STEPS = 200
_EVERY = 10  # steps between two saves
_SHARE = 0.02  # of the rows, that are written between two saves
_HIDDEN = 16  # so that a step takes half a millisecond


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


def _import_torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise Unavailable('needs torch: pip install "dirtytrack[torch]"') from None


@contextmanager
def _table(scale: Scale, *, gib: float = 1) -> Iterator[_Table]:
    torch = _import_torch()
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


def _copies_apart(tensors: list[Any]) -> dict[str, Any]:
    # As far from each other as on the heap, and on no page that one of these tensors is on, or each side's
    # scans would be looked through for regions of the other's.
    distance = (tensors[0].nbytes + 64) // 4
    copies = dirtytrack.empty((len(tensors), distance), np.float32)
    for copy, tensor in zip(copies, tensors, strict=True):
        copy[16:] = tensor.detach().numpy()
    return {str(place): copy[16:] for place, copy in enumerate(copies)}


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
        regions = _copies_apart(tensors)
        with (
            TorchCheckpointer.open(table.fresh("ours"), model=model, optimizer=optimizer, **options) as ours,
            Checkpointer(table.fresh("plain"), regions, **options) as plain,
        ):

            def prepare(pair: int) -> None:
                ours.flush()
                plain.flush()
                model[pair % 1000].detach()[5] += 1
                regions[str(pair % 1000)][5] += 1

            ours.save()
            plain.save()
            yield compare(
                "TorchCheckpointer.save, one page among 4,000 tensors written",
                Side(ours.save, prepare),
                Side(plain.save, prepare, "Checkpointer.save of copies of 3,000 of them"),
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


class _Trainer:
    """A table of embeddings, a page a row, of which each step uses some rows and writes them."""

    def __init__(self, torch: Any, nbytes: int, *, is_aligned: bool = False) -> None:
        torch.manual_seed(0)
        rows = nbytes // PAGE
        self._torch = torch
        self._used = max(1, int(rows * _SHARE) // _EVERY)
        self._layer = torch.randn(_ROW, _HIDDEN)
        self.table = torch.randn(rows, _ROW)
        if is_aligned:
            aligned = torch.from_numpy(dirtytrack.empty(tuple(self.table.shape), np.float32))
            self.table = aligned.copy_(self.table)

    def step(self) -> None:
        """One forward, one backward, and the rows that were used are moved."""
        used = self._torch.randint(len(self.table), (self._used,))
        rows = self.table[used].requires_grad_()
        (rows @ self._layer).tanh().sum().backward()
        self.table.index_add_(0, used, rows.grad, alpha=-1e-3)


@row("company-trainer", Budget(0.5, faster=True))
def company_trainer(scale: Scale) -> Iterator[Outcome]:
    """Torch on one thread, a save of 2 % of 256 MiB every 10 steps, on a tmpfs, not compressed."""
    torch = _import_torch()
    nbytes = scale.gib(1) // 4
    require_memory(10 * nbytes)  # with the files
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, threads)
        torch.set_num_threads(1)
        for is_aligned in (False, True):
            with ExitStack() as held:
                yield _trained(scale, torch, nbytes, held, is_aligned=is_aligned)


def _trained(scale: Scale, torch: Any, nbytes: int, stack: ExitStack, *, is_aligned: bool) -> Outcome:
    steps = _STEPS // 10 if scale.quick else _STEPS
    saving, plain = (_Trainer(torch, nbytes, is_aligned=is_aligned) for _ in range(2))
    folder = stack.enter_context(tempfile.TemporaryDirectory(dir=memory_folder()))
    chain = stack.enter_context(
        Checkpointer(Path(folder, "chain"), {"table": saving.table}, compression="none")
    )
    chain.save(wait=True)

    def train_and_save() -> None:
        for step in range(steps):
            saving.step()
            if step % _EVERY == 0:
                chain.save()

    def train() -> None:
        for _ in range(steps):
            plain.step()

    def prepare(_pair: int) -> None:
        chain.flush()
        warm(int(3 * _SHARE * nbytes) * steps // _EVERY)

    where = ", aligned to pages" if is_aligned else ""
    return compare(
        f"{steps} steps of a torch trainer, {size(nbytes)}{where}, a save of {_SHARE:.0%} every {_EVERY}",
        Side(train_and_save, prepare),
        Side(train, name="without saves"),
        pairs=scale.repeat(15),
        faster=True,
        note="" if is_aligned else "each row lies on two pages: torch's memory begins 64 bytes behind one",
    )
