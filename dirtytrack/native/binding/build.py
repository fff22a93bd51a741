"""Builds the C of every folder beside this one into one extension, as declared in ``cdef.txt``."""

import platform
import sysconfig
from pathlib import Path

from cffi import FFI

if platform.system() != "Linux":
    raise SystemExit("dirtytrack needs Linux: it is built on userfaultfd and PAGEMAP_SCAN")

_NATIVE = Path("dirtytrack/native")  # relative to the checkout, as setuptools wants its sources
_BINDING = _NATIVE / "binding"
# That of Python 3.11 has buffers. A free-threaded interpreter has none before 3.15.
_STABLE_ABI = [] if sysconfig.get_config_var("Py_GIL_DISABLED") else [("Py_LIMITED_API", "0x030b0000")]


def _builder() -> FFI:
    ffi = FFI()
    ffi.cdef((_BINDING / "cdef.txt").read_text())
    ffi.set_source(
        "dirtytrack.native._core",
        '#include "core.h"\n#include "exports.h"\n#include "fastcall.h"\n#include "gil.h"\n',
        sources=sorted(map(str, _NATIVE.glob("*/*.c"))),
        include_dirs=[str(_BINDING)],
        define_macros=[*_STABLE_ABI, ("DT_API", "")],  # the interface in C is not for who loads this
        depends=sorted(map(str, _NATIVE.glob("*/*.h"))),
        extra_compile_args=[
            *("-std=gnu11", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"),
            f"-ffile-prefix-map={Path.cwd()}=.",  # the same bytes wherever it is built
        ],
        # No symbol is looked up while threads are stopped: one of them may hold the lock of the loader.
        extra_link_args=["-Wl,-z,now"],
    )
    return ffi


ffibuilder = _builder()
