"""A checkpoint as a file for other programs: their own readers give what is in the chain."""

from __future__ import annotations

import errno
import os
import resource
import stat
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file

from _lib.checkpoint import forge
from _lib.checkpoint.buckets import ModelBucket
from _lib.checkpoint.forge import BLOCK
from _lib.checkpoint.places import flip
from _lib.support import in_child
from dirtytrack import ChainError, ClosedError, StoreError
from dirtytrack.checkpoint import Chain
from dirtytrack.checkpoint.store.memory import MemoryStore
from dirtytrack.checkpoint.store.objects import ObjectStore
from dirtytrack.objects import describe

pytestmark = pytest.mark.anywhere


def _rows(arrays):
    """The table of regions, and the contents, as a Checkpointer has them of these arrays."""
    rows, content = {}, {}
    for name, array in sorted(arrays.items(), key=lambda pair: not pair[1].nbytes):  # as files have them
        dtype, shape, order = describe(array, empty=True).elements
        rows[name] = {"dtype": dtype, "shape": list(shape), "order": None if order is None else list(order)}
        content[name] = np.ravel(array, "K").tobytes()
    return rows, content


def _chain(path, arrays, **keywords):
    rows, content = _rows(arrays)
    return forge.write(path, forge.history([content], rows=rows, **keywords))


def _arrays(codes):
    rng = np.random.default_rng(5)
    values = {code: rng.integers(0, 2, 40 * 3 * 10, np.uint8).astype(np.dtype(code)) for code in codes}
    return {f"of {code}": one.reshape(40, 3, 10) for code, one in values.items()}


