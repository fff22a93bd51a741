"""A checkpoint brought back: into any memory, as arrays, as mappings, or refused where it does not fit."""

from __future__ import annotations

import array
import ctypes
import json
import logging
import mmap
import os
import shutil
import sys
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest

import dirtytrack
from _lib.checkpoint import forge
from _lib.checkpoint.forge import BLOCK, RAW, ZSTD, Run
from _lib.checkpoint.intercept import intercepted
from _lib.checkpoint.places import MemoryPlace, flip
from _lib.support import PMD_SIZE, address_of, require, resident_bytes
from dirtytrack import ChainError
from dirtytrack.checkpoint.chain import Chain
from dirtytrack.checkpoint.restore import load, restore

pytestmark = pytest.mark.anywhere

RANDOM = np.random.default_rng(5)
FLOATS = [RANDOM.standard_normal((70, 100)).astype("<f4") for _ in range(3)]
BYTES = [RANDOM.bytes(3 * BLOCK + 77)]
for at in (1, 2):
    BYTES.append(BYTES[-1][: at * BLOCK] + RANDOM.bytes(BLOCK) + BYTES[-1][(at + 1) * BLOCK :])
FLOATS[1][:40] = FLOATS[0][:40]
FLOATS[2][50:] = 0
STATES = [{"weights": floats.tobytes(), "log": text} for floats, text in zip(FLOATS, BYTES, strict=True)]
ROWS = {"weights": {"dtype": "<f4", "shape": [70, 100]}}
NBYTES = 28000


@pytest.fixture
def files():
    return forge.history(STATES, rows=ROWS)


@pytest.fixture
def directory(place, files):
    """The chain, in a directory or in memory."""
    return forge.write(place, files)


def _unaligned():
    memory = np.zeros(NBYTES + 64, "u1")
    shift = -memory.ctypes.data % 64 + 13
    return memory[shift : shift + NBYTES].view("<f4").reshape(70, 100)


MEMORY = {
    "bytearray": lambda: bytearray(NBYTES),
    "memoryview": lambda: memoryview(bytearray(NBYTES)),
    "mmap": lambda: mmap.mmap(-1, NBYTES),
    "alloc": lambda: dirtytrack.alloc(NBYTES),
    "array.array": lambda: array.array("B", bytes(NBYTES)),
    "ctypes": lambda: (ctypes.c_ubyte * NBYTES)(),
    "unaligned": _unaligned,
    "its like": lambda: np.zeros((70, 100), "<f4"),
}


@pytest.mark.parametrize("make", MEMORY.values(), ids=MEMORY)
@pytest.mark.parametrize("at", [1, 2, 3, None])
def test_memory_of_any_kind_is_filled(directory, make, at):
    """Bit for bit, at every checkpoint, with the meta of it; whatever was there before is gone."""
    memory, log = make(), bytearray(b"\xaa" * len(BYTES[0]))
    ctypes.memset(address_of(memory), 0xAA, NBYTES)
    state = STATES[(at or 3) - 1]
    assert restore(directory, into={"weights": memory, "log": log}, at=at) == {"step": at or 3}
    assert bytes(memory) == state["weights"]
    assert log == state["log"]


def test_an_address_is_memory_too(directory):
    """And shared memory; by identifier of the checkpoint."""
    memory = bytearray(NBYTES)
    shared = SharedMemory(create=True, size=len(BYTES[0]))
    try:
        into = {"weights": (address_of(memory), NBYTES), "log": shared.buf[: len(BYTES[0])]}
        assert restore(directory, into=into, at=forge.checkpoint_id(2).hex()) == {"step": 2}
        assert (memory, bytes(shared.buf[: len(BYTES[0])])) == (STATES[1]["weights"], STATES[1]["log"])
    finally:
        del into
        shared.close()
        shared.unlink()


def test_a_tracked_region_is_memory_too(directory):
    """Through the tracker; what is restored counts as written."""
    found = dirtytrack.support()
    require(found.works, f"this system cannot track: {found.cause}")
    weights = dirtytrack.empty((70, 100), "<f4")
    weights[:] = 9
    with dirtytrack.Session() as session:
        region = session.track(weights)
        restore(directory, into={"weights": region})
        assert session.collect()[region] == region.page_set()
    assert (weights == FLOATS[2]).all()


