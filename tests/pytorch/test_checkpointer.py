"""A training that was killed goes on as one that was not; and what is saved is what torch.save has."""

from __future__ import annotations

import collections
import os
import random
import signal
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from _lib.checkpoint.buckets import ModelBucket
from _lib.support import library
from dirtytrack import ChainError, ClosedError
from dirtytrack.checkpoint import Chain, load, store

torch = library("torch")
pytestmark = pytest.mark.torch

from _lib.torch_states import copied, same  # noqa: E402 - without torch it can't be imported
from dirtytrack import torch as dirtytrack_torch  # noqa: E402
from dirtytrack.torch import TorchCheckpointer  # noqa: E402

BLOCK = 4096
URL = "s3://bucket/run"


class Training:
    """A model with dropout, batch norm, tied weights and a sparse embedding, and what trains it."""

    def __init__(self, seed: int = 0, optimizer: Any = None) -> None:
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        self.model = torch.nn.ModuleDict(
            {
                "embed": torch.nn.Embedding(500, 64),
                "drop": torch.nn.Dropout(0.2),
                "hidden": torch.nn.Linear(64, 64),
                "norm": torch.nn.BatchNorm1d(64),
                "out": torch.nn.Linear(64, 500, bias=False),
            }
        )
        self.model["out"].weight = self.model["embed"].weight
        make = optimizer or (lambda parameters: torch.optim.AdamW(parameters, lr=0.01))
        self.optimizer = make(self.model.parameters())
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, 0.1, total_steps=100, cycle_momentum=False
        )
        self.losses: list[float] = []

    def step(self) -> None:
        order = random.sample(range(500), 16)
        noise = float(np.random.random())
        self.optimizer.zero_grad()
        x = self.model["drop"](self.model["embed"](torch.tensor(order)))
        x = self.model["norm"](self.model["hidden"](x)) * noise
        loss = torch.nn.functional.cross_entropy(self.model["out"](x), torch.randint(0, 500, (16,)))
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.losses.append(loss.item())

    def open(self, path: Path, **keywords: Any) -> Any:
        return TorchCheckpointer.open(
            path, model=self.model, optimizer=self.optimizer, scheduler=self.scheduler, **keywords
        )

    def state(self) -> Any:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "random": (random.getstate(), np.random.get_state(), torch.get_rng_state()),
        }


OPTIMIZERS = {
    "AdamW": None,
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, momentum=0.5),
    "Adagrad": lambda parameters: torch.optim.Adagrad(parameters),
    "AMSGrad": lambda parameters: torch.optim.Adam(parameters, amsgrad=True, foreach=False),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_it_goes_on_as_if_nothing_was(tmp_path: Path, optimizer: Any) -> None:
    """Three runs, each into fresh objects, give the losses and the state of one."""
    whole = Training(optimizer=optimizer)
    for _ in range(12):
        whole.step()
    losses: list[float] = []
    for run in range(3):
        part = Training(seed=run, optimizer=optimizer)
        with part.open(tmp_path) as checkpoints:
            assert checkpoints.resumed == (run > 0)
            assert checkpoints.meta == ({"step": 4 * run} if run else None)
            for _ in range(4):
                part.step()
                checkpoints.save(meta={"step": checkpoints_done(part, run)})
        losses += part.losses
    assert losses == whole.losses
    assert same(part.state(), whole.state())
    with Chain(tmp_path) as chain:
        assert chain.verify() == ()
        kinds = [one.kind for one in chain]
    assert kinds == ["base", *["delta"] * 11]


def checkpoints_done(part: Training, run: int) -> int:
    return 4 * run + len(part.losses)


@pytest.mark.parametrize("mirror", [False, True], ids=["alone", "mirror"])
def test_it_goes_on_from_an_object_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: bool
) -> None:
    """Each run on a new machine, with nothing but the bucket, or the mirror of its directory."""
    bucket, whole, losses = ModelBucket(), Training(), []
    bucket.place = URL
    monkeypatch.setattr(store, "open_bucket", lambda _url, _options: bucket)
    for _ in range(6):
        whole.step()
    for run in range(3):
        part = Training(seed=run)
        path = str(tmp_path / f"machine-{run}") if mirror else URL
        with part.open(path, mirror=URL if mirror else None) as checkpoints:
            assert checkpoints.resumed == (run > 0)
            for _ in range(2):
                part.step()
                checkpoints.save()
        losses += part.losses
    assert losses == whole.losses
    assert same(part.state(), whole.state())
    with Chain(URL) as chain:
        assert [one.number for one in chain] == [1, 2, 3, 4, 5, 6]
        assert chain.verify() == ()


