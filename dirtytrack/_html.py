"""Pieces of HTML for notebooks: tables, bars and maps. They load nothing, link to nothing and run nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_TABLE = "border-collapse:collapse;font-size:90%"
_CELL = "padding:2px 8px;text-align:{side}"
_BAR = "display:inline-block;width:{width:.1f}px;height:10px;background:#b3261e;vertical-align:middle"
_BAR_WIDTH = 120
_MAP_HEIGHT = 14


class Markup(str):
    """Text that is HTML already; all other text is escaped."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """Any text as HTML, so that it is seen as it stands."""
    if isinstance(text, Markup):
        return text
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;")):
        text = str(text).replace(char, entity)
    return Markup(text)


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """A table under a title; the first *left* columns are aligned to the left, the others to the right."""

    def line(tag: str, cells: Sequence[object]) -> str:
        sides = ["left" if place < left else "right" for place in range(len(cells))]
        return "".join(
            f'<{tag} style="{_CELL.format(side=side)}">{escape(cell)}</{tag}>'
            for cell, side in zip(cells, sides, strict=True)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    head = f"<thead><tr>{line('th', heads)}</tr></thead>"
    inner = f'<table style="{_TABLE}">{head}<tbody>{body}</tbody></table>'
    return f"<div><b>{escape(title)}</b>{inner}</div>"


def bar(fraction: float) -> Markup:
    """A bar of that fraction of its full width."""
    return Markup(f'<span style="{_BAR.format(width=_BAR_WIDTH * min(max(fraction, 0.0), 1.0))}"></span>')


def heat_map(fractions: Sequence[float]) -> Markup:
    """A strip, whose parts are the darker the more of each was written."""
    width = len(fractions)
    parts = "".join(
        f'<rect x="{place}" width="1" height="{_MAP_HEIGHT}" fill="#b3261e" opacity="{max(part, 0.15):.2f}"/>'
        for place, part in enumerate(fractions)
        if part
    )
    return Markup(
        f'<svg width="{2 * width}" height="{_MAP_HEIGHT}" viewBox="0 0 {width} {_MAP_HEIGHT}" '
        f'preserveAspectRatio="none" style="background:#8882;vertical-align:middle">{parts}</svg>'
    )