def test_a_part_of_the_regions_is_restored(directory):
    """Whichever are named; memory without elements takes any."""
    log = bytearray(len(BYTES[0]))
    restore(directory, into={"log": log})
    assert log == STATES[2]["log"]


NO_FIT = {
    "unknown": (lambda: {"bias": bytearray(4)}, "no region 'bias'. It has weights, log"),
    "too small": (
        lambda: {"log": bytearray(5)},
        f"'log' has {len(BYTES[0])} bytes, and the memory given for it 5",
    ),
    "too large": (lambda: {"weights": bytearray(NBYTES + 1)}, "the memory given for it 28001"),
    "dtype": (
        lambda: {"weights": np.zeros((70, 100), "<i4")},
        "has the dtype <f4, and the memory given for it <i4",
    ),
    "shape": (
        lambda: {"weights": np.zeros((100, 70), "<f4")},
        r"has the shape \(70, 100\), and .* \(100, 70\)",
    ),
    "order": (lambda: {"weights": np.zeros((70, 100), "<f4", order="F")}, "has axes in C order, and"),
    "order too": (lambda: {"weights": array.array("f", bytes(NBYTES))}, r"has the shape \(70, 100\)"),
}


@pytest.mark.parametrize(("make", "reason"), NO_FIT.values(), ids=NO_FIT)
@pytest.mark.parametrize("at", [1, None])
def test_memory_that_does_not_fit_is_refused(directory, make, reason, at):
    """With a sentence, and nothing was written, neither there nor into the other memory."""
    into = make()
    (memory,) = into.values()
    other = bytearray(NBYTES) if "weights" not in into else bytearray(len(BYTES[0]))
    with pytest.raises(ChainError, match=reason):
        restore(directory, into={"weights" if "weights" not in into else "log": other, **into}, at=at)
    assert not any(other)
    assert not any(bytes(memory))


def _overlapping():
    memory = memoryview(bytearray(NBYTES + len(BYTES[0])))
    return {"weights": memory[:NBYTES], "log": memory[NBYTES - 1 : -1]}


BAD = {
    "nothing": (dict, ValueError, "no region"),
    "no mapping": (lambda: [bytearray(1)], TypeError, "mapping"),
    "names": (lambda: {3: bytearray(1)}, TypeError, "name is a str"),
    "read-only": (lambda: {"log": bytes(len(BYTES[0]))}, ValueError, "region 'log': .*read-only"),
    "no memory": (lambda: {"log": 5}, TypeError, "region 'log': .*no memory"),
    "not contiguous": (lambda: {"log": np.zeros(20)[::2]}, ValueError, "region 'log': .*not contiguous"),
    "twice": (_overlapping, ValueError, "'weights' and of 'log' overlaps"),
}


@pytest.mark.parametrize(("make", "kind", "reason"), BAD.values(), ids=BAD)
def test_bad_arguments_are_refused(tmp_path, make, kind, reason):
    """Before the directory is looked at: there is none."""
    with pytest.raises(kind, match=reason):
        restore(tmp_path / "no", into=make())


@pytest.mark.parametrize("read", [lambda path: restore(path, into={"log": bytearray(5)}), load])
def test_a_chain_has_to_be_there(tmp_path, read):
    """A missing directory, and an empty one, by either function."""
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "no")
    with pytest.raises(ChainError, match="holds no checkpoint"):
        read(tmp_path)


@pytest.mark.parametrize("at", [9, "0" * 32])
def test_a_checkpoint_has_to_be_there(directory, at):
    """The error says which are."""
    with pytest.raises(ChainError, match=r"no complete checkpoint .*it has 1, 2, 3"):
        restore(directory, into={"log": bytearray(len(BYTES[0]))}, at=at)


def _restored(directory, **more):
    into = {"weights": bytearray(b"\xaa" * NBYTES), "log": bytearray(b"\xaa" * len(BYTES[0]))}
    meta = restore(directory, into=into, **more)
    return meta["step"], {name: bytes(data) for name, data in into.items()}


def _loaded(directory, **more):
    arrays = load(directory, **more)
    state = {name: data.tobytes() for name, data in arrays.items()}
    return STATES.index(state) + 1, state


