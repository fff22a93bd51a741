"""The raw layer: which pages of another process are present, without stopping it or touching its memory.

Any process whose /proc/PID/pagemap may be read can be scanned. Prints what it proves; exits non-zero if it
does not hold.
"""

import mmap
import subprocess
import sys

from dirtytrack.kernel import pagemap
from dirtytrack.kernel.pagemap import Category

CHILD = """
import ctypes, mmap, sys
memory = mmap.mmap(-1, 64 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for page in (3, 4, 5, 40):
    memory[page * mmap.PAGESIZE] = 1
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
sys.stdin.read()  # stay until the parent has looked
"""


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if not holds:
        sys.exit(1)


command = [sys.executable, "-c", CHILD]
with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
    start = int(child.stdout.readline())
    stop = start + 64 * mmap.PAGESIZE
    found = pagemap.scan(
        start,
        stop,
        category_mask=Category.PRESENT,
        return_mask=Category.PRESENT | Category.FILE,
        pid=child.pid,
    )
    runs = [((r.start - start) // mmap.PAGESIZE, (r.end - start) // mmap.PAGESIZE) for r in found.regions]
    for region in found.regions:
        print(f"  {region.start:#x}-{region.end:#x} {region.categories!r}")
    prove(f"process {child.pid} has pages 3 to 5 and 40 of its 64 in memory", runs == [(3, 6), (40, 41)])
    prove("none of them comes from a file", not any(Category.FILE & r.categories for r in found.regions))
    prove("the scan went over the whole range", found.walk_end == stop)
    child.stdin.close()
