"""``make kernels``: the tests on real kernels. See docs/kernels.md for what comes out.

Exit status: 0 when everything is as it has to be, 1 when something is not, 2 when a tool or a package can't
be had here. With ``--ci`` the last is no failure: the reason is printed, and the status is 0.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from matrix import boot, fetch, image, machine, table
from matrix.fetch import UnavailableError
from matrix.relay import Relay

RELAY = "relay"  # for this group the guests come one after the other
GROUPS = ("kernel", "tracking", "snapshot", "checkpoint", "barrier", "cli", RELAY)
KERNELS = (
    *("6.1", "6.12-oldest", "6.12", "6.16-oldest", "6.18", "newest"),
    *("arm64/6.12", "arm64/newest", "arm64-16k/6.12", "arm64-16k/newest"),
)

# The short run, worth a guest's seconds in a gate: kernels and words for pytest. Races of threads, storms of
# interrupts, handlers at every point, searches at random and interpreters that end take up to two minutes
# each there, and are run on the host already; so is comparing, which asks nothing of a kernel, but for the
# one where there is nothing else; and stopping threads, which asks nothing new of one. Huge pages of the
# pool, and those that come back, and limits that are met step by step took more than half of the time there:
# only `make kernels` waits for them.
CI_GROUPS = ("kernel", "tracking")
_HOST = (
    *("test_threads", "test_interrupts", "test_reentrance", "test_exit", "test_stop_threads"),
    *("test_state_machine", "test_adaptive", "test_double_check", "test_huge_pages", "test_limits"),
    *("guarantees/test_hugetlb", "guarantees/test_hugetlb_sizes"),
)
_QUICK = " ".join(f"--ignore tests/tracking/{name}.py" for name in _HOST)
CI_KERNELS = {
    "6.1": f"-m 'anywhere and not slow' {_QUICK}",
    "6.12-oldest": f"-m 'not slow' -k 'not compare and not stopping' {_QUICK}",
}
CI_PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "mke2fs": "e2fsprogs"}  # and their packages


def main() -> int:
    """Boot the kernels asked for and print what came of it."""
    options = _parser().parse_args()
    wanted = options.groups or (CI_GROUPS if options.ci else GROUPS)
    groups = [name for name in wanted if (image.REPOSITORY / "tests" / name).is_dir()]
    plan = CI_KERNELS if options.ci else dict.fromkeys(options.kernels or KERNELS, options.args)
    try:
        if options.ci:
            fetch.provide(CI_PROGRAMS)
        with tempfile.TemporaryDirectory() as work:
            relay = Relay(Path(work))
            results = _run(plan, groups, relay, options.jobs)
    except UnavailableError as missing:
        print(f"kernels: {'skipped' if options.ci else 'not possible here'}: {missing}")
        return 0 if options.ci else 2
    print(table.text(results, groups))
    if options.page:
        (image.REPOSITORY / "docs/kernels.md").write_text(table.page(results, groups, options.args, relay.by))
    return int(any(result.complaints for result in results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make kernels", description="Run the tests on real kernels.")
    parser.add_argument("kernels", nargs="*", help='such as "6.12", "6.12-oldest" or "arm64/newest"')
    parser.add_argument("--groups", type=lambda text: text.split(","), help="directories below tests/")
    parser.add_argument("--args", default="", help="more words for pytest in the guest")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="guests at a time")
    parser.add_argument("--page", action="store_true", help="write docs/kernels.md")
    parser.add_argument("--ci", action="store_true", help="the short run; what can't be had here is skipped")
    return parser


def _run(plan: Mapping[str, str], groups: list[str], relay: Relay, jobs: int) -> list[table.Result]:
    """Boot each kernel of the plan with its words for pytest, and say at once how it went."""
    results = [table.Result(asked, package) for asked, package in _packages(plan).items()]
    served = [(result, result.package) for result in results if result.package]
    # All that takes tools and the network comes first.
    for _, package in served:
        boot.provide(package)
    roots = {name: image.build(name) for name in {package.machine.architecture for _, package in served}}

    def run(result: table.Result, package: fetch.Package, groups: list[str]) -> boot.Boot:
        root = roots[package.machine.architecture]
        return result.add(boot.boot(package, root, groups, args=plan[result.asked]), groups)

    tests = [name for name in groups if name != RELAY]
    if tests:
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda one: _say(*one, run(*one, tests)), served))
    for result, package in served if RELAY in groups else ():
        relay.hand_out(roots[package.machine.architecture])
        done = run(result, package, [RELAY])
        result.relay = relay.take_back(done.handed_on)
        _say(result, package, done)
    return results


def _packages(plan: Mapping[str, str]) -> dict[str, fetch.Package | None]:
    """What apt serves of the kernels of the plan."""
    asked = {name: machine.parse(name) for name in plan}
    fetch.need(*dict.fromkeys(on.emulator[0] for on, _ in asked.values()))
    served = functools.cache(fetch.packages)
    return {name: fetch.choose(served(on), version) for name, (on, version) in asked.items()}


def _say(result: table.Result, package: fetch.Package, done: boot.Boot) -> None:
    verdict = "; ".join(result.complaints) or "good"
    print(f"{package.title}: {verdict} ({done.seconds:.0f} s)", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