READERS = {"restore": _restored, "load": _loaded}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("damaged", [2, 3])
def test_damage_makes_it_older(directory, files, caplog, read, damaged):
    """The newest that does not need the damaged file is restored whole, and the log names file and reason."""
    offset = files[damaged - 1].payload()[1][-1][4]
    flip(directory / files[damaged - 1].name, offset)
    with caplog.at_level(logging.WARNING, "dirtytrack.checkpoint"):
        number, state = read(directory)
    assert (number, state) == (damaged - 1, STATES[damaged - 2])
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("dirtytrack.checkpoint", "WARNING")
    reason = f"{files[damaged - 1].name}: the segment at {offset} is damaged"
    assert f"checkpoint {damaged - 1} was read; newer files can't be: {reason}" in record.getMessage()


def test_files_that_were_never_whole_are_logged_too(directory, files, caplog):
    """The reader may not hide that there is something newer."""
    (directory / files[2].name).write_bytes(b"")
    assert _restored(directory) == (2, STATES[1])
    assert f"{files[2].name}: it has 0 bytes" in caplog.text


def test_nothing_is_logged_without_need(directory, files, caplog):
    """Damage that is older than what is restored, and does not matter for it, is for verify to tell."""
    forge.base_of(files[2], STATES[2]).write(directory)
    (directory / files[1].name).write_bytes(b"")
    assert _restored(directory) == (3, STATES[2])
    assert not caplog.records


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_checkpoint_asked_for_is_no_other(directory, files, read):
    """If it is damaged there is an error that names the file; others are still restored."""
    flip(directory / files[1].name, files[1].payload()[1][-1][4])
    for at in (2, 3):
        with pytest.raises(
            ChainError, match=f"checkpoint {at} can't be read: {directory / files[1].name}: the segment at"
        ):
            read(directory, at=at)
    assert read(directory, at=1) == (1, STATES[0])


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("at", [3, None])
def test_another_file_for_the_same_checkpoint_will_do(directory, files, read, at):
    """A base and a delta for one checkpoint, one of them damaged: nothing is lost."""
    base = forge.base_of(files[2], STATES[2])
    flip(base.write(directory), base.payload()[1][-1][4])
    assert read(directory, at=at) == (3, STATES[2])


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_where_nothing_can_be_restored_it_says_why(directory, files, read):
    """Of the base on which all stands."""
    flip(directory / files[0].name, files[0].payload()[1][-1][4])
    with pytest.raises(ChainError, match=r"no complete checkpoint. .*1\.base: the segment at .* is damaged"):
        read(directory)


@pytest.mark.parametrize("encoding", [RAW, ZSTD])
def test_many_runs_are_restored_by_several_threads(place, encoding):
    """Some MiB, of which every third block was replaced and every fifth is zeros."""
    before = bytearray(RANDOM.bytes(700) * 6000)
    after = bytearray(before)
    for at in range(0, len(after), BLOCK):
        if at // BLOCK % 3 == 0:
            after[at : at + 2000] = RANDOM.bytes(2000)
        if at // BLOCK % 5 == 0:
            after[at : at + BLOCK] = bytes(len(after[at : at + BLOCK]))
    files = forge.history([{"a": bytes(before)}, {"a": bytes(after)}], encoding=encoding)
    forge.write(place, files)
    memory = bytearray(b"\xaa" * len(after))
    restore(place, into={"a": memory})
    assert memory == after


PAIRS = np.zeros(33, dtype=[("id", "<i8"), ("place", "<f4", (2,)), ("tag", "S3")])
PAIRS["id"] = range(33)
PAIRS["tag"] = b"abc"
ARRAYS = {
    "floats": RANDOM.standard_normal((7, 5)),
    "fortran": np.asfortranarray(RANDOM.integers(0, 9, (6, 7, 8), "i2")),
    "turned": RANDOM.integers(0, 9, (6, 7, 8), "u4").transpose(1, 0, 2),
    "scalar": np.array(4.5),
    "flags": np.array([True, False, True]),
    "complex": np.array([1 + 2j], "<c8"),
    "big-endian": np.arange(5, dtype=">i4"),
    "times": np.array(["2026-01-01T00"], "M8[h]"),
    "text": np.array(["ab", "ü"]),
    "pairs": PAIRS,
    "raw": np.frombuffer(b"12345678", "V4"),
}


