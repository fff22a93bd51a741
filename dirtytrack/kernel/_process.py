"""Which process is this? A userfaultfd or pagemap descriptor belongs to one address space; a fork copies it.

An inherited descriptor still acts on the parent's memory, and close-on-exec does not help against it. So
whatever holds one remembers the identity it was made under and compares. Both halves are needed: the pid
alone can come round again (a grandchild may get the pid of its dead grandparent), and the count alone misses
a fork made by C code that does not tell Python.
"""

from __future__ import annotations

import os

Identity = tuple[int, int]

_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


def identity() -> Identity:
    """A value that no other process in this line of descent has."""
    return os.getpid(), _forks
