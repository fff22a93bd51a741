"""Makes one C file and one header of the interface in C, for programs that are built without Python.

    python dirtytrack/native/amalgamation/amalgamate.py DIRECTORY

writes them, with a ``CMakeLists.txt`` and a ``dirtytrack.pc.in``. What nothing in the header leads to is left
out. What a file has for itself gets the name of the file in front, since other files have the same names.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_NATIVE = _HERE.resolve().parent
_HEADER = _NATIVE / "include/dirtytrack.h"
_ROOTS = ("base/error.c", "barrier/tracker.c", "snapshot/snapshot.c")
_OWN_INCLUDE = re.compile(r'^#include "([^"]+)"\n', re.MULTILINE)
_SYSTEM_INCLUDE = re.compile(r"^#include <([^>]+)>.*\n", re.MULTILINE)
_DROPPED = re.compile(
    r"^#pragma (?:once|GCC visibility push\(hidden\)|GCC visibility pop)\n|^#define _GNU_SOURCE\n",
    re.MULTILINE,
)
_LEFT_OUT = re.compile(r"^#ifndef DT_NATIVE_ONLY\n.*?^#endif\n", re.MULTILINE | re.DOTALL)
# What a file defines for itself, at the beginning of a line.
_FUNCTION = re.compile(
    r"^(?:__attribute__\(\(\w+\)\) )?static (?!inline)[^;={]*?\b(\w+)\([^;{]*\)\n\{", re.MULTILINE
)
_VARIABLE = re.compile(r"^static (?!inline)[^;={(]*?\b(\w+)(?:\[[^\]]*\])*(?: =|;)", re.MULTILINE)
_STRUCT_VARIABLE = re.compile(r"^static (?:const )?struct(?: \w+)? \{.*?^\} (\w+)", re.MULTILINE | re.DOTALL)
_TYPE = re.compile(r"^(?:struct|enum) (\w+) \{", re.MULTILINE)
_TYPEDEF = re.compile(r"^typedef [^;]*?\b(\w+)\([^;]*\);", re.MULTILINE)
_MACRO = re.compile(r"^#define (\w+)", re.MULTILINE)
_ENUM = re.compile(r"^enum[^{;]*\{(.*?)\}", re.MULTILINE | re.DOTALL)
_STRUCT_BODY = re.compile(r"^(?:static )?(?:const )?struct[ \w]*\{.*?^\}", re.MULTILINE | re.DOTALL)
_TOKEN = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|(?:\.|->)\w+|\w+', re.DOTALL)


def _text(path: Path) -> str:
    return _LEFT_OUT.sub("", path.read_text())


def _add_headers(path: Path, headers: list[Path]) -> None:
    # What a file includes, each behind what it includes itself.
    for name in _OWN_INCLUDE.findall(_text(path)):
        header = (path.parent / name).resolve()
        if header not in headers and header != _HEADER:
            _add_headers(header, headers)
            headers.append(header)


def _files() -> tuple[list[Path], list[Path]]:
    """All headers, in that order, and the sources that belong to them."""
    headers: list[Path] = []
    sources: list[Path] = []
    pending = [_NATIVE / name for name in _ROOTS]
    while pending:
        source = pending.pop()
        if source not in sources and source.exists():
            sources.append(source)
            _add_headers(source, headers)
            pending += [header.with_suffix(".c") for header in headers]
    return headers, sorted(sources)


def _own_names(text: str) -> set[str]:
    names = {
        name
        for pattern in (_FUNCTION, _VARIABLE, _STRUCT_VARIABLE, _TYPE, _TYPEDEF)
        for name in pattern.findall(text)
    }
    for body in _ENUM.findall(re.sub(r"//[^\n]*", "", text)):
        names |= {member.partition("=")[0].strip() for member in body.split(",")}
    return {name for name in names if name and not name.startswith(("dt_", "DT_"))}


def _renamed(text: str, stem: str, names: set[str]) -> str:
    # A member of a struct keeps its name, where it is declared and where it is used.
    types = set(_TYPEDEF.findall(text))
    bodies = [found.span() for found in _STRUCT_BODY.finditer(text)]

    def rename(found: re.Match[str]) -> str:
        word = found[0]
        if word not in names:
            return word
        before = text[max(0, found.start() - 8) : found.start()]
        inside = any(start < found.start() < stop for start, stop in bodies)
        is_tag = before.endswith(("struct ", "enum "))
        is_member = inside and not is_tag and not word.isupper() and word not in types
        return word if is_member else f"{stem}_{word}"

    return _TOKEN.sub(rename, text)


def _stripped(path: Path) -> str:
    return _DROPPED.sub("", _SYSTEM_INCLUDE.sub("", _OWN_INCLUDE.sub("", _text(path)))).strip() + "\n"


def amalgamate() -> str:
    """The text of dirtytrack.c."""
    headers, sources = _files()
    system = sorted({name for path in (*headers, *sources) for name in _SYSTEM_INCLUDE.findall(_text(path))})
    texts = {path: _stripped(path) for path in sources}
    parts = [
        "// dirtytrack: the written pages of a process's own memory, for native runtimes. See dirtytrack.h.\n"
        "// SPDX-License-Identifier: MIT\n"
        "//\n"
        f"// Made of {len(sources)} files by amalgamate.py. Built as GNU C11 with -pthread.\n"
        "#define _GNU_SOURCE\n"
        '#include "dirtytrack.h"\n\n',
        "".join(f"#include <{name}>\n" for name in system),
        "\n// No name but those of dirtytrack.h leaves a shared library.\n",
        "#pragma GCC visibility push(hidden)\n",
    ]
    parts += [f"\n// {path.parent.name}/{path.name}\n\n{_stripped(path)}" for path in headers]
    for path, text in texts.items():
        macros = "".join(f"#undef {name}\n" for name in _MACRO.findall(text))
        parts.append(
            f"\n// {path.parent.name}/{path.name}\n\n{_renamed(text, path.stem, _own_names(text))}{macros}"
        )
    parts.append("\n#pragma GCC visibility pop\n")
    return "".join(parts)


def main(directory: Path) -> None:
    """Writes everything."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "dirtytrack.c").write_text(amalgamate())
    shutil.copyfile(_HEADER, directory / "dirtytrack.h")
    for name in ("CMakeLists.txt", "dirtytrack.pc.in"):
        shutil.copyfile(_HERE / name, directory / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
