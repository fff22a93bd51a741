"""A pre-fork server: which work of a worker copies pages shared with its parent, and what gc.freeze saves.

Prints what it proves; exits non-zero if it does not hold.
"""

import gc
import os
import sys

from dirtytrack.kernel import Userfaultfd, mappings, pagemap
from dirtytrack.kernel.pagemap import Category, ScanFlags

WRITTEN = Category.WPALLOWED | Category.WRITTEN
POPULATED = Category.PRESENT | Category.SWAPPED


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if not holds:
        sys.exit(1)


catalogue = [{"id": number, "tags": [str(number)] * 3} for number in range(100_000)]  # before the forks


def written():
    """Bytes of this process's memory written since the last call: a fork's child had to copy their pages."""
    asked = {"flags": ScanFlags.WP_MATCHING, "category_mask": WRITTEN, "category_anyof_mask": POPULATED}
    stretches = mappings.writable_anonymous()
    found = [one for stretch in stretches for one in pagemap.scan_all(stretch.start, stretch.stop, **asked)]
    return sum(region.end - region.start for region in found)


def worker():
    """One worker's life in a child: the bytes that its requests copied, and those of a collection."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        with Userfaultfd() as uffd:
            for stretch in mappings.writable_anonymous():
                for start, stop, _ in stretch.mappings:
                    uffd.register(start, stop)
            written()
            sum(item["id"] for item in catalogue[:1000])  # requests that only read: they count references
            requests = written()
            gc.collect()
            os.write(writer, f"{requests} {written()}".encode())
        os._exit(0)
    os.wait()
    requests, collection = map(int, os.read(reader, 100).split())
    print(f"  requests copied {requests >> 10:,} KiB, a garbage collection {collection >> 10:,} KiB")
    return requests, collection


requests, collection = worker()
gc.freeze()
print("after gc.freeze() in the parent:")
_, frozen = worker()
prove("a garbage collection copies more than the requests before it", collection > 3 * requests)
prove("gc.freeze spares a worker at least half of that", frozen < collection / 2)
