"""C programs that use ``dirtytrack.h`` as a runtime without Python does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import dirtytrack
from _lib.support import require


def build(folder: Path, source: Path, *options: str) -> Path:
    """Build a program in *folder* from a source, the header and the sources of the package alone."""
    program = folder / source.stem
    command = ["gcc", "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", *options]
    command += [f"-I{dirtytrack.get_include()}", str(source), *dirtytrack.get_sources(), "-o", str(program)]
    try:
        built = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        require(False, "gcc, to build a runtime")
    if "cannot find" in built.stderr:
        require(False, f"gcc's runtime for {options}")
    assert (built.returncode, built.stderr) == (0, "")
    return program