PAIRS_DTYPE = {
    "itemsize": 19,
    "fields": [
        {"name": "id", "offset": 0, "dtype": "<i8"},
        {"name": "place", "offset": 8, "dtype": "<f4", "shape": [2]},
        {"name": "tag", "offset": 16, "dtype": "|S3"},
    ],
}
ORDERS = {"fortran": [2, 1, 0], "turned": [1, 0, 2]}


def _row(name, data):
    dtype = PAIRS_DTYPE if name == "pairs" else data.dtype.str
    return {"dtype": dtype, "shape": list(data.shape), "order": ORDERS.get(name)}


@pytest.mark.parametrize("lazy", [False, True])
def test_arrays_come_back_as_they_were(tmp_path, lazy):
    """Elements, shape and order of every kind; page-aligned and writable."""
    content = {
        name: data.tobytes("A") if name != "turned" else data.base.tobytes() for name, data in ARRAYS.items()
    }
    rows = {name: _row(name, data) for name, data in ARRAYS.items()}
    forge.write(tmp_path, forge.history([{**content, "bytes": b"123"}], rows=rows, linear=lazy))
    arrays = load(tmp_path, lazy=lazy)
    assert list(arrays) == [*ARRAYS, "bytes"]
    for name, data in ARRAYS.items():
        read = arrays[name]
        assert (read.dtype, read.shape, read.strides) == (data.dtype, data.shape, data.strides)
        assert read.tobytes() == data.tobytes()
        assert read.ctypes.data % mmap.PAGESIZE == 0
        assert read.flags.writeable
        restore(tmp_path, into={name: read})
    assert arrays["bytes"].dtype == np.uint8
    assert arrays["bytes"].tobytes() == b"123"


IMPOSSIBLE = {
    "objects": {"dtype": "|O", "shape": [1]},
    "no dtype": {"dtype": "nonsense", "shape": [8]},
    "code": {"dtype": "__import__('os')", "shape": [8]},
    "another length": {"dtype": "<f8", "shape": [2]},
    "no axis": {"dtype": "<i4", "shape": [2], "order": []},
    "an axis twice": {"dtype": "<i4", "shape": [2], "order": [0, 0]},
    "another axis": {"dtype": "<i4", "shape": [2], "order": [1]},
    "an axis of one": {"dtype": "<i4", "shape": [2, 1], "order": [0, 1]},
    "huge shape": {"dtype": "<i4", "shape": [2**61, 2**61]},
    "no fields": {"dtype": {}, "shape": [8]},
    "a field without a type": {
        "dtype": {"fields": [{"name": "a", "offset": 0}], "itemsize": 8},
        "shape": [1],
    },
    "fields of objects": {
        "dtype": {"fields": [{"name": "a", "offset": 0, "dtype": "|O"}], "itemsize": 8},
        "shape": [1],
    },
    "nested": {
        "dtype": json.loads(
            '{"itemsize": 8, "fields": [{"name": "a", "offset": 0, "dtype": ' * 200 + '"<i8"' + "}]}" * 200
        ),
        "shape": [1],
    },
}


