"""Builds every ``*.c`` beside this file into one extension, as declared in ``cdef.txt``."""

import platform
from pathlib import Path

from cffi import FFI

if platform.system() != "Linux":
    raise SystemExit("dirtytrack needs Linux: it is built on userfaultfd and PAGEMAP_SCAN")

_HERE = Path("dirtytrack/native")  # relative to the checkout, as setuptools wants its sources
_GENERATED = "_core.c"


def _builder() -> FFI:
    sources = sorted(path for path in _HERE.glob("*.c") if path.name != _GENERATED)
    ffi = FFI()
    ffi.cdef((_HERE / "cdef.txt").read_text())
    ffi.set_source(
        "dirtytrack.native._core",
        '#include "core.h"\n',
        sources=[str(path) for path in sources],
        include_dirs=[str(_HERE)],
        depends=[str(path) for path in _HERE.glob("**/*.h")],
        extra_compile_args=[
            *("-std=gnu11", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"),
            f"-ffile-prefix-map={Path.cwd()}=.",  # the same bytes wherever it is built
        ],
    )
    return ffi


ffibuilder = _builder()
