"""Trainings of torch in real object stores: DCP on several ranks, a TorchCheckpointer, Lightning's plugin."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _lib.support import library

torch = library("torch", "engines")
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning", "error:::dirtytrack"
)

import torch.distributed as dist  # noqa: E402
import torch.distributed.checkpoint as dcp  # noqa: E402

from _lib.torch_states import copied, same  # noqa: E402
from dirtytrack import ChainError  # noqa: E402
from dirtytrack.torch import DcpReader, DcpWriter, TorchCheckpointer, load  # noqa: E402


def _model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Embedding(600, 64), torch.nn.Linear(64, 32).bfloat16())


def _ranks(count: int, act: Any, *arguments: Any) -> None:
    torch.multiprocessing.start_processes(
        _rank, (act, count, *arguments), nprocs=count, start_method="spawn", join=True
    )


def _rank(rank: int, act: Any, count: int, place: str, *arguments: Any) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=count)
    try:
        act(*arguments)
    finally:
        dist.destroy_process_group()


def _sharded(seed: int) -> Any:
    from torch.distributed.fsdp import fully_shard

    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),))
    torch.manual_seed(seed)
    return fully_shard(torch.nn.Linear(96, 40), mesh=mesh)


def _save_shards(url: str, options: dict[str, Any]) -> None:
    model = _sharded(1)
    with DcpWriter(url, store_options=options) as writer:
        for _ in range(3):
            dcp.save({"model": model.state_dict()}, storage_writer=writer)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.to_local().mul_(2)


def _check_shards(url: str, options: dict[str, Any]) -> None:
    # Two ranks have saved it, three load it: the third state, so it was doubled twice.
    model, expected = _sharded(9), _sharded(1)
    state = {"model": model.state_dict()}
    dcp.load(state, storage_reader=DcpReader(url, store_options=options))
    for name, tensor in expected.state_dict().items():
        assert torch.equal(state["model"][name].to_local(), tensor.to_local() * 4), name


def test_dcp_on_two_ranks_and_then_on_three(server: Any, url: str, tmp_path: Path) -> None:
    """FSDP2 shards, saved again and again, loaded by another number of processes."""
    options = server.options()
    _ranks(2, _save_shards, str(tmp_path / "two"), url, options)
    _ranks(3, _check_shards, str(tmp_path / "three"), url, options)


def test_dcp_in_one_process(server: Any, url: str) -> None:
    """By number and by name; a state of which a part is gone counts as none."""
    options, model, saved = server.options(), _model(), []
    with DcpWriter(url, store_options=options, keep=2) as writer:
        for number in range(4):
            with torch.no_grad():
                model[0].weight[number] += 1
            state = {"model": model.state_dict(), "epoch": number}
            dcp.save(state, checkpoint_id=f"it{number}", storage_writer=writer, no_dist=True)
            saved.append(copied(state["model"]))
    reader = DcpReader(url, store_options=options)
    assert [label for _, label in reader.states()][:2] == ["it3", "it2"]
    for number in (3, 2):
        state = {"model": _model(7).state_dict(), "epoch": 0}
        dcp.load(state, checkpoint_id=f"it{number}", storage_reader=reader, no_dist=True)
        assert state["epoch"] == number
        assert same(dict(state["model"]), dict(saved[number]))
    store = server.store()
    prefix = url.removeprefix("s3://bucket/")
    names = [one["path"] for page in store.list(f"{prefix}/") for one in page if "/rank-" in one["path"]]
    assert names
    store.delete(names)
    with pytest.raises(ChainError, match="that is whole on all ranks"):
        DcpReader(url, store_options=options).read_metadata()


def test_a_training_goes_on(server: Any, url: str) -> None:
    """State that appears, a layer that grows, and a restart from the bucket alone."""
    options = server.options()
    model = _model()
    optimizer = torch.optim.Adam(model.parameters())
    with TorchCheckpointer.open(url, model=model, optimizer=optimizer, store_options=options) as checkpoints:
        checkpoints.save({"step": 0}, wait=True)
        for step in range(1, 3):
            model[0](torch.arange(5)).sum().backward()
            optimizer.step()
            assert checkpoints.save({"step": step}, wait=True).kind == "delta"
    other = _model(5)
    fresh = torch.optim.Adam(other.parameters())
    with TorchCheckpointer.open(url, model=other, optimizer=fresh, store_options=options) as checkpoints:
        assert checkpoints.meta == {"step": 2}
        assert same(dict(other.state_dict()), dict(model.state_dict()))
        assert same(fresh.state_dict(), optimizer.state_dict())
    assert same(dict(load(url, only="model", store_options=options)), dict(model.state_dict()))


def test_lightning_checkpoints(server: Any, url: str, tmp_path: Path) -> None:
    """The chains in the bucket, and the files that name them there or here; all that is removed goes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library("lightning", "engines")
        from dirtytrack.torch.lightning import ChainCheckpointIO
    options = server.options()
    for files in (str(tmp_path), f"{url}/files"):
        io = ChainCheckpointIO(f"{url}/chains", store_options=options)
        state = torch.from_numpy(np.zeros(20_000, np.float32))
        for number in range(3):
            state[number * 2000] += 1
            io.save_checkpoint({"state": state, "n": number}, f"{files}/last.ckpt")
        io.teardown()
        io = ChainCheckpointIO(f"{url}/chains", store_options=options)
        found = io.load_checkpoint(f"{files}/last.ckpt")
        assert found["n"] == 2
        assert torch.equal(found["state"], state)
        io.remove_checkpoint(f"{files}/last.ckpt")
        with pytest.raises(FileNotFoundError):
            io.load_checkpoint(f"{files}/last.ckpt")