@pytest.mark.parametrize("row", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_an_impossible_array_is_refused(tmp_path, row):
    """What a file says of its elements may be anything; its bytes can still be read."""
    forge.write(tmp_path, forge.history([{"a": b"12345678"}], rows={"a": row}))
    with pytest.raises(ChainError, match=r"'a' describes no array|recursion") as caught:
        load(tmp_path)
    assert str(caught.value).endswith("Chain.read() gives its bytes")
    with Chain(tmp_path) as chain:
        assert chain.read("a") == b"12345678"


@pytest.mark.parametrize("lazy", [False, True])
def test_a_huge_region_is_no_crash(tmp_path, lazy):
    """A small file that describes a region of 2 EiB."""
    huge = forge.File(1, [Run(0, 5, b"x" * BLOCK)], [forge.region("a", 1 << 61), forge.region("b", 3)])
    huge.write(tmp_path)
    with pytest.raises((MemoryError, OSError, ChainError)):
        load(tmp_path, lazy=lazy)


def test_a_sparse_region_takes_no_memory(tmp_path):
    """Of 8 GiB of zeros only what is not zeros is written."""
    forge.write(tmp_path, [forge.File(1, [Run(0, 1 << 20, b"x" * BLOCK)], [forge.region("a", 8 << 30)])])
    before = resident_bytes()
    data = load(tmp_path)["a"]
    assert (data[4 << 30], data[0], data[-1]) == (ord("x"), 0, 0)
    assert resident_bytes() - before < (32 << 20) + 2 * PMD_SIZE


@pytest.fixture
def linear(tmp_path):
    return forge.write(tmp_path / "chain", forge.history(STATES, rows=ROWS, linear=True))


@pytest.mark.parametrize("at", [1, 2, 3, None])
def test_lazy_arrays_are_the_same(linear, at):
    """At every checkpoint; deltas are applied to the mapping."""
    number, state = _loaded(linear, at=at, lazy=True)
    assert (number, state) == (at or 3, STATES[(at or 3) - 1])


def test_lazy_arrays_are_private_and_stay(linear):
    """Writing to them changes no file, and no file is needed any more when they are there."""
    before = {path.name: path.read_bytes() for path in linear.iterdir()}
    arrays = load(linear, at=1, lazy=True)
    arrays["weights"][:] = 5
    assert {path.name: path.read_bytes() for path in linear.iterdir()} == before
    shutil.rmtree(linear)
    assert (arrays["weights"] == 5).all()
    assert arrays["log"].tobytes() == STATES[0]["log"]


def test_lazy_loading_reads_nothing_of_the_base(linear):
    """Only deltas; a base with damaged contents comes as it is, which is what the documentation says."""
    (base,) = linear.glob("*.base")
    whole = forge.history(STATES, rows=ROWS, linear=True)[0]
    flip(base, whole.regions[1]["linear"])
    read = []

    def spy(call):
        if call.name == "dt_read_file":
            read.append((os.readlink(f"/proc/self/fd/{call.arguments[0]}"), call.arguments[1]))
        return call.run()

    with intercepted(spy):
        arrays = load(linear, at=1, lazy=True)
    assert read
    payload = range(65536, whole.regions[1]["linear"] + len(BYTES[0]))
    assert not [offset for name, offset in read if offset in payload]
    assert arrays["log"].tobytes()[1:] == STATES[0]["log"][1:]
    assert arrays["log"][0] == STATES[0]["log"][0] ^ 1


def test_files_that_can_not_be_mapped_are_not_loaded_lazily():
    """Where the store has no such files; the error says how they could be loaded."""
    place = forge.write(MemoryPlace(), forge.history(STATES, rows=ROWS, linear=True))
    with pytest.raises(ChainError, match=r"memory can't be mapped: load it with lazy=False"):
        load(place, lazy=True)
    assert _loaded(place) == (3, STATES[2])


def test_a_compressed_base_can_not_be_loaded_lazily(tmp_path, files):
    """The error says how it could."""
    directory = forge.write(tmp_path, files)
    with pytest.raises(ChainError, match=r"region 'weights' can't be loaded lazily.*compact\(\).*lazy=False"):
        load(directory, lazy=True)


@pytest.mark.parametrize("linear", [0, 1 << 40, 1 << 16])
def test_a_region_outside_of_the_file_is_not_mapped(tmp_path, linear):
    """It would be a mapping that kills whoever touches it."""
    file = forge.File(1, [], [forge.region("a", 1 << 20, linear=1 << 16)])
    text = json.dumps({**file.description(), "regions": [{**file.regions[0], "linear": linear}]}).encode()
    file.regions[0]["nbytes"] = (1 << 20) - (linear == 1 << 16)
    file.write(tmp_path, text=text)
    with pytest.raises(ChainError, match=r"no complete checkpoint.*'a' lies outside of the payload"):
        load(tmp_path, lazy=True)


def test_damage_in_a_delta_makes_lazy_arrays_older(linear, caplog):
    """As it does for any others."""
    files = forge.history(STATES, rows=ROWS, linear=True)
    flip(linear / files[2].name, files[2].payload()[1][-1][4])
    assert _loaded(linear, lazy=True) == (2, STATES[1])
    assert files[2].name in caplog.text


def test_without_numpy_load_says_so(directory, monkeypatch):
    """And what to install, or to use instead; restore works."""
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ImportError, match=r"dirtytrack\[numpy\].*restore\(\)"):
        load(directory)
    assert _restored(directory) == (3, STATES[2])
