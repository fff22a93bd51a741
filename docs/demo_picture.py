"""Turn the output of a demo run into docs/demo.svg.

Use: ``python -m dirtytrack demo | python docs/demo_picture.py``. Reads the plain lines that the demo prints
into a pipe, and draws them as text, the heat bars as coloured cells.
"""

from __future__ import annotations

import re
import sys
from html import escape
from pathlib import Path

_SHADES = " .:-=+*#%@"
_BAR = re.compile(r"\|([" + re.escape(_SHADES) + r"]{8,})\|")
_CHAR, _LINE, _MARGIN = 7.8, 18, 16  # in pixels, for a font of 13
_COLD, _HOT, _HOTTEST = (60, 22, 28), (226, 72, 32), (255, 214, 74)
_ELLIPSIS_AFTER, _KEEP_LAST = 12, 6  # epochs shown at the start and at the end


def _mix(fraction: float) -> str:
    """From dark red over orange to yellow."""
    low, high, share = (_COLD, _HOT, fraction * 2) if fraction < 0.5 else (_HOT, _HOTTEST, fraction * 2 - 1)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(low, high, strict=True))


def _shorten(lines: list[str]) -> list[str]:
    """Leave out the epochs in the middle, and say so."""
    epochs = [number for number, line in enumerate(lines) if _BAR.search(line)]
    gone = epochs[_ELLIPSIS_AFTER:-_KEEP_LAST]
    if len(gone) < 2:
        return lines
    return [*lines[: gone[0]], f"        ... {len(gone)} more epochs ...", *lines[gone[-1] + 1 :]]


def _cell(x: float, y: float, width: float, style: str) -> str:
    return f'<rect x="{x:.1f}" y="{y - 12:.0f}" width="{width:.1f}" height="14" {style}/>'


def _draw_line(line: str, y: float) -> list[str]:
    drawn = []
    text = line
    for bar in _BAR.finditer(line):
        start, stop = bar.span(1)
        text = text[: start - 1] + " " * (stop - start + 2) + text[stop + 1 :]
        width = (stop - start) * _CHAR
        x = _MARGIN + start * _CHAR
        drawn.append(_cell(x, y, width, 'class="cold"'))
        for cells in re.finditer(r"([^ ])\1*", bar[1]):
            at, fill = x + cells.start() * _CHAR, _mix(_SHADES.index(cells[1]) / (len(_SHADES) - 1))
            width = len(cells[0]) * _CHAR
            drawn.append(
                f'<rect x="{at:.1f}" y="{y - 12:.0f}" width="{width:.1f}" height="14" fill="{fill}"/>'
            )
    for part in re.finditer(r"\S+(?: \S+)*", text):
        kind = ' class="good"' if line.startswith("PASSED") else ""
        x = _MARGIN + part.start() * _CHAR
        length = (part.end() - part.start()) * _CHAR
        drawn.append(
            f'<text x="{x:.1f}" y="{y:.0f}" textLength="{length:.1f}" lengthAdjust="spacingAndGlyphs"{kind}>'
            f"{escape(part[0])}</text>"
        )
    return drawn


def draw(lines: list[str]) -> str:
    """The picture of a run, as SVG."""
    lines = _shorten(lines)
    width = 2 * _MARGIN + max(map(len, lines)) * _CHAR
    height = 2 * _MARGIN + len(lines) * _LINE
    body = [shape for row, line in enumerate(lines) for shape in _draw_line(line, _MARGIN + 13 + row * _LINE)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" role="img">',
            "<title>Output of python -m dirtytrack: heat bars of the written pages, epoch by epoch</title>",
            "<style>text { font: 13px ui-monospace, Menlo, DejaVu Sans Mono, monospace; fill: #d8d8d8 }",
            ".good { fill: #7fd68a } .cold { fill: #232a33 }</style>",
            f'<rect width="{width:.0f}" height="{height:.0f}" rx="8" fill="#171c22"/>',
            *body,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    output = [line.rstrip("\n") for line in sys.stdin]
    if not any(line.startswith("PASSED") for line in output):
        sys.exit("demo_picture: the run on stdin did not pass; nothing drawn")
    Path(__file__).with_name("demo.svg").write_text(draw(output), encoding="utf-8")
