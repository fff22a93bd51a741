"""The headers, ``cdef.txt`` and ``_core.pyi`` say the same: functions, parameters, fields and constants."""

from __future__ import annotations

from pathlib import Path

import pytest

from _lib.native.declarations import disagreements, kinds_of, parse_c
from dirtytrack.native import ffi, lib

_NATIVE = Path(__file__).parents[2] / "dirtytrack/native"
_CDEF = (_NATIVE / "binding/cdef.txt").read_text()
_STUB = (_NATIVE / "_core.pyi").read_text()
_HEADERS = {str(path.relative_to(_NATIVE)): path.read_text() for path in _NATIVE.glob("*/*.h")}


# One change to one of the three, and whose name is then told: where, what is replaced, by what.
_CHANGES = [
    ("cdef", "uint32_t page_shift, uint32_t flags,", "uint32_t page_shift,", "dt_session_add"),
    (
        "cdef",
        "dt_session_close(struct dt_session *",
        "dt_session_close(const struct dt_session *",
        "close",
    ),
    ("cdef", "uint64_t dt_runs_count(", "int dt_runs_count(", "dt_runs_count"),
    ("cdef", "int dt_close(int fd);", "int dt_close(int fd); int dt_none(void);", "dt_none"),
    (
        "cdef",
        "struct dt_run { uint64_t start, stop; };",
        "struct dt_run { uint64_t stop, start; };",
        "dt_run",
    ),
    ("cdef", "uint64_t settled;", "uint64_t setled;", "dt_epoch"),
    ("cdef", "#define DT_RESET 2", "#define DT_RESET 3", "DT_RESET"),
    ("cdef", "#define DT_PEEK 0", "", "DT_PEEK"),
    (
        "core/regions.h",
        "uint64_t region; // its identifier\n\tuint64_t start;",
        "uint64_t region; // its identifier\n\tuint64_t first;",
        "dt_slice",
    ),
    (
        "core/collect.h",
        "int dt_collect(struct dt_session *session",
        "int dt_collect(const struct dt_session *session",
        "dt_collect",
    ),
    ("kernel/probe.h", "DT_HOLES_UNREPORTED = 1", "DT_HOLES_UNREPORTED = 4", "DT_HOLES_UNREPORTED"),
    ("base/runs.h", "DT_XOR = 6", "DT_EITHER = 6", "DT_XOR"),
    ("snapshot/copies.h", "int dt_copies_advance(", "int dt_copies_refresh(", "dt_copies_advance"),
    (
        "stub",
        "def dt_session_lose_region(self, session: CData, region: int)",
        "def dt_session_lose_region(self, session: CData)",
        "lose_region",
    ),
    ("stub", "share: float", "share: int", "dt_session_double_check"),
    ("stub", "def dt_copies_fill(", "def dt_copies_fil(", "dt_copies_fill"),
    ("stub", "    DT_XOR: int\n", "", "DT_XOR"),
    (
        "stub",
        "def dt_changes_free(self, changes: CData) -> None",
        "def dt_changes_free(self, changes: CData) -> int",
        "dt_changes_free",
    ),
]


def test_the_parser_sees_what_was_compiled():
    """Of ``cdef.txt`` it finds the functions, the fields and the constants that the extension has."""
    seen = parse_c(_CDEF)
    names = [name for name in dir(lib) if name.startswith("dt_")]
    assert sorted(seen.functions) == names
    for name, function in seen.functions.items():
        compiled = ffi.typeof(getattr(lib, name))
        pointers = [argument.kind == "pointer" for argument in compiled.args]
        assert pointers == ["CData" in kinds_of(one) for one in function.parameters], name
        assert (compiled.result.kind == "void") == (function.result == "void"), name
    for name, struct in seen.structs.items():
        assert [name for name, _ in ffi.typeof(f"struct {name}").fields] == [
            name for _, name in struct.fields
        ]
    constants = {name: getattr(lib, name) for name in dir(lib) if name.startswith("DT_")}
    assert seen.constants == constants


def test_all_three_agree():
    """No function, parameter, field or constant differs."""
    assert list(disagreements(_HEADERS, _CDEF, _STUB)) == []


@pytest.mark.parametrize(
    ("where", "old", "new", "named"), _CHANGES, ids=[f"{where}: {name}" for where, _, _, name in _CHANGES]
)
def test_each_kind_of_difference_is_noticed(where, old, new, named):
    """One change to one of the three is told, by its name."""
    texts = {"cdef": _CDEF, "stub": _STUB, **_HEADERS}
    assert texts[where].count(old) == 1
    texts[where] = texts[where].replace(old, new)
    cdef, stub = texts.pop("cdef"), texts.pop("stub")
    found = list(disagreements(texts, cdef, stub))
    assert found
    assert any(named in one.partition(":")[0] for one in found)
