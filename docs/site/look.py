"""Every page of the site in a headless Chromium, as a file: ``make docs-look`` leaves pictures of them.

It fails where a page writes an error to the console, asks the network for anything, or is wider than a
telephone's window; and where the search, which has no server here, finds nothing.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, TimeoutError, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "site"
PICTURES = ROOT / "build/site/pictures"
_WIDTHS = {"wide": 1280, "narrow": 390}
_SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def main() -> int:
    """Look at every page, wide and narrow, light and dark, and search for a word."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        print("chromium is not installed: apt-get install chromium", file=sys.stderr)
        return 2
    pages = sorted(set(SITE.rglob("*.html")) - {SITE / "404.html"})  # whose links begin at a server's root
    faults: list[str] = []
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=_SWITCHES) as browser,
    ):
        for scheme in ("light", "dark"):
            context = browser.new_context(color_scheme=scheme)
            for path in pages:
                faults += [
                    f"{path.relative_to(SITE)}, {scheme}: {fault}" for fault in _look(context, path, scheme)
                ]
        faults += _search(browser.new_page())
    print(*faults, sep="\n", file=sys.stderr)
    print(f"{len(pages)} pages seen, pictures in {PICTURES.relative_to(ROOT)}/, {len(faults)} faults")
    return int(bool(faults))


def _look(context: Any, path: Path, scheme: str) -> list[str]:
    """What is wrong with a page; leaves a picture of each width."""
    page = context.new_page()
    faults = _listen(page)
    for name, width in _WIDTHS.items():
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(path.as_uri())
        wide = page.evaluate("document.documentElement.scrollWidth")
        faults += [f"is {wide} wide in a window of {width}"] if wide > width else []
        picture = PICTURES / scheme / name / path.relative_to(SITE).with_suffix(".png")
        picture.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=picture)
    page.close()
    return faults


def _listen(page: Page) -> list[str]:
    """The errors that a page will have, and what it will ask the network for."""
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "request", lambda request: faults.append(f"asks for {request.url}") if _afar(request.url) else None
    )
    return faults


def _afar(url: str) -> bool:
    return not url.startswith(("file:", "data:", "about:", "blob:"))


def _search(page: Page) -> list[str]:
    """What is wrong with the search for a word of the documentation."""
    faults = _listen(page)
    page.goto((SITE / "index.html").as_uri())
    page.get_by_role("button", name="Search").first.click()
    page.get_by_role("combobox").or_(page.get_by_placeholder("Search")).first.fill("rollback")
    try:
        page.get_by_text(re.compile(r"^[0-9]+ results$")).wait_for(timeout=30_000)
    except TimeoutError as late:
        faults.append(f"the search finds nothing: {late}")
    page.screenshot(path=PICTURES / "search.png")
    return faults


if __name__ == "__main__":
    sys.exit(main())
