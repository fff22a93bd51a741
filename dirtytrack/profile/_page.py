"""A result as one page of HTML that needs nothing else: no network, no other file."""

from __future__ import annotations

import html
import json
from functools import cache
from pathlib import Path

from dirtytrack.profile import file, table
from dirtytrack.profile.recording import Recording

_DATA, _TITLE = "@DATA@", "@TITLE@"


def page(recording: Recording) -> str:
    """Returns the page. What was named by a program or a file is data in it, and never markup."""
    data = {
        **file.encode(recording),
        "places": [
            {"area": recording.areas.index(area), "where": area.place(start, stop), "writes": writes}
            for area, start, stop, writes in recording.hottest(table.HOTTEST)
        ],
    }
    # "<" occurs in texts only, and there JSON has another way to write it: no tag can begin in the data.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    before, _, after = _template().partition(_DATA)
    return before.replace(_TITLE, html.escape(recording.program)) + text + after


@cache
def _template() -> str:
    return (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
