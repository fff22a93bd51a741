"""Run by smoke.py with the installed package: track, write, collect, compare with what was written."""

import mmap
import sys
import tempfile
from pathlib import Path

import dirtytrack
from dirtytrack.barrier import CardTable
from dirtytrack.checkpoint import Checkpointer, restore
from dirtytrack.snapshot import Snapshot

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

before = bytes(memory)
with Snapshot(None, memory) as snapshot, CardTable(None, memory, card_size=4096) as cards:
    memory[5:8] = b"abc"
    bitmap = bytearray(cards.nbytes)
    if cards.take(bitmap) != 1 or bitmap[0] != 1:
        raise SystemExit(f"wrote the first card, took {bitmap.hex()}")
    if snapshot.rollback() != 1 or memory[:] != before:
        raise SystemExit("a rollback did not put back what was there before")

with tempfile.TemporaryDirectory() as directory:
    chain = str(Path(directory) / "chain")
    with Checkpointer.open(chain, {"memory": memory}) as checkpoints:
        for number in (1, 2):
            memory[mmap.PAGESIZE * number] = number
            checkpoints.save()
    loaded = bytearray(len(memory))
    restore(chain, into={"memory": loaded})
    if loaded != memory[:]:
        raise SystemExit("what was loaded is not what was saved")
print(f"dirtytrack {dirtytrack.__file__} tracks")
