"""Reset the state of a parser after every execution by rollback, as a fuzzer does.

The target is C with its tables in a tracked buffer. Prints what it proves; exits non-zero if it does not.
"""

import ctypes
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dirtytrack
from dirtytrack.snapshot import Snapshot

SIZE, SECONDS = 8 << 20, 1.0
TARGET = r"""
// Counts the words of a text in a hash table that fills the state; returns how many are different.
int parse(unsigned char *state, unsigned long size, const unsigned char *text, unsigned long length)
{
	unsigned long hash = 5381, found = 0;
	for (unsigned long i = 0; i <= length; i++) {
		if (i < length && text[i] != ' ') { hash = hash * 33 + text[i]; continue; }
		found += state[hash % size]++ == 0, hash = 5381;
	}
	return (int)found;
}
"""


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if not holds:
        sys.exit(1)


def executions(parse, state, reset):
    draw, count, end = random.Random(1), 0, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        parse(state, SIZE, text := draw.randbytes(40).replace(b"e", b" "), len(text))
        count += reset() is not None
    return count / SECONDS


if not shutil.which("gcc"):
    sys.exit(print("skipped: there is no gcc"))
with tempfile.TemporaryDirectory() as folder:
    Path(folder, "target.c").write_text(TARGET)
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", "target.so", "target.c"], cwd=folder, check=True)
    parse = ctypes.CDLL(f"{folder}/target.so").parse
memory = dirtytrack.alloc(SIZE)
state, pristine = (ctypes.c_ubyte * SIZE).from_buffer(memory), bytes(SIZE)
with Snapshot(None, memory) as snapshot:
    by_rollback = executions(parse, state, snapshot.rollback)
    prove("after all of them the state is pristine", bytes(memory) == pristine and not snapshot.verify())
by_copy = executions(parse, state, lambda: ctypes.memmove(state, pristine, SIZE))
prove(f"{by_rollback:.0f} executions a second, {by_copy:.0f} with a full copy", by_rollback > by_copy)
