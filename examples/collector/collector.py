"""A garbage collector without a write barrier: dirtytrack's C interface says which cards were stored to.

The collector is in C, beside this file: generational, mostly concurrent. One program runs with three ways to
know the stores: dirtytrack's cards (a store has no code), none (each minor collection scans all that is old),
and a software card table (a store sets a byte, too). After each collection an independent trace from the
roots checks that nothing reachable was freed or changed; its time is not counted. At last the collector drops
cards on purpose, and the checks have to notice.

Needs gcc and setuptools. Prints what it proves; exits non-zero if it does not hold.
"""

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from cffi import FFI

import dirtytrack

STRETCH = 18  # depth of the biggest trees: half a million objects
STEPS = 4_000_000  # random changes to old vectors
BARRIERS = {"dirtytrack": 0, "full scan": 1, "software": 2}
FAULTS = {"a minor collection": 1, "a concurrent mark": 2}


def build(folder: str, name: str, *flags: str) -> ModuleType:
    """Compile the collector together with dirtytrack's sources."""
    source = Path(__file__).with_name("program.c")
    ffi = FFI()
    ffi.cdef(source.with_name("report.h").read_text())
    ffi.set_source(
        name,
        f'#include "{source.name}"',
        sources=dirtytrack.get_sources(),
        include_dirs=[str(source.parent.absolute()), dirtytrack.get_include()],
        extra_compile_args=["-std=gnu11", "-O2", "-pthread", *flags],
        extra_link_args=["-pthread"],
    )
    spec = importlib.util.spec_from_file_location(name, ffi.compile(folder))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(module: ModuleType, barrier: str, stretch: int, fault: int = 0) -> tuple[Any, str]:
    """Run the program. Returns its report, and what went wrong, if anything."""
    report = module.ffi.new("struct report *")
    module.lib.run(BARRIERS[barrier], stretch, STEPS, fault, report)
    return report, module.ffi.string(report.failure).decode()


def notices(module: ModuleType, fault: int) -> str:
    """Run with a fault, in a forked child: who knows what a broken heap does. Returns what was noticed."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(there, run(module, "dirtytrack", 12, fault)[1].encode())
        finally:
            os._exit(0)
    os.close(there)
    with os.fdopen(here) as pipe:
        message = pipe.read()
    os.waitpid(child, 0)
    return message


def pauses(seconds: list[float]) -> str:
    """Median and longest, in milliseconds."""
    return f"{median(seconds) * 1e3:9.2f}{max(seconds) * 1e3:9.2f}" if seconds else f"{'-':>9}{'-':>9}"


def main() -> None:
    """Compare the barriers; then drop cards."""
    try:
        dirtytrack.Session().close()
    except dirtytrack.UnsupportedError as error:
        print(f"skipped: {error}")
        return
    if not shutil.which("gcc") or not importlib.util.find_spec("setuptools"):
        print("skipped: needs gcc and setuptools")
        return
    checks = 0
    with TemporaryDirectory() as folder:
        plain = build(folder, "collector")
        software = build(folder, "collector_store_barrier", "-DSTORE_BARRIER")
        print("            minor       pause, ms          old KiB  major  final pause, ms   program")
        print("            count    median  longest  scanned each  count    median  longest   seconds")
        for barrier in BARRIERS:
            module = software if barrier == "software" else plain
            report, failure = run(module, barrier, STRETCH)
            if failure:
                sys.exit(f"DOES NOT HOLD: with {barrier}: {failure}")
            checks += report.checks
            print(
                f"{barrier:12}{report.minors:5}{pauses(list(report.minor[0 : report.minor_count]))}"
                f"{report.scanned / report.minors / 1024:14,.0f}{report.majors:7}"
                f" {pauses(list(report.final[0 : report.final_count]))}{report.mutator:10.2f}",
                flush=True,
            )
        print(f"holds: {checks} collections were checked by a full trace, and nothing reachable was freed")
        for where, fault in FAULTS.items():
            message = notices(plain, fault)
            if message not in ("a pointer into the nursery was left", "a reachable object was freed"):
                sys.exit(f"DOES NOT HOLD: cards dropped in {where} are noticed: {message or 'no failure'}")
            print(f"holds: cards dropped in {where} are noticed: {message}")


if __name__ == "__main__":
    main()