PLAIN = ["?", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8"]


def test_safetensors_of_every_type(tmp_path):
    """Those that both know; whatever the order of axes and of bytes, and with none."""
    arrays = _arrays([*PLAIN, ">f4", ">i8"])
    arrays["fortran"] = np.asfortranarray(np.arange(6000.0).reshape(20, 300))
    arrays["turned"] = np.arange(24000.0).reshape(20, 30, 40).transpose(1, 0, 2)
    arrays["empty"] = np.empty((0, 4), np.float32)
    arrays["scalar"] = np.array(7.5)
    arrays["ünï/../ 'x'"] = np.arange(5)
    with Chain(_chain(tmp_path / "chain", arrays)) as chain:
        assert chain.export(tmp_path / "out", format="safetensors") == ("out",)
        found = load_file(tmp_path / "out")
        with safe_open(tmp_path / "out", "np") as opened:
            assert opened.metadata() == {"id": chain.newest.id, "meta": '{"step": 1}'}
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype.newbyteorder("="), array.shape)
        assert found[name].tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes("C"), name
    assert stat.S_IMODE(os.stat(tmp_path / "out").st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["chain", "out"]


def test_npz_of_every_type(tmp_path):
    """Structures, times and texts among them; numpy.load needs no pickle for them."""
    arrays = _arrays([*PLAIN, ">f4", "<c16", "<M8[ns]", "<m8[s]", "<U3", "S5"])
    arrays["fortran"] = np.asfortranarray(np.arange(6000.0).reshape(20, 300))
    arrays["turned"] = np.arange(24000.0).reshape(20, 30, 40).transpose(1, 0, 2)
    arrays["empty"] = np.empty((0, 4), np.float32)
    arrays["scalar"] = np.array(7.5)
    arrays["rows"] = np.zeros(50, np.dtype([("a", "<f4"), ("b", "<i8", (2,))]))
    arrays["rows"]["b"] = 9
    arrays["sub/ünï.npy"] = np.arange(5)
    with Chain(_chain(tmp_path / "chain", arrays)) as chain:
        assert chain.export(str(tmp_path / "out.npz"), format="npz") == ("out.npz",)
        first = (tmp_path / "out.npz").read_bytes()
        chain.export(tmp_path / "again", format="npz")
    assert (tmp_path / "again").read_bytes() == first  # it holds no time
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert set(found.files) == {*arrays}
        for name, array in arrays.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("encoding", [forge.RAW, forge.ZSTD])
def test_any_checkpoint_and_some_regions(tmp_path, place, encoding):
    """From every store, compressed or not; the newest by default."""
    states = [{"a": bytes([n]) * 9000, "b": bytes([n] * 3), "c": bytes(BLOCK)} for n in (1, 2, 3)]
    told = []
    with Chain(forge.write(place, forge.history(states, encoding=encoding))) as chain:
        chain.export(tmp_path / "2", at=2, format="safetensors", progress=lambda *done: told.append(done))
        chain.export(tmp_path / "new", format="safetensors", regions=iter(["c", "a", "c"]), fsync=False)
        chain.export(tmp_path / "npz", at=chain[1].id, format="npz", regions=["b"])
    assert {name: one.tobytes() for name, one in load_file(tmp_path / "2").items()} == states[1]
    assert {name: one.tobytes() for name, one in load_file(tmp_path / "new").items()} == {
        name: states[2][name] for name in "ac"
    }
    assert bytes(np.load(tmp_path / "npz")["b"]) == states[0]["b"]
    assert told[-1] == (9000 + 3 + BLOCK,) * 2
    assert told == sorted(told)


def test_from_an_object_store(tmp_path):
    """Whatever the chain is in, the file is made in a directory."""
    bucket = ObjectStore(ModelBucket())
    with Chain(_chain(tmp_path / "chain", {"a": np.arange(5000.0)})) as chain:
        chain.export(bucket)
    with Chain(bucket) as chain:
        chain.export(tmp_path / "out", format="safetensors")
        with pytest.raises(StoreError, match=r"s3://bucket/x: such a file is made in a directory"):
            chain.export("s3://bucket/x", format="npz")
        chain.export(f"file://{tmp_path}/url", format="npz")
    np.testing.assert_array_equal(load_file(tmp_path / "out")["a"], np.arange(5000.0))


def test_one_memory_is_in_it_once(tmp_path):
    """With safetensors, which names the other one as its save_model does; npz has both."""
    arrays = {"a": np.arange(5000.0), "b": np.arange(10.0)}
    rows, content = _rows(arrays)
    table = [forge.region(name, len(content[name]), **rows[name]) for name in "ba"]
    table += [forge.region("tied", 40000, same_as=1, **rows["a"])]
    stored = [forge.Run(place, 0, content[name]) for place, name in enumerate("ba")]
    with Chain(forge.write(tmp_path / "chain", [forge.File(1, stored, table)])) as chain:
        chain.export(tmp_path / "out", format="safetensors")
        chain.export(tmp_path / "npz", format="npz")
        chain.export(tmp_path / "one", format="safetensors", regions=["tied"])
    assert load_file(tmp_path / "out").keys() == {"a", "b"}
    with safe_open(tmp_path / "out", "np") as opened:
        assert opened.metadata()["tied"] == "a"
    np.testing.assert_array_equal(np.load(tmp_path / "npz")["tied"], arrays["a"])
    np.testing.assert_array_equal(load_file(tmp_path / "one")["tied"], arrays["a"])


BFLOAT16 = {"name": "bfloat16", "itemsize": 2}


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("safetensors", {"dtype": "<c16", "shape": [6]}, "'a' has elements of type <c16, which"),
        ("safetensors", {"dtype": "<M8[ns]", "shape": [12]}, "of type <M8"),
        ("safetensors", {"dtype": "<U4", "shape": [6]}, "of type <U4"),
        (
            "safetensors",
            {"dtype": {"fields": [{"name": "x", "offset": 0, "dtype": "<f8"}], "itemsize": 8}, "shape": [12]},
            "of type {<f8 'x' at 0} of 8 bytes",
        ),
        ("safetensors", {"dtype": {**BFLOAT16, "scale": 2}, "shape": [48]}, r"bfloat16 \(scale 2\)"),
        ("safetensors", {"dtype": {"name": "bfloat16", "itemsize": 3}, "shape": [32]}, "of type bfloat16"),
        ("safetensors", {"dtype": {"name": 7, "itemsize": 8}, "shape": [12]}, "of type 7"),
        ("safetensors", {"dtype": {"name": "int4", "itemsize": 1}, "shape": [96]}, "of type int4"),
        ("safetensors", {"dtype": "<f8", "shape": [13]}, "describes no array"),
        ("safetensors", {"dtype": "nonsense", "shape": [12]}, "describes no array"),
        ("npz", {"dtype": BFLOAT16, "shape": [48]}, "bfloat16, which numpy does not know: leave it out"),
        ("npz", {"dtype": {"name": "float8_e5m2", "itemsize": 1}, "shape": [96]}, "float8_e5m2"),
        ("npz", {"dtype": "<f8", "shape": [13]}, "describes no array"),
        (
            "npz",
            {"dtype": {"fields": [{"name": "Ω", "offset": 0, "dtype": "<f8"}], "itemsize": 8}, "shape": [12]},
            "can't be in a file of npz",
        ),
        ("npz", {"dtype": {"fields": 5, "itemsize": 8}, "shape": [12]}, "describes no array"),
        ("npz", {"dtype": "|O8", "shape": [12]}, "describes no array"),
    ],
)
def test_what_a_file_can_not_have(tmp_path, kind, row, message):
    """Whatever a hostile chain says of its elements; the region is named and there is no file."""
    files = forge.history([{"a": bytes(range(96))}], rows={"a": {"order": None, **row}})
    with Chain(forge.write(tmp_path / "chain", files)) as chain, pytest.raises(ChainError, match=message):
        chain.export(tmp_path / "out", format=kind)
    assert os.listdir(tmp_path) == ["chain"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [("safetensors", "__metadata__"), ("safetensors", ":state"), ("npz", ":state")]
    + [("npz", name) for name in ("../a", "a/../../b", "/etc/passwd", "a\0b", "..", "c:\\d")],
)
def test_names_that_a_file_can_not_have(tmp_path, kind, name):
    """A ZIP archive that is unpacked must not write elsewhere."""
    with Chain(forge.write(tmp_path / "chain", forge.history([{name: b"x", "b": b"y"}]))) as chain:
        with pytest.raises(ChainError, match=r"can't be|packed"):
            chain.export(tmp_path / "out", format=kind)
        if name != "__metadata__":
            chain.export(tmp_path / "out", format="safetensors", regions=[name])
            assert bytes(load_file(tmp_path / "out")[name]) == b"x"


