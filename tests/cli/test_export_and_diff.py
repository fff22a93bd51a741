"""The verbs export and diff of checkpoint: what they make, and what they say."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from _lib.checkpoint import forge
from _lib.checkpoint.buckets import ModelBucket
from _lib.cli.chains import Made, call, chain, original
from _lib.support import in_child
from dirtytrack.checkpoint import Chain, store

__all__ = ["call", "chain", "original"]


@pytest.mark.parametrize(("kind", "load"), [("safetensors", load_file), ("npz", np.load)])
def test_export(chain: Made, tmp_path: Path, call: Any, kind: str, load: Any) -> None:
    """The newest checkpoint, or the one asked for, whole or in part."""
    code, out, err = call("export", chain.path, tmp_path / "new", "--format", kind)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].endswith(f"(proven) to {tmp_path}/new.")
    assert out.splitlines()[1:] == ['meta {"step": 4}']
    for name, array in chain.states[3].items():
        np.testing.assert_array_equal(load(tmp_path / "new")[name], array)
    arguments = ["--format", kind, "--at", "2", "--region", "b", "--no-fsync", "--json"]
    found = json.loads(call("export", chain.path, tmp_path / "old", *arguments)[1])
    assert (found["checkpoint"], found["meta"], found["problems"]) == (2, {"step": 2}, [])
    assert found["target"] == str(tmp_path / "old")
    assert [*load(tmp_path / "old")] == ["b"]
    np.testing.assert_array_equal(load(tmp_path / "old")["b"], chain.states[1]["b"])
    code, out, err = call("export", chain.path, tmp_path / "old")
    assert (code, out) == (1, "")
    assert "it is there already: choose another name" in err


@pytest.mark.parametrize(
    ("name", "load"), [("a.npz", np.load), ("a.safetensors", load_file), ("a.npz.bin", load_file)]
)
def test_the_name_says_what_is_exported(chain: Made, tmp_path: Path, call: Any, name: str, load: Any) -> None:
    """Numpy's archive where the name is one's; safetensors otherwise."""
    assert call("export", chain.path, tmp_path / name)[0] == 0
    np.testing.assert_array_equal(load(tmp_path / name)["w"], chain.states[3]["w"])


def test_export_of_what_is_damaged(chain: Made, tmp_path: Path, call: Any) -> None:
    """The newest intact one, and the output tells."""
    name = chain.damage(4)
    code, out, _ = call("export", chain.path, tmp_path / "out")
    assert code == 0
    assert out.startswith("Exported checkpoint 3 of ")
    assert name in out
    np.testing.assert_array_equal(load_file(tmp_path / "out")["w"], chain.states[2]["w"])
    assert call("export", chain.path, tmp_path / "no", "--at", "4")[0] == 1
    assert call("export", chain.path, tmp_path / "no", "--only", "model")[0] == 1
    assert call("export", chain.path, "s3://bucket/x")[0] == 1


def test_diff(chain: Made, call: Any) -> None:
    """A line for each region that differs."""
    code, out, err = call("diff", chain.path, "1", "3")
    assert (code, err) == (0, "")
    lines = [line.split("  ") for line in out.splitlines()]
    assert [[cell.strip() for cell in line if cell] for line in lines[:-1]] == [
        ["region", "what", "blocks", "bytes", "elements"],
        ['"w"', "changed", "2 of 64", "3.0 KiB", "2048"],
        ['"b"', "changed", "2 of 2", "4.9 KiB", "5000"],
    ]
    assert out.splitlines()[-1].startswith("2 of 2 regions differ between checkpoint 1 of ")
    found = json.loads(call("diff", chain.path, "3", "--json")[1])
    assert (found["before"], found["after"]) == (3, 4)
    assert found["regions"] == [
        {"region": "w", "kind": "changed", "blocks": 1, "nbytes": 2048, "elements": 1024},
        {"region": "b", "kind": "changed", "blocks": 2, "nbytes": 5000, "elements": 5000},
    ]
    code, out, _ = call("diff", chain.path, "2", "2")
    assert (code, out.startswith("0 of 2 regions differ between checkpoint 2 of ")) == (0, True)
    assert call("diff", chain.path, "1", "9")[0] == 1


def test_diff_of_regions_that_come_and_go(tmp_path: Path, call: Any) -> None:
    """With what they take."""
    first = forge.File(1, [], [forge.region("a\n", 5000), forge.region("c", 100)])
    second = forge.File(2, [], [forge.region("b", 3000), forge.region("c", 200)], parent=first.checkpoint)
    second.more = {"table": "0" * 32}
    code, out, _ = call("diff", forge.write(tmp_path / "chain", [first, second]), "1")
    assert code == 0
    assert [line.split() for line in out.splitlines()[1:-1]] == [
        ['"b"', "added", "2.9", "KiB"],
        ['"c"', "replaced", "100", "B,", "now", "200", "B"],
        ['"a\\n"', "removed", "4.9", "KiB"],
    ]


def test_both_take_urls(chain: Made, tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As everything that takes a path."""
    bucket = ModelBucket()
    monkeypatch.setattr(store, "open_bucket", lambda _url, _options: bucket)
    with Chain(chain.path) as opened:
        opened.export("s3://bucket/run")
    assert call("diff", "s3://bucket/run", "1", "4")[0] == 0
    assert call("export", "s3://bucket/run", tmp_path / "out", "--store-option", "region=x")[0] == 0
    np.testing.assert_array_equal(load_file(tmp_path / "out")["w"], chain.states[3]["w"])


def test_a_training_needs_torch(tmp_path: Path, call: Any) -> None:
    """What it packs only dirtytrack.torch unpacks; the extra is named."""
    path = forge.write(tmp_path / "chain", forge.history([{":state": b"x", "w": b"y"}]))

    def child() -> Any:
        sys.modules["torch"] = None  # type: ignore[assignment]
        return call("export", path, tmp_path / "out")

    code, out, err = in_child(child).check()
    assert (code, out) == (1, "")
    assert err.endswith('dirtytrack.torch needs torch: pip install "dirtytrack[torch]"\n')
    assert call("export", path, tmp_path / "w", "--region", "w")[0] == 0
    assert sorted(os.listdir(tmp_path)) == ["chain", "w"]
