"""A page for each program of examples/, and one that lists them."""

from __future__ import annotations

import ast
from pathlib import Path

_INTRODUCTION = """# Examples

Each runs as it stands, prints what it proves, and exits non-zero if it does not hold.

| program | what it shows |
|---|---|
"""


def pages(root: Path) -> dict[str, str]:
    """The text of each page by its name."""
    programs = sorted([*(root / "examples").glob("*.py"), *(root / "examples").glob("*/*.py")])
    about = {program: _about(program.read_text(encoding="utf-8")) for program in programs}
    made = {f"examples/{program.stem}.md": _page(root, program, about[program]) for program in programs}
    rows = [f"| [{program.stem}](examples/{program.stem}.md) | {about[program]} |" for program in programs]
    return made | {"examples.md": _INTRODUCTION + "\n".join(rows) + "\n"}


def _about(source: str) -> str:
    """The first paragraph of a program's docstring, on one line."""
    return " ".join((ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].split())


def _page(root: Path, program: Path, about: str) -> str:
    native = sorted(program.parent.glob("*.[ch]")) if program.parent.name == program.stem else []
    sources = "".join(_source(root, path) for path in [program, *native])
    return f"# {program.stem}\n\n{about} One of the [examples](../examples.md).\n{sources}"


def _source(root: Path, path: Path) -> str:
    language = "python" if path.suffix == ".py" else "c"
    text = path.read_text(encoding="utf-8").rstrip()
    return f"\n`{path.relative_to(root)}`:\n\n````{language}\n{text}\n````\n"
