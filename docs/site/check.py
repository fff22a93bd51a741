"""A walk through the built site: every link, picture, script and anchor leads somewhere inside of it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_ASKS = {"link", "script", "img", "iframe", "source", "video", "audio"}  # what a browser fetches by itself


class _Page(HTMLParser):
    """What a page links to, what it fetches, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []  # tag, target
        self.anchors = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the tag names, and what it leads to."""
        values = dict(attrs)
        self.anchors |= {name for name in (values.get("id"), values.get("name")) if name}
        self.links += [(tag, target) for target in (values.get("href"), values.get("src")) if target]


def faults(site: Path) -> list[str]:
    """One line for each dead link of the site, and each thing that its pages would fetch from elsewhere."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for tag, target in page.links:
            wrong = _fault(site, pages, path, tag, target)
            found += [f"{path.relative_to(site)}: {target}: {wrong}"] if wrong else []
    return found


def _fault(site: Path, pages: dict[Path, _Page], path: Path, tag: str, target: str) -> str | None:
    """What is wrong with a link of a page."""
    url = urlsplit(target)
    if url.scheme or url.netloc:
        return "is fetched from elsewhere" if _fetches(tag, target) and url.scheme != "data" else None
    file = (path.parent / unquote(url.path)).resolve() if url.path else path
    if path.name == "404.html":  # served from anywhere: its links begin at the root
        file = site / unquote(url.path).lstrip("/")
    file = file / "index.html" if file.is_dir() else file
    if not file.exists():
        return "there is no such file"
    if file in pages and unquote(url.fragment) not in pages[file].anchors:
        return "the page has no such anchor"
    return None


def _fetches(tag: str, target: str) -> bool:
    # Of the links of a page's head, those to other pages (canonical, next) fetch nothing.
    return tag in _ASKS and (tag != "link" or target.endswith((".css", ".js", ".png", ".svg", ".ico")))
