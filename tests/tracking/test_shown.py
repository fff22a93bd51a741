"""What notebooks and print show of sessions, regions, epochs and page sets: it takes nothing over."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest

import dirtytrack
from _lib.support import PAGE_SIZE
from dirtytrack import Session


class Page(HTMLParser):
    """Checks that every tag is closed, and collects the text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, _: object) -> None:
        self.open.append(tag)
        self.tags.add(tag)

    def handle_startendtag(self, tag: str, _: object) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


@pytest.fixture
def memory() -> object:
    """A hundred pages."""
    return dirtytrack.alloc(100 * PAGE_SIZE)


def test_an_epoch_is_a_table(memory, session: Session) -> None:
    """By region, with shares and a bar of what was written where; to look at it takes nothing over."""
    first, second = (
        session.track(memory, name="first"),
        session.track(dirtytrack.alloc(1 << 16), name="quiet"),
    )
    memory[0] = memory[50 * PAGE_SIZE] = 1
    epoch = session.collect()
    lines = str(epoch).splitlines()
    assert lines[0].startswith("Epoch 1 of 'default': ")
    assert lines[1].split() == ["region", "pages", "of", "bytes", "share"]
    assert lines[2].split()[0] == "first"
    assert lines[2].endswith("|=               =               |")
    assert Page(epoch._repr_html_()).text.split()[0] == "Epoch"
    assert "first" in epoch._repr_html_()
    del epoch  # nobody has read it: its pages come back
    with session.collect() as epoch:
        assert epoch[first] == {0, 50}
        assert second in epoch


def test_what_notebooks_show(memory, session: Session) -> None:
    """Well-formed, with the names and sizes; nothing in it loads or runs anything."""
    array = np.zeros((10, 1000), np.float32)
    evil = "<script>alert(1)</script>"
    region = session.track(array, name=evil)
    session.track(memory)
    memory[:] = b"x" * len(memory)
    epoch = session.collect()
    for shown in (session, region, epoch, epoch[region], region.page_set([(0, 1)])):
        page = Page(shown._repr_html_())
        assert page.tags <= {"div", "b", "table", "thead", "tbody", "tr", "th", "td", "svg", "rect", "span"}
        assert "PageSet" in page.text or evil in page.text
        assert "http" not in shown._repr_html_()
    assert "<f4, (10, 1000)" in Page(region._repr_html_()).text
    session.untrack(region)
    assert evil in Page(region._repr_html_()).text


def test_heat(memory, session: Session) -> None:
    """The fraction of each part, however pages and parts divide."""
    pages = session.track(memory).page_set([(0, 3), (99, 100)])
    assert pages.heat(100) == [1, 1, 1, *[0] * 96, 1]
    assert pages.heat(10) == pytest.approx([0.3, *[0] * 8, 0.1])
    assert pages.heat(1) == pytest.approx([0.04])
    assert len(pages.heat(250)) == 250
    with pytest.raises(ValueError, match="at least one"):
        pages.heat(0)
