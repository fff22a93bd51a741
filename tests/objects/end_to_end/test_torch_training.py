"""What torch does to the tensors of a model and an optimizer: docs/guide.md has a sentence for each test."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from _lib.objects.takers import save
from _lib.support import library
from dirtytrack import RegionLostError, Session
from dirtytrack.checkpoint import Checkpointer, load, restore
from dirtytrack.snapshot import History, Snapshot

torch = library("torch")
pytestmark = pytest.mark.torch


@pytest.fixture
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(100, 200), torch.nn.BatchNorm1d(200), torch.nn.Linear(200, 10))


def step(model: Any, optimizer: Any = None) -> None:
    model(torch.randn(8, 100)).sum().backward()
    if optimizer is not None:
        optimizer.step()
        optimizer.zero_grad()


def saved(path: Path) -> dict[str, Any]:
    return {name: torch.from_numpy(array) for name, array in load(path).items()}


# Parameters and buffers


def test_load_state_dict_copies_into_the_parameters(session: Session, model: Any) -> None:
    """They stay where they are, and all of their pages are written, though the values are the same."""
    regions = [session.track(parameter) for parameter in model.parameters()]
    model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()})
    epoch = session.collect()
    assert all(epoch[region] == region.page_set() for region in regions)
    assert [region.address for region in regions] == [one.data_ptr() for one in model.parameters()]


def test_assign_leaves_the_old_parameters_tracked(tmp_path: Path, model: Any) -> None:
    """And unwritten: nothing is lost, and what is saved from then on are the old values."""
    old = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with Checkpointer.open(tmp_path, dict(model.named_parameters()), fsync=False) as checkpoints:
        model.load_state_dict({name: value + 1 for name, value in model.state_dict().items()}, assign=True)
        checkpoints.save()
    values = saved(tmp_path)
    for name, parameter in model.named_parameters():
        assert torch.equal(values[name], old[name])
        assert torch.equal(parameter, old[name] + 1)


def test_assigned_before_they_are_given_they_are_the_models(tmp_path: Path, model: Any) -> None:
    """The remedy."""
    model.load_state_dict({name: value + 1 for name, value in model.state_dict().items()}, assign=True)
    with Checkpointer.open(tmp_path, dict(model.named_parameters()), fsync=False) as checkpoints:
        with torch.no_grad():
            model[0].weight += 1
        checkpoints.save()
    values = saved(tmp_path)
    assert all(torch.equal(values[name], parameter) for name, parameter in model.named_parameters())


def _other_type(model: Any) -> None:
    model.double().float()


def _other_order(model: Any) -> None:
    model.to(memory_format=torch.channels_last)


def _other_memory(model: Any) -> None:
    model.share_memory()


CONVERSIONS = [_other_type, _other_order, _other_memory]


@pytest.fixture
def images() -> Any:
    return torch.nn.Sequential(torch.nn.Conv2d(30, 20, 3))


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_a_converted_parameter_is_lost(tmp_path: Path, images: Any, convert: Callable[[Any], None]) -> None:
    """Its storage is another one, so the next save fails."""
    with Checkpointer.open(tmp_path, dict(images.named_parameters()), fsync=False) as checkpoints:
        convert(images)
        with pytest.raises(RegionLostError, match=r"0\.weight"):
            checkpoints.save()


@pytest.mark.parametrize("convert", [_other_type, _other_order])
def test_a_state_dict_hides_that(tmp_path: Path, images: Any, convert: Callable[[Any], None]) -> None:
    """Its tensors are others than the parameters: they keep the storage that these had."""
    state = images.state_dict()
    assert state["0.weight"] is not images[0].weight
    assert state["0.weight"].data_ptr() == images[0].weight.data_ptr()
    before = state["0.weight"].clone()
    with Checkpointer.open(tmp_path, dict(state), fsync=False) as checkpoints:
        convert(images)
        with torch.no_grad():
            images[0].weight += 1
        checkpoints.save()
    assert torch.equal(saved(tmp_path)["0.weight"], before)


def test_buffers_are_written_in_place(session: Session, model: Any) -> None:
    """Running statistics and the counter of batches: a state_dict has them, the parameters do not."""
    names = {name for name, _ in model.named_buffers()}
    assert names == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert names == set(model.state_dict()) - {name for name, _ in model.named_parameters()}
    regions = [session.track(buffer) for buffer in model.buffers()]
    model(torch.randn(8, 100))
    epoch = session.collect()
    assert all(epoch[region] for region in regions)


def test_a_gradient_is_another_tensor_in_every_step(session: Session, model: Any) -> None:
    """zero_grad() lets go of it; with set_to_none=False it stays, and is written."""
    step(model)
    weight = model[0].weight
    region = session.track(weight.grad)
    model.zero_grad()
    step(model)
    assert weight.grad.data_ptr() != region.address
    assert not region.lost
    session.untrack(region)
    region = session.track(weight.grad)
    model.zero_grad(set_to_none=False)
    step(model)
    assert weight.grad.data_ptr() == region.address
    assert session.collect()[region] == region.page_set()


# Optimizers

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD with momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "Adam": lambda parameters: torch.optim.Adam(parameters),
    "Adam, foreach": lambda parameters: torch.optim.Adam(parameters, foreach=True),
    "Adam, fused": lambda parameters: torch.optim.Adam(parameters, fused=True),
    "AdamW, amsgrad": lambda parameters: torch.optim.AdamW(parameters, amsgrad=True),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, momentum=0.9, centered=True),
    "Adagrad": lambda parameters: torch.optim.Adagrad(parameters),
}


def tensors(optimizer: Any) -> dict[str, Any]:
    """The tensors of an optimizer's state by name, as a program has to name them for a chain."""
    return {
        f"{place}.{name}": value
        for place, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_optimizers_state_stays_once_it_is_there(session: Session, model: Any, kind: str) -> None:
    """It is made by the first step (Adagrad: at once), and written in place by every later one."""
    optimizer = OPTIMIZERS[kind](model.parameters())
    assert bool(tensors(optimizer)) == (kind == "Adagrad")
    step(model, optimizer)
    state = tensors(optimizer)
    assert state
    regions = {name: session.track(value) for name, value in state.items()}
    session.reset()
    step(model, optimizer)
    epoch = session.collect()
    for name, value in tensors(optimizer).items():
        assert value.data_ptr() == regions[name].address
        assert epoch[regions[name]]


def test_a_step_with_no_gradient_makes_the_state(session: Session, model: Any) -> None:
    """Before the first batch, so that a chain can be resumed into it; no parameter changes."""
    optimizer = torch.optim.Adam(model.parameters())
    before = [parameter.detach().clone() for parameter in model.parameters()]
    rate = optimizer.param_groups[0]["lr"]
    optimizer.param_groups[0]["lr"] = 0.0
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    optimizer.param_groups[0]["lr"] = rate
    assert all(map(torch.equal, model.parameters(), before))
    state = tensors(optimizer)
    assert {name.partition(".")[2] for name in state} == {"step", "exp_avg", "exp_avg_sq"}
    assert not any(value.any() for name, value in state.items() if not name.endswith("step"))


def test_an_optimizers_load_state_dict_replaces_its_tensors(tmp_path: Path, model: Any) -> None:
    """By those of the dictionary, if they fit as they are; the old ones stay tracked, and are saved."""
    optimizer = torch.optim.Adam(model.parameters())
    step(model, optimizer)
    old = tensors(optimizer)
    given = optimizer.state_dict()
    given["state"] = copy.deepcopy(given["state"])
    with Checkpointer.open(tmp_path, old, fsync=False) as checkpoints:
        optimizer.load_state_dict(given)
        before = {name: value.clone() for name, value in old.items()}
        step(model, optimizer)
        checkpoints.save()
    new = tensors(optimizer)
    assert new["0.exp_avg"].data_ptr() == given["state"][0]["exp_avg"].data_ptr()
    values = saved(tmp_path)
    for name in old:
        assert new[name].data_ptr() != old[name].data_ptr()
        assert torch.equal(values[name], before[name])
    assert not torch.equal(new["0.exp_avg"], old["0.exp_avg"])


def test_a_training_run_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    """Given parameters, buffers and the optimizer's state: it ends as one that was not interrupted."""

    def run(stop: int, resumed: bool) -> dict[str, Any]:
        torch.manual_seed(1)
        model = torch.nn.Sequential(torch.nn.Linear(100, 50), torch.nn.BatchNorm1d(50))
        optimizer = torch.optim.Adam(model.parameters())
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        state |= {f"optimizer.{name}": value for name, value in tensors(optimizer).items()}
        with Checkpointer.open(tmp_path / str(resumed), state, fsync=False) as checkpoints:
            first = checkpoints.meta["step"] + 1 if checkpoints.meta else 0
            for number in range(first, stop):
                torch.manual_seed(100 + number)
                step(model, optimizer)
                checkpoints.save(meta={"step": number})
        return {name: value.detach().clone() for name, value in state.items()}

    whole = run(6, resumed=False)
    run(3, resumed=True)
    continued = run(6, resumed=True)
    assert all(torch.equal(value, continued[name]) for name, value in whole.items())


# Autograd


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _by_rollback(parameter: Any, stack: ExitStack, path: Path) -> Callable[[], object]:
    return stack.enter_context(Snapshot(None, parameter)).rollback


def _by_history(parameter: Any, stack: ExitStack, path: Path) -> Callable[[], object]:
    history = stack.enter_context(History(None, parameter))
    state = history.save()
    return lambda: history.restore(state)


def _by_restore(parameter: Any, stack: ExitStack, path: Path) -> Callable[[], object]:
    save(path, parameter=parameter)
    return lambda: restore(path, into={"parameter": parameter})


WAYS_BACK = [_by_rollback, _by_history, _by_restore]
_Prepare = Callable[[Any, ExitStack, Path], Callable[[], object]]


@pytest.mark.parametrize("prepare", WAYS_BACK)
def test_autograd_does_not_notice_what_is_put_back(
    tmp_path: Path, stack: ExitStack, prepare: _Prepare
) -> None:
    """Between forward and backward: the version stays, and the gradient is wrong, without an error."""
    parameter = torch.full((1000,), 2.0, requires_grad=True)
    go_back = prepare(parameter, stack, tmp_path)
    with torch.no_grad():
        parameter += 1
    loss = (parameter**2).sum()
    version = parameter._version
    go_back()
    assert (parameter == 2).all()
    assert parameter._version == version
    loss.backward()
    assert (parameter.grad == 4).all()  # 6 at the values of the forward pass


@pytest.mark.parametrize("prepare", WAYS_BACK)
def test_autograd_is_told_by_increment_version(tmp_path: Path, stack: ExitStack, prepare: _Prepare) -> None:
    """The remedy: then the backward pass raises."""
    parameter = torch.full((1000,), 2.0, requires_grad=True)
    go_back = prepare(parameter, stack, tmp_path)
    with torch.no_grad():
        parameter += 1
    loss = (parameter**2).sum()
    go_back()
    torch.autograd.graph.increment_version(parameter)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
