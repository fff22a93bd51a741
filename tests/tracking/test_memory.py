"""What can be tracked, what keeps it alive, what is refused and with which words; alloc and empty."""

from __future__ import annotations

import array
import ctypes
import gc
import mmap
import weakref
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import dirtytrack
from _lib.raw import Raw, is_free
from _lib.support import PAGE_SIZE, PMD_SIZE, address_of, library
from _lib.torch_like import Storage, Tensor
from dirtytrack import RegionLostError, Session
from dirtytrack.kernel import mappings

NBYTES = 5 * PAGE_SIZE


def structured() -> np.ndarray[Any, Any]:
    """Fields with names that look like type codes."""
    return np.zeros(NBYTES // 12, [("O", "f8"), ("xOx", "i4")])


BUFFERS: dict[str, Callable[[], Any]] = {
    "bytearray": lambda: bytearray(NBYTES),
    "mmap": lambda: mmap.mmap(-1, NBYTES),
    "private mmap": lambda: dirtytrack.alloc(NBYTES),
    "array.array": lambda: array.array("d", bytes(NBYTES)),
    "ctypes array": lambda: (ctypes.c_int * (NBYTES // 4))(),
    "ctypes structure": lambda: type(
        "S", (ctypes.Structure,), {"_fields_": [("O", ctypes.c_char * NBYTES)]}
    )(),
    "numpy": lambda: np.zeros(NBYTES // 8),
    "numpy 2-d": lambda: np.zeros((8, NBYTES // 64)),
    "numpy Fortran order": lambda: np.zeros((8, NBYTES // 64), order="F"),
    "numpy transposed": lambda: np.zeros((2, 4, NBYTES // 64)).transpose(1, 2, 0),
    "numpy structured": structured,
    "numpy datetime64": lambda: np.zeros(NBYTES // 8, "M8[ns]"),
    "numpy timedelta64, Fortran order": lambda: np.zeros((8, NBYTES // 64), "m8[s]", order="F"),
    "numpy text": lambda: np.zeros(NBYTES // 20, "U5"),
    "numpy text, Fortran order": lambda: np.zeros((4, NBYTES // 80), "U5", order="F"),
    "numpy bool": lambda: np.zeros(NBYTES, bool),
    "numpy complex": lambda: np.zeros(NBYTES // 16, complex),
    "numpy float16": lambda: np.zeros(NBYTES // 2, np.float16),
    "numpy structured with dates": lambda: np.zeros(NBYTES // 12, [("O", "M8[s]"), ("b", "i4")]),
    "numpy scalar array": lambda: np.array(1.5),
    "numpy slice": lambda: np.zeros(NBYTES)[100:-100],
    "memoryview": lambda: memoryview(bytearray(NBYTES)),
    "memoryview slice": lambda: memoryview(bytearray(NBYTES))[100:-100],
    "memoryview cast": lambda: memoryview(bytearray(NBYTES)).cast("d"),
}


def extent(buffer: Any) -> tuple[int, int]:
    """Address and length of a buffer, by other means than the library's."""
    if isinstance(buffer, np.ndarray):
        low, high = np.lib.array_utils.byte_bounds(buffer)
        return int(low), int(high - low)
    view = memoryview(buffer)
    return address_of(view), view.nbytes


@pytest.mark.parametrize("kind", BUFFERS)
def test_a_buffer_is_tracked_to_its_last_byte(session: Session, kind: str) -> None:
    """Each kind of buffer: its own address and length, its first and last byte reported, nothing else."""
    buffer = BUFFERS[kind]()
    region = session.track(buffer)
    assert (region.address, region.nbytes) == extent(buffer)
    assert len(region.view) == region.nbytes
    last = region.geometry.page_count - 1
    session.reset()
    ctypes.memset(region.address, 1, 1)
    assert 0 in session.collect()[region]
    ctypes.memset(region.address + region.nbytes - 1, 2, 1)
    pages = session.collect()[region]
    assert last in pages
    assert region.view[region.nbytes - 1] == 2
    assert pages.slices()[-1].stop == region.nbytes


class Interface:
    """An object with an array interface and nothing else."""

    def __init__(self, owner: Any, **changes: Any) -> None:
        self.owner = owner
        self.__array_interface__ = {**owner.__array_interface__, **changes}


def test_an_array_interface_is_enough(session: Session) -> None:
    """An object that is no buffer but has ``__array_interface__`` is tracked, and kept alive."""
    thing = Interface(dirtytrack.empty(NBYTES, np.uint8))
    alive = weakref.ref(thing)
    region = session.track(thing)
    thing.owner[-1] = 1
    assert set(session.collect()[region]) == {4}
    del thing
    gc.collect()
    assert alive() is not None
    session.untrack(region)
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"data": (PAGE_SIZE, True)}, ValueError, "read-only"),
        ({"strides": (2,)}, ValueError, "contiguous"),
        ({"strides": (-1,)}, ValueError, "contiguous"),
        ({"strides": (0,)}, ValueError, "contiguous"),
        ({"shape": (0,)}, ValueError, "empty"),
        ({"typestr": "|O8"}, TypeError, "Python objects"),
        ({"typestr": "|V8", "descr": [("a", "|O")]}, TypeError, "Python objects"),
        ({"typestr": "|t4"}, TypeError, "t4"),
        ({"typestr": "nonsense"}, TypeError, "nonsense"),
    ],
)
def test_a_bad_array_interface_is_refused(
    session: Session, changes: dict[str, Any], kind: type[Exception], words: str
) -> None:
    """Each claim of an array interface is checked."""
    with pytest.raises(kind, match=words):
        session.track(Interface(np.zeros(NBYTES, np.uint8), **changes))


def read_only() -> np.ndarray[Any, Any]:
    array = np.zeros(10)
    array.flags.writeable = False
    return array


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "bytes": (lambda: b"abc", ValueError, "read-only"),
    "read-only view": (lambda: memoryview(bytearray(10)).toreadonly(), ValueError, "read-only"),
    "read-only array": (read_only, ValueError, "read-only"),
    "read-only mmap": (lambda: mmap.mmap(-1, 10, prot=mmap.PROT_READ), ValueError, "read-only"),
    "empty bytearray": (bytearray, ValueError, "empty"),
    "empty array": (lambda: np.zeros((3, 0)), ValueError, "empty"),
    "empty dates": (lambda: np.zeros(0, "M8[s]"), ValueError, "empty"),
    "strided array": (lambda: np.zeros(100)[::2], ValueError, "contiguous"),
    "backward array": (lambda: np.zeros(100)[::-1], ValueError, "contiguous"),
    "column": (lambda: np.zeros((10, 10))[:, 1], ValueError, "contiguous"),
    "strided dates": (lambda: np.zeros(100, "M8[s]")[::2], ValueError, "contiguous"),
    "strided view": (lambda: memoryview(bytearray(10))[::2], ValueError, "contiguous"),
    "objects": (lambda: np.zeros(10, object), TypeError, "Python objects"),
    "objects in a field": (lambda: np.zeros(10, [("a", "i4"), ("b", "O")]), TypeError, "Python objects"),
    "objects beside dates": (lambda: np.zeros(10, [("a", "M8[s]"), ("b", "O")]), TypeError, "Python objects"),
    "objects in C": (lambda: (ctypes.py_object * 10)(), TypeError, "Python objects"),
    "string": (lambda: "abc", TypeError, "no memory"),
    "list": (lambda: [1, 2], TypeError, "no memory"),
    "none": (lambda: None, TypeError, "no memory"),
    "number": (lambda: 4096, TypeError, "no memory"),
    "object": (object, TypeError, "no memory"),
    "GPU array": (lambda: SimpleNamespace(__cuda_array_interface__={"shape": (1,)}), ValueError, "GPU"),
    "triple": (lambda: (PAGE_SIZE, 1, 1), TypeError, "address, nbytes"),
    "pair of floats": (lambda: (1.0, 2.0), TypeError, "address, nbytes"),
    "pair with a bool": (lambda: (PAGE_SIZE, True), TypeError, "address, nbytes"),
    "empty tuple": (lambda: (), TypeError, "address, nbytes"),
    "null": (lambda: (0, 1), ValueError, "positive"),
    "negative address": (lambda: (-PAGE_SIZE, PAGE_SIZE), ValueError, "positive"),
    "no bytes": (lambda: (PAGE_SIZE, 0), ValueError, "positive"),
    "negative length": (lambda: (PAGE_SIZE, -1), ValueError, "positive"),
    "kernel address": (lambda: ((1 << 64) - PAGE_SIZE, PAGE_SIZE), ValueError, "user process"),
    "beyond 64 bits": (lambda: (1 << 70, 1), ValueError, "user process"),
    "huge length": (lambda: (PAGE_SIZE, 1 << 63), ValueError, "user process"),
    "most of the address space": (lambda: (1, (1 << 56) - PAGE_SIZE), ValueError, "not mapped"),
    "unmapped": (lambda: (PAGE_SIZE, PAGE_SIZE), ValueError, "not mapped"),
    "end of user space": (lambda: ((1 << 47) - PAGE_SIZE, 2 * PAGE_SIZE), ValueError, "not mapped"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_tracked_is_refused(session: Session, kind: str) -> None:
    """A TypeError or ValueError that says what is wrong, and a session as before."""
    make, error, words = REFUSED[kind]
    thing = make()
    with pytest.raises(error, match=words):
        session.track(thing)
    assert session.regions == ()
    assert session.collect().pages == 0


@pytest.mark.registration
def test_memory_with_an_unmapped_tail_is_refused_whole(session: Session) -> None:
    """Not even the mapped part stays registered, and a neighbour keeps what it had."""
    with Raw(8) as memory:
        memory.unmap(6, 8)
        neighbour = session.track(memory.piece(0, 2))
        memory.write(1)
        with pytest.raises(ValueError, match="not mapped"):
            session.track(memory.piece(1, 8))
        assert is_free(*memory.at(2, 6))
        assert set(session.collect()[neighbour]) == {1}


def holding(session: Session, thing: Any, act: Callable[[], object], error: type[Exception]) -> None:
    """Assert that *act* is refused while *thing* is tracked, and works once it is not."""
    region = session.track(thing)
    with pytest.raises(error):
        act()
    session.untrack(region)
    act()


def test_an_mmap_cannot_be_closed_or_resized_while_tracked(session: Session) -> None:
    """The region holds its export until untrack."""
    memory = mmap.mmap(-1, NBYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    holding(session, memory, lambda: memory.resize(2 * NBYTES), BufferError)
    holding(session, memory, memory.close, BufferError)


def test_a_bytearray_cannot_grow_while_tracked(session: Session) -> None:
    """Neither by append nor by extend nor by deletion."""
    memory = bytearray(NBYTES)
    holding(session, memory, lambda: memory.append(1), BufferError)
    holding(session, memory, memory.clear, BufferError)


def test_an_array_cannot_be_resized_while_tracked(session: Session) -> None:
    """array.array and numpy refuse to move their memory."""
    numbers = array.array("d", bytes(NBYTES))
    holding(session, numbers, lambda: numbers.append(1.0), BufferError)
    matrix = np.zeros(NBYTES // 8)
    region = session.track(matrix)
    with pytest.raises(ValueError, match="resize"):
        matrix.resize(NBYTES)
    session.untrack(region)
    matrix.resize(NBYTES)


def test_shared_memory_cannot_be_closed_while_tracked(session: Session) -> None:
    """SharedMemory.close() waits for untrack."""
    shared = SharedMemory(create=True, size=NBYTES)
    try:
        holding(session, shared.buf, shared.close, BufferError)
    finally:
        shared.unlink()


def test_a_dates_array_keeps_its_owner(session: Session) -> None:
    """Where there is no export, the object itself is held."""
    dates = np.zeros(NBYTES // 8, "M8[s]")
    alive = weakref.ref(dates)
    region = session.track(dates)
    view = region.view[:10]
    del dates
    gc.collect()
    assert alive() is not None
    session.untrack(region)
    gc.collect()
    assert alive() is not None, "a slice of the view still shows its memory"
    del view
    gc.collect()
    assert alive() is None


def test_memory_stays_while_it_is_tracked(session: Session) -> None:
    """An object whose last name is gone is still tracked, readable and writable."""
    memory = dirtytrack.alloc(NBYTES)
    memory[PAGE_SIZE] = 7
    region = session.track(memory)
    del memory
    gc.collect()
    assert region.view[PAGE_SIZE] == 7
    region.view[PAGE_SIZE] = 8
    assert set(session.collect()[region]) == {1}


def test_a_slice_of_the_view_holds_the_export(session: Session) -> None:
    """Untracked or closed, the memory can't go away under a slice that somebody still has."""
    memory = dirtytrack.alloc(NBYTES)
    piece = session.track(memory).view[:10]
    session.close()
    with pytest.raises(BufferError):
        memory.close()
    piece[0] = 1
    del piece
    memory.close()


@pytest.mark.registration
def test_a_refused_buffer_is_let_go(session: Session) -> None:
    """A track that failed holds no export."""
    memory = dirtytrack.alloc(NBYTES)
    with Session() as other:
        region = other.track(memory)
        with pytest.raises(dirtytrack.BusyError):
            session.track(memory)
        other.untrack(region)
    gc.collect()
    memory.close()


def test_a_tensor_is_tracked_by_duck_type(session: Session) -> None:
    """Address and length are the tensor's, not its storage's; stores are reported."""
    tensor = Tensor(Storage(dirtytrack.alloc(NBYTES)), offset=PAGE_SIZE)
    region = session.track(tensor)
    assert (region.address, region.nbytes) == (tensor.data_ptr(), 4 * PAGE_SIZE)
    tensor.storage.memory[PAGE_SIZE] = 1
    assert set(session.collect()[region]) == {0}


@pytest.mark.registration
def test_a_moved_storage_is_lost(session: Session) -> None:
    """A storage that was resized elsewhere is a lost region, for every verb, until it is untracked."""
    storage = Storage(dirtytrack.alloc(NBYTES))
    before = storage.memory
    region = session.track(Tensor(storage), name="tensor")
    storage.memory = dirtytrack.alloc(2 * NBYTES)
    for verb in (session.collect, session.peek, session.reset):
        with pytest.raises(RegionLostError, match="tensor") as caught:
            verb()
        assert [(loss.region, loss.ranges) for loss in caught.value.losses] == [
            (region, (region.page_range,))
        ]
    storage.memory = before
    with pytest.raises(RegionLostError):
        session.collect()
    session.untrack(region)
    assert is_free(*region.page_range)
    session.track(Tensor(storage))
    assert session.collect().pages == 0


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (Tensor(Storage(dirtytrack.alloc(16)), device="cuda"), "cuda"),
        (Tensor(Storage(dirtytrack.alloc(16)), device="meta"), "meta"),
        (Tensor(Storage(dirtytrack.alloc(16)), contiguous=False), "contiguous"),
        (Tensor(Storage(dirtytrack.alloc(16)), offset=16), "empty"),
    ],
)
def test_other_tensors_are_refused(session: Session, tensor: Tensor, words: str) -> None:
    """On a GPU, not contiguous, empty."""
    with pytest.raises(ValueError, match=words):
        session.track(tensor)


@pytest.mark.torch
def test_torch_itself(session: Session) -> None:
    """A real tensor: tracked, and lost when its storage is resized."""
    torch = library("torch")
    tensor = torch.zeros(NBYTES)
    region = session.track(tensor)
    tensor[0] = 1
    assert 0 in session.collect()[region]
    tensor.untyped_storage().resize_(100 * NBYTES)
    with pytest.raises(RegionLostError):
        session.collect()


def huge_advice(address: int) -> str:
    """The VmFlags of the mapping at an address: hg and nh are the advice about huge pages."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        first, _, rest = line.partition("-")
        last = rest.partition(" ")[0]
        try:
            inside = int(first, 16) <= address < int(last, 16)
        except ValueError:
            continue
        if inside:
            return next(flags for flags in lines if flags.startswith("VmFlags:"))
    raise AssertionError(f"{address:#x} is not mapped")


@pytest.mark.parametrize("nbytes", [1, PAGE_SIZE, PMD_SIZE - 1, PMD_SIZE, 3 * PMD_SIZE + 5 * PAGE_SIZE + 1])
@pytest.mark.parametrize("huge", [None, True, False])
def test_alloc_is_aligned_zeroed_and_private(nbytes: int, huge: bool | None) -> None:
    """Of the size asked for; with huge=True on a huge page's boundary and advised, with False against."""
    memory = dirtytrack.alloc(nbytes, huge=huge)
    address = address_of(memory)
    assert len(memory) == nbytes
    assert memory[:] == bytes(nbytes)
    assert address % (PMD_SIZE if huge else PAGE_SIZE) == 0
    assert mappings.overlapping(address, address + 1)[0].kind is mappings.Kind.ANONYMOUS
    advice = huge_advice(address).split()
    assert ("hg" in advice, "nh" in advice) == (huge is True, huge is False)


def test_huge_alignment_is_found_among_gaps() -> None:
    """Many allocations of odd sizes, some freed again: each is aligned."""
    kept = []
    for i in range(60):
        memory = dirtytrack.alloc(PMD_SIZE + (i * 7 % 13 + 1) * PAGE_SIZE, huge=True)
        assert address_of(memory) % PMD_SIZE == 0
        if i % 3:
            kept.append(memory)


@pytest.mark.parametrize("nbytes", [0, -1])
def test_alloc_of_nothing_is_refused(nbytes: int) -> None:
    """At least one byte."""
    with pytest.raises(ValueError, match="at least 1"):
        dirtytrack.alloc(nbytes)


@pytest.mark.parametrize("huge", [None, True, False])
def test_empty_is_an_array_of_its_own_pages(session: Session, huge: bool | None) -> None:
    """Shape and dtype as asked, zeros, page-aligned, tracked without a neighbour."""
    weights = dirtytrack.empty((3, 1000), np.float32, huge=huge)
    assert (weights.shape, weights.dtype) == ((3, 1000), np.float32)
    assert weights.ctypes.data % PAGE_SIZE == 0
    assert not weights.any()
    region = session.track(weights)
    weights[2, 999] = 1
    assert set(session.collect()[region]) == {region.geometry.page_count - 1}


@pytest.mark.parametrize("shape", [5, np.int64(5), (5,), [5], (np.int32(5),)])
def test_empty_takes_any_shape_that_numpy_takes(shape: Any) -> None:
    """Integers of Python and numpy, and sequences of them."""
    assert dirtytrack.empty(shape).shape == (5,)


@pytest.mark.parametrize("shape", [0, (0,), (3, 0), ()])
def test_empty_of_nothing_or_of_one(shape: Any) -> None:
    """Arrays without an element, and without an axis."""
    assert dirtytrack.empty(shape).shape == np.empty(shape).shape


@pytest.mark.parametrize(("shape", "dtype"), [(-1, float), ((2, -3), float), (3, object)])
def test_empty_refuses_what_numpy_refuses(shape: Any, dtype: Any) -> None:
    """Negative lengths, and elements that are Python objects."""
    with pytest.raises((ValueError, TypeError)):
        dirtytrack.empty(shape, dtype)
