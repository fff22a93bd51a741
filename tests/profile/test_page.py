"""The page of HTML in a real browser: it draws, asks nobody for anything, takes names for what they are."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from _lib.profile.recordings import RECORDING
from _lib.support import optional
from dirtytrack.profile import Phase, Report, Tally

pytestmark = pytest.mark.anywhere

_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)


def browse(folder: Path, page: str, *options: str) -> str:
    """What the browser makes of a page: its document after all scripts have run."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    optional(browser, "no Chromium here: Debian's package chromium")
    assert browser
    (folder / "page.html").write_text(page, encoding="utf-8")
    command = [browser, *_QUIET, f"--user-data-dir={folder / 'user'}", *options, f"file://{folder}/page.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def html(folder: Path, report: Report) -> str:
    """The page as it is written."""
    report.to_html(folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_a_browser_draws_it(tmp_path: Path) -> None:
    """All scripts run to their end; tables have the numbers; both maps are drawn, in light and dark."""
    script = """<script>
    for (const id of ["map", "flow"]) {
      const canvas = document.getElementById(id);
      const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      const colours = new Set();
      for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3] === 255) colours.add(pixels.slice(i, i +
      3).join()); document.body.dataset[id] = colours.size;
    }
    document.getElementById("theme").click();
    document.body.dataset.after = document.documentElement.dataset.theme;
    </script></body>"""
    page = html(tmp_path, Report(RECORDING)).replace("</body>", script)
    document = browse(tmp_path, page, "--dump-dom")
    assert 'data-drawn="yes"' in document
    body = re.sub(r"<script.*?</script>", "", document, flags=re.DOTALL)
    for cell in ("step/embed", "rows [0, 11)", "36.0 KiB", "12.50 s", "a note", "100.0 %"):
        assert cell in body
    heights = [int(height) for height in re.findall(r'<canvas[^>]*height="(\d+)"', body)]
    assert len(heights) == 2
    assert min(heights) > 30
    assert int(re.findall(r'data-map="(\d+)"', document)[0]) > 3
    assert int(re.findall(r'data-flow="(\d+)"', document)[0]) >= 1
    assert 'data-after="dark"' in document


def test_names_are_data(tmp_path: Path) -> None:
    """Whatever a program calls its arrays, phases and itself: no tag of it gets into the page."""
    evil = "</script><img src=x onerror=\"document.body.dataset.evil='yes'\"><!--"
    report = Report(
        replace(
            RECORDING,
            program=evil,
            areas=(replace(RECORDING.areas[0], name=evil),),
            phases=(Phase(evil, 1, 1.0), Phase(evil + "2", 1, 1.0, (Tally(0, 1, 1, 1),))),
            notes=(evil,),
        )
    )
    page = html(tmp_path, report)
    assert page.count("<img") == 0
    assert page.count("</script") == 2
    document = browse(tmp_path, page, "--dump-dom")
    assert 'data-drawn="yes"' in document
    assert "data-evil" not in document


def test_the_page_names_no_other_place(tmp_path: Path) -> None:
    """No link, no source, no font; and its policy forbids to fetch any."""
    page = html(tmp_path, Report(RECORDING))
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", page)
