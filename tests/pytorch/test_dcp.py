"""What DcpWriter saves is what DCP's own reader gives of the same state, on any number of processes."""

from __future__ import annotations

import copy
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from _lib.support import library
from dirtytrack import ChainError, CheckpointError, ClosedError, StoreError
from dirtytrack.checkpoint import Chain, Checkpointer
from dirtytrack.checkpoint.records import CommitLog, Root

torch = library("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]

import torch.distributed as dist  # noqa: E402
import torch.distributed.checkpoint as dcp  # noqa: E402

from _lib.torch_states import copied, same  # noqa: E402
from dirtytrack.torch import DcpReader, DcpWriter, TorchCheckpointer  # noqa: E402


def _state(seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Embedding(2000, 64), torch.nn.Linear(64, 64), torch.nn.BatchNorm1d(64)
    )
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "turned": torch.randn(50, 60).t(),
        "half": torch.randn(3000).bfloat16(),
        "epoch": 7,
        "nested": {"list": [1, "two", {"three": 3.0}]},
    }


def _zeros(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return torch.zeros_like(state)
    if isinstance(state, dict):
        return {key: _zeros(value) for key, value in state.items()}
    return [_zeros(value) for value in state] if isinstance(state, list) else type(state)()


def _load(path: Path | str, like: Any, **keywords: Any) -> Any:
    state = _zeros(like)
    at = keywords.pop("at", None)
    dcp.load(state, storage_reader=DcpReader(path, at=at), no_dist=True, **keywords)
    return state


def _plain(state: Any) -> Any:
    """A state with dictionaries for ordered ones."""
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    return [_plain(value) for value in state] if isinstance(state, list) else state


@pytest.mark.parametrize("wait", [True, False])
def test_every_state_is_what_dcp_has(tmp_path: Path, wait: bool) -> None:
    """Saved again and again with one writer, loaded by number and by name; deltas after a base."""
    state, expected = _state(), {}
    with DcpWriter(tmp_path / "ours", wait=wait) as writer:
        for number in range(1, 5):
            dcp.save(state, checkpoint_id=f"it{number}", storage_writer=writer, no_dist=True)
            dcp.save(state, checkpoint_id=tmp_path / f"full{number}", no_dist=True)
            expected[number] = _zeros(state)
            dcp.load(expected[number], checkpoint_id=tmp_path / f"full{number}", no_dist=True)
            state["model"]["0.weight"][number * 100] += 1
            state["epoch"] += 1
    with Chain(next((tmp_path / "ours").glob("rank-*"))) as chain:
        assert [one.kind for one in chain] == ["base", "delta", "delta", "delta"]
    for number in range(1, 5):
        assert same(_load(tmp_path / "ours", state, at=number), expected[number])
        assert same(_load(tmp_path / "ours", state, checkpoint_id=f"it{number}"), expected[number])
    assert same(_load(tmp_path / "ours", state), expected[4])
    assert [name for _, name in DcpReader(tmp_path / "ours").states()] == ["it4", "it3", "it2", "it1"]


def test_it_writes_what_has_changed(tmp_path: Path) -> None:
    """A row of an embedding is a block or two."""
    state = {"table": torch.randn(5000, 64), "step": torch.tensor(1.0)}
    with DcpWriter(tmp_path) as writer:
        dcp.save(state, storage_writer=writer, no_dist=True)
        state["table"][77] += 1
        dcp.save(state, storage_writer=writer, no_dist=True)
        assert writer.save is not None
        assert (writer.save.kind, writer.save.state) == ("delta", "committed")
        assert writer.save.blocks_stored in (1, 2, 3)


def test_other_storages(tmp_path: Path) -> None:
    """Tensors that moved are a delta of what differs."""
    state = _state()
    with DcpWriter(tmp_path / "moved") as writer:
        dcp.save(state, storage_writer=writer, no_dist=True)
        moved = copy.deepcopy(state)
        moved["model"]["0.weight"][3] = 5
        dcp.save(moved, storage_writer=writer, no_dist=True)
        assert writer.save.kind == "delta"
    assert same(_plain(_load(tmp_path / "moved", state)), _plain(copied(moved)))


@pytest.mark.slow
def test_copies_that_async_save_gives(tmp_path: Path) -> None:
    """They are stored where they differ, and what the tensors get later is not in them."""

    def act(_rank: int) -> None:
        state = {"table": torch.randn(2000, 64), "step": 0}
        with DcpWriter(tmp_path / "state") as writer:
            for step in range(5):
                state["table"][step] = step
                state["step"] = step
                expected = state["table"].clone()
                future = dcp.async_save(state, storage_writer=writer)
                state["table"][100] += 1
                future.result()
                got = {"table": torch.zeros(2000, 64), "step": -1}
                dcp.load(got, storage_reader=DcpReader(tmp_path / "state"))
                assert same(got, {"table": expected, "step": step})
                assert step == 0 or writer.save.blocks_stored <= 8

    _ranks(tmp_path / "run", 1, act)


def test_parts_of_tensors_are_read(tmp_path: Path) -> None:
    """Of another type, of another order, small ones and large ones."""
    state = {"a": torch.randn(300, 64), "b": torch.randn(64, 64).t(), "c": torch.randn(3, 4)}
    with DcpWriter(tmp_path) as writer:
        dcp.save(state, storage_writer=writer, no_dist=True)
    into = {
        "a": torch.zeros(300, 64, dtype=torch.float64),
        "b": torch.zeros(64, 64),
        "c": torch.zeros(3, 8)[:, ::2],
    }
    dcp.load(into, storage_reader=DcpReader(tmp_path), no_dist=True)
    assert same(into["a"], state["a"].double())
    assert torch.equal(into["b"], state["b"])
    assert torch.equal(into["c"], state["c"])


@pytest.mark.parametrize("chains", [[["../victim", "0"]], [["", "0"]], [[3, "0"]], [1], 7, None])
def test_a_commit_that_leads_elsewhere_is_none(tmp_path: Path, chains: Any) -> None:
    """Nothing outside is read or removed, and other states stay."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "thesis").write_text("all of it")
    forged = CommitLog(Root.of(tmp_path / "state").bucket(), "states/", "dirtytrack state of DCP")
    forged.append(lambda _number: {"chains": chains, "label": None})
    assert [*DcpReader(tmp_path / "state").states()] == []
    state = {"table": torch.randn(500, 64)}
    with DcpWriter(tmp_path / "state", keep=1) as writer:
        for _ in range(4):
            dcp.save(state, storage_writer=writer, no_dist=True)
    assert 1 not in forged.all()
    assert same(_load(tmp_path / "state", state), state)
    assert (tmp_path / "victim" / "thesis").read_text() == "all of it"


def test_a_restart_and_keeping(tmp_path: Path) -> None:
    """Each writer begins with a base; what is not to stay goes, with the chains of earlier runs."""
    state = {"table": torch.randn(500, 64)}
    for _ in range(3):
        with DcpWriter(tmp_path, keep=2) as writer:
            for _ in range(4):
                state["table"][3] += 1
                dcp.save(state, storage_writer=writer, no_dist=True)
    numbers = [number for number, _ in DcpReader(tmp_path).states()]
    assert numbers[0] == 12
    assert 2 <= len(numbers) <= 3
    assert len(list(tmp_path.glob("rank-*"))) == 1
    assert same(_load(tmp_path, state), state)


def test_a_part_that_is_missing_or_damaged(tmp_path: Path) -> None:
    """A state is whole, or it is not there; the one before it is loaded."""
    state = {"table": torch.randn(500, 64)}
    with DcpWriter(tmp_path) as writer:
        for number in range(3):
            state["table"][:] = number
            dcp.save(state, storage_writer=writer, no_dist=True)
    min((tmp_path / "states").iterdir()).write_bytes(b"torn")  # the newest is listed first
    assert _load(tmp_path, state)["table"][0, 0] == 1
    newest = sorted(next(tmp_path.glob("rank-*")).glob("0*"))[1]
    newest.unlink()
    assert _load(tmp_path, state)["table"][0, 0] == 0
    with pytest.raises(ChainError, match="no state of number 2 that is whole"):
        DcpReader(tmp_path, at=2).read_metadata()
    with pytest.raises(ChainError, match="no state of the name 'x'"):
        _reader(tmp_path, "x").read_metadata()
    with pytest.raises(ChainError, match="no state that"):
        DcpReader(tmp_path / "none").read_metadata()


def _reader(path: Path, name: str) -> Any:
    reader = DcpReader(path)
    reader.reset(name)
    return reader


def test_two_runs_at_one_place(tmp_path: Path) -> None:
    """The second to commit a number learns it, and commits nothing."""
    state = {"table": torch.randn(500, 64)}
    with DcpWriter(tmp_path) as first, DcpWriter(tmp_path) as second:
        for writer in (first, second):
            writer.set_up_storage_writer(True)
        dcp.save(state, storage_writer=first, no_dist=True)
        with pytest.raises(dcp.CheckpointException, match="Another writer has made commit 1"):
            dcp.save(state, storage_writer=second, no_dist=True)
    assert len(list(DcpReader(tmp_path).states())) == 1


def test_in_an_object_store() -> None:
    """Whatever is not needed any more goes, a restart goes on, and states have their names."""
    url, state = "memory://dcp/run", {"table": torch.zeros(500, 64), "step": 0}
    bucket, seen = Root.of(url).bucket(), set()

    def chains() -> set[str]:
        keys = [one.key for one in bucket.find("")]
        return {key.partition("/")[0] for key in keys if key.startswith("rank-")}

    for run in range(3):
        with DcpWriter(url, keep=1, grace_period=0) as writer:
            for number in range(3):
                state["table"][run * 100 + number] = 1
                state["step"] = 3 * run + number
                dcp.save(state, checkpoint_id=f"{run}-{number}", storage_writer=writer, no_dist=True)
        seen |= chains()
    assert len(seen) == 3
    assert len(chains()) <= 2
    assert [name for _, name in DcpReader(url).states()] == ["2-2", "2-1"]
    assert same(_load(url, state), state)
    assert same(_load(url, state, checkpoint_id="2-1")["step"], 7)
    assert isinstance(DcpReader(url).path, str)


def test_it_is_no_place_of_a_training(tmp_path: Path) -> None:
    """Which would begin anew there, without a word; who looks for a chain is told where they are."""
    state, model = {"w": torch.ones(5000)}, torch.nn.Linear(3, 3)
    own, others = tmp_path / "own", tmp_path / "others"
    with DcpWriter(own) as writer:
        dcp.save(state, storage_writer=writer, no_dist=True)
    dcp.save(state, checkpoint_id=others, no_dist=True)
    for place, told in ((own, "a DcpWriter has"), (others, "torch.distributed.checkpoint has")):
        before = sorted(place.iterdir())
        with pytest.raises(ChainError, match=f"no training: {told} saved there.*choose another path"):
            TorchCheckpointer.open(place, model=model)
        assert sorted(place.iterdir()) == before
    with pytest.raises(ChainError, match="no checkpoint of its own: where a DcpWriter has saved"):
        Chain(own)


def test_bad_arguments(tmp_path: Path) -> None:
    """They are named; a closed writer writes nothing."""
    with pytest.raises(TypeError, match="takes no kep"):
        DcpWriter(tmp_path, kep=3)
    with pytest.raises(TypeError, match="takes no mirror"):
        DcpWriter(tmp_path, mirror="s3://bucket/run")
    for kind in (DcpWriter, DcpReader):
        with pytest.raises(StoreError, match="a URL of no known kind"):
            kind("ftp://bucket/run")
        with pytest.raises(StoreError, match="is a directory, which has no store_options"):
            kind(tmp_path, store_options={"region": "x"})
    with pytest.raises(ValueError, match="keep=0"):
        DcpWriter(tmp_path, keep=0)
    writer = DcpWriter(tmp_path)
    writer.close()
    assert writer.closed
    with pytest.raises(ClosedError):
        writer.reset()
    assert not list(tmp_path.iterdir())


def _fail(*_: Any, **__: Any) -> Any:
    raise CheckpointError(28, "no space left")


def test_a_failed_save_is_told_by_dcp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And commits nothing; the next one does."""
    state = {"table": torch.randn(500, 64)}
    with DcpWriter(tmp_path) as writer:
        dcp.save(state, storage_writer=writer, no_dist=True)
        with monkeypatch.context() as patch, pytest.raises(dcp.CheckpointException, match="no space left"):
            patch.setattr(Checkpointer, "save", _fail)
            dcp.save(state, storage_writer=writer, no_dist=True)
        state["table"][4] += 1
        dcp.save(state, storage_writer=writer, no_dist=True)
    assert [number for number, _ in DcpReader(tmp_path).states()] == [2, 1]
    assert same(_load(tmp_path, state), state)


# Many processes


def _ranks(path: Path, count: int, act: Callable[[int], None]) -> None:
    """Runs a function in so many forked processes that are one group."""
    path.mkdir(exist_ok=True)
    meeting = path / f"meeting-{len(list(path.iterdir()))}"
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                torch.set_num_threads(1)
                os.environ["GLOO_SOCKET_IFNAME"] = "lo"
                dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
                act(rank)
                dist.barrier()
                status = 0
            except BaseException:
                (path / f"error-{rank}").write_text(traceback.format_exc(), encoding="utf-8")
            finally:
                os._exit(status)
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    errors = "\n".join(one.read_text(encoding="utf-8") for one in path.glob("error-*"))
    assert statuses == [0] * count, errors


def _sharded(seed: int) -> Any:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(seed)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = torch.nn.Sequential(torch.nn.Linear(64, 67), torch.nn.Linear(67, 65), torch.nn.Embedding(301, 64))
    for layer in model:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def _full(model: Any) -> dict[str, Any]:
    return {name: value.full_tensor() for name, value in model.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("wait", [True, False])
def test_fsdp_is_resharded(tmp_path: Path, wait: bool) -> None:
    """Two ranks save shards of uneven sizes; three, one, and two load them, to the bit."""

    def save(rank: int) -> None:
        model = _sharded(0)
        with DcpWriter(tmp_path / "state", wait=wait) as writer:
            for step in range(3):
                dcp.save({"model": model.state_dict(), "step": step}, storage_writer=writer)
                if step < 2:
                    with torch.no_grad():
                        for parameter in model.parameters():
                            parameter.to_local()[:1] += rank + step
            dist.barrier()
        if step == 2:
            full = _full(model)
            if rank == 0:
                torch.save(full, tmp_path / "expected")

    def load(_rank: int) -> None:
        model = _sharded(5)
        state = {"model": model.state_dict(), "step": -1}
        dcp.load(state, storage_reader=DcpReader(tmp_path / "state"))
        assert state["step"] == 2
        assert same(_full(model), dict(torch.load(tmp_path / "expected")))

    _ranks(tmp_path / "run", 2, save)
    for chain in (tmp_path / "state").glob("rank-*"):
        with Chain(chain) as opened:
            assert [one.kind for one in opened] == ["base", "delta", "delta"]
    for count in (3, 1, 2):
        _ranks(tmp_path / "run", count, load)


@pytest.mark.slow
def test_a_rank_that_fails_fails_all(tmp_path: Path) -> None:
    """Nothing is committed, every rank is told, and the state before it is loaded."""

    def act(rank: int) -> None:
        model = _sharded(0)
        before = _full(model)
        with DcpWriter(tmp_path / "state") as writer:
            dcp.save({"model": model.state_dict()}, storage_writer=writer)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.to_local().zero_()
            with pytest.MonkeyPatch.context() as patch:
                if rank == 1:
                    patch.setattr(Checkpointer, "save", _fail)
                with pytest.raises(dcp.CheckpointException, match="no space left"):
                    dcp.save({"model": model.state_dict()}, storage_writer=writer)
            dist.barrier()
        other = _sharded(3)
        state = {"model": other.state_dict()}
        dcp.load(state, storage_reader=DcpReader(tmp_path / "state"))
        assert same(_full(other), before)

    _ranks(tmp_path / "run", 2, act)
