"""The documentation as a site: ``make docs`` leaves it in site/, and fails where a link of it leads nowhere.

The pages are those of docs/ as they stand. Beside them are made the pages that the code itself holds: the
reference of each public package from its docstrings, of the command line from its parser, of the C interface
from its header, and one for each example.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import check
import folding
import programs
import reference

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
WORK = ROOT / "build/site"
PAGES = WORK / "docs"
SITE = ROOT / "site"

_SHIM = "https://unpkg.com/iframe-worker/shim"  # what the theme would fetch


def main() -> int:
    """Assemble the pages, build the site of them, and walk it."""
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.copytree(DOCS, PAGES, ignore=shutil.ignore_patterns("site", "*.py", "__pycache__"))
    made = {**reference.pages(ROOT), **programs.pages(ROOT)}
    for name, text in made.items():
        (PAGES / name).parent.mkdir(exist_ok=True)
        (PAGES / name).write_text(text, encoding="utf-8")
    for page in PAGES.glob("*.md"):
        page.write_text(_inside(page), encoding="utf-8")
    shutil.copy(DOCS / "site/wide.css", PAGES)
    shutil.copy(DOCS / "site/zensical.toml", WORK)
    built = subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], check=False, cwd=WORK)
    if built.returncode:
        return built.returncode
    shutil.move(WORK / "site", SITE)
    _fetch_nothing()
    _link_docstrings()
    faults = check.faults(SITE)
    print(*faults, sep="\n", file=sys.stderr)
    print(f"{len(list(SITE.rglob('*.html')))} pages in {SITE.relative_to(ROOT)}/, {len(faults)} dead links")
    return int(bool(faults))


def _fetch_nothing() -> None:
    """Have every page take the script by which a file can be searched from the site itself."""
    shutil.copy(DOCS / "site/worker.js", SITE / "assets/javascripts")
    for page in SITE.rglob("*.html"):
        home = "../" * (len(page.relative_to(SITE).parents) - 1) or "./"
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(_SHIM, f"{home}assets/javascripts/worker.js"), encoding="utf-8")


def _link_docstrings() -> None:
    """Have docstrings, which name a page by its file, link to it."""

    def link(name: re.Match[str]) -> str:
        return f'<a href="../{name[1]}.html">{_title(name[1] + ".md")}</a>'

    for page in (SITE / "reference").glob("*.html"):
        text = page.read_text(encoding="utf-8")
        page.write_text(re.sub(r"<code>docs/([\w-]+)\.md</code>", link, text), encoding="utf-8")


def _inside(page: Path) -> str:
    """A page's text for readers, its links to files turned to their pages, or to the repository."""

    def turn(link: re.Match[str]) -> str:
        target, anchor = link[1], link[2] or ""
        if target.startswith("../examples/") and (PAGES / _example(target)).exists():
            return f"]({_example(target)}{anchor})"
        return f"]({repository}/blob/main/{target.removeprefix('../')}{anchor})"

    repository = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    text = folding.fold(page.read_text(encoding="utf-8"))
    if page.name != "design.md":  # which is for those who carry it on
        text = folding.without_tests(text)
    text = re.sub(r"\]\((\.\./[^)#]*)(#[^)]*)?\)", turn, text)
    return re.sub(r"\[([\w-]+\.md)\]\((?=\1)", lambda link: f"[{_title(link[1])}](", text)


def _title(page: str) -> str:
    """What a page is called, where a link has the name of its file."""
    return (DOCS / page).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _example(target: str) -> str:
    """The page of a program, or of the folder that it lies in with what is C of it."""
    return f"examples/{Path(target.removeprefix('../examples/').split('/')[0]).stem}.md"


if __name__ == "__main__":
    sys.exit(main())
