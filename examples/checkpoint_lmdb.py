"""Back up a live LMDB environment: deltas have the pages that transactions wrote, and LMDB opens each backup.

Prints what it proves; exits non-zero if it does not hold, and zero, with a message, where lmdb is missing.
"""

import itertools
import mmap
import random
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory

from dirtytrack.checkpoint import Chain, Checkpointer, restore
from dirtytrack.kernel import mappings

try:
    import lmdb
except ModuleNotFoundError:
    print("skipped: this example needs lmdb (pip install lmdb)")
    sys.exit(0)


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if not holds:
        sys.exit(1)


states = [{}, {}]  # of the environment: empty; the paragraphs of the standard library's modules; then changes
for path in Path(sysconfig.get_path("stdlib")).glob("*.py"):
    for number, text in enumerate(path.read_bytes().split(b"\n\n")):
        states[1][f"{path.name}:{number}".encode()] = text
for seed in range(9):
    *changed, deleted = random.Random(seed).sample(sorted(states[-1]), 50)
    states.append({**states[-1], **{key: states[-1][key] + b"\n# changed" for key in changed}})
    del states[-1][deleted]

with TemporaryDirectory(dir="/dev/shm") as live, TemporaryDirectory() as disk:
    data, chain, copy = Path(live, "data.mdb"), Path(disk, "chain"), Path(disk, "data.mdb")
    # With writemap=True all that LMDB writes once it is open are stores to its map, which tracking sees.
    with lmdb.open(live, map_size=1 << 25, writemap=True, sync=False) as environment:
        found = next(one for one in mappings.overlapping(0, sys.maxsize) if one.name == str(data))
        with Checkpointer(chain, {"map": (found.start, found.stop - found.start)}) as backups:
            for before, after in itertools.pairwise(states):
                with environment.begin(write=True) as transaction:
                    for key in before.keys() - after.keys():
                        transaction.delete(key)
                    for key, text in sorted(after.items() - before.items()):
                        transaction.put(key, text)
                backups.save()  # between transactions nobody writes
        copy.write_bytes(bytes(found.stop - found.start))
        with Chain(chain) as made, copy.open("rb+") as file, mmap.mmap(file.fileno(), 0) as memory:
            for one, records in zip(made, states[1:], strict=True):
                restore(chain, into={"map": memory}, at=one.number)
                with lmdb.open(disk, readonly=True, lock=False) as restored, restored.begin() as reader:
                    same = dict(reader.cursor()) == records
                prove(f"{one.kind} of {one.nbytes:,} bytes opens: all {len(records):,} records", same)
        prove("the newest is the live file, byte for byte", copy.read_bytes() == data.read_bytes())