def test_every_checkpoint_is_what_torch_save_has(tmp_path: Path) -> None:
    """At each kept one, by number; and the newest is a branch then."""
    training, states = Training(), {}
    with training.open(tmp_path) as checkpoints:
        for _ in range(5):
            save = checkpoints.save()
            states[save.number] = copied(training.state())
            training.step()
    for number, state in states.items():
        other = Training(seed=9)
        with other.open(tmp_path, at=number) as checkpoints:
            assert checkpoints.resumed
            assert same(other.state(), state)


def test_a_delta_has_what_was_written(tmp_path: Path) -> None:
    """A row of an embedding; small tensors and scalars go with the packed ones."""
    model = torch.nn.Embedding(5000, 64)
    with TorchCheckpointer.open(
        tmp_path, model=model, counts={"seen": 1, "list": [1, 2.5, None]}
    ) as checkpoints:
        checkpoints.save(wait=True)
        with torch.no_grad():
            model.weight[1000] += 1
        save = checkpoints.save(wait=True)
        assert (save.kind, save.blocks_stored) == ("delta", 1)
        assert checkpoints.save(wait=True).blocks_stored == 0
        random.random()
        assert checkpoints.save(wait=True).blocks_stored in (1, 2, 3)
    assert (load(tmp_path)["model.weight"] == model.weight.detach().numpy()).all()


def test_a_save_writes_to_no_tensor(tmp_path: Path) -> None:
    """Tensors of some pages share these with what torch counts references in: not even that is written."""
    model = torch.nn.ParameterList([torch.nn.Parameter(torch.randn(2048)) for _ in range(200)])
    optimizer = torch.optim.Adam(model.parameters())
    sum((parameter.sum() for parameter in model), torch.zeros(())).backward()
    optimizer.step()
    with TorchCheckpointer.open(tmp_path, model=model, optimizer=optimizer) as checkpoints:
        for _ in range(3):
            save = checkpoints.save(wait=True)
        assert save.blocks_written < 50  # of 1,200


def test_a_module_with_a_state_of_its_own(tmp_path: Path) -> None:
    """Which takes no arguments."""

    class Own(torch.nn.Linear):
        def state_dict(self) -> Any:  # type: ignore[override]
            return {"it": self.weight.detach()}

        def load_state_dict(self, state: Any, **_keywords: Any) -> None:  # type: ignore[override]
            self.weight.detach().copy_(state["it"])

    own, other = Own(70, 70), Own(70, 70)
    with TorchCheckpointer.open(tmp_path, model=own) as checkpoints:
        checkpoints.save()
    with TorchCheckpointer.open(tmp_path, model=other):
        assert same(other.state_dict(), own.state_dict())


