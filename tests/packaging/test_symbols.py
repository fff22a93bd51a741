"""What others see of the C core: the interface, where it is built of the sources, else nothing."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import dirtytrack
from _lib.support import require
from dirtytrack.native import _core


def _defined(library: Path) -> set[str]:
    try:
        listed = subprocess.run(
            ["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        require(False, "nm, to list symbols")
    return {name for name in listed.stdout.split()[2::3] if name not in ("_init", "_fini")}


def test_the_extension_shows_nothing():
    """Not even the interface: who builds that into a program has another copy of it beside this one."""
    assert _defined(Path(_core.__file__)) == {"PyInit__core"}


def test_a_build_of_the_sources_shows_what_the_header_declares(tmp_path):
    """Without an option of its user."""
    library = tmp_path / "libruntime.so"
    command = ["gcc", "-std=gnu11", "-pthread", "-shared", "-fPIC", f"-I{dirtytrack.get_include()}"]
    try:
        subprocess.run([*command, *dirtytrack.get_sources(), "-o", str(library)], check=True)
    except FileNotFoundError:
        require(False, "gcc, to build a runtime")
    header = (Path(dirtytrack.get_include()) / "dirtytrack.h").read_text()
    declared = set(re.findall(r"^DT_API [^(]*?\b(dt_\w+)\(", header, re.MULTILINE))
    assert len(declared) > 25
    assert _defined(library) == declared
