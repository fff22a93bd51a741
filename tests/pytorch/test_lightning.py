"""Lightning's Trainer with our plugin: it goes on from its checkpoints as if it had not ended."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from _lib.support import library

torch = library("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore", "error:::dirtytrack"),  # Lightning warns of all kinds of things
]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what lightning and its own libraries warn of when they are imported
    lightning = library("lightning")
    from lightning.pytorch.callbacks import ModelCheckpoint

from _lib.torch_states import same  # noqa: E402
from dirtytrack import ChainError  # noqa: E402
from dirtytrack.checkpoint import Chain  # noqa: E402
from dirtytrack.checkpoint.records import Root  # noqa: E402
from dirtytrack.torch.lightning import ChainCheckpointIO, KeepRandomStates  # noqa: E402

BATCHES = 5


class Module(lightning.LightningModule):  # type: ignore[misc,name-defined]
    """Words with an embedding of some blocks, dropout and Adam."""

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters({"rows": 300})
        self.embed = torch.nn.Embedding(300, 64)
        self.out = torch.nn.Linear(64, 300)
        self.losses: list[float] = []

    def training_step(self, batch: Any, _number: int) -> Any:
        hidden = torch.nn.functional.dropout(self.embed(batch[0]), 0.3)
        loss = torch.nn.functional.cross_entropy(self.out(hidden), batch[0])
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]


def _trainer(path: Path, epochs: int, plugins: list[Any], **checkpoints: Any) -> Any:
    kept = ModelCheckpoint(path / "kept", filename="{epoch}", save_on_train_epoch_end=True, **checkpoints)
    return lightning.Trainer(
        max_epochs=epochs,
        callbacks=[kept, KeepRandomStates()],
        plugins=plugins,
        default_root_dir=path,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _fit(path: Path, epochs: int, plugins: list[Any], ckpt: Path | None = None, **checkpoints: Any) -> Module:
    torch.manual_seed(0 if ckpt is None else 99)
    module = Module()
    data = torch.utils.data.TensorDataset(torch.arange(BATCHES * 4))
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
    _trainer(path, epochs, plugins, **checkpoints).fit(module, loader, ckpt_path=ckpt)
    return module


def _loaded(file: Path) -> Any:
    return torch.load(file, weights_only=False)


def test_it_goes_on_as_if_it_had_not_ended(tmp_path: Path) -> None:
    """Bit for bit as without the plugin, with dropout, shuffling, Adam and a schedule; begun again."""
    whole = _fit(tmp_path / "whole", 6, [], save_top_k=-1)
    first = _fit(tmp_path, 3, [ChainCheckpointIO(tmp_path / "chains")], save_top_k=-1)
    kept = tmp_path / "kept"
    rest = _fit(tmp_path, 6, [ChainCheckpointIO(tmp_path / "chains")], kept / "epoch=2.ckpt", save_top_k=-1)
    assert first.losses + rest.losses == whole.losses
    assert same(dict(rest.state_dict()), dict(whole.state_dict()))
    assert sorted(os.listdir(kept)) == [f"epoch={n}.ckpt" for n in range(6)]
    io = ChainCheckpointIO(tmp_path / "chains")
    for name in os.listdir(kept):
        ours, theirs = io.load_checkpoint(kept / name), _loaded(tmp_path / "whole" / "kept" / name)
        assert ours.keys() == theirs.keys()
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "hyper_parameters"):
            assert same(_plain(ours[key]), _plain(theirs[key])), key
        assert (kept / name).stat().st_size < 300
    kinds = [[one.kind for one in Chain(one)] for one in (tmp_path / "chains").iterdir()]
    assert kinds == [["base", "delta", "delta"]] * 2


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value


def test_what_lightning_removes_is_removed(tmp_path: Path) -> None:
    """Of its own chain by keep, of one of an earlier run with the last checkpoint."""
    plugin = ChainCheckpointIO(tmp_path / "chains", keep=1)
    _fit(tmp_path, 5, [plugin], save_top_k=1)
    (chain,) = (tmp_path / "chains").iterdir()
    assert os.listdir(tmp_path / "kept") == ["epoch=4.ckpt"]
    with Chain(chain) as opened:
        assert len(opened) < 5
    last = tmp_path / "kept" / "epoch=4.ckpt"
    plugin = ChainCheckpointIO(tmp_path / "chains")
    _fit(tmp_path, 7, [plugin], last, save_top_k=1)
    assert {*os.listdir(tmp_path / "kept")} == {"epoch=4.ckpt", "epoch=6.ckpt"}  # one it has gone on from
    assert len([*(tmp_path / "chains").iterdir()]) == 2
    plugin.remove_checkpoint(last)
    (second,) = (tmp_path / "chains").iterdir()
    assert second != chain


def test_checkpoints_that_are_none_of_ours(tmp_path: Path) -> None:
    """They are named, and stay."""
    io = ChainCheckpointIO(tmp_path / "chains")
    torch.save({"epoch": 1}, tmp_path / "theirs.ckpt")
    for act in (io.load_checkpoint, io.remove_checkpoint):
        with pytest.raises(ChainError, match=r"theirs\.ckpt was not saved by ChainCheckpointIO"):
            act(tmp_path / "theirs.ckpt")
        assert (tmp_path / "theirs.ckpt").exists()
    with pytest.raises(FileNotFoundError):
        io.load_checkpoint(tmp_path / "nothing.ckpt")
    io.remove_checkpoint(tmp_path / "nothing.ckpt")
    with pytest.raises(TypeError, match="takes no nonsense"):
        ChainCheckpointIO(tmp_path, nonsense=1)
    with pytest.raises(TypeError, match="takes no storage_options"):
        io.save_checkpoint({}, tmp_path / "x", storage_options={})
    with pytest.raises(TypeError, match=r"checkpoint\.model is a torch\.nn\.modules\.linear\.Linear"):
        io.save_checkpoint({"model": torch.nn.Linear(3, 3)}, tmp_path / "x")
    assert sorted(os.listdir(tmp_path)) == ["theirs.ckpt"]


def test_chains_and_files_in_an_object_store(tmp_path: Path) -> None:
    """The chains alone, or what Lightning names, too; what is removed goes there as well."""
    library("obstore")
    root = f"memory://{tmp_path.name}"
    for files in (str(tmp_path / "files"), f"{root}/files"):
        io = ChainCheckpointIO(f"{root}/chains", fsync=False, grace_period=0)
        state = torch.zeros(5000)
        for number in range(4):
            state[number * 1000] += 1
            io.save_checkpoint({"state": state, "n": number}, f"{files}/{number}.ckpt")
        io.save_checkpoint({"state": state, "n": 4}, f"{files}/1.ckpt")  # in place of what was there
        io.teardown()
        io = ChainCheckpointIO(f"{root}/chains")
        for name, number in (("0", 0), ("1", 4), ("3", 3)):
            found = io.load_checkpoint(f"{files}/{name}.ckpt")
            assert found["n"] == number
            assert int(found["state"].sum()) == min(number, 3) + 1
        io.remove_checkpoint(f"{files}/nothing.ckpt")
        with pytest.raises(FileNotFoundError):
            io.load_checkpoint(f"{files}/nothing.ckpt")
        with pytest.raises(ChainError, match="is not below memory://elsewhere"):
            ChainCheckpointIO("memory://elsewhere").load_checkpoint(f"{files}/0.ckpt")
        bucket = Root.of(root).bucket()
        for name in "0123":
            assert [*bucket.find("chains/")]
            io.remove_checkpoint(f"{files}/{name}.ckpt")
        assert [*bucket.find("chains/")] == []
        assert [*bucket.find("files/")] == []
    (tmp_path / "files" / "odd.ckpt").write_text(
        '{"format": "dirtytrack checkpoint of lightning", "chain": "odd://x/y", "id": "0"}'
    )
    with pytest.raises(ChainError, match="was not saved by ChainCheckpointIO"):
        io.load_checkpoint(tmp_path / "files" / "odd.ckpt")


def test_any_order_of_saves_and_removals(tmp_path: Path) -> None:
    """What is there is what was saved, also after the files were moved together."""
    io, state = ChainCheckpointIO(tmp_path / "run" / "chains", keep=1), torch.zeros(5000)
    for number in range(8):
        state[number * 600] += 1
        io.save_checkpoint({"state": state, "n": number}, tmp_path / "run" / f"{number}")
        if number % 3:
            io.remove_checkpoint(tmp_path / "run" / f"{number - 1}")
    io.teardown()
    (tmp_path / "run").rename(tmp_path / "moved")
    there = sorted(name for name in os.listdir(tmp_path / "moved") if name != "chains")
    assert there == ["2", "5", "7"]
    for name in there:
        found = io.load_checkpoint(tmp_path / "moved" / name)
        expected = torch.zeros(5000)
        expected[[one * 600 for one in range(int(name) + 1)]] = 1
        assert found["n"] == int(name)
        assert torch.equal(found["state"], expected)
