"""What came of the boots, as a table for the terminal and as a page of the documentation."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from matrix.boot import Boot, Group
from matrix.fetch import Package

_PREFACE = """\
# Tested kernels

The test suite has run on these kernels of Debian: its cloud kernels for x86-64 and arm64, and its kernels for arm64 with
pages of 16 KiB. A cell has how many tests passed, and behind a stroke how many were skipped. The column "holes" says which
holes in memory the kernel reports, as found by probing: see [kernel.md](kernel.md#dropped-memory-three-kinds-of-kernel).
"""  # noqa: E501

_HOW = """\
`make kernels` boots each kernel under qemu, by KVM where that works and else emulated, with Python, the built wheel and the
tests and nothing else on it. A failure is:

- a kernel that oopses, or a task that hangs for five minutes: the guest panics then;
- a kernel of 6.7 or later (arm64: 6.10) on which `dirtytrack doctor` does not find tracking to work;
- an older kernel on which it does.

Guests find hugetlb pages of every size in reserve that their processor has. `make kernels` writes this page anew, and
`make kernels KERNELS="6.19 arm64/7.1 arm64-16k/newest"` tries others. It takes Debian with qemu-system-x86 and e2fsprogs, for
arm64 also qemu-system-arm, gcc-aarch64-linux-gnu and libc6-dev-arm64-cross; no root.
"""  # noqa: E501


@dataclass
class Result:
    """A kernel and what came of it.

    Attributes:
        asked: how the kernel was asked for.
        package: what was found; None if apt serves no such kernel.
        boot: what came of all its boots; None without a package.
        groups: which tests were to run on it.
        relay: what is wrong with the chain of checkpoints that it handed on.
    """

    asked: str
    package: Package | None = None
    boot: Boot | None = None
    groups: list[str] = field(default_factory=list)
    relay: str = ""

    def add(self, boot: Boot, groups: list[str]) -> Boot:
        """Take in a boot that was to run *groups*, and return it."""
        self.boot = self.boot.then(boot) if self.boot else boot
        self.groups += groups
        return boot

    @property
    def complaints(self) -> list[str]:
        """Everything that is not as it has to be, a line each."""
        if self.package is None or self.boot is None:
            return [f"apt serves no kernel {self.asked}"]
        found = [self.boot.trouble] if self.boot.trouble else []
        found += [f"the kernel complains: {line}" for line in self.boot.warnings]
        found += [self.relay] if self.relay else []
        works = self.boot.doctor.get("works")
        if works is not (self.package.release >= self.package.machine.first):
            found.append(f"doctor says {works} to whether tracking works")
        ran = {group.name for group in self.boot.groups}
        found += [f"tests/{name} did not run" for name in self.groups if name not in ran]
        for group in self.boot.groups:
            found += [f"{test} failed" for test in group.failures]
            if not group.good and not group.failures:
                found.append(f"tests/{group.name} ended with status {group.exit}")
        return found


def text(results: list[Result], groups: list[str]) -> str:
    """The table with what went wrong and why tests were skipped below it."""
    rows = [[cell.replace("`", "") for cell in row] for row in _rows(results, groups, _cell)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    for result in results:
        lines += _details(result)
    return "\n".join(lines)


def page(results: list[Result], groups: list[str], args: str, relay: list[str]) -> str:
    """docs/kernels.md.

    Args:
        results: of all kernels.
        groups: the columns.
        args: the words that pytest was given.
        relay: who wrote the epochs of the chain that went from guest to guest.
    """
    head, *rows = [row[:-1] for row in _rows(results, groups, _short)]  # without the seconds
    table = [head, ["---"] * len(head), *rows]
    lines = [_PREFACE, *("| " + " | ".join(row) + " |" for row in table), ""]
    if args:
        lines += [f"This was a part of the tests: `pytest {args}`.", ""]
    for title, paragraphs in (
        ("What is wrong", _complaints(results)),
        ("How they are tested", [_HOW.rstrip()]),
        ("What was skipped, and why", _folded("By reason and kernel", _skips(results))),
        ("One chain of checkpoints through all of them", _relay(relay)),
        ("What doctor says where tracking does not work", _remedies(results)),
    ):
        if paragraphs:
            lines += [f"## {title}", "", *paragraphs, ""]
    return "\n".join(lines)


def _rows(results: list[Result], groups: list[str], cell: Callable[[Group | None], str]) -> list[list[str]]:
    rows = [["kernel", "machine", "package", "holes", *groups, "seconds"]]
    for result in results:
        if result.package is None or result.boot is None:
            rows.append([result.asked, "", "not served", "", *[""] * len(groups), ""])
            continue
        boot = result.boot
        ran = {group.name: group for group in boot.groups}
        rows.append(
            [
                result.package.kernel,
                result.package.machine.name,
                f"`{result.package.version}`",
                _holes(boot),
                *(cell(ran.get(name)) if name in result.groups else "" for name in groups),
                f"{boot.seconds:.0f}",
            ]
        )
    return rows


def _holes(boot: Boot) -> str:
    if not boot.doctor:
        return "?"
    return str(boot.doctor["hole_reporting"]) if boot.doctor["works"] else "no tracking"


def _short(group: Group | None) -> str:
    """A cell that is narrow where all is well."""
    if group is None or not group.good:
        return _cell(group)
    skipped = group.counts["skipped"]
    return f"{group.counts['passed']}" + (f" / {skipped}" if skipped else "")


def _cell(group: Group | None) -> str:
    if group is None:
        return "not reached"
    counts = [f"{group.counts[outcome]} {outcome}" for outcome in ("failed", "passed", "skipped")]
    told = ", ".join(count for count in counts if not count.startswith("0 ")) or "no tests"
    return told if group.exit is not None else f"broke off after {told}"


def _details(result: Result) -> list[str]:
    name = result.package.title if result.package else result.asked
    lines = [f"\n{name}"] if result.complaints or (result.boot and _reasons(result.boot)) else []
    lines += [f"  ! {complaint}" for complaint in result.complaints]
    if result.boot is None:
        return lines
    for group in result.boot.groups:
        for test, trace in group.failures.items():
            lines += [f"  {test}", textwrap.indent(trace, "    ")]
    if result.boot.trouble:
        lines.append(f"  its console: {result.boot.console}")
    lines += [f"  skipped {count}: {reason}" for reason, count in _reasons(result.boot).most_common()]
    return lines


def _complaints(results: list[Result]) -> list[str]:
    return [
        f"- {result.package.title if result.package else result.asked}: {complaint}"
        for result in results
        for complaint in result.complaints
    ]


def _skips(results: list[Result]) -> list[str]:
    """A line for each reason, with the kernels and how many tests it concerns there."""
    concerned: dict[str, list[str]] = {}
    for result in results:
        if result.package is not None and result.boot is not None:
            for reason, count in sorted(_reasons(result.boot).items()):
                concerned.setdefault(reason, []).append(f"{count} on {result.package.title}")
    return [f"- {reason}: {', '.join(where)}" for reason, where in concerned.items()]


def _folded(title: str, lines: list[str]) -> list[str]:
    """What few readers want, behind its title."""
    if not lines:
        return []
    return [f'<details markdown="1"><summary>{title}</summary>', "", *lines, "", "</details>"]


def _relay(by: list[str]) -> list[str]:
    if not by:
        return []
    what = (
        "Each guest found the epochs of those before it to the byte, went on with the chain and handed it "
        "on; after each, this was checked again outside. The epochs are by:"
    )
    return [what, "", *(f"{number}. {who}" for number, who in enumerate(dict.fromkeys(by), 1))]


def _remedies(results: list[Result]) -> list[str]:
    """What doctor found missing, and what it advises."""
    return [
        f"- {result.package.title}: {result.boot.doctor['cause']}. {result.boot.doctor['remedy']}"
        for result in results
        if result.package is not None and result.boot is not None and result.boot.doctor.get("works") is False
    ]


def _reasons(boot: Boot) -> Counter[str]:
    total: Counter[str] = Counter()
    for group in boot.groups:
        total += group.skips
    return total
