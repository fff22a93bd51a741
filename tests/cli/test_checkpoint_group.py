"""`dirtytrack checkpoint` where a group of processes has saved: in a directory, and in a bucket."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from _lib.group.ranks import in_ranks, no_errors
from dirtytrack.cli import main
from dirtytrack.group import GroupChain, GroupCheckpointer


@pytest.fixture(params=["directory", "memory"])
def place(request, tmp_path):
    """A group with three states of two regions."""
    path = tmp_path / "group" if request.param == "directory" else f"memory://{tmp_path.name}"
    arrays = {"a": np.zeros(2000), "b": np.arange(7)}
    with GroupCheckpointer.open(path, arrays, fsync=False) as checkpoints:
        for step in range(3):
            arrays["a"][step] = step
            checkpoints.save({"step": step}, wait=True)
    return str(path)


def test_states_are_listed(place, capsys):
    """As lines, and as JSON."""
    assert main(["checkpoint", "list", place]) == 0
    head, *lines, total, regions = capsys.readouterr().out.splitlines()
    assert re.split("  +", head.strip()) == [
        *("state", "parts", "created", "on disk", "written", "stored", "pause", "consistency", "meta")
    ]
    for at, line in enumerate(lines):
        number, kind, created, nbytes, bar, written, stored, pause, *rest = re.split("  +", line.strip())
        assert (number, kind) == (str(2 + at), ("1 base", "1 delta", "1 delta")[at])
        datetime.fromisoformat(created)
        assert (float(nbytes.split()[0]) > 0, {*bar}) == (True, {"#"})
        assert int(written) >= int(stored) == 1  # pages may be shared with what others write
        assert (float(pause.split()[0]) > 0, rest) == (True, ["proven", f'{{"step": {at}}}'])
    assert total.startswith("3 states; ")
    assert total.endswith(" on disk in 3 files")
    assert regions.startswith('2 regions, 15.7 KiB: "a" 15.6 KiB, "b" ')
    assert main(["checkpoint", "list", "--json", place]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [state["state"] for state in said["states"]] == [2, 3, 4]
    assert said["states"][0]["parts"][0]["names"] == ["a", "b"]
    for state in said["states"]:
        (part,) = state["checkpoints"]
        assert (part["id"], state["disk_bytes"] > 0) == (state["parts"][0]["id"], True)
    assert said["disk_bytes"] == sum(state["disk_bytes"] for state in said["states"])


def test_a_state_with_a_damaged_part_is_listed(place, capsys):
    """And what is wrong with it."""
    if "://" in place:
        return
    part = GroupChain(place).newest.parts[0]
    delta = sorted((Path(place) / part.folder).glob("*.delta"))[-1]
    delta.write_bytes(delta.read_bytes()[:-1])
    assert main(["checkpoint", "list", place]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split()[:3] == ["4", "1", "missing"]
    assert lines[-2:] == ["1 file can't be used:", f"  {delta.name}: {lines[-1].partition(': ')[2]}"]


def test_a_state_is_restored(place, tmp_path, capsys):
    """The newest, or one by its number; all regions, or some."""
    assert main(["checkpoint", "restore", place, "--into", str(tmp_path / "x")]) == 0
    assert 'meta {"step": 2}' in capsys.readouterr().out
    assert np.load(tmp_path / "x" / "a.npy")[:4].tolist() == [0, 1, 2, 0]
    options = ["--into", str(tmp_path / "y"), "--at", "3", "--region", "a", "--json"]
    assert main(["checkpoint", "restore", place, *options]) == 0
    assert json.loads(capsys.readouterr().out)["meta"] == {"step": 1}
    assert [one.name for one in (tmp_path / "y").iterdir()] == ["a.npy"]
    assert np.load(tmp_path / "y" / "a.npy")[:4].tolist() == [0, 1, 0, 0]


def test_a_group_is_verified(place, capsys):
    """And damage is told by its file."""
    assert main(["checkpoint", "verify", place]) == 0
    assert capsys.readouterr().out == (
        "3 states, all files intact.\nThe newest that can be restored is state 4.\n"
    )
    if "://" in place:
        return
    part = GroupChain(place).newest.parts[0]
    base = next((Path(place) / part.folder).glob("*.base"))
    base.write_bytes(base.read_bytes()[:-1])
    assert main(["checkpoint", "verify", place]) == 1
    out = capsys.readouterr().out
    assert f"{part.folder}/{base.name}" in out
    assert "DAMAGED.\nNone can be restored.\n" in out
    assert main(["checkpoint", "restore", place, "--into", str(Path(place) / "x")]) == 1
    assert "None of the states can be restored: dirtytrack checkpoint verify" in capsys.readouterr().err
    assert not (Path(place) / "x").exists()


@pytest.fixture
def damaged(tmp_path):
    """A group of two processes; of its newest state the part of the second one is damaged."""

    def rank(coordinator):
        array = np.zeros(2000)
        regions = {"ab"[coordinator.rank]: array}
        with GroupCheckpointer.open(
            tmp_path / "group", regions, coordinator=coordinator, fsync=False
        ) as checkpoints:
            for step in range(3):
                array[:] = np.random.default_rng(step).random(2000)
                checkpoints.save({"step": step}).wait(60)

    no_errors(in_ranks(2, rank))
    part = max(GroupChain(tmp_path / "group").newest.parts, key=lambda one: one.names)
    newest = max((tmp_path / "group" / part.folder).glob("0*"))
    data = bytearray(newest.read_bytes())
    data[5000] ^= 1
    newest.write_bytes(data)
    return tmp_path / "group"


def test_the_newest_state_without_damage_is_restored(damaged, tmp_path, capsys):
    """As of one process; of the damaged one no file is left. One that was asked for has no other."""
    into = tmp_path / "x"
    options = ["checkpoint", "restore", str(damaged), "--into", str(into)]
    assert main([*options, "--at", "4"]) == 1
    assert "is damaged" in capsys.readouterr().err
    assert [*into.glob("*")] == []
    assert main(options) == 0
    told = "Restored state 3; state 4 is damaged: dirtytrack checkpoint verify says where"
    assert capsys.readouterr().out.splitlines()[0] == told
    expected = np.random.default_rng(1).random(2000)
    assert all((np.load(into / f"{name}.npy") == expected).all() for name in "ab")


def test_which_states_can_be_restored_is_told(damaged, capsys):
    """By verify: in words, and for programs."""
    assert main(["checkpoint", "verify", str(damaged)]) == 1
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "The newest that can be restored is state 3."
    assert main(["checkpoint", "verify", str(damaged), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["newest"], said["restorable"], said["intact"]) == (4, [2, 3], False)


def test_a_damaged_record_is_no_intact_group(place, capsys):
    """The state that it committed is not among those that are left."""
    if "://" in place:
        return
    record = min((Path(place) / "records").iterdir())
    record.write_bytes(record.read_bytes()[:-5])
    assert main(["checkpoint", "verify", place]) == 1
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith(f"records/{record.name}: ")
    assert first.endswith("; what it committed can't be restored")
    assert rest == ["2 states, DAMAGED.", "The newest that can be restored is state 3."]


def test_a_group_is_compacted(place, capsys):
    """The newest states stay, with what they hold; a run that comes after it goes on."""
    assert main(["checkpoint", "compact", place, "--keep", "2", "--grace-period", "0"]) == 0
    *removed, told = capsys.readouterr().out.splitlines()
    folder = GroupChain(place).newest.parts[0].folder
    assert all(line.startswith(f"removed {folder}/") for line in removed)
    assert len(removed) == 2
    nbytes = "[0-9.]+ [KMi]*B"
    begins = "The group begins with state 3"
    assert re.fullmatch(rf"{begins}\. It takes {nbytes} on disk, {nbytes} (less|more) than before\.", told)
    chain = GroupChain(place)
    assert [state.number for state in chain] == [3, 4]
    assert chain.load("a", at=3)[:4].tolist() == [0, 1, 0, 0]
    assert chain.load("a")[:4].tolist() == [0, 1, 2, 0]
    assert chain.verify() == []
    arrays = {"a": np.zeros(2000), "b": np.zeros(7, int)}
    with GroupCheckpointer.open(place, arrays) as checkpoints:
        assert checkpoints.meta == {"step": 2}
        assert arrays["a"][:4].tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(
    "verb", [["diff", "1"], ["export", "x.npz"], ["copy", "x"]], ids=lambda verb: verb[0]
)
def test_what_is_for_one_process_says_so(verb, tmp_path, monkeypatch, capsys):
    """Rather than that nothing is there."""
    with GroupCheckpointer.open(tmp_path / "g", {"a": np.zeros(10)}) as checkpoints:
        checkpoints.save(wait=True)
    monkeypatch.chdir(tmp_path)
    assert main(["checkpoint", verb[0], "g", *verb[1:]]) == 1
    assert "no checkpoint of one process: a group has saved there" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["g"]


def test_an_empty_path_is_refused(capsys):
    """As an unset variable of the shell makes it; it is not the working directory."""
    with pytest.raises(SystemExit):
        main(["checkpoint", "list", ""])
    assert "the path is empty" in capsys.readouterr().err
