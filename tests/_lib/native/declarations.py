"""What the three descriptions of the C core declare: its headers, ``cdef.txt`` and ``_core.pyi``.

A small parser for the C that is written here, which shares nothing with cffi's: declarations end with a
semicolon, structs hold no structs of their own, and names begin with ``dt_`` or ``DT_``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_DEFINE = re.compile(r"^#define (DT_\w+) (\d+)$", re.MULTILINE)
_ENUM = re.compile(r"enum\s*\w*\s*\{(.*?)\}", re.DOTALL)
_STRUCT = re.compile(r"struct (dt_\w+)\s*\{(.*?)\}\s*;", re.DOTALL)
_INLINE = re.compile(r"static inline [^;{]*\{.*?\n\}", re.DOTALL)
_PREPROCESSOR = re.compile(r"^#(?:[^\n]*\\\n)*[^\n]*$", re.MULTILINE)
_FUNCTION = re.compile(r"([\w\s*]+?)\b(dt_\w+)\s*\(([^()]*)\)\s*$")


class Function(NamedTuple):
    """A function: the type that it returns, and those of its parameters."""

    result: str
    parameters: tuple[str, ...]


class Struct(NamedTuple):
    """A struct: the type and the name of each field, in order; and whether it says that there are more."""

    fields: tuple[tuple[str, str], ...]
    partial: bool


class Declarations(NamedTuple):
    """All of them, by name."""

    functions: dict[str, Function]
    structs: dict[str, Struct]
    constants: dict[str, int]


def parse_c(text: str) -> Declarations:
    """The declarations of a header, or of what cffi is given."""
    text = _COMMENT.sub(" ", text)
    constants = {name: int(value) for name, value in _DEFINE.findall(text)}
    for body in _ENUM.findall(text):
        constants |= _members(body)
    structs = {name: _struct(body) for name, body in _STRUCT.findall(text)}
    for pattern in (_INLINE, _ENUM, _STRUCT, _PREPROCESSOR):
        text = pattern.sub(" ", text)
    return Declarations(dict(_functions(text)), structs, constants)


def _functions(text: str) -> Iterator[tuple[str, Function]]:
    for statement in text.split(";"):
        found = _FUNCTION.search(statement)
        if found and "typedef" not in found[1]:
            given = [] if found[3].strip() in ("", "void") else found[3].split(",")
            yield found[2], Function(_type(found[1]), tuple(_type(_last_name(one)[0]) for one in given))


def _struct(body: str) -> Struct:
    fields: list[tuple[str, str]] = []
    lines = [line.strip() for line in body.split(";") if line.strip()]
    for line in lines:
        if line == "..." or "(" in line:  # a pointer to a function, of which Python sees none
            continue
        head, *others = line.split(",")
        start, name = _last_name(head)
        base = start.rstrip("* ")
        fields.append((_type(start), name))
        for other in others:
            stars, name = _last_name(other)
            fields.append((_type(base + stars), name))
    return Struct(tuple(fields), "..." in lines)


def _last_name(declaration: str) -> tuple[str, str]:
    found = re.fullmatch(r"(.*?)(\w+)((?:\[[^\]]*\])*)\s*", declaration, re.DOTALL)
    assert found, declaration
    return found[1] + found[3], found[2]


def _type(text: str) -> str:
    return " ".join(re.findall(r"\w+|\*|\[[^\]]*\]", text))


def _members(body: str) -> dict[str, int]:
    # Those whose values are other than numbers are not for Python.
    members: dict[str, int] = {}
    value = 0
    for member in filter(None, map(str.strip, body.split(","))):
        name, _, given = map(str.strip, member.partition("="))
        if given and not given.isdigit():
            continue
        value = int(given) if given else value
        members[name] = value
        value += 1
    return members


class Stub(NamedTuple):
    """What ``_core.pyi`` has in its class ``Lib``: for each function the annotations, the result last."""

    functions: dict[str, tuple[str, ...]]
    constants: frozenset[str]


def parse_stub(text: str) -> Stub:
    """The members of ``Lib``."""
    (lib,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == "Lib")
    functions = {
        node.name: tuple(
            ast.unparse(annotation)
            for annotation in (*(one.annotation for one in node.args.args[1:]), node.returns)
            if annotation
        )
        for node in lib.body
        if isinstance(node, ast.FunctionDef)
    }
    names = [node.target for node in lib.body if isinstance(node, ast.AnnAssign)]
    return Stub(functions, frozenset(name.id for name in names if isinstance(name, ast.Name)))


def kinds_of(c_type: str) -> tuple[str, ...]:
    """How the stub may write a type of C."""
    if "*" in c_type:
        return "CData", "bytes"
    return {"void": ("None",), "double": ("float",)}.get(c_type, ("int", "bool"))


def disagreements(headers: Mapping[str, str], cdef: str, stub: str) -> Iterator[str]:
    """Where the headers (by name), what cffi is given and the stub differ: what it is, and how."""
    declared, seen = parse_c(cdef), parse_stub(stub)
    parsed = [parse_c(text) for text in headers.values()]
    yield from _against_headers(declared, parsed)
    for name, function in declared.functions.items():
        wanted = [kinds_of(one) for one in (*function.parameters, function.result)]
        written = seen.functions.get(name, ())
        if len(written) != len(wanted) or any(
            one not in kinds for one, kinds in zip(written, wanted, strict=True)
        ):
            yield f"{name}: the stub has {written}, cdef.txt {wanted}"
    for name in sorted(set(seen.functions) - set(declared.functions)):
        yield f"{name}: only in the stub"
    for name in sorted(seen.constants ^ set(declared.constants)):
        yield f"{name}: in one of the stub and cdef.txt only"


def _against_headers(declared: Declarations, headers: list[Declarations]) -> Iterator[str]:
    for name, function in declared.functions.items():
        found = [header.functions[name] for header in headers if name in header.functions]
        if found != [function]:
            yield f"{name}: the headers have {found}, cdef.txt {function}"
    for name, struct in declared.structs.items():
        fields = [header.structs[name].fields for header in headers if name in header.structs]
        if struct.partial:
            fields = [tuple(field for field in one if field in struct.fields) for one in fields]
        if fields != [struct.fields]:
            yield f"struct {name}: the headers have {fields}, cdef.txt {struct}"
    for name, value in declared.constants.items():
        values = {header.constants[name] for header in headers if name in header.constants}
        if values != {value}:
            yield f"{name}: the headers have {values}, cdef.txt {value}"