def test_names_that_are_each_others(tmp_path):
    """numpy.load could not tell "a.npy" from "a"."""
    path = forge.write(tmp_path / "chain", forge.history([{"a": b"x", "a.npy": b"y"}]))
    with Chain(path) as chain, pytest.raises(ChainError, match=r"'a' and 'a.npy' can't both"):
        chain.export(tmp_path / "out", format="npz")


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=9),
        st.binary(max_size=5000),
        min_size=1,
        max_size=4,
    )
)
def test_any_names_and_bytes(tmp_path_factory, content):
    """What is made can be read, and is what was there; the rest is refused."""
    content = {name: data for name, data in content.items() if name.isascii() or name.isprintable()} or {
        "a": b""
    }
    folder = tmp_path_factory.mktemp("any")
    with Chain(forge.write(folder / "chain", forge.history([content]))) as chain:
        for kind in ("safetensors", "npz"):
            try:
                chain.export(folder / kind, format=kind, regions=content, fsync=False)
            except ChainError as error:
                assert any(repr(name) in str(error) for name in content)  # noqa: PT017
                continue
            found = load_file(folder / kind) if kind == "safetensors" else dict(np.load(folder / kind))
            assert {name: one.tobytes() for name, one in found.items()} == content


def test_damage(tmp_path):
    """The newest intact one by default, and no other one than was asked for."""
    states = [{"a": bytes([n]) * 9000} for n in (1, 2, 3)]
    files = forge.history(states)
    path = forge.write(tmp_path / "chain", files)
    flip(path / files[2].name, 200)
    with Chain(path) as chain:
        with pytest.raises(ChainError, match=files[2].name):
            chain.export(tmp_path / "out", at=3, format="safetensors")
        assert not (tmp_path / "out").exists()
    with Chain(path) as chain:
        chain.export(tmp_path / "out", format="safetensors")
        assert [problem.file for problem in chain.problems] == [files[2].name]
    assert load_file(tmp_path / "out")["a"].tobytes() == states[1]["a"]