class TestReplacedStorages:
    """What torch puts in the place of tensors is found by the next save."""

    @pytest.fixture
    def training(self) -> Training:
        training = Training()
        training.step()
        return training

    def check(self, path: Path, training: Training) -> None:
        other, expected = Training(seed=5), Training(seed=6)
        for one in (other, expected):
            one.model.to(training.model["hidden"].weight.dtype)
        expected.model.load_state_dict(copied(training.model.state_dict()))
        expected.optimizer.load_state_dict(copied(training.optimizer.state_dict()))
        expected.scheduler.load_state_dict(copied(training.scheduler.state_dict()))
        with other.open(path):
            assert same({**other.state(), "random": 0}, {**expected.state(), "random": 0})
            assert same(other.model.state_dict(), training.model.state_dict())

    def test_loaded_state(self, tmp_path: Path, training: Training) -> None:
        """Of modules by assignment, of optimizers always: a delta of nothing if nothing differs."""
        with training.open(tmp_path) as checkpoints:
            checkpoints.save(wait=True)
            training.model.load_state_dict(copied(training.model.state_dict()), assign=True)
            training.model["out"].weight = training.model["embed"].weight
            training.optimizer.load_state_dict(copied(training.optimizer.state_dict()))
            save = checkpoints.save(wait=True)
            assert (save.kind, save.blocks_stored) == ("delta", 0)
            training.step()
            assert checkpoints.save(wait=True).kind == "delta"
        self.check(tmp_path, training)

    def test_another_type(self, tmp_path: Path, training: Training) -> None:
        """double() and back: the values that count."""
        with training.open(tmp_path) as checkpoints:
            checkpoints.save(wait=True)
            training.model.double()
            with torch.no_grad():
                training.model["embed"].weight += 1e-12
            assert checkpoints.save(wait=True).kind == "delta"
        self.check(tmp_path, training)

    def test_state_that_appears(self, tmp_path: Path) -> None:
        """Adam's, after its first step, and a parameter that is added."""
        training = Training()
        with training.open(tmp_path) as checkpoints:
            checkpoints.save(wait=True)
            for _ in range(2):
                training.step()
                assert checkpoints.save(wait=True).kind == "delta"
        self.check(tmp_path, training)

    def test_what_did_not_change_is_not_written_again(self, tmp_path: Path) -> None:
        """State that appears, rows that are added, a layer that goes: beside a table that nobody writes."""
        model = torch.nn.ModuleDict(
            {"table": torch.nn.Embedding(1000, 256), "out": torch.nn.Linear(64, 32, bias=False)}
        )
        optimizer = torch.optim.Adam(model["out"].parameters())
        large, block = 250, 4096  # blocks of the table, bytes of one
        with TorchCheckpointer.open(tmp_path, model=model, optimizer=optimizer) as checkpoints:
            assert checkpoints.save(wait=True).blocks_stored > large
            model["out"](torch.ones(1, 64)).sum().backward()
            optimizer.step()
            save = checkpoints.save(wait=True)
            moments = 2 * model["out"].weight.nbytes // block
            assert save.kind == "delta"
            assert moments < save.blocks_stored < moments + 10
            rows = torch.nn.Embedding(1010, 256)
            with torch.no_grad():
                rows.weight[:1000] = model["table"].weight
            model["table"] = rows
            save = checkpoints.save(wait=True)
            added = -(-10 * 256 * 4 // block)
            assert save.kind == "delta"
            assert added <= save.blocks_stored < added + 10
            del model["out"], optimizer.param_groups[0]["params"][0]
            optimizer.state.clear()
            save = checkpoints.save(wait=True)
            assert save.kind == "delta"
            assert save.blocks_stored < 10
        found = dirtytrack_torch.load(tmp_path)
        assert same(found["model"], model.state_dict())
        assert found["optimizer"] == optimizer.state_dict()
        assert dirtytrack_torch.load(tmp_path, at=2)["model"]["table.weight"].shape == (1000, 256)

    def test_data_and_resize(self, tmp_path: Path) -> None:
        """Storages behind a tensor's back: .data, set_, resize_, t_, and views of one base."""
        state = {name: torch.randn(64, 64) for name in ("data", "set", "resize", "t")}
        with TorchCheckpointer.open(tmp_path, tensors=state) as checkpoints:
            for _ in range(3):
                state["data"].data = torch.randn(64, 64)
                state["set"].set_(torch.randn(64, 64))
                state["resize"].resize_(state["resize"].shape[0] + 500, 64).normal_()
                state["t"].t_()
                state["t"][3, 5] += 1
                checkpoints.save(wait=True)
                other = {"tensors": {}}
                with TorchCheckpointer.open(_copy(tmp_path, checkpoints), tensors=other["tensors"]):
                    assert same(other["tensors"], state)

    def test_tensors_that_are_made_for_each_save(self, tmp_path: Path) -> None:
        """They are not tracked anew for each, and stored where they differ."""

        class Averaged:
            def __init__(self) -> None:
                self.average = torch.randn(300, 64)

            def state_dict(self) -> Any:
                return {"average": self.average.clone()}

            def load_state_dict(self, state: Any) -> None:
                self.average = state["average"].clone()

        averaged = Averaged()
        with TorchCheckpointer.open(tmp_path, ema=averaged) as checkpoints:
            for number in range(6):
                averaged.average[number] += 1
                save = checkpoints.save(wait=True)
                assert save.kind == ("delta" if number else "base")
                assert number == 0 or save.blocks_stored == 1
        other = Averaged()
        with TorchCheckpointer.open(tmp_path, ema=other):
            assert same(other.average, averaged.average)


def _copy(path: Path, checkpoints: Any) -> Path:
    checkpoints.flush()
    to = path.parent / f"copy-{len(list(path.parent.iterdir()))}"
    with Chain(path) as chain:
        chain.export(to)
    return to


KINDS = {
    "every dtype": lambda: {
        str(dtype): torch.arange(3000, dtype=torch.float32).to(dtype)
        for dtype in (
            *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
            *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64),
            *(torch.float8_e4m3fn, torch.float8_e5m2, torch.complex128),
        )
    },
    "orders of axes": lambda: {
        "channels last": torch.randn(3, 20, 8, 8).to(memory_format=torch.channels_last),
        "transposed": torch.randn(40, 60).t(),
        "permuted": torch.randn(20, 30, 4).permute(2, 0, 1),
        "strided": torch.randn(100, 100)[::2, ::3],
        "expanded": torch.randn(1, 60).expand(50, 60),
    },
    "lazy views": lambda: {
        "conj": torch.randn(1000, dtype=torch.complex64).conj(),
        "neg": torch._neg_view(torch.randn(3000)),
        "small": torch.randn(3, dtype=torch.complex64).conj(),
    },
    "quantized": lambda: {
        "tensor": torch.quantize_per_tensor(torch.randn(100, 60), 0.1, 3, torch.quint8),
        "small": torch.quantize_per_tensor(torch.randn(5), 0.1, 3, torch.qint8),
        "channel": torch.quantize_per_channel(
            torch.randn(60, 100), torch.rand(60).double() + 0.1, torch.arange(60), 0, torch.qint8
        ),
    },
    "empty and small": lambda: {
        "empty": torch.empty(0),
        "none of them": torch.empty(3, 0, 5, dtype=torch.int16),
        "scalar": torch.tensor(2.5),
        "nan": torch.tensor(float("nan")),
    },
    "alike": lambda: {
        "rows": {name: {"step": torch.tensor(1.0), "sum": torch.randn(2000)} for name in (0, 1, "x")},
        "other order": {
            0: {"a": torch.ones(1), "b": torch.zeros(1)},
            1: {"b": torch.ones(1), "a": torch.ones(2)},
        },
        "other keys": {0: {"a": torch.ones(1)}, 1: {"b": torch.ones(1)}},
        "keys of two kinds": {0: {1: torch.ones(1)}, 1: {True: torch.ones(1)}},
        "a number among them": {0: {"a": torch.ones(1)}, 1: {"a": 1}},
        "ordered": {0: collections.OrderedDict(a=torch.ones(1)), 1: collections.OrderedDict(a=torch.ones(1))},
        "nothing in them": {0: {}, 1: {}},
        "one in another": {0: {"a": {0: {"b": torch.ones(1)}}}},
    },
    "overlapping": lambda: _overlapping(torch.randn(10_000)),
    "shared": lambda: {"shared": torch.randn(3000).share_memory_()},
    "plain values": lambda: {
        "numbers": [1, -(10**30), 2.5, float("inf"), float("-inf"), 1e-320, True, None, 3 + 4j],
        "text": ("ä\n\ud800", b"\x00\xff", bytearray(b"x")),
        5: {"of": collections.OrderedDict(b=1, a=2), (1, "a"): {3, 1}, None: frozenset({"x"})},
        "counter": collections.Counter({3: 2}),
        "queue": collections.deque([1, [2]], 5),
        "plain": [[1, -2], [True, False], (2.0, -0.0, "x", None), [], (), {1, 2}, collections.deque("ab", 3)],
        "large": [10**4000, 1],
        "torch": [torch.float16, torch.device("cpu"), torch.Size([2, 3])],
        "numpy": [np.arange(5000), np.zeros((0, 3)), np.float32(1.5), np.arange(6).reshape(2, 3).T],
        "times": np.array(["2020-01-01"], "M8[D]"),
    },
}


