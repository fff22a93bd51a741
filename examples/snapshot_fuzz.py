"""Reset the state of a parser after every execution by rollback, as a fuzzer does.

The target is C with its table in a tracked buffer. Prints what it proves; exits non-zero if it does not hold.
"""

import ctypes
import random
import shutil
import subprocess
import sys
import tempfile
import time

import dirtytrack
from dirtytrack.snapshot import Snapshot

SIZE = 8 << 20
TARGET = r"""
// Counts the words of a text, in a hash table that is all of the state.
void parse(unsigned char *state, unsigned size, const unsigned char *text, unsigned length)
{
	for (unsigned hash = 5381, i = 0; i <= length; i++)
		if (i < length && text[i] != ' ') hash = hash * 33 + text[i];
		else state[hash % size]++, hash = 5381;
}
"""
TEXTS = [bytes(random.Random(seed).choices(b"abcdefghij  ", k=40)) for seed in range(300)]


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if not holds:
        sys.exit(1)


def executions(reset):
    start = time.perf_counter()
    for text in TEXTS * 10:
        parse(state, SIZE, text, len(text))
        reset()
    return len(TEXTS) * 10 / (time.perf_counter() - start)


if not shutil.which("gcc"):
    sys.exit(print("skipped: there is no gcc"))
with tempfile.TemporaryDirectory() as folder:
    compiler = ["gcc", "-O2", "-shared", "-fPIC", "-o", f"{folder}/target.so", "-xc", "-"]
    subprocess.run(compiler, input=TARGET, text=True, check=True)
    parse = ctypes.CDLL(f"{folder}/target.so").parse
memory, pristine, clean = dirtytrack.alloc(SIZE), random.Random(1).randbytes(SIZE), 0
memory[:], state = pristine, (ctypes.c_ubyte * SIZE).from_buffer(memory)
with Snapshot(None, memory) as snapshot:
    for text in TEXTS:
        parse(state, SIZE, text, len(text))
        clean += snapshot.rollback() > 0 and memory[:] == pristine
    prove(f"after each of {clean} resets the state was pristine, to the byte", clean == len(TEXTS))
    by_rollback = executions(snapshot.rollback)
by_copy = executions(lambda: ctypes.memmove(state, pristine, SIZE))
prove(f"{by_rollback:.0f} executions a second, {by_copy:.0f} with a full copy", by_rollback > by_copy)
