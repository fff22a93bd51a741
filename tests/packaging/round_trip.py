"""Run by smoke.py with the installed package: track, write, collect, compare with what was written."""

import mmap
import sys
from pathlib import Path

import dirtytrack

if Path(sys.prefix) not in Path(dirtytrack.__file__).parents:
    raise SystemExit(f"not the installed package: {dirtytrack.__file__}")

PAGES = 64
WRITTEN = [3, 17, 18, 63]

memory = dirtytrack.alloc(PAGES * mmap.PAGESIZE)
with dirtytrack.Session() as session:
    region = session.track(memory, name="memory")
    for _ in range(2):  # the second time shows that collecting armed the pages again
        for page in WRITTEN:
            memory[page * mmap.PAGESIZE + 5] += 1
        with session.collect() as epoch:
            found = list(epoch[region])
        if found != WRITTEN:
            raise SystemExit(f"wrote pages {WRITTEN}, collected {found}")
    with session.collect() as epoch:
        found = list(epoch[region])
    if found:
        raise SystemExit(f"wrote nothing, collected {found}")
print(f"dirtytrack {dirtytrack.__file__} tracks")
