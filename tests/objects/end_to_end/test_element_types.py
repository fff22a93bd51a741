"""Element types that numpy has no name for: the file has their name and shape; nothing else takes them."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _lib.objects.tables import described
from _lib.objects.takers import save
from _lib.support import library
from dirtytrack import ChainError
from dirtytrack.checkpoint import Checkpointer, load, restore

torch = library("torch")
ml_dtypes = library("ml_dtypes")
pytestmark = pytest.mark.torch

SHAPE = (64, 32)


def _made(name: str) -> Any:
    # A tensor of that type, of bytes of all sorts; None where there is none of a whole number of bytes each.
    kind = getattr(torch, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of some types torch says that they are experimental
            tensor = torch.empty(SHAPE, dtype=kind)
    except (RuntimeError, NotImplementedError):
        return None
    if tensor.is_quantized:
        return None
    bits_of(tensor)[:] = np.arange(tensor.numel() * tensor.element_size()) * 7 % 251
    return tensor


def bits_of(tensor: Any) -> np.ndarray[Any, Any]:
    """The bytes of a tensor of any type, writable, by way of its storage."""
    return torch.tensor([], dtype=torch.uint8).set_(tensor.untyped_storage()).numpy()


def _has_numpy_name(name: str) -> bool:
    try:
        torch.empty(0, dtype=getattr(torch, name)).numpy()
    except (TypeError, RuntimeError):
        return False
    return True


# Every type of this torch. One that comes to it is among them.
NAMES = sorted(
    {
        str(kind).removeprefix("torch.")
        for kind in vars(torch).values()
        if isinstance(kind, torch.dtype) and _made(str(kind).removeprefix("torch.")) is not None
    }
)
FOREIGN = [name for name in NAMES if not _has_numpy_name(name)]
KNOWN = [name for name in NAMES if name not in FOREIGN]


def test_the_types_are_found() -> None:
    """The lists above are not empty by mistake."""
    assert {"bfloat16", "complex32", "bits16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"} <= set(
        FOREIGN
    )
    assert {"uint16", "uint32", "uint64", "float16", "complex128", "bool"} <= set(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_a_type_that_numpy_has_comes_back_as_it(tmp_path: Path, name: str) -> None:
    """By its own name, as an array of the same values, and into another tensor."""
    tensor = _made(name)
    save(tmp_path, thing=tensor)
    loaded = load(tmp_path)["thing"]
    assert (loaded.dtype, loaded.shape) == (tensor.numpy().dtype, SHAPE)
    assert loaded.tobytes() == bits_of(tensor).tobytes()
    into = torch.zeros_like(tensor)
    restore(tmp_path, into={"thing": into})
    assert (bits_of(into) == bits_of(tensor)).all()


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_type_is_named_in_the_file(tmp_path: Path, name: str) -> None:
    """By the name that torch and ml_dtypes have for it, with its shape."""
    save(tmp_path, thing=_made(name))
    row = described(tmp_path, "thing")
    itemsize = _made(name).element_size()
    assert (row["dtype"], row["shape"]) == ({"name": name, "itemsize": itemsize}, list(SHAPE))


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_type_comes_back_into_its_like(tmp_path: Path, name: str) -> None:
    """By restore and by resume, which goes on with the chain."""
    tensor = _made(name)
    expected = bits_of(tensor).copy()
    save(tmp_path, thing=tensor)
    into = torch.empty_like(tensor)
    restore(tmp_path, into={"thing": into})
    assert (bits_of(into) == expected).all()
    other = torch.empty_like(tensor)
    with Checkpointer.resume(tmp_path, {"thing": other}, fsync=False) as checkpoints:
        assert (bits_of(other) == expected).all()
        bits_of(other)[-1] ^= 1
        checkpoints.save()
    restore(tmp_path, into={"thing": into})
    assert (bits_of(into) == bits_of(other)).all()


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_type_fits_plain_bytes(tmp_path: Path, name: str) -> None:
    """A buffer that has no elements takes whatever is of its length, and gives it back."""
    tensor = _made(name)
    save(tmp_path / "tensor", thing=tensor)
    plain = bytearray(tensor.numel() * tensor.element_size())
    restore(tmp_path / "tensor", into={"thing": plain})
    assert plain == bits_of(tensor).tobytes()
    save(tmp_path / "plain", thing=plain)
    into = torch.empty_like(tensor)
    restore(tmp_path / "plain", into={"thing": into})
    assert (bits_of(into) == bits_of(tensor)).all()


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_type_is_loaded_as_its_bits_under_its_name(tmp_path: Path, name: str) -> None:
    """An array of the same shape with one field, called as the type is: nobody takes the bits for numbers."""
    tensor = _made(name)
    save(tmp_path, thing=tensor)
    loaded = load(tmp_path)["thing"]
    size = tensor.element_size()
    assert (loaded.dtype, loaded.shape) == (np.dtype([(name, f"<u{size}")]), SHAPE)
    assert loaded.tobytes() == bits_of(tensor).tobytes()
    with pytest.raises(TypeError):
        loaded + loaded
    again = torch.from_numpy(loaded[name]).view(tensor.dtype)
    assert again.shape == tensor.shape
    assert (bits_of(again) == bits_of(tensor)).all()


def test_a_foreign_type_is_loaded_without_its_library(tmp_path: Path) -> None:
    """In a process that knows neither torch nor ml_dtypes; lazily, too."""
    tensor = _made("bfloat16")
    with Checkpointer(tmp_path, {"thing": tensor}, compression="none", fsync=False) as checkpoints:
        checkpoints.save()
    program = (
        "import sys; from dirtytrack.checkpoint import load\n"
        "for lazy in (False, True):\n"
        "    array = load(sys.argv[1], lazy=lazy)['thing']\n"
        "    print(array.dtype, array.shape, array.tobytes().hex())\n"
        "assert not {'torch', 'ml_dtypes'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True
    )
    line = f"[('bfloat16', '<u2')] {SHAPE} {bits_of(tensor).tobytes().hex()}\n"
    assert done.stdout == 2 * line


def _others(name: str) -> dict[str, Callable[[], Any]]:
    """Memory of as many bytes as a tensor of SHAPE of that type that is something else."""
    tensor = _made(name)
    size = tensor.element_size()
    others: dict[str, Callable[[], Any]] = {
        other: lambda other=other: torch.empty(SHAPE, dtype=getattr(torch, other))
        for other in NAMES
        if other != name and _made(other).element_size() == size
    }
    others["of another shape"] = lambda: torch.empty_like(tensor).reshape(32, 64)
    others["flat"] = lambda: torch.empty_like(tensor).reshape(-1)
    others["with one more axis"] = lambda: torch.empty_like(tensor).unsqueeze(0)
    others["half as many, twice as wide"] = lambda: np.empty((64, 16), f"V{2 * size}")
    others["as many of numpy"] = lambda: np.empty(SHAPE, f"V{size}")
    if size > 1:
        others["uint8"] = lambda: torch.empty((64, 32 * size), dtype=torch.uint8)
        others["uint8, flat, of numpy"] = lambda: np.empty(64 * 32 * size, np.uint8)
    return others


def _foreign_of(size: int) -> list[str]:
    return [name for name in FOREIGN if _made(name).element_size() == size]


def _bytes(memory: Any) -> bytes:
    return bits_of(memory).tobytes() if isinstance(memory, torch.Tensor) else memory.tobytes()


def _restore(path: Path, memory: Any) -> None:
    restore(path, into={"thing": memory})


def _resume(path: Path, memory: Any) -> None:
    Checkpointer.resume(path, {"thing": memory}, fsync=False).close()


def _accepts(bring_back: Callable[[Path, Any], None], path: Path, memory: Any) -> bool:
    """Whether the memory takes the chain; if not, with the right words and no byte of it written."""
    before, refusal = _bytes(memory), ""
    try:
        bring_back(path, memory)
    except ChainError as error:
        refusal = str(error)
    assert not refusal or (refusal.startswith("region 'thing' has the ") and _bytes(memory) == before)
    return not refusal


@pytest.mark.parametrize("bring_back", [_restore, _resume])
@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental:UserWarning")
def test_a_foreign_type_fits_nothing_else(
    tmp_path: Path, name: str, bring_back: Callable[[Path, Any], None]
) -> None:
    """Neither another type nor another shape, though the bytes are as many."""
    save(tmp_path, thing=_made(name))
    others = _others(name)
    assert [other for other in others if _accepts(bring_back, tmp_path, others[other]())] == []


@pytest.mark.parametrize("bring_back", [_restore, _resume])
@pytest.mark.parametrize("known", [name for name in KNOWN if _foreign_of(_made(name).element_size())])
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental:UserWarning")
def test_nothing_else_fits_a_foreign_type(
    tmp_path: Path, known: str, bring_back: Callable[[Path, Any], None]
) -> None:
    """Nor the other way round."""
    tensor = _made(known)
    save(tmp_path, thing=tensor)
    foreign = _foreign_of(tensor.element_size())
    assert [name for name in foreign if _accepts(bring_back, tmp_path, _made(name))] == []


# Element types that ml_dtypes adds to numpy: an array's interface calls them V1, V2 or worse.
ADDED = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e8m0fnu", "int4"]


def _added(name: str) -> np.ndarray[Any, Any]:
    array = np.zeros(SHAPE, name)
    array.view(np.uint8)[:] = np.arange(array.nbytes).reshape(64, -1) * 7 % 251
    return array


@pytest.mark.parametrize("name", ADDED)
def test_a_type_added_to_numpy_is_named_and_comes_back(tmp_path: Path, name: str) -> None:
    """Into its like of numpy, and of torch, which has the same bits by the same name."""
    array = _added(name)
    save(tmp_path, thing=array)
    row = described(tmp_path, "thing")
    assert (row["dtype"], row["shape"]) == ({"name": name, "itemsize": array.itemsize}, list(SHAPE))
    into = np.zeros_like(array)
    restore(tmp_path, into={"thing": into})
    assert into.tobytes() == array.tobytes()
    tensor = torch.empty(SHAPE, dtype=getattr(torch, name))
    restore(tmp_path, into={"thing": tensor})
    assert bits_of(tensor).tobytes() == array.tobytes()
    assert load(tmp_path)["thing"][name].view(name).tobytes() == array.tobytes()


@pytest.mark.parametrize("name", ADDED)
def test_a_type_added_to_numpy_fits_no_other(tmp_path: Path, name: str) -> None:
    """Of as many bytes."""
    array = _added(name)
    save(tmp_path, thing=array)
    others = [other for other in (*ADDED, "V1", "V2") if np.dtype(other).itemsize == array.itemsize]
    others.remove(name)
    assert [other for other in others if _accepts(_restore, tmp_path, np.zeros(SHAPE, other))] == []
