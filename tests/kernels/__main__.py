"""``make kernels``: the tests on real kernels. See docs/kernels.md for what comes out.

Exit status: 0 when everything is as it has to be, 1 when something is not, 2 when a tool or a package can't
be had here. With ``--ci`` the last is no failure: the reason is printed, and the status is 0.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from kernels import boot, fetch, image, table
from kernels.fetch import UnavailableError

GROUPS = ("kernel", "tracking", "snapshot", "checkpoint", "barrier", "cli")
KERNELS = ("6.1", "6.12-oldest", "6.12", "6.16-oldest", "6.18", "newest")

# The short run, worth a guest's seconds in a gate: kernels and words for pytest.
CI_GROUPS = ("kernel", "tracking")
CI_KERNELS = {"6.1": "-m anywhere", "6.12-oldest": "-m 'not slow'"}


def main() -> int:
    """Boot the kernels asked for and print what came of it."""
    options = _parser().parse_args()
    wanted = options.groups or (CI_GROUPS if options.ci else GROUPS)
    groups = [name for name in wanted if (image.REPOSITORY / "tests" / name).is_dir()]
    plan = CI_KERNELS if options.ci else dict.fromkeys(options.kernels or KERNELS, options.args)
    try:
        results = _run(plan, groups, image.build())
    except UnavailableError as missing:
        print(f"kernels: {'skipped' if options.ci else 'not possible here'}: {missing}")
        return 0 if options.ci else 2
    print(table.text(results, groups))
    if options.page:
        (image.REPOSITORY / "docs/kernels.md").write_text(table.page(results, groups, options.args))
    return int(any(result.complaints for result in results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make kernels", description="Run the tests on real kernels.")
    parser.add_argument("kernels", nargs="*", help='such as "6.12.95", "6.12", "6.12-oldest" or "newest"')
    parser.add_argument("--groups", type=lambda text: text.split(","), help="directories below tests/")
    parser.add_argument("--args", default="", help="more words for pytest in the guest")
    parser.add_argument("--page", action="store_true", help="write docs/kernels.md")
    parser.add_argument("--ci", action="store_true", help="the short run; what can't be had here is skipped")
    return parser


def _run(plan: Mapping[str, str], groups: list[str], root: Path) -> list[table.Result]:
    """Boot each kernel of the plan with its words for pytest, and say at once how it went."""
    served = fetch.packages()
    results = []
    for asked, args in plan.items():
        package = fetch.choose(served, asked)
        result = table.Result(asked, groups, package)
        results.append(result)
        if package is None:
            continue
        result.boot = boot.boot(fetch.image(package), root, groups, args=args)
        verdict = "; ".join(result.complaints) or "good"
        print(f"{package.kernel}: {verdict} ({result.boot.seconds:.0f} s)", file=sys.stderr, flush=True)
    return results


if __name__ == "__main__":
    sys.exit(main())
