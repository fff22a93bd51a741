"""Records which memory a program writes, from outside.

The program opens a userfaultfd and hands it over (`_agent`), and this process registers and scans the memory:
so what is recorded has none of the recorder's own writes, and the program none of its threads. A forked child
is another process with other memory, and hands over one of its own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dirtytrack._text import size
from dirtytrack.errors import KernelError
from dirtytrack.kernel import Userfaultfd
from dirtytrack.profile._ledger import Ledger
from dirtytrack.profile._memory import Memory, arrays_of
from dirtytrack.profile._protocol import Knock
from dirtytrack.profile.profile import DEFAULT_INTERVALS
from dirtytrack.profile.recording import OUTSIDE, Recording
from dirtytrack.profile.report import Report

_FAULT = 1e-6  # seconds that the first store to a page takes, about
_NAMES = 0.1  # seconds between two looks for arrays, at least
_OF_OVERHEAD = 0.25  # that looks for arrays may take
_LONGEST_WAIT = 60.0  # the same, where they found nothing new


@dataclass(frozen=True)
class Pace:
    """How often is looked.

    Attributes:
        every: seconds between two looks at a process.
        overhead: share of the time that looks and the write faults after them may take, as far as it can be
            told from here: where they take more, looks are further apart.
    """

    every: float = 0.1
    overhead: float = 0.1


USUAL = Pace()


@dataclass
class Process:
    """A process that is recorded.

    Attributes:
        memory: its own.
        index: of the process in the ledger; None: there is one alone.
        title: before the names of its phases.
        phase: the current one.
        next: when it is to be looked at, by `time.perf_counter`.
        is_gone: it was at the last look.
        is_whole: it has said that it ends.
        forks: how many children it had by then.
        arrays: that it had when it was last asked for them.
        mappings: a number for its large mappings at that time.
        asked: that time.
        patience: seconds until it may be asked again.
        began: when it began to look for them.
    """

    memory: Memory
    index: int | None = None
    title: str = OUTSIDE
    phase: str = OUTSIDE
    next: float = 0.0
    is_gone: bool = False
    is_whole: bool = False
    forks: int = 0
    arrays: frozenset[tuple[str, int]] = frozenset()
    mappings: int = 0
    asked: float = field(default_factory=time.perf_counter)
    patience: float = _NAMES
    began: float = 0.0

    def wants_names(self) -> bool:
        """Whether it is time to ask for its arrays: it has other mappings. If so, it is asked now."""
        if self.memory.mappings == self.mappings or time.perf_counter() - self.asked <= self.patience:
            return False
        self.mappings, self.asked = self.memory.mappings, time.perf_counter()
        return True


class Recorder:
    """A recording under way, of one process or of those that it forks, too.

    Attributes:
        first: the process that it began with.
        overhead: seconds that processes have waited for an answer.
    """

    def __init__(
        self,
        hello: dict[str, Any],
        descriptor: int,
        pid: int,
        program: str,
        pace: Pace,
        *,
        follows_forks: bool = False,
        with_shared: bool = False,
    ) -> None:
        """Looks at nothing yet.

        Args:
            hello: what the process has said first.
            descriptor: its userfaultfd, which is the recorder's from here on.
            pid: of the process.
            program: what it runs.
            pace: how often is looked.
            follows_forks: whether processes may `join`.
            with_shared: whether shared memory and files count, too.
        """
        self._program = program
        self._with_shared = with_shared
        self._pace = pace
        self._python = str(hello.get("python", ""))
        self._ledger = Ledger(DEFAULT_INTERVALS)
        self._started, self._began = time.time(), time.perf_counter()
        userfaultfd = Userfaultfd(descriptor=descriptor)
        memory = Memory(pid, userfaultfd, self._ledger, with_shared=with_shared)
        index = self._ledger.process(pid, 0, 0.0) if follows_forks else None
        self.first = Process(memory, index, next=self._began + pace.every)
        self._live = 1
        self.overhead = 0.0
        self._stretched = 0
        self._forks = self._joined = self._abrupt = 0
        self._name(self.first, hello.get("arrays"))

    def join(self, knock: Knock, parent: Process) -> Process | None:
        """A forked child: what it writes from here on counts. None, if there are too many already.

        Raises:
            KernelError: it is gone already, or can't be recorded.
        """
        userfaultfd = Userfaultfd(descriptor=knock.descriptor)
        try:
            memory = Memory(knock.pid, userfaultfd, self._ledger, parent.memory)
            memory.arm()
            told = knock.message.get("parent")
            index = self._ledger.process(
                knock.pid, told if type(told) is int and told > 0 else 0, self._now()
            )
        except BaseException:
            userfaultfd.close()
            raise
        if index is None:
            userfaultfd.close()
            return None
        self._joined += 1
        self._live += 1
        child = Process(memory, index, f"process {knock.pid}")
        child.phase = _path(child.title, knock.message.get("phase"))
        child.arrays, child.mappings = parent.arrays, memory.mappings
        child.next = time.perf_counter() + self._pace.every
        return child

    def leave(self, child: Process) -> None:
        """A forked child has ended, or is not recorded any more."""
        self._live -= 1
        self._abrupt += not child.is_whole
        child.memory.close()
        if child.index is not None:
            self._ledger.end(child.index, self._now())

    def look(self, process: Process, phase: str | None = None) -> None:
        """Charges what a process has written to its current phase, of which *phase* is the next one."""
        busy = time.thread_time()
        try:
            found = list(process.memory.scan())
            self._ledger.add(process.phase, self._now(), found, process.index)
            written = self._ledger.last
        except KernelError:
            process.is_gone, written = True, 0
        if phase is not None:
            process.phase = _path(process.title, phase)
        cost = time.thread_time() - busy + written * _FAULT
        wait = max(self._pace.every, self._live * cost / self._pace.overhead)
        self._stretched += wait > self._pace.every
        process.next = time.perf_counter() + wait

    def hear(self, process: Process, message: dict[str, Any]) -> None:
        """Does what a message of a process asks for."""
        phase = message.get("phase")
        self.look(process, phase if isinstance(phase, str) else None)
        if "arrays" in message:
            self._name(process, message["arrays"], time.perf_counter() - process.began)
        process.began = time.perf_counter()
        if "end" in message:
            process.is_whole = True
            forks = message.get("forks")
            if type(forks) is int:  # it may come to its end more than once
                self._forks += forks - process.forks
                process.forks = forks

    def _now(self) -> float:
        return time.perf_counter() - self._began

    def _name(self, process: Process, told: Any, took: float = 0.0) -> None:
        arrays = arrays_of(told)
        process.memory.name(arrays)
        there = frozenset((array.name, array.address) for array in arrays)
        is_new = there != process.arrays
        least = max(_NAMES, took / (_OF_OVERHEAD * self._pace.overhead))
        process.patience = least if is_new else min(max(2 * process.patience, least), _LONGEST_WAIT)
        process.arrays = there

    def report(self, phases: Iterable[str] = ()) -> Report:
        """Ends it, and returns what was found.

        Args:
            phases: those that were asked for.
        """
        seen = {name for path in self._ledger.phases for name in re.split(r"/| \+ ", path)}
        unseen = [name for name in phases if name not in seen]
        self.first.memory.finish()
        self.first.memory.close()
        return Report(self._recording([*self._notes(), *(f"No call of {name} was seen." for name in unseen)]))

    def _recording(self, notes: list[str]) -> Recording:
        return self._ledger.recording(
            "record",
            program=self._program,
            started=self._started,
            overhead=self.overhead,
            watched=self.first.memory.watched,
            python=self._python,
            notes=notes,
        )

    def _notes(self) -> Iterator[str]:
        yield "The rows of [heap], [stack] and anonymous memory have what Python itself writes, too."
        if self._stretched:
            yield (
                f"{self._stretched} times the next look was put off, so that looks and the faults after them "
                f"take at most {self._pace.overhead:.0%} of the time, about."
            )
        if self.first.index is None and self._forks:
            yield (
                f"The program forked {self._forks} times: children are not recorded, but with --follow-forks."
            )
        elif self._forks > self._joined:
            yield f"{self._forks - self._joined} of {self._forks} forked children could not be recorded."
        if not self.first.is_whole:
            yield "What was written after the last look is missing: the program ended without a word."
        if self._abrupt:
            yield f"Of {self._abrupt} forked children the last look is missing: they ended without a word."
        if left_out := self.first.memory.left_out:
            why = "each is of more than 32 GiB" if self._with_shared else "with --shared they are"
            yield f"{size(left_out)} of shared memory and mapped files are not in it: {why}."
        if busy := self.first.memory.busy:
            yield (
                f"{size(busy)} are not in it: another userfaultfd has them, as in a program that uses "
                "dirtytrack itself."
            )


def _path(title: str, phase: object) -> str:
    # As the ledger has it: the process, and the phase in it.
    if not isinstance(phase, str) or not phase:
        return title
    return f"{title}/{phase}" if title else phase
