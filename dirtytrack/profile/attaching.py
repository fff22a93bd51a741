"""Records which memory a program writes that runs already."""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dirtytrack.errors import DirtyTrackError, UnsupportedError
from dirtytrack.profile._protocol import HELLO, Line, loaded_agent
from dirtytrack.profile.recorder import USUAL, Pace, Recorder
from dirtytrack.profile.report import Report


def attach(pid: int, *, seconds: float | None = None, pace: Pace = USUAL, shared: bool = False) -> Report:
    """Records a program that runs already, as `record` does; it goes on afterwards as if nothing had been.

    It has to be of Python 3.14 or later, and so has this one, of the same minor version. Nothing has to be
    installed there. The program is interrupted for a moment in its main thread, at the beginning and whenever
    arrays are looked for. There are no phases.

    Args:
        pid: the process.
        seconds: how long. Default: until the process ends, or a KeyboardInterrupt, which is taken for the
        end.
        pace: how often is looked.
        shared: as `record` has it.

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
        listener.settimeout(HELLO)
        try:
            line, _ = listener.accept()
        except TimeoutError:
            raise DirtyTrackError(
                f"process {pid} did not answer within {HELLO:.0f} s: its main thread is in one long call"
            ) from None
        with line:
            lines = Line(line)
            hello, descriptor = lines.hello()
            recorder = Recorder(hello, descriptor, pid, f"process {pid}", pace, with_shared=shared)
            recorder.look(recorder.first)
            lines.answer()
        with suppress(KeyboardInterrupt):
            _visit(recorder, listener, pid, folder, seconds)
        recorder.first.is_whole = True  # as long as it was asked for
        return recorder.report()


def _ask(pid: int, folder: Path, *, with_userfaultfd: bool) -> None:
    script = folder / "ask.py"
    answer = f"scope['answer']({str(folder / 'line')!r}, {with_userfaultfd})"
    script.write_text(f"{loaded_agent()}; {answer}; del scope", encoding="utf-8")
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
    began = time.perf_counter()
    process = recorder.first
    while not process.is_gone and (seconds is None or time.perf_counter() - began < seconds):
        now = time.perf_counter()
        if now >= process.next:
            recorder.look(process)
            if process.wants_names():
                with suppress(DirtyTrackError, OSError):
                    _ask(pid, folder, with_userfaultfd=False)
            continue
        if select.select([listener], [], [], process.next - now)[0]:
            with listener.accept()[0] as line:
                lines = Line(line)
                began_wait = time.perf_counter()
                for message in lines.read():
                    recorder.hear(process, message)
                    lines.answer()
                recorder.overhead += time.perf_counter() - began_wait
