"""What a chain says of its regions, by the reader that knows nothing but docs/format.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from _lib.checkpoint.independent_reader import read_file


def described(directory: Path, name: str) -> dict[str, Any]:
    """The row of a region in the table of the newest file."""
    newest = max(path for path in directory.iterdir() if path.suffix in (".base", ".delta"))
    (row,) = (row for row in read_file(newest).description["regions"] if row["name"] == name)
    return row