def _overlapping(flat: Any) -> dict[str, Any]:
    return {"flat": flat, "part": flat[100:5100], "other": flat[3000:], "same": flat[:]}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_whatever_a_state_holds(tmp_path: Path, make: Any) -> None:
    """It comes back as torch.save has it: into new tensors, and into those that are there."""
    torch.manual_seed(0)
    state, fresh = make(), {}
    with TorchCheckpointer.open(tmp_path, state=state) as checkpoints:
        checkpoints.save()
        checkpoints.save()
    with TorchCheckpointer.open(tmp_path, state=fresh) as checkpoints:
        assert same(fresh, copied(state))
        save = checkpoints.save(wait=True)
        assert save.blocks_stored == 0 or "part" in state  # which has memory of its own then
    there = make()
    with TorchCheckpointer.open(tmp_path, state=there):
        assert same(there, copied(state))


def test_restored_where_it_lies(tmp_path: Path) -> None:
    """Parameters stay the tensors that they are, and the optimizer is given memory, not a file."""
    first = Training()
    first.step()
    with first.open(tmp_path) as checkpoints:
        checkpoints.save()
    second = Training(seed=3)
    before = {name: one.data_ptr() for name, one in second.model.named_parameters()}
    version = second.model["hidden"].weight._version
    with second.open(tmp_path) as checkpoints:
        assert {name: one.data_ptr() for name, one in second.model.named_parameters()} == before
        assert second.model["out"].weight is second.model["embed"].weight
        assert second.model["hidden"].weight._version > version
        assert checkpoints.save(wait=True).blocks_stored == 0
    files = Path("/proc/self/maps").read_text(encoding="utf-8")
    assert str(tmp_path) not in files
    second.step()


