"""`make kernels` can fail: what its guests say, and what they no longer say, ends up as a complaint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kernels import boot
from kernels.fetch import Package, choose
from kernels.table import Result, page, text

OLD = Package("linux-image-6.1.0-1-cloud-amd64", "6.1.9-1")
NEW = Package("linux-image-6.12.43+deb12-cloud-amd64", "6.12.43-1~bpo12+1")
DOCTOR = {"works": True, "epoch": "E1"}

GOOD: list[dict[str, Any]] = [
    {"doctor": DOCTOR},
    {"begin": "kernel"},
    {"start": "a.py::one"},
    {"test": "a.py::one", "outcome": "passed", "seconds": 1, "text": ""},
    {"start": "a.py::two"},
    {"test": "a.py::two", "outcome": "skipped", "seconds": 0, "text": "no such thing"},
    {"exit": 0},
    {"end": True},
]
FAILED = {"test": "a.py::two", "outcome": "failed", "seconds": 0, "text": "E  assert False"}


def result_of(lines: list[dict[str, Any]], told: str = "", package: Package = NEW) -> Result:
    """What is made of a guest's lines and its console."""
    said = [json.dumps(line) for line in lines]
    return Result("6.12", ["kernel"], package, boot.understand(said, told, "", "", 9.0, Path("console")))


def test_a_good_guest_is_good() -> None:
    """Counts, skips with reasons, the epoch; and nothing to complain about."""
    result = result_of(GOOD)
    assert result.complaints == []
    for shown in (text([result], ["kernel"]), page([result], ["kernel"], "")):
        assert "1 passed, 1 skipped" in shown
        assert "no such thing" in shown
        assert "E1" in shown


@pytest.mark.parametrize(
    ("lines", "told", "complaint"),
    [
        pytest.param([*GOOD[:5], FAILED, *GOOD[6:]], "", "a.py::two failed", id="a test fails"),
        pytest.param([*GOOD[:6], {"exit": 1}, *GOOD[7:]], "", "ended with status 1", id="pytest fails"),
        pytest.param([*GOOD[:6], {"exit": 5}, *GOOD[7:]], "", "ended with status 5", id="no tests"),
        pytest.param([*GOOD[:6], {"exit": -9}, *GOOD[7:]], "", "ended with status -9", id="pytest is killed"),
        pytest.param(GOOD[:5], "[ 1.0] Kernel panic - not syncing: x", "x, in a.py::two", id="a panic"),
        pytest.param(GOOD[:7], "", "ended without a word", id="an early end"),
        pytest.param(GOOD[:1] + GOOD[-1:], "", "tests/kernel did not run", id="no group"),
        pytest.param(GOOD, "[ 1.0] WARNING: CPU: 0 PID: 1", "WARNING", id="a warning"),
        pytest.param(GOOD[1:], "", "doctor says None", id="no doctor"),
        pytest.param(
            [{"doctor": {"works": False, "cause": "config", "remedy": "Do."}}, *GOOD[1:]], "", "False"
        ),
    ],
)
def test_every_way_to_fail_is_a_complaint(lines: list[dict[str, Any]], told: str, complaint: str) -> None:
    """A failed test, a dead pytest, a panic, a guest that ends early or says nothing: none looks good."""
    result = result_of(lines, told)
    assert any(complaint in line for line in result.complaints), result.complaints


def test_an_old_kernel_must_not_work() -> None:
    """Tracking that seems to work before 6.7 is a complaint, and so is a kernel that can't be had."""
    assert any("doctor says True" in line for line in result_of(GOOD, package=OLD).complaints)
    assert Result("9.9", []).complaints == ["apt serves no kernel 9.9"]


def test_kernels_are_chosen_by_number() -> None:
    """6.1 is not 6.12; oldest, newest and exact versions are as they say."""
    more = Package("linux-image-6.12.9+deb13-cloud-amd64", "6.12.9-1")
    served = [OLD, more, NEW]
    assert [choose(served, asked) for asked in ("6.1", "6.12", "6.12-oldest", "newest", "6.12.9", "7")] == [
        *(OLD, NEW, more, NEW, more),
        None,
    ]