def test_what_is_there_stays(tmp_path):
    """Also what comes meanwhile, and a link that leads nowhere."""
    with Chain(forge.write(tmp_path / "chain", forge.history([{"a": bytes(9000)}]))) as chain:
        (tmp_path / "out").write_bytes(b"mine")
        (tmp_path / "link").symlink_to("nowhere")
        for name in ("out", "link"):
            with pytest.raises(FileExistsError, match="choose another name") as caught:
                chain.export(tmp_path / name, format="npz")
            assert caught.value.filename == str(tmp_path / name)

        def come(*_done):
            (tmp_path / "late").write_bytes(b"mine")

        with pytest.raises(FileExistsError, match="choose another name"):
            chain.export(tmp_path / "late", format="npz", progress=come)
        assert (tmp_path / "late").read_bytes() == (tmp_path / "out").read_bytes() == b"mine"
        with pytest.raises(FileNotFoundError):
            chain.export(tmp_path / "nowhere" / "out", format="npz")
    assert sorted(os.listdir(tmp_path)) == ["chain", "late", "link", "out"]


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_a_full_disk(tmp_path, kind):
    """Nothing is left, and the error names the file."""
    path = forge.write(tmp_path / "chain", forge.history([{"a": os.urandom(1 << 20)}]))

    def export():
        limit = 1 << 19
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with Chain(path) as chain, pytest.raises(OSError, match="out") as caught:
            chain.export(tmp_path / "out", format=kind)
        return caught.value.errno

    assert in_child(export).check() == errno.EFBIG
    assert os.listdir(tmp_path) == ["chain"]


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_an_interrupt_leaves_nothing(tmp_path, kind):
    """And the chain can be exported again."""

    def stop(*_done):
        raise KeyboardInterrupt

    with Chain(forge.write(tmp_path / "chain", forge.history([{"a": bytes(9000)}]))) as chain:
        with pytest.raises(KeyboardInterrupt):
            chain.export(tmp_path / "out", format=kind, progress=stop)
        assert os.listdir(tmp_path) == ["chain"]
        chain.export(tmp_path / "out", format=kind)


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_memory_is_bounded(tmp_path, kind):
    """64 MiB take no more than a few pieces, in another order of axes, too."""
    array = np.zeros((1 << 9, 1 << 14)).T
    with Chain(_chain(tmp_path / "chain", {"a": array})) as chain:
        tracemalloc.start()
        try:
            chain.export(tmp_path / "out", format=kind, fsync=False)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 40 << 20


def test_arguments(tmp_path):
    """Checked before anything is made."""
    with Chain(forge.write(tmp_path / "chain", forge.history([{"a": b"x"}]))) as chain:
        with pytest.raises(ValueError, match='format is "chain", "safetensors" or "npz", not'):
            chain.export(tmp_path / "out", format="pickle")
        with pytest.raises(ValueError, match="a chain has all regions"):
            chain.export(tmp_path / "out", regions=["a"])
        with pytest.raises(ChainError, match="no region 'b'"):
            chain.export(tmp_path / "out", format="npz", regions=["b"])
        with pytest.raises(TypeError, match=r"regions are a list of str, not the one 'a': \['a'\]"):
            chain.export(tmp_path / "out", format="npz", regions="a")
        with pytest.raises(TypeError, match="regions are a list of str, and 3 is none"):
            chain.export(tmp_path / "out", format="npz", regions=["a", 3])
        with pytest.raises(ChainError, match="no complete checkpoint 9"):
            chain.export(tmp_path / "out", format="npz", at=9)
        with pytest.raises(StoreError, match="made in a directory"):
            chain.export(MemoryStore(), format="npz")
    with pytest.raises(ClosedError):
        chain.export(tmp_path / "out", format="npz")
    assert os.listdir(tmp_path) == ["chain"]


@pytest.mark.parametrize("missing", ["numpy", "safetensors"])
def test_without_a_library(tmp_path, missing):
    """The error names the extra."""
    path = forge.write(tmp_path / "chain", forge.history([{"a": b"x"}]))

    def export():
        for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
            del sys.modules[name]
        sys.modules[missing] = None
        with Chain(path) as chain, pytest.raises(ImportError, match=r"pip install .dirtytrack\[export\]"):
            chain.export(tmp_path / "out", format="safetensors")
        return os.listdir(tmp_path)

    assert in_child(export).check() == ["chain"]