def test_generators_and_tensors(tmp_path: Path) -> None:
    """Of torch, numpy and Python, each with its own state; tensors are filled in place."""

    def things() -> dict[str, Any]:
        return {
            "shuffle": torch.Generator(),
            "augment": np.random.default_rng(),
            "sample": random.Random(),
            "tensor": torch.zeros(2000),
            "tiny": torch.zeros(2),
        }

    def draw(one: dict[str, Any]) -> tuple[Any, ...]:
        return (
            torch.randperm(50, generator=one["shuffle"]).tolist(),
            one["augment"].random(),
            one["sample"].random(),
        )

    first = things()
    first["tensor"].normal_()
    first["tiny"].normal_()
    draw(first)
    with TorchCheckpointer.open(tmp_path, rng=False, **first) as checkpoints:
        checkpoints.save()
    expected = draw(first)
    second = things()
    with TorchCheckpointer.open(tmp_path, rng=False, **second):
        assert draw(second) == expected
        assert same(second["tensor"], first["tensor"])
        assert same(second["tiny"], first["tiny"])


class TestAnotherModel:
    """It is refused as a whole, with a list."""

    def test_missing_unexpected_and_other_shapes(self, tmp_path: Path) -> None:
        """As load_state_dict lists them; nothing is touched, and strict=False loads what fits."""
        saved = torch.nn.ModuleDict({"a": torch.nn.Linear(50, 40), "b": torch.nn.Linear(40, 40)})
        with TorchCheckpointer.open(tmp_path, model=saved) as checkpoints:
            checkpoints.save("meta")
        other = torch.nn.ModuleDict({"a": torch.nn.Linear(50, 40), "c": torch.nn.Linear(2, 2)})
        before = copied(other.state_dict())
        state = torch.get_rng_state()
        with pytest.raises(ChainError) as told:
            TorchCheckpointer.open(tmp_path, model=other)
        for part in (
            "Missing key(s) in model: 'c.weight', 'c.bias'",
            "Unexpected key(s) in model: 'b.weight'",
        ):
            assert part in str(told.value)
        assert same(other.state_dict(), before)
        assert torch.equal(torch.get_rng_state(), state)
        with TorchCheckpointer.open(tmp_path, model=other, strict=False) as checkpoints:
            assert same(other["a"].state_dict(), saved["a"].state_dict())
            assert same(other["c"].weight.detach(), before["c.weight"])
            assert checkpoints.save(wait=True).kind == "delta"
        shapes = torch.nn.ModuleDict({"a": torch.nn.Linear(50, 41), "c": torch.nn.Linear(2, 2)})
        with pytest.raises(
            ChainError, match=r"size mismatch for model.a.weight: \[40, 50\] in the chain, \[41, 50\]"
        ):
            TorchCheckpointer.open(tmp_path, model=shapes, strict=False)

    def test_other_things(self, tmp_path: Path) -> None:
        """Of other names; an optimizer of other groups; a tensor of another type."""
        model = torch.nn.Linear(50, 50)
        optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
        with TorchCheckpointer.open(
            tmp_path, model=model, optimizer=optimizer, t=torch.zeros(3)
        ) as checkpoints:
            checkpoints.save()
        with pytest.raises(ChainError, match=r"(?s)nothing of: 'extra'.*not asked for: 'optimizer', 't'"):
            TorchCheckpointer.open(tmp_path, model=model, extra=[])
        groups = torch.optim.SGD([{"params": [p]} for p in model.parameters()])
        with pytest.raises(
            ChainError, match=r"optimizer has \[2\] parameters by group in the chain, and \[1, 1\]"
        ):
            TorchCheckpointer.open(tmp_path, model=model, optimizer=groups, t=torch.zeros(3))
        other = torch.optim.Adam(model.parameters())
        for strict in (True, False):
            with pytest.raises(ChainError, match=r"of another kind.* dampening, .* and here amsgrad, betas"):
                TorchCheckpointer.open(
                    tmp_path, model=model, optimizer=other, t=torch.zeros(3), strict=strict
                )
        with pytest.raises(ChainError, match="size mismatch for t"):
            TorchCheckpointer.open(tmp_path, model=model, optimizer=optimizer, t=torch.zeros(3).double())
        with TorchCheckpointer.open(tmp_path, model=model, extra=[7], strict=False) as checkpoints:
            assert checkpoints.resumed

    @pytest.mark.parametrize(
        ("there", "message"),
        [
            ({"t": {}}, "t is a Tensor in the chain, and a dict here"),
            ({"seen": []}, "seen is a dict in the chain, and a list here"),
            ({"order": {}}, "order is a list in the chain, and a dict here"),
            ({"seen": torch.ones(3)}, r"size mismatch for seen: dict in the chain, \[3\] torch.float32 here"),
            ({"seen": random.Random()}, "seen is no generator of python in the chain"),
            (
                {"shuffle": random.Random()},
                "shuffle is no generator of python in the chain",
            ),
            ({"draws": np.random.Generator(np.random.MT19937())}, "draws is a PCG64 .* a MT19937 here"),
            ({"seen": "optimizer"}, "seen is no state of an optimizer in the chain"),
            ({"order": "optimizer"}, "order is no state of an optimizer in the chain"),
            ({"order": "model"}, r"Missing key\(s\) in order: 'weight', 'bias'"),
        ],
    )
    @pytest.mark.parametrize("strict", [True, False])
    def test_things_of_another_kind(
        self, tmp_path: Path, there: dict[str, Any], message: str, strict: bool
    ) -> None:
        """Under names that the chain has; before anything is loaded into those that fit."""

        def things() -> dict[str, Any]:
            return {
                "model": torch.nn.Linear(50, 50),
                "t": torch.zeros(3),
                "seen": {"samples": 5},
                "order": [5],
                "shuffle": torch.Generator(),
                "draws": np.random.default_rng(),
            }

        with TorchCheckpointer.open(tmp_path, **things()) as checkpoints:
            checkpoints.save()
        now = things()
        made = {
            "optimizer": torch.optim.SGD(now["model"].parameters()),
            "model": torch.nn.Linear(3, 3),
        }
        now |= {name: made.get(one, one) if isinstance(one, str) else one for name, one in there.items()}
        if not strict and "order" in there and there["order"] == "model":
            return  # which is left as it is
        before = copied(now["model"].state_dict())
        with pytest.raises(ChainError, match=message):
            TorchCheckpointer.open(tmp_path, strict=strict, **now)
        assert same(now["model"].state_dict(), before)

    def test_a_chain_of_something_else(self, tmp_path: Path) -> None:
        """Of a Checkpointer, damaged ones, and none at all."""
        from dirtytrack.checkpoint import Checkpointer

        with Checkpointer(tmp_path / "plain", {"a": np.zeros(10)}) as plain:
            plain.save()
        model = torch.nn.Linear(3, 3)
        with pytest.raises(ChainError, match="not written by a TorchCheckpointer"):
            TorchCheckpointer.open(tmp_path / "plain", model=model)
        with pytest.raises(FileNotFoundError):
            TorchCheckpointer.open(tmp_path / "none", model=model, at=3)
        (tmp_path / "empty").mkdir()
        TorchCheckpointer.open(tmp_path / "empty", model=model).close()

    def test_the_newest_is_damaged(self, tmp_path: Path) -> None:
        """The one before it is loaded, whole."""
        training = Training()
        states = []
        with training.open(tmp_path) as checkpoints:
            for number in range(4):
                training.step()
                checkpoints.save(number)
                states.append(copied(training.state()))
        newest = max(tmp_path.glob("*.delta"))
        data = bytearray(newest.read_bytes())
        data[200] ^= 1
        newest.write_bytes(bytes(data))
        other = Training(seed=4)
        with other.open(tmp_path) as checkpoints:
            assert checkpoints.meta == 2
            assert same(other.state(), states[2])


