"""Which parameters changed, by name; a step that is taken back; against copies of the state."""

from __future__ import annotations

from typing import Any

import pytest

import dirtytrack
from _lib.support import library
from dirtytrack import Session
from dirtytrack.snapshot import History, Snapshot

torch = library("torch")
pytestmark = pytest.mark.torch

from _lib.torch_states import copied, same  # noqa: E402
from dirtytrack.torch import ModuleSnapshot, track_module  # noqa: E402


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return torch.nn.ModuleDict(
        {
            "embed": torch.nn.Embedding(400, 64, sparse=True),
            "norm": torch.nn.BatchNorm1d(2048),
            "linear": torch.nn.Linear(2048, 64),
        }
    )


def _step(model: Any, optimizer: Any) -> None:
    optimizer.zero_grad()
    x = model["linear"](model["norm"](torch.randn(4, 2048))) + model["embed"](torch.tensor([1, 200, 3, 300]))
    x.square().sum().backward()
    optimizer.step()


def test_regions_by_name(model: Any) -> None:
    """Those of a state_dict, and only what was written is reported."""
    with Session() as session:
        regions = track_module(session, model)
        assert list(regions) == [
            name for kind in (model.named_parameters(), model.named_buffers()) for name, _ in kind
        ]
        with torch.no_grad():
            model["embed"].weight[300] += 1
            model["norm"].running_mean += 1
        with session.collect() as epoch:
            row = (300 * 256 + regions["embed.weight"].geometry.offset) // regions["embed.weight"].page_size
            edges = {0, 24, 25}  # pages that the allocator's records, and neighbours, have a part of
            assert row in epoch["embed.weight"]
            assert set(epoch["embed.weight"]) <= {row} | edges
            assert epoch["norm.running_mean"]
            assert len(epoch["linear.weight"]) <= 2


def test_an_optimizer_and_ties(model: Any) -> None:
    """Its state goes by the names of parameters; what is tied or empty is there once or not at all."""
    model["tied"] = model["linear"]
    model.register_buffer("empty", torch.empty(0))
    optimizer = torch.optim.Adam([p for n, p in model.named_parameters() if "embed" not in n])
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    with Session() as session:
        regions = track_module(session, model, optimizer)
        assert "tied.weight" not in regions
        assert "empty" not in regions
        assert regions["optimizer.linear.weight.exp_avg"].nbytes == model["linear"].weight.nbytes
        assert regions["optimizer.norm.bias.step"].nbytes == 4


def test_what_can_not_be_tracked_is_named(model: Any) -> None:
    """And nothing of the rest stays tracked."""
    model.register_buffer("last", torch.eye(3).to_sparse())
    with Session() as session:
        with pytest.raises(ValueError, match=r"last: .*sparse"):
            track_module(session, model)
        assert session.regions == ()
        with pytest.raises(TypeError, match="not a dict"):
            track_module(session, {})
        with pytest.raises(ValueError, match="no tensor"):
            track_module(session, torch.nn.ReLU())


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.nn.LazyLinear(3), "1.weight: .* not initialized"),
        (lambda: torch.nn.Linear(3, 3, device="meta"), "1.weight: .* on device 'meta'"),
    ],
    ids=["lazy", "meta"],
)
@pytest.mark.parametrize("verb", [Snapshot, History, ModuleSnapshot, dirtytrack.watch, track_module])
def test_what_has_no_contents_is_named(verb: Any, make: Any, message: str) -> None:
    """By whatever takes modules."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), make())
    before = dirtytrack.default_session().regions
    with pytest.raises(ValueError, match=message):
        (verb(model) if verb in (ModuleSnapshot, dirtytrack.watch) else verb(None, model)).__enter__()
    assert dirtytrack.default_session().regions == before


def test_watching_a_module(model: Any) -> None:
    """Two lines, and the names of the tensors that changed; a Snapshot and a History take modules, too."""
    with dirtytrack.watch(model) as changes, torch.no_grad():
        model["embed"].weight[3, 5] += 1
    assert {change.region for change in changes} == {"embed.weight"}
    before = copied(model.state_dict())
    with Snapshot(None, model) as snapshot, History(None, model) as history:
        first = history.save()
        with torch.no_grad():
            model["linear"].bias += 1
        assert {change.region for change in snapshot.diff()} == {"linear.bias"}
        snapshot.rollback()
        assert same(model.state_dict(), before)
        with torch.no_grad():
            model["linear"].bias += 2
        history.restore(first)
        assert same(model.state_dict(), before)
    with pytest.raises(ValueError, match="no tensor"):
        dirtytrack.watch(torch.nn.ReLU()).__enter__()


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_a_step_is_taken_back(model: Any, kind: str, stepped: bool) -> None:
    """Module and optimizer are what they were, whether the optimizer had a state before or not."""
    model["embed"].sparse = False
    make = {"AdamW": torch.optim.AdamW, "SGD": lambda p: torch.optim.SGD(p, momentum=0.9)}[kind]
    optimizer = make(model.parameters())
    if stepped:
        _step(model, optimizer)
    before = copied([model.state_dict(), optimizer.state_dict()])
    with ModuleSnapshot(model, optimizer) as snapshot:
        for _ in range(2):
            _step(model, optimizer)
            optimizer.param_groups[0]["lr"] = 5.0
            assert not same([model.state_dict(), optimizer.state_dict()], before)
            assert snapshot.diff()
            assert snapshot.rollback() > 0
            assert same([model.state_dict(), optimizer.state_dict()], before)
            assert not snapshot.diff()
        if stepped:
            _step(model, optimizer)
            after = copied([model.state_dict(), optimizer.state_dict()])
            snapshot.advance()
            _step(model, optimizer)
            snapshot.rollback()
            assert same([model.state_dict(), optimizer.state_dict()], after)
    snapshot.close()
    assert snapshot.closed
    assert dirtytrack.default_session().regions == ()
    with pytest.raises(dirtytrack.ClosedError), snapshot:
        pass


def test_autograd_is_told(model: Any) -> None:
    """A backward pass through what a rollback has undone is an error."""
    with ModuleSnapshot(model) as snapshot:
        with torch.no_grad():
            model["linear"].weight += 1
        loss = model["linear"](torch.randn(3, 2048, requires_grad=True)).square().sum()
        snapshot.rollback()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
