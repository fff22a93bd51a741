"""Tensors that have no memory of their own, or not in one piece: refused in our own words, not in torch's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from _lib.objects.takers import TAKERS
from _lib.support import in_child, library
from dirtytrack import RegionLostError, Session

torch = library("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:Sparse (CSR|CSC|BSR|BSC) tensor support is in beta:UserWarning"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors is in prototype:UserWarning"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype:UserWarning"),
]


class Wrapper(torch.Tensor):  # type: ignore[misc,name-defined]
    """A tensor that only looks like one, as those of libraries for quantization and sharding do."""

    @staticmethod
    def __new__(cls, inner: Any) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError("not for tests")


def _emptied() -> Any:
    tensor = torch.zeros(16, 16)
    tensor.untyped_storage().resize_(0)
    return tensor


def _fake() -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.zeros(16, 16)


def _within(transform: Callable[[Any], Any]) -> Any:
    # What a function is given that torch.func transforms.
    given: list[Any] = []
    transform(lambda tensor: given.append(tensor) or tensor.sum())(torch.ones(16, 16))
    return given[0]


def _lazy_module() -> Any:
    return next(torch.nn.LazyLinear(5).parameters())


# The tensor, and what the error has to say of it.
KINDS: dict[str, tuple[Callable[[], Any], str]] = {
    "sparse": (lambda: torch.eye(16).to_sparse(), r"values\(\)|to_dense\(\)"),
    "sparse CSR": (lambda: torch.eye(16).to_sparse_csr(), r"values\(\)|to_dense\(\)"),
    "sparse CSC": (lambda: torch.eye(16).to_sparse_csc(), r"values\(\)|to_dense\(\)"),
    "sparse BSR": (lambda: torch.eye(16).to_sparse_bsr((2, 2)), r"values\(\)|to_dense\(\)"),
    "sparse BSC": (lambda: torch.eye(16).to_sparse_bsc((2, 2)), r"values\(\)|to_dense\(\)"),
    "sparse parameter": (lambda: torch.nn.Parameter(torch.eye(16).to_sparse()), r"values\(\)|to_dense\(\)"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(3), torch.ones(4)]), r"values\(\)|unbind\(\)"),
    "nested, jagged": (
        lambda: torch.nested.nested_tensor([torch.ones(3), torch.ones(4)], layout=torch.jagged),
        r"values\(\)|unbind\(\)",
    ),
    "mkldnn": (lambda: torch.ones(16, 16).to_mkldnn(), r"to_dense\(\)"),
    "meta": (lambda: torch.ones(16, 16, device="meta"), "meta"),
    "meta parameter": (lambda: torch.nn.Linear(4, 4, device="meta").weight, "meta"),
    "fake": (_fake, "storage"),
    "zeros without memory": (lambda: torch._efficientzerotensor(16, 16), "storage"),
    "within vmap": (lambda: _within(torch.func.vmap), "storage"),
    "within grad": (lambda: _within(torch.func.grad), "storage"),
    "within functionalize": (lambda: _within(torch.func.functionalize), "storage"),
    "with a mask": (
        lambda: torch.masked.masked_tensor(torch.ones(16), torch.ones(16, dtype=torch.bool)),
        "storage",
    ),
    "wrapper": (lambda: Wrapper(torch.ones(16, 16)), "storage"),
    "emptied by its owner": (_emptied, "storage"),
    "not initialized": (_lazy_module, "UninitializedParameter"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_without_memory_is_refused(kind: str) -> None:
    """With what to give instead."""
    make, words = KINDS[kind]
    with Session() as session, pytest.raises((TypeError, ValueError), match=words):
        session.track(make())


@pytest.mark.parametrize("take", TAKERS)
@pytest.mark.parametrize("kind", ["sparse CSR", "mkldnn"])
def test_it_is_refused_wherever_it_is_given(tmp_path: Path, kind: str, take: str) -> None:
    """With the same words."""
    make, words = KINDS[kind]
    with pytest.raises((TypeError, ValueError), match=words):
        TAKERS[take](make(), tmp_path, 1024)


@pytest.mark.parametrize("kind", ["fake", "zeros without memory", "wrapper", "emptied by its owner"])
def test_nothing_is_restored_to_address_0(tmp_path: Path, kind: str) -> None:
    """Where torch says that a tensor without storage lies."""
    make, words = KINDS[kind]

    def run() -> None:
        with pytest.raises(ValueError, match=words):
            TAKERS["restore"](make(), tmp_path, 1024)

    in_child(run).check()


@pytest.mark.parametrize("take", ["track", "start", "restore", "snapshot"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda: torch.nn.Linear(4, 4), "Linear.*(parameters|state_dict)", id="module"),
        pytest.param(
            lambda: torch.optim.SGD(torch.nn.Linear(4, 4).parameters()), "SGD.*no memory", id="optimizer"
        ),
        pytest.param(lambda: torch.nn.Linear(4, 4).state_dict(), "OrderedDict.*no memory", id="state_dict"),
        pytest.param(lambda: [torch.ones(4)], "list.*no memory", id="list"),
    ],
)
def test_what_holds_tensors_is_no_memory(
    tmp_path: Path, make: Callable[[], Any], words: str, take: str
) -> None:
    """The error says so of the object; of modules a snapshot takes the tensors."""
    if take == "snapshot" and isinstance(thing := make(), torch.nn.Module):
        TAKERS[take](thing, tmp_path, 1024)
        return
    with pytest.raises(TypeError, match=words):
        TAKERS[take](make(), tmp_path, 1024)


@pytest.mark.parametrize("part", ["values", "crow_indices", "col_indices"])
def test_the_parts_of_a_sparse_tensor_are_taken(part: str) -> None:
    """What the error above says to give."""
    sparse = torch.eye(2000).to_sparse_csr()
    tensor = getattr(sparse, part)()
    with Session() as session:
        region = session.track(tensor)
        tensor[0] = 5
        assert 0 in session.collect()[region]


def test_a_storage_that_is_taken_away_is_lost() -> None:
    """As FSDP does it; given back, it is another one."""
    tensor = torch.zeros(5000)
    with Session() as session:
        region = session.track(tensor)
        tensor.untyped_storage().resize_(0)
        with pytest.raises(RegionLostError):
            session.collect()
        tensor.untyped_storage().resize_(region.nbytes)
        with pytest.raises(RegionLostError):
            session.collect()
        session.untrack(region)
        assert session.track(tensor).address == tensor.data_ptr()
