"""Records which memory a program writes, from outside: a program that is started for it, or one that runs.

The program opens a userfaultfd and hands it over (`_agent`), and this process registers and scans the memory:
so what is recorded has none of the recorder's own writes, and the program none of its threads.
"""

from __future__ import annotations

import errno
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from dirtytrack._text import size
from dirtytrack.errors import DirtyTrackError, KernelError, UnsupportedError
from dirtytrack.kernel import Userfaultfd
from dirtytrack.profile._ledger import Ledger
from dirtytrack.profile._memory import Memory, arrays_of
from dirtytrack.profile.functions import check_name
from dirtytrack.profile.profile import DEFAULT_INTERVALS
from dirtytrack.profile.recording import OUTSIDE, Recording
from dirtytrack.profile.report import Report

_FAULT = 1e-6  # seconds that the first store to a page takes, about
_LONGEST_LINE = 8 << 20  # bytes
_NAMES = 1.0  # seconds between two looks for arrays, at least
_LONGEST_WAIT = 60.0  # the same, where they found nothing new
_HELLO = 60.0  # seconds to wait for the program to hand over its userfaultfd
_AGENT = Path(__file__).with_name("_agent.py")


@dataclass(frozen=True)
class Pace:
    """How often is looked.

    Attributes:
        every: seconds between two looks.
        overhead: share of the time that looks and the write faults after them may take, as far as it can be
            told from here: where they take more, looks are further apart.
    """

    every: float = 0.1
    overhead: float = 0.1


_USUAL = Pace()