def _lazy() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LazyLinear(5))


REFUSED = {
    "lazy": (lambda: {"model": _lazy()}, r"model\.1\.weight is not initialized"),
    "meta": (
        lambda: {"model": torch.nn.Linear(9, 9, device="meta")},
        r"model\.weight is on the device 'meta'",
    ),
    "sparse": (
        lambda: {"x": {"y": [torch.eye(3).to_sparse()]}},
        r"x\.y\.0 is a tensor in the layout sparse_coo",
    ),
    "csr": (lambda: {"x": torch.eye(3).to_sparse_csr()}, r"x is a tensor in the layout sparse_csr"),
    "nested": (
        lambda: {"x": [torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)]},
        r"x\.0 is a",
    ),
    "mkldnn": (lambda: {"x": [torch.randn(9, 9).to_mkldnn()]}, r"x\.0 is a tensor in the layout _mkldnn"),
    "nested, strided": (
        lambda: {"x": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])},
        r"x is a nested tensor, which is made of several: save its unbind\(\)",
    ),
    "fake": (lambda: {"x": [_fake()]}, r"x\.0 is a FakeTensor, and has no contents"),
    "a number": (
        lambda: {"x": {"a": [1, 10**4400]}},
        r"x\.a\.1 is an integer of more digits than Python reads",
    ),
    "an object": (lambda: {"x": {"a": {"b": object()}}}, r"x\.a\.b is a builtins\.object, which is no data"),
    "a function": (lambda: {"x": [len]}, r"x\.0 is a builtins\.builtin_function"),
    "objects in an array": (lambda: {"x": [np.array([{}])]}, r"x\.0 is an array of numpy's of object, which"),
    "records": (lambda: {"x": [np.zeros(3, "i4,f4")]}, r"x\.0 is an array of numpy's of \[\('f0', '<i4'\)"),
    "a key": (lambda: {"x": {object: 1}}, "x is a dictionary with the key"),
    "itself": (lambda: {"x": _circle()}, r"^x\.0\.0\.0\.0\.0\.0\.0\.\.\. is nested more than 200 deep"),
    "no state": (lambda: {"x": 5}, "x=int object has no state"),
    "a class": (lambda: {"model": torch.nn.Linear}, "model is the class Linear: pass one that is made of it"),
    "nothing": (dict, "nothing to save"),
    "rng": (lambda: {"x": [], "rng": 5}, "rng is True or False"),
}


