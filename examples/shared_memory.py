"""Shared memory: a session sees its own process's writes. The other process's have to be marked.

Each process has page tables of its own. Prints what it proves; exits non-zero if it does not hold.
"""

import mmap
import multiprocessing
import sys
from multiprocessing.shared_memory import SharedMemory

import dirtytrack

PAGES = 64


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if not holds:
        sys.exit(1)


def other_process(name, pipe):
    """Write page 20, and tell which bytes that was."""
    memory = SharedMemory(name)
    memory.buf[20 * mmap.PAGESIZE] = 99
    memory.close()
    pipe.send((20 * mmap.PAGESIZE, 20 * mmap.PAGESIZE + 1))


def main():
    memory = SharedMemory(create=True, size=PAGES * mmap.PAGESIZE)
    try:
        with dirtytrack.Session() as session:
            region = session.track(memory.buf, name="shared")
            print(region)  # its blind spots are part of the repr

            memory.buf[10 * mmap.PAGESIZE] = 1
            with session.collect() as epoch:
                prove("our own write is reported", epoch[region] == {10})

            context = multiprocessing.get_context("spawn")
            pipe, theirs = context.Pipe()
            child = context.Process(target=other_process, args=(memory.name, theirs))
            child.start()
            start, stop = pipe.recv()
            child.join()
            prove("the other process's write has arrived", memory.buf[start] == 99)
            prove("but is not reported: it went through another page table", session.peek().pages == 0)

            session.mark(region, start, stop)
            with session.collect() as epoch:
                prove("marked by us, it is", epoch[region] == {20})
    finally:
        memory.close()
        memory.unlink()


if __name__ == "__main__":
    main()
