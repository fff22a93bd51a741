"""Runs a program of Python, and records which memory it writes."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any

from dirtytrack._text import several
from dirtytrack.errors import KernelError
from dirtytrack.profile._protocol import Door, Line, loaded_agent
from dirtytrack.profile.functions import check_name
from dirtytrack.profile.recorder import USUAL, Pace, Process, Recorder
from dirtytrack.profile.report import Report


def record(
    program: Sequence[str],
    *,
    is_module: bool = False,
    phases: Iterable[str] = (),
    pace: Pace = USUAL,
    follow_forks: bool = False,
    shared: bool = False,
) -> tuple[Report, int]:
    """Runs a program of Python, and records which memory it writes until it ends.

    Every writable private anonymous mapping is watched, those that come later from the look on at which they
    are found; what is there already counts as written then. Memory that comes and goes between two looks is
    not seen. A program that tracks its own memory with dirtytrack can't be recorded: memory has one
    userfaultfd.

    Args:
        program: its path, or the name of a module, and its arguments.
        is_module: whether it is a module.
        phases: functions that are phases, as "module:function". Before Python 3.12 those of imported modules
            only, and they are imported before the program begins.
        pace: how often is looked.
        follow_forks: whether children that it forks, and theirs, are recorded as well, up to 256: what they
            write after the fork. A child waits in its fork for some milliseconds until it is watched. One
            that executes another program is not followed there, and none longer than the program runs.

        shared: whether writable mappings of files, shared memory and memfds are watched as well, of up to 32
            GiB each: what this program stores to them, not what others do, or what it writes to the file by
            system calls. What it does between mapping one and the next look is not seen.

    Returns:
        What was found, and the exit code of the program, negative for a signal.

    Raises:
        TypeError, ValueError: of the program or the phases.
        UnsupportedError: memory can't be tracked here.
        DirtyTrackError: the program ended before it began to be recorded.
    """
    program, phases = several(program, "a program and its arguments"), several(phases, "phases")
    for phase in phases:
        check_name(phase)
    with ExitStack() as stack:
        ours, its = socket.socketpair()
        line = Line(ours)
        stack.callback(line.close)
        door = stack.enter_context(Door()) if follow_forks else None
        with its:
            given = [its.fileno(), *([door.outside.fileno()] if door is not None else [])]
            command = _command(its.fileno(), door, program, is_module, phases)
            process = stack.enter_context(_running(command, given))
        stack.callback(line.close)  # before it is waited for: it may wait for an answer
        if door is not None:
            stack.enter_context(door).outside.close()
        try:
            hello, descriptor = line.hello()
        except BaseException:
            process.kill()  # it waits for an answer, and has not begun
            raise
        recorder = Recorder(
            hello,
            descriptor,
            process.pid,
            " ".join(program),
            pace,
            follows_forks=door is not None,
            with_shared=shared,
        )
        recorder.look(recorder.first)
        line.answer()
        _Family(recorder, line, door, process).follow()
        return recorder.report(phases), process.wait()


def _command(
    line: int, door: Door | None, program: Sequence[str], is_module: bool, phases: Iterable[str]
) -> list[str]:
    other = None if door is None else door.outside.fileno()
    run = f"run({line}, {other}, {list(phases)!r}, {is_module}, {list(program)!r})"
    start = f"import sys; sys.path.pop(0); {loaded_agent()}; run = scope['run']; del scope; {run}"
    return [sys.executable, *_interpreter_flags(), "-c", start]


def _interpreter_flags() -> list[str]:
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags


@contextmanager
def _running(command: list[str], fds: list[int]) -> Iterator[subprocess.Popen[bytes]]:
    # A terminal's Ctrl-C reaches the program as well, which ends, or does not. SIGTERM is passed on to it.
    # From before it is there until it is gone: else an interrupt in between would leave it alone.
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    def leave_to_program(_number: int, _frame: FrameType | None) -> None:
        pass  # no SIG_IGN, which the program would have from the beginning, too

    handlers: dict[int, Callable[..., Any]] = {signal.SIGINT: leave_to_program, signal.SIGTERM: pass_on}
    before = {}
    try:
        with suppress(ValueError):  # not the main thread
            for number, handler in handlers.items():
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it, for the program, too
                    before[number] = signal.signal(number, handler)
        process = subprocess.Popen(command, pass_fds=fds)
        for number in early:
            process.send_signal(number)
        yield process
    finally:
        if process is not None:
            process.wait()
        for number, earlier in before.items():
            signal.signal(number, earlier)


class _Child:
    """A forked child that is recorded."""

    def __init__(self, process: Process, line: Line, pid: int) -> None:
        self.process = process
        self.line = line
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def ask(self) -> None:
        """Has it tell its arrays; not another process of its number."""
        with suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGURG)

    def close(self) -> None:
        os.close(self._pidfd)
        self.line.close()


class _Family:
    """The program and its forked children, as long as the program runs."""

    def __init__(
        self, recorder: Recorder, line: Line, door: Door | None, program: subprocess.Popen[bytes]
    ) -> None:
        self._recorder = recorder
        self._program = program
        self._line = line
        self._children: dict[int, _Child] = {}  # by the descriptor of their line
        self._selector = selectors.DefaultSelector()
        self._selector.register(line, selectors.EVENT_READ, None)
        if door is not None:
            self._selector.register(door, selectors.EVENT_READ, door)

    def follow(self) -> None:
        """Looks and hears until the program has ended."""
        try:
            while not self._line.is_over and self._program.poll() is None:
                self._look()
                wait = min(one.next for one in self._processes()) - time.perf_counter()
                for key, _ in self._selector.select(max(wait, 0.0)):
                    began = time.perf_counter()
                    self._hear(key.data)
                    self._recorder.overhead += time.perf_counter() - began
        finally:
            for child in [*self._children.values()]:
                self._recorder.look(child.process)
                self._drop(child)
            self._selector.close()

    def _processes(self) -> list[Process]:
        return [self._recorder.first, *(child.process for child in self._children.values())]

    def _look(self) -> None:
        first = self._recorder.first
        if time.perf_counter() >= first.next:
            self._recorder.look(first)
            if first.wants_names():
                self._program.send_signal(signal.SIGURG)
        for child in [*self._children.values()]:
            if time.perf_counter() >= child.process.next:
                self._recorder.look(child.process)
                if child.process.is_gone:
                    self._drop(child)
                elif child.process.wants_names():
                    child.ask()

    def _hear(self, who: _Child | Door | None) -> None:
        if isinstance(who, Door):
            self._open(who)
            return
        process, line = (who.process, who.line) if who is not None else (self._recorder.first, self._line)
        for message in line.read():
            self._recorder.hear(process, message)
            line.answer(asks="phase" in message and process.wants_names())
        if who is not None and line.is_over:
            self._drop(who)

    def _open(self, door: Door) -> None:
        knock = door.open()
        if door.is_over:
            self._selector.unregister(door)
        if knock is None:
            return
        parents = {child.pid: child.process for child in self._children.values()}
        parent = parents.get(knock.message.get("parent", 0), self._recorder.first)
        try:
            child = self._recorder.join(knock, parent)
            if child is not None:
                self._add(_Child(child, knock.line, knock.pid))
                return
        except (KernelError, OSError):  # it is gone already, or does not let itself be looked at
            pass
        knock.line.close()

    def _add(self, child: _Child) -> None:
        self._children[child.line.fileno()] = child
        self._selector.register(child.line, selectors.EVENT_READ, child)
        child.line.answer()

    def _drop(self, child: _Child) -> None:
        del self._children[child.line.fileno()]
        self._selector.unregister(child.line)
        self._recorder.leave(child.process)
        child.close()