def _fake() -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.randn(3000)


def _circle() -> Any:
    circle: list[Any] = []
    circle.append(circle)
    return circle


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_saved_is_named(tmp_path: Path, make: Any, message: str) -> None:
    """Before anything is touched, at the opening and at a save."""
    with pytest.raises((TypeError, ValueError), match=message):
        TorchCheckpointer.open(tmp_path / "chain", **make())
    assert not (tmp_path / "chain").exists()
    if "x" in make() and not isinstance(make()["x"], int) and "rng" not in make():
        holder: list[Any] = []
        with TorchCheckpointer.open(tmp_path / "chain", holder=holder) as checkpoints:
            checkpoints.save(1, wait=True)
            holder.append(make()["x"])
            with pytest.raises((TypeError, ValueError), match=r"holder\."):
                checkpoints.save(2)
            holder.clear()
            checkpoints.save(3, wait=True)
            assert checkpoints.meta == 3


def test_the_keywords_of_a_checkpointer(tmp_path: Path) -> None:
    """They are passed on, and what is no keyword is a state."""
    model = torch.nn.Linear(50, 50)
    with TorchCheckpointer.open(
        tmp_path, model=model, keep=1, fsync=False, compression="none"
    ) as checkpoints:
        for number in range(5):
            save = checkpoints.save(number)
        save.wait()
        checkpoints.retain([save.id])
        checkpoints.compact(wait=True)
        assert "TorchCheckpointer of model, rng" in repr(checkpoints)
    with Chain(tmp_path) as chain:
        assert len(chain) == 1
    with pytest.raises(ValueError, match="keep=0"):
        TorchCheckpointer.open(tmp_path, model=model, keep=0)
    assert checkpoints.closed
    with pytest.raises(ClosedError), checkpoints:
        pass
    with pytest.raises(ClosedError):
        checkpoints.save()


