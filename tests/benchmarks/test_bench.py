"""The benchmarks run and say what they should; how fast anything is, no test can know."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("numpy")
pytest.importorskip("xxhash")

from _lib import limits
from dirtytrack.benchmarks.harness import Budget, Side, Unavailable, compare, measure, require_memory


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return limits.run([sys.executable, "-m", "dirtytrack", "bench", *arguments])


def _check_figure(figure: dict[str, Any], unit: str) -> None:
    assert figure["unit"] == unit
    assert figure["samples"] >= 1
    assert 0 < figure["low"] <= figure["median"] <= figure["high"]


def test_json_holds_the_machine_and_every_figure_of_a_row():
    """A quick run of one row prints a document with the machine, the figures, their ratio and the budget."""
    done = _bench("--quick", "--json", "--rows", "collect-one-page")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["quick"] is True
    assert {"kernel", "cpu", "cpus", "thp", "load", "hole_reporting", "versions"} <= report["machine"].keys()
    assert [line["beside"] for line in report["rows"]] == [
        "bare ioctl, vec_len 256",
        "bare ioctl, vec_len 512",
    ]
    for line in report["rows"]:
        assert line["row"] == "collect-one-page"
        assert line["budget"] == {"limit": 5, "faster": False}
        assert line["holds"] is None  # a quick run judges nothing
        assert line["skipped"] is None
        _check_figure(line["subject"], "s")
        _check_figure(line["yardstick"], "s")
        _check_figure(line["ratio"], "x")


def test_table_has_a_line_for_every_outcome():
    """The table names the machine, and each outcome with its yardstick and its ratio."""
    done = _bench("--quick", "--rows", "collect-1*")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line for line in done.stdout.splitlines() if line.startswith("collect, 32 MiB, 1")]
    assert len(lines) == 3  # 1 %, 10 %, 10 % with another thread
    assert all("bare ioctl, vec_len 512: " in line for line in lines if "skipped" not in line)
    assert done.stdout.startswith("Linux ")
    assert "QUICK" in done.stdout


def test_every_family_declares_rows():
    """The list of rows has each name once, and rows of every family."""
    done = _bench("--list")
    names = done.stdout.split()
    assert done.returncode == 0
    assert len(set(names)) == len(names)
    assert {"collect-clean", "track", "pays-find"} <= set(names)


def test_unknown_row_is_an_error():
    """A pattern that matches nothing is told on stderr, with where to look."""
    done = _bench("--rows", "no-such-row")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no row matches 'no-such-row'" in done.stderr
    assert "--list" in done.stderr


@pytest.mark.parametrize("missing", ["numpy", "xxhash"])
def test_missing_dependency_names_the_extra(missing: str):
    """Without numpy or xxhash the command fails, and names the extra that brings them."""
    hide = f"import sys; sys.modules[{missing!r}] = None"
    code = f"{hide}; from dirtytrack.cli import main; sys.exit(main(['bench']))"
    done = limits.run([sys.executable, "-c", code])
    assert (done.returncode, done.stdout) == (1, "")
    assert f"need {missing}" in done.stderr
    assert "dirtytrack[bench]" in done.stderr


def test_pairs_are_interleaved_and_prepared_alike():
    """Both sides of a pair get the same number, the order alternates, and the first pair does not count."""
    calls: list[str] = []

    def side(name: str) -> Side:
        return Side(lambda: calls.append(name), lambda pair: calls.append(f"{name}{pair}"), name)

    outcome = compare("title", side("a"), side("b"), pairs=3)
    assert calls == ["a0", "a", "b0", "b", "b1", "b", "a1", "a", "a2", "a", "b2", "b", "b3", "b", "a3", "a"]
    assert outcome.beside == "b"
    assert outcome.ratio is not None
    assert (outcome.subject.samples, outcome.ratio.samples, outcome.ratio.unit) == (3, 3, "x")


def test_loops_and_parts_divide_the_time():
    """A sample of several loops acts so often, and is prepared once."""
    calls: list[str] = []
    outcome = measure(
        "title",
        Side(lambda: calls.append("act"), lambda sample: calls.append(f"prepare {sample}"), parts=1e9),
        samples=1,
        loops=3,
    )
    assert calls == ["prepare 0", "act", "act", "act", "prepare 1", "act", "act", "act"]
    assert 0 < outcome.subject.median < 1e-9  # a part of a call that takes less than a second


def test_budget_is_a_bound_from_the_right_side():
    """A cost may be its limit or less; a speed has to be its limit or more."""
    assert [Budget(1.2).holds(ratio) for ratio in (1.1, 1.2, 1.3)] == [True, True, False]
    assert [Budget(50, faster=True).holds(ratio) for ratio in (49, 50, 51)] == [False, True, True]


def test_memory_that_is_not_there_makes_a_row_unavailable():
    """A row that needs more memory than the machine has is skipped, with the figures."""
    with pytest.raises(Unavailable, match="MiB are available"):
        require_memory(1 << 60)


def test_settling_runs_each_side_once_before_its_sample():
    """With settle a side prepares and acts twice in a row, and the second time is the sample."""
    calls: list[str] = []

    def side(name: str) -> Side:
        return Side(lambda: calls.append(name), lambda pair: calls.append(f"{name}{pair}"), name)

    compare("title", side("a"), side("b"), pairs=1, settle=True)
    first = ["a0", "a", "a0", "a", "b0", "b", "b0", "b"]
    assert calls == [*first, "b1", "b", "b1", "b", "a1", "a", "a1", "a"]
