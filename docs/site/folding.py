"""What of a page is for who maintains it, folded: which test shows which line, and what checks an example."""

from __future__ import annotations

import re

_CHECK = re.compile(r"^<!-- (?:check|c)\n.*?\n-->\n\n?", re.MULTILINE | re.DOTALL)
_TABLE = re.compile(r"(?:^\|.*\|\n)+", re.MULTILINE)
_BORDER = re.compile(r"(?<!\\)\|")
_LAST = "shown by"
_TESTS = re.compile(r"\s\(`test_\w+`(?:,\s`test_\w+`)*\)|\sShown\sby\s`test_\w+`\.")


def fold(text: str) -> str:
    """A page without its hidden checks, and with the column "shown by" of its tables folded below each."""
    return _TABLE.sub(lambda table: _folded(table[0]), _CHECK.sub("", text))


def without_tests(text: str) -> str:
    """A page whose sentences name no tests in passing."""
    return _TESTS.sub("", text)


def _folded(table: str) -> str:
    rows = [[cell.strip() for cell in _BORDER.split(row[1:-1])] for row in table.splitlines()]
    if rows[0][-1] != _LAST:
        return table
    rows[1] = ["---" for _ in rows[0]]
    shown = "".join("| " + " | ".join(row[:-1]) + " |\n" for row in rows)
    tests = "".join(f"- {row[0]}: {row[-1]}\n" for row in rows[2:] if row[-1])
    return (
        f'{shown}\n<details markdown="1"><summary>The tests that show it</summary>\n\n{tests}\n</details>\n'
    )
