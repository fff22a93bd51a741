"""A heap that a collector in C and checkpoints in Python have in common: each hears of every store.

The collector, beside this file, is on the same Session as the Checkpointer: it peeks and takes its cards in
each minor collection, and every save still has all that was stored since the last one.

Needs gcc. Prints what it proves; exits non-zero if it does not hold.
"""

import ctypes
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import dirtytrack
from dirtytrack.checkpoint import Checkpointer, load

NBYTES = 8 << 20
SAVES, OBJECTS = 5, 50_000  # objects made between two saves


class Report(ctypes.Structure):
    """What the collector says of itself."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("collections", "cards", "dirty", "missed")]


def build(folder: str) -> ctypes.CDLL:
    """Compile the collector together with dirtytrack's sources."""
    built = f"{folder}/shared_heap.so"
    command = ["gcc", "-std=gnu11", "-O2", "-pthread", "-shared", "-fPIC", f"-I{dirtytrack.get_include()}"]
    source = Path(__file__).with_name("shared_heap.c")
    subprocess.run([*command, str(source), *dirtytrack.get_sources(), "-o", built], check=True)
    library = ctypes.CDLL(built)
    library.heap_open.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    library.heap_report.restype = Report
    return library


def check(error: int) -> None:
    """Leave with what an error of the collector means."""
    if error:
        sys.exit(f"the collector: error {error}")


with TemporaryDirectory() as folder, dirtytrack.Session() as session:
    collector = build(folder)
    heap = dirtytrack.alloc(NBYTES)
    path = Path(folder) / "chain"
    address = ctypes.addressof(ctypes.c_char.from_buffer(heap))
    with Checkpointer(path, {"heap": heap}, session=session) as checkpoints:
        check(collector.heap_open(session.c_api(), address, NBYTES))
        for _ in range(SAVES):
            check(collector.heap_run(OBJECTS))
            checkpoints.save(wait=True)
        report = collector.heap_report()
        collector.heap_close()
    restored = load(path)["heap"]
    assert bytes(restored) == bytes(heap)

assert report.missed == 0, report.missed
assert report.dirty < report.cards / 4
print(
    f"holds: {report.collections:,} minor collections have found every pointer to a young object, on "
    f"{100 * report.dirty / report.cards:.1f}% of the cards"
)
print(f"holds: after {SAVES} saves between them the restored heap of {NBYTES >> 20} MiB is the same")
