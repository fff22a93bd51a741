"""The pages of the reference: what the code says of itself."""

from __future__ import annotations

import functools
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import griffe

_PACKAGES = {
    "dirtytrack": "Tracking",
    "dirtytrack.checkpoint": "Checkpoint",
    "dirtytrack.group": "Group",
    "dirtytrack.torch": "Torch",
    "dirtytrack.snapshot": "Snapshot",
    "dirtytrack.barrier": "Barrier",
    "dirtytrack.profile": "Profile",
    "dirtytrack.kernel": "Kernel",
}


def pages(root: Path) -> dict[str, str]:
    """The text of each page by its name."""
    made = {f"reference/{name.rpartition('.')[2]}.md": _package(root, name) for name in _PACKAGES}
    return made | {"reference/cli.md": _command_line(), "reference/c.md": _header(root)}


def _package(root: Path, name: str) -> str:
    """A page on a package: its own docstring, and each public name where it is defined.

    The source is read, not imported: dirtytrack.torch needs torch.
    """
    package = griffe.load(name, search_paths=[root], resolve_aliases=True)
    _understand(package)
    # The first paragraph is for whoever reads the page, the rest for whoever reads the source.
    about = package.docstring.value.split("\n\n")[0] if package.docstring else ""
    names = [str(name) for name in package.exports or () if not str(name).startswith("_")]
    entries = [_entry(package, public) for public in names]
    return "\n".join([f"# `{name}`: {_PACKAGES[name]}", "", about, "", *entries])


def _entry(package: griffe.Object | griffe.Alias, public: str) -> str:
    """What is written for a public name: where it is defined, or which page a package has."""
    path = package[public].canonical_path
    if path in _PACKAGES:
        return f"## `{public}`\n\nA package, with [a page of its own]({public}.md).\n"
    if package[public].is_module:  # it, or what it has of the same name
        path = package.imports.get(public, path)
    return f"::: {path}\n"


def _understand(package: griffe.Object | griffe.Alias) -> None:
    """Fail where a docstring has a part that the reference would leave out without a word."""
    faults: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: faults.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("griffe")
    logger.addHandler(handler)
    waiting = [package[str(public)] for public in package.exports or ()]
    while waiting:
        thing = waiting.pop()
        if thing.docstring:
            thing.docstring.parse("google")
        if thing.is_class:
            waiting += thing.members.values()
    logger.removeHandler(handler)
    if faults:
        raise ValueError("\n".join(["docstrings that can't be read:", *faults]))


def _command_line() -> str:
    """The help of every verb, and of each verb's verbs, as the shell prints it."""
    lines = ["# Command line", "", "`python -m dirtytrack` is the same as `dirtytrack`.", ""]
    for words in _verbs([]):
        lines += [
            f"## dirtytrack {' '.join(words)}".rstrip(),
            "",
            "```text",
            _help(words).rstrip(),
            "```",
            "",
        ]
    return "\n".join(lines)


def _verbs(words: list[str]) -> list[list[str]]:
    """These words, and all that can follow them: what a help lists under "VERB"."""
    listed = re.findall(r"^    ([a-z]+)(?:  |$)", _help(words).partition("\n  VERB\n")[2], re.MULTILINE)
    return [words, *(longer for verb in listed for longer in _verbs([*words, verb]))]


def _help(words: list[str]) -> str:
    return _printed(tuple(words))


@functools.cache
def _printed(words: tuple[str, ...]) -> str:
    command = [sys.executable, "-m", "dirtytrack", *words, "--help"]
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def _header(root: Path) -> str:
    """The header as it stands: its comments are the reference."""
    text = (root / "dirtytrack/native/include/dirtytrack.h").read_text(encoding="utf-8")
    guide = "[Card tables](../barrier.md#the-interface-in-c) is the guide to it."
    return f"# `dirtytrack.h`\n\n{guide}\n\n```c\n{text.rstrip()}\n```\n"
