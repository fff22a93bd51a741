"""A pytest plugin that writes each test's start and outcome to the guest's serial port for results, at once.

A guest that panics or hangs has then already said which test it was at.
"""

from __future__ import annotations

import json
import os

import pytest

_FD = os.open(os.environ["DIRTYTRACK_RESULTS"], os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)


def _write(**what: object) -> None:
    os.write(_FD, json.dumps(what).encode() + b"\n")


def pytest_runtest_logstart(nodeid: str) -> None:
    """Before anything of a test runs."""
    _write(start=nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Once for each phase of a test; only those are told that count."""
    if report.when != "call" and report.passed:
        return
    outcome = report.outcome
    if hasattr(report, "wasxfail"):
        outcome = "passed"  # strict xfail: what had to fail did
    _write(test=report.nodeid, outcome=outcome, seconds=round(report.duration, 3), text=_text(report))


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A module that can't be imported, or that skips itself."""
    if not report.passed:
        _write(test=report.nodeid, outcome=report.outcome, seconds=0, text=_text(report))


def _text(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test was skipped, or the last lines of how it failed."""
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        return reason.removeprefix("Skipped: ")
    return "" if report.passed else report.longreprtext[-4000:]
