"""``make release``: is everything ready for the tag of this version? It changes nothing and uploads nothing.

The tag, once pushed, starts .github/workflows/release.yml, which builds every wheel and publishes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def main() -> int:
    """Say what is missing, or which commands release it; 1 if anything is missing."""
    version = _version()
    missing = [*_of_the_sources(version), *_of_the_repository(version), *_of_the_build(version)]
    if missing:
        print(f"{version} is not ready:", *missing, sep="\n- ")
        return 1
    print(f"{version} is ready. Once .ci/run has passed on this commit:\n")
    print(
        f"    git tag --annotate v{version} --message 'dirtytrack {version}'\n    git push origin v{version}"
    )
    return 0


def _version() -> str:
    source = (ROOT / "dirtytrack/__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.*)"$', source, re.MULTILINE)[1]  # type: ignore[index]


def _of_the_sources(version: str) -> list[str]:
    """What the files lack for this version."""
    missing = []
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = re.search(rf"^## \[{re.escape(version)}\] - (\S+)$", changes, re.MULTILINE)
    if not heading or heading[1] != date.today().isoformat():
        missing.append(f'CHANGELOG.md has no heading "## [{version}] - {date.today().isoformat()}"')
    if not re.search(rf"^\[{re.escape(version)}\]: https://", changes, re.MULTILINE):
        missing.append(f"CHANGELOG.md has no link for [{version}] at its end")
    if f"version: {version}\n" not in (ROOT / "CITATION.cff").read_text(encoding="utf-8"):
        missing.append(f"CITATION.cff is not of {version}")
    return missing


def _of_the_repository(version: str) -> list[str]:
    """What is in the way of a tag."""
    missing = []
    if _git("status", "--porcelain"):
        missing.append("the working tree is not clean")
    if _git("branch", "--show-current") != "main":
        missing.append("the branch is not main")
    if _git("tag", "--list", f"v{version}"):
        missing.append(f"the tag v{version} is there already")
    return missing


def _of_the_build(version: str) -> list[str]:
    """What ``make wheel`` has left, which must be of this version."""
    built = {path.name for path in (ROOT / "dist").glob(f"dirtytrack-{version}*")}
    ends = {name.rpartition(".")[2] for name in built}
    return [] if ends == {"gz", "whl"} else [f"dist/ has no sdist and wheel of {version}: make wheel"]


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
