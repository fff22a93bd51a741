"""Keep a second file up to date with a memory-mapped one, by writing only the pages that changed.

Prints what it proves; exits non-zero if it does not hold.
"""

import mmap
import os
import sys
import tempfile
from pathlib import Path

import dirtytrack

PAGES = 256


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if not holds:
        sys.exit(1)


def copy_changes(session, region, target):
    """Write the region's dirty pages to *target*; if a write fails, the next call has them again."""
    with session.collect(region) as epoch:
        for piece in epoch[region].slices():
            os.pwrite(target.fileno(), region.view[piece], piece.start)
        return epoch.nbytes


with tempfile.TemporaryDirectory() as folder:
    original, backup = Path(folder, "original"), Path(folder, "backup")
    original.write_bytes(os.urandom(PAGES * mmap.PAGESIZE))
    backup.write_bytes(original.read_bytes())  # the full copy, once

    with original.open("r+b") as file, backup.open("r+b") as target, dirtytrack.Session() as session:
        memory = mmap.mmap(file.fileno(), 0)
        region = session.track(memory, name="original")

        memory[10 * mmap.PAGESIZE : 12 * mmap.PAGESIZE] = bytes(2 * mmap.PAGESIZE)
        memory[-5:] = b"hello"
        nbytes = copy_changes(session, region, target)
        prove(f"three pages of {PAGES} were copied", nbytes == 3 * mmap.PAGESIZE)
        prove("and the files are the same again", original.read_bytes() == backup.read_bytes())

        os.pwrite(file.fileno(), b"behind the mapping's back", 0)
        prove("pwrite() to the file is not seen: page tables know stores only", session.peek().pages == 0)
        session.mark(region, 0, 25)  # whoever writes like that says so
        copy_changes(session, region, target)
        prove("marked, it is copied", original.read_bytes() == backup.read_bytes())