def test_a_failed_bind_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that fails after the state has changed leaves the next one right."""
    from dirtytrack.checkpoint import Checkpointer

    state: dict[str, Any] = {"a": torch.randn(3000), "b": 1.5}
    with TorchCheckpointer.open(tmp_path, state=state) as checkpoints:
        checkpoints.save(wait=True)
        state["c"] = torch.randn(5)
        with monkeypatch.context() as patch:
            patch.setattr(Checkpointer, "bind", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                checkpoints.save()
        del state["c"]
        checkpoints.save(wait=True)
    fresh: dict[str, Any] = {}
    with TorchCheckpointer.open(tmp_path, state=fresh):
        assert same(fresh, state)


def _train_to_the_end(path: Path, seed: int, told: int) -> NoReturn:
    status = 1
    try:
        training = Training(seed=seed)
        with training.open(path) as checkpoints:
            for step in range(checkpoints.meta["step"] if checkpoints.resumed else 0, 20):
                training.step()
                os.write(told, b".")
                checkpoints.save(meta={"step": step + 1}, wait=step % 3 == 0)
                os.write(told, b".")
        status = 0
    finally:
        os._exit(status)


@pytest.mark.slow
def test_killed_over_and_over(tmp_path: Path) -> None:
    """With -9, at a random step of each run: the end is that of a run that was not."""
    whole = Training()
    for _ in range(20):
        whole.step()
    draw, kills = random.Random(7), 0
    for run in range(40):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _train_to_the_end(tmp_path, seed=run % 5, told=writer)
        os.close(writer)
        left = draw.randint(1, 6) if kills < 6 else 1000
        with open(reader, "rb", buffering=0) as pipe:
            while pipe.read(1):
                left -= 1
                if not left:
                    os.kill(child, signal.SIGKILL)
                    kills += 1
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert kills == 6
    last = Training(seed=77)
    with last.open(tmp_path) as checkpoints:
        assert checkpoints.meta == {"step": 20}
        assert same(last.state(), whole.state())


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:TypedStorage is deprecated")
def test_the_same_bytes_with_another_meaning(tmp_path: Path) -> None:
    """A conjugate, a negative and another scale in the place of what was there are found."""
    plain, flat = torch.randn(3000, dtype=torch.complex64), torch.randn(3000)
    few, one, square = torch.randn(5, dtype=torch.complex64), torch.randn(1), torch.arange(9.0).view(3, 3)
    state: dict[str, Any] = {
        "conj": plain,
        "neg": flat,
        "scale": torch.quantize_per_tensor(torch.ones(5), 0.1, 3, torch.quint8),
        "small": [few, one, square, square.clone()],
    }
    with TorchCheckpointer.open(tmp_path, state=state) as checkpoints:
        checkpoints.save()
        state["conj"], state["neg"] = plain.conj(), torch._neg_view(flat)
        state["scale"] = torch.quantize_per_tensor(torch.ones(5), 0.2, 3, torch.quint8)
        state["small"][:3] = few.conj(), torch._neg_view(one), square.t()
        state["small"][3].data = state["small"][3].data.view(torch.int32)
        checkpoints.save(wait=True)
    fresh: dict[str, Any] = {}
    with TorchCheckpointer.open(tmp_path, state=fresh):
        assert same(fresh, copied(state))


def test_a_storage_that_was_let_go(tmp_path: Path) -> None:
    """It is named, and not read."""
    state = {"gone": torch.randn(3000), "there": torch.randn(3000), "small": torch.randn(3)}
    with TorchCheckpointer.open(tmp_path, state=state) as checkpoints:
        checkpoints.save()
        state["gone"].untyped_storage().resize_(0)
        with pytest.raises(ValueError, match=r"state\.gone is without memory"):
            checkpoints.save()
        state["gone"].untyped_storage().resize_(12_000)
        state["gone"].zero_()
        checkpoints.save(wait=True)
        state["small"].untyped_storage().resize_(0)
        with pytest.raises(ValueError, match=r"state\.small is without memory"):
            checkpoints.save()
        state["small"].untyped_storage().resize_(12)
        state["small"].zero_()
        checkpoints.save(wait=True)
    fresh: dict[str, Any] = {}
    with TorchCheckpointer.open(tmp_path, state=fresh):
        assert same(fresh, state)
