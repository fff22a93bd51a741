"""Runs rows and tells what came out: the machine, a plain table, JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from dirtytrack.kernel.support import HoleReporting, hole_reporting

from . import FAMILIES
from .harness import Budget, Figure, Outcome, Row, Scale, Unavailable, rows


@dataclass(frozen=True)
class Line:
    """One line of the report: a row's outcome, or why there is none."""

    row: str
    budget: Budget | None
    outcome: Outcome | None
    judged: bool
    skipped: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the budget holds; None without one, and in a quick run, which can't tell."""
        if not self.judged or self.budget is None or self.outcome is None or self.outcome.ratio is None:
            return None
        return self.budget.holds(self.outcome.ratio.median)


def main(args: argparse.Namespace) -> int:
    """Runs the rows asked for and prints them; returns the exit code. A missed budget is no failure.

    Args:
        args: ``rows`` (a shell pattern), ``quick``, ``json``, ``list``.
    """
    for family in FAMILIES:
        importlib.import_module(f"{__package__}.{family}")
    chosen = rows(args.rows)
    if not chosen:
        print(f"dirtytrack: no row matches {args.rows!r}: see dirtytrack bench --list", file=sys.stderr)
        return 1
    if args.list:
        print("\n".join(each.name for each in chosen))
        return 0
    facts = machine()
    lines = []
    for line in _run(chosen, Scale(args.quick)):
        lines.append(line)
        if not args.json:
            if len(lines) == 1:
                print(_heading(facts, args.quick))
            print(_formatted(line), flush=True)
    if args.json:
        print(json.dumps(_document(facts, lines, args.quick), indent=2))
    else:
        print(_summary(lines))
    return 0


def _run(chosen: list[Row], scale: Scale) -> Iterator[Line]:
    for each in chosen:
        try:
            for outcome in each.measure(scale):
                yield Line(each.name, each.budget, outcome, not scale.quick)
        except Unavailable as reason:
            yield Line(each.name, each.budget, None, False, str(reason))


@dataclass(frozen=True)
class Facts:
    """The facts without which a figure says little; None for what the system does not tell.

    Attributes:
        memory: of the machine, in bytes.
        load: the load average of the last minute, before the first row.
    """

    kernel: str
    hole_reporting: HoleReporting
    thp: str | None
    load: float
    cpu: str
    cpus: int
    virtual: bool
    governor: str | None
    memory: int
    page_size: int
    versions: dict[str, str]


def machine() -> Facts:
    """Where this process runs, now."""
    packages = ("dirtytrack", "cffi", "numpy", "xxhash")
    return Facts(
        kernel=platform.release(),
        hole_reporting=hole_reporting(),
        thp=_read("/sys/kernel/mm/transparent_hugepage/enabled"),
        load=_load(),
        cpu=_cpu_line("model name") or platform.machine(),
        cpus=len(os.sched_getaffinity(0)),
        virtual="hypervisor" in _cpu_line("flags").split(),
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE"),
        page_size=os.sysconf("SC_PAGESIZE"),
        versions={"Python": platform.python_version(), **{each: metadata.version(each) for each in packages}},
    )


def _load() -> float:
    return os.getloadavg()[0]


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _cpu_line(key: str) -> str:
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _document(facts: Facts, lines: list[Line], quick: bool) -> dict[str, object]:
    return {
        "machine": asdict(facts),
        "load_after": _load(),
        "quick": quick,
        "rows": [
            {
                "row": line.row,
                "budget": asdict(line.budget) if line.budget else None,
                "holds": line.holds,
                "skipped": line.skipped or None,
                **(asdict(line.outcome) if line.outcome else {}),
            }
            for line in lines
        ],
    }


_COLUMNS = "{:<50} {:>30}  {:<36} {:>9}  {}"


def _heading(facts: Facts, quick: bool) -> str:
    kind = "virtual" if facts.virtual else "physical"
    governor = f", governor {facts.governor}" if facts.governor else ""
    lines = [
        f"Linux {facts.kernel} (holes: {facts.hole_reporting}), THP {facts.thp}, load {facts.load:.2f}",
        f"{facts.cpu}, {facts.cpus} CPUs, {kind}{governor}; "
        f"{_bytes(facts.memory)} of memory in pages of {facts.page_size}",
        ", ".join(f"{name} {version}" for name, version in facts.versions.items()),
    ]
    if quick:
        lines.append("QUICK: small memory and few samples; the figures mean little")
    heads = _COLUMNS.format("what", "median [min, max]", "beside it", "ratio", "budget")
    return "\n".join([*lines, "", heads, "-" * (len(heads) + 8)])


def _formatted(line: Line) -> str:
    outcome = line.outcome
    if outcome is None:
        return f"{line.row}: skipped: {line.skipped}"
    subject = outcome.subject
    spread = (
        f"{_value(subject)} [{_amount(subject.low, subject.unit)}, {_amount(subject.high, subject.unit)}]"
    )
    beside = f"{outcome.beside}: {_value(outcome.yardstick)}" if outcome.yardstick else ""
    ratio = _value(outcome.ratio) if outcome.ratio else ""
    text = _COLUMNS.format(outcome.title, spread, beside, ratio, _verdict(line)).rstrip()
    return f"{text}\n    {outcome.note}" if outcome.note else text


def _verdict(line: Line) -> str:
    if line.budget is None:
        return ""
    word = "at least " if line.budget.faster else ""
    mark = {True: "ok", False: "MISSED", None: ""}[line.holds]
    return f"{word}{_amount(line.budget.limit, 'x')} {mark}"


def _summary(lines: list[Line]) -> str:
    missed = sorted({line.row for line in lines if line.holds is False})
    judged = any(line.holds is not None for line in lines)
    verdict = f"; budgets missed: {', '.join(missed)}" if missed else "; all budgets hold" if judged else ""
    return f"\nload afterwards {_load():.2f}{verdict}"


def _value(figure: Figure) -> str:
    return _amount(figure.median, figure.unit)


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return _bytes(value)
    if unit == "calls":
        return f"{value:.0f}"
    if unit == "x":
        return f"{value:.3%}" if value < 0.01 else f"{value:.0f}x" if value >= 20 else f"{value:.2f}x"
    for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {name}"
    return f"{value * 1e9:.0f} ns"


def _bytes(value: float) -> str:
    for shift, name in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if abs(value) >= 1 << shift:
            return f"{value / (1 << shift):.3g} {name}"
    return f"{value:.0f} B"