class _Lines:
    """What the program says: lines of JSON on a socket."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._data = b""
        self.is_over = False

    def read(self) -> Iterator[dict[str, Any]]:
        """The messages that have come; there is something to read, or it is over."""
        try:
            piece = self._line.recv(1 << 16)
        except OSError:
            piece = b""
        self.is_over = not piece
        self._data += piece
        if len(self._data) > _LONGEST_LINE:
            self.is_over = True
            return
        *lines, self._data = self._data.split(b"\n")
        for one in lines:
            with suppress(ValueError, RecursionError):
                message = json.loads(one)
                if isinstance(message, dict):
                    yield message

    def hello(self) -> tuple[dict[str, Any], int]:
        """Waits for the first message, and what comes with it.

        Raises:
            UnsupportedError: the program has no userfaultfd to hand over; it says why.
            DirtyTrackError: it ended, or did not say anything.
        """
        self._line.settimeout(_HELLO)
        try:
            self._data, fds, _, _ = socket.recv_fds(self._line, 1 << 16, 1)
            while b"\n" not in self._data and (piece := self._line.recv(1 << 16)):
                self._data += piece
        except TimeoutError:
            raise DirtyTrackError(f"the program did not answer within {_HELLO:.0f} s") from None
        except OSError:
            fds = []
        finally:
            self._line.settimeout(None)
        line, _, self._data = self._data.partition(b"\n")
        message = json.loads(line) if line else {}
        if "failed" in message:
            remedy = f"In the program: {message['failed']}. `dirtytrack doctor` says why, and what to do."
            raise UnsupportedError(int(message["errno"]), "userfaultfd", remedy=remedy)
        if not fds:
            raise DirtyTrackError("the program ended before it could be recorded")
        return message, fds[0]

    def answer(self) -> None:
        """Lets the program go on."""
        with suppress(OSError):
            self._line.send(b"\0")


class Recorder:
    """A recording of a process, under way."""

    def __init__(self, hello: dict[str, Any], descriptor: int, pid: int, program: str, pace: Pace) -> None:
        self._program = program
        self._pace = pace
        self._python = str(hello.get("python", ""))[:100]
        self._ledger = Ledger(DEFAULT_INTERVALS)
        self._userfaultfd = Userfaultfd(descriptor=descriptor)
        self._memory = Memory(pid, self._userfaultfd, self._ledger)
        self._started, self._began = time.time(), time.perf_counter()
        self._phase = OUTSIDE
        self.overhead = 0.0  # seconds that the program waited for an answer
        self._stretched = 0
        self._forks = 0
        self._unseen: list[str] = []
        self._is_whole = False
        self.is_gone = False  # the process, at the last look
        self.next = self._began + pace.every
        self._there: frozenset[tuple[str, int]] = frozenset()  # arrays, at the last look for them
        self.names_wait = _NAMES  # seconds until there may be another
        self._name(hello.get("arrays"))

    def look(self, phase: str | None = None) -> None:
        """Charges what was written to the current phase, of which *phase* is the next one."""
        busy = time.thread_time()
        try:
            found = list(self._memory.scan())
            self._ledger.add(self._phase, time.perf_counter() - self._began, found)
        except KernelError:
            self.is_gone = True
        if phase is not None:
            self._phase = phase[:4000]
        cost = time.thread_time() - busy + self._ledger.last * _FAULT
        wait = max(self._pace.every, cost / self._pace.overhead)
        self._stretched += wait > self._pace.every
        self.next = time.perf_counter() + wait

    def hear(self, message: dict[str, Any]) -> None:
        """Does what a message of the program asks for."""
        phase = message.get("phase")
        self.look(phase if isinstance(phase, str) else None)
        if "arrays" in message:
            self._name(message["arrays"])
        if "end" in message:
            self._is_whole = True
            self._forks = message["forks"] if type(message.get("forks")) is int else 0

    def _name(self, told: Any) -> None:
        arrays = arrays_of(told)
        self._memory.name(arrays)
        there = frozenset((array.name, array.address) for array in arrays)
        is_new = there != self._there
        self.names_wait = _NAMES if is_new else min(2 * self.names_wait, _LONGEST_WAIT)
        self._there = there

    @property
    def mappings(self) -> int:
        """A number that changes when other memory is mapped."""
        return self._memory.mappings

    def report(self, phases: Iterable[str] = (), *, is_whole: bool = False) -> Report:
        """Ends it, and returns what was found.

        Args:
            phases: those that were asked for.
            is_whole: whether there was a last look for sure.
        """
        self._is_whole |= is_whole
        seen = {name for path in self._ledger.phases for name in re.split(r"/| \+ ", path)}
        self._unseen = [name for name in phases if name not in seen]
        self._memory.finish()
        self._userfaultfd.close()
        return Report(self._recording())

    def _recording(self) -> Recording:
        return self._ledger.recording(
            "record",
            program=self._program,
            started=self._started,
            overhead=self.overhead,
            watched=self._memory.watched,
            python=self._python,
            notes=self._notes(),
        )

    def _notes(self) -> Iterator[str]:
        yield "The rows of [heap], [stack] and anonymous memory have what Python itself writes, too."
        for name in self._unseen:
            yield f"No call of {name} was seen."
        if self._stretched:
            yield (
                f"{self._stretched} times the next look was put off, so that looks and the faults after them "
                f"take at most {self._pace.overhead:.0%} of the time, about."
            )
        if self._forks:
            yield f"The program forked {self._forks} times: children are not recorded."
        if not self._is_whole:
            yield "What was written after the last look is missing: the program ended without a word."
        if self._memory.busy:
            yield (
                f"{size(self._memory.busy)} are not in it: another userfaultfd has them, as in a program "
                "that uses dirtytrack itself."
            )


def record(
    program: Sequence[str],
    *,
    is_module: bool = False,
    phases: Iterable[str] = (),
    pace: Pace = _USUAL,
) -> tuple[Report, int]:
    """Runs a program of Python, and records which memory it writes until it ends.

    Every writable private anonymous mapping is watched, those that come later from the look on at which they
    are found; what is there already counts as written then. Memory that comes and goes between two looks is
    not seen. Children that it forks run as ever, and are not recorded. A program that tracks its own memory
    with dirtytrack can't be recorded: memory has one userfaultfd.

    Args:
        program: its path, or the name of a module, and its arguments.
        is_module: whether it is a module.
        phases: functions that are phases, as "module:function". Before Python 3.12 those of imported modules
            only, and they are imported before the program begins.
        pace: how often is looked.

    Returns:
        What was found, and the exit code of the program, negative for a signal.

    Raises:
        TypeError, ValueError: of the phases.
        UnsupportedError: memory can't be tracked here.
        DirtyTrackError: the program ended before it began to be recorded.
    """
    phases = tuple(phases)
    for phase in phases:
        check_name(phase)
    ours, its = socket.socketpair()
    with ours:
        with its:
            command = _command(its.fileno(), program, is_module, phases)
            process = subprocess.Popen(command, pass_fds=[its.fileno()])
        with _signals_for(process):
            try:
                lines = _Lines(ours)
                hello, descriptor = lines.hello()
                recorder = Recorder(hello, descriptor, process.pid, " ".join(program), pace)
                recorder.look()
                lines.answer()
                _follow(recorder, lines, ours, process)
            except BaseException:
                ours.close()
                process.wait()
                raise
            return recorder.report(phases), process.wait()


def attach(pid: int, *, seconds: float | None = None, pace: Pace = _USUAL) -> Report:
    """Records a program that runs already, as `record` does; it goes on afterwards as if nothing had been.

    It has to be of Python 3.14 or later, and so has this one, of the same minor version. Nothing has to be
    installed there. The program is interrupted for a moment in its main thread, at the beginning and whenever
    arrays are looked for. There are no phases.

    Args:
        pid: the process.
        seconds: how long. Default: until the process ends, or a KeyboardInterrupt, which is taken for the
        end.
        pace: how often is looked.

    Raises:
        UnsupportedError: this is an older Python; or the program can't track memory.
        DirtyTrackError: the program refuses, is of another Python, or does not answer.
        PermissionError: it is not permitted: the message says what would do.
    """
    if not hasattr(sys, "remote_exec"):
        remedy = (
            "It is there from Python 3.14 on, which both programs need: or start it by `dirtytrack record`."
        )
        raise UnsupportedError(errno.ENOSYS, "sys.remote_exec", remedy=remedy)
    with TemporaryDirectory(prefix="dirtytrack-") as name, socket.socket(socket.AF_UNIX) as listener:
        folder = Path(name)
        os.chown(folder, Path(f"/proc/{pid}").stat().st_uid, -1)  # a program of another user, for root
        listener.bind(str(folder / "line"))
        (folder / "line").chmod(0o666)  # its directory is closed to others
        listener.listen(8)
        _ask(pid, folder, with_userfaultfd=True)
        listener.settimeout(_HELLO)
        try:
            line, _ = listener.accept()
        except TimeoutError:
            raise DirtyTrackError(
                f"process {pid} did not answer within {_HELLO:.0f} s: its main thread is in one long call"
            ) from None
        with line:
            lines = _Lines(line)
            hello, descriptor = lines.hello()
            recorder = Recorder(hello, descriptor, pid, f"process {pid}", pace)
            recorder.look()
            lines.answer()
        with suppress(KeyboardInterrupt):
            _visit(recorder, listener, pid, folder, seconds)
        return recorder.report(is_whole=True)


def _ask(pid: int, folder: Path, *, with_userfaultfd: bool) -> None:
    script = folder / "ask.py"
    answer = f"scope['answer']({str(folder / 'line')!r}, {with_userfaultfd})"
    script.write_text(f"{_loaded_agent()}; {answer}; del scope", encoding="utf-8")
    remote_exec: Any = getattr(sys, "remote_exec")  # noqa: B009 (the types of Python 3.11 do not have it)
    try:
        remote_exec(pid, str(script))
    except PermissionError as error:
        raise PermissionError(
            error.errno,
            f"process {pid} may not be looked into: it takes its user and a kernel that permits it (sysctl "
            "kernel.yama.ptrace_scope=0), or root; in a container --cap-add SYS_PTRACE",
        ) from None
    except ProcessLookupError:
        raise ProcessLookupError(errno.ESRCH, f"there is no process {pid}") from None
    except (RuntimeError, OSError) as error:
        raise DirtyTrackError(
            f"process {pid} can't be attached to: {error}. It has to be Python of the same minor version, "
            "begun without PYTHON_DISABLE_REMOTE_DEBUG and -X disable-remote-debug"
        ) from None


def _visit(
    recorder: Recorder, listener: socket.socket, pid: int, folder: Path, seconds: float | None
) -> None:
    began = named = time.perf_counter()
    known = recorder.mappings
    while not recorder.is_gone and (seconds is None or time.perf_counter() - began < seconds):
        now = time.perf_counter()
        if now >= recorder.next:
            recorder.look()
            if recorder.mappings != known and now - named > recorder.names_wait:
                known, named = recorder.mappings, now
                with suppress(DirtyTrackError, OSError):
                    _ask(pid, folder, with_userfaultfd=False)
            continue
        if select.select([listener], [], [], recorder.next - now)[0]:
            with listener.accept()[0] as line:
                lines = _Lines(line)
                began_wait = time.perf_counter()
                for message in lines.read():
                    recorder.hear(message)
                    lines.answer()
                recorder.overhead += time.perf_counter() - began_wait


def _loaded_agent() -> str:
    # A statement that has the agent's functions in "scope". As a text, not as a file: its directory would be
    # the first in which modules are looked for.
    source = _AGENT.read_text(encoding="utf-8")
    return (
        "scope = {'__name__': '_dirtytrack_agent', '__file__': '<dirtytrack>'}; "
        f"exec(compile({source!r}, '<dirtytrack>', 'exec'), scope)"
    )


def _command(fd: int, program: Sequence[str], is_module: bool, phases: Iterable[str]) -> list[str]:
    run = f"run({fd}, {list(phases)!r}, {is_module}, {list(program)!r})"
    start = f"import sys; sys.path.pop(0); {_loaded_agent()}; run = scope['run']; del scope; {run}"
    return [sys.executable, *_interpreter_flags(), "-c", start]


def _interpreter_flags() -> list[str]:
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags


@contextmanager
def _signals_for(process: subprocess.Popen[bytes]) -> Iterator[None]:
    # A terminal's Ctrl-C reaches the program as well, which ends, or does not. SIGTERM is passed on to it.
    def pass_on(number: int, _frame: FrameType | None) -> None:
        process.send_signal(number)

    handlers: dict[int, Callable[..., Any] | int] = {signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: pass_on}
    try:
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    except ValueError:  # not the main thread
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _follow(recorder: Recorder, lines: _Lines, line: socket.socket, process: subprocess.Popen[bytes]) -> None:
    named = time.perf_counter()
    known = 0
    while not lines.is_over and process.poll() is None:
        now = time.perf_counter()
        if now >= recorder.next:
            recorder.look()
            if recorder.mappings != known and now - named > recorder.names_wait:
                known, named = recorder.mappings, now
                process.send_signal(signal.SIGURG)
            continue
        if select.select([line], [], [], recorder.next - now)[0]:
            began = time.perf_counter()
            for message in lines.read():
                recorder.hear(message)
                lines.answer()
            recorder.overhead += time.perf_counter() - began
