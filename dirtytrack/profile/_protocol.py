"""What goes between the recorder and the programs that it records (`_agent`): lines of JSON over sockets.

Each program has a socket of its own. A forked child makes one for itself and passes it in by a *door*, a
socket that all of them share: its packets are whole whoever sends, and the kernel says of each whose it is.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from dirtytrack._json import parse
from dirtytrack.errors import DirtyTrackError, UnsupportedError

HELLO = 60.0  # seconds to wait for a program to hand over its userfaultfd
_LONGEST_LINE = 8 << 20  # bytes
_MOST_MEMORY = 64 << 20  # bytes that a line takes as objects
_PACKET = 1 << 13  # bytes
_CREDENTIALS = struct.Struct("iII")


class Line:
    """What one program says."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._data = b""
        self.is_over = False

    def fileno(self) -> int:
        """Of its socket, to wait for what comes."""
        return self._line.fileno()

    def close(self) -> None:
        """Nothing is heard any more; the program goes on. Idempotent."""
        self.is_over = True
        self._line.close()

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
            if message := _message(one):
                yield message

    def hello(self) -> tuple[dict[str, Any], int]:
        """Waits for the first message, and what comes with it.

        Raises:
            UnsupportedError: the program has no userfaultfd to hand over; it says why.
            DirtyTrackError: it ended, or did not say anything.
        """
        self._line.settimeout(HELLO)
        try:
            self._data, fds, _, _ = socket.recv_fds(self._line, 1 << 16, 1)
            while b"\n" not in self._data and (piece := self._line.recv(1 << 16)):
                self._data += piece
        except TimeoutError:
            raise DirtyTrackError(f"the program did not answer within {HELLO:.0f} s") from None
        except OSError:
            fds = []
        finally:
            self._line.settimeout(None)
        line, _, self._data = self._data.partition(b"\n")
        message = _message(line)
        if "failed" in message:
            remedy = f"In the program: {message['failed']}. `dirtytrack doctor` says why, and what to do."
            raise UnsupportedError(int(message["errno"]), "userfaultfd", remedy=remedy)
        if not fds:
            raise DirtyTrackError("the program ended before it could be recorded")
        return message, fds[0]

    def answer(self, *, asks: bool = False) -> None:
        """Lets the program go on; or *asks* it to tell its arrays first."""
        with suppress(OSError):
            self._line.send(b"\1" if asks else b"\0", socket.MSG_NOSIGNAL)


def _message(line: bytes) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        message = parse(line, _MOST_MEMORY)
        if isinstance(message, dict):
            return message
    return {}


class Knock(NamedTuple):
    """A forked child that waits to be let in.

    Attributes:
        pid: of the child.
        message: what it says.
        descriptor: its userfaultfd.
        line: its line.
    """

    pid: int
    message: dict[str, Any]
    descriptor: int
    line: Line


class Door:
    """Where forked children come in. A context manager.

    Attributes:
        outside: the end that the program is given; closed here once it has it.
    """

    def __init__(self) -> None:
        self._inside, self.outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._inside.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.is_over = False

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        self.outside.close()
        self._inside.close()

    def fileno(self) -> int:
        """Of its socket, to wait for somebody."""
        return self._inside.fileno()

    def open(self) -> Knock | None:
        """Takes in who has knocked; None: nobody, or one without a userfaultfd, who goes on by himself."""
        room = socket.CMSG_SPACE(2 * struct.calcsize("i")) + socket.CMSG_SPACE(_CREDENTIALS.size)
        try:
            data, told, _, _ = self._inside.recvmsg(_PACKET, room, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            data, told = b"", []
        self.is_over = not data
        pid, fds = 0, []
        for _, kind, value in told:
            if kind == socket.SCM_RIGHTS:
                fds += [one for (one,) in struct.iter_unpack("i", value)]
            elif kind == socket.SCM_CREDENTIALS:
                pid, _, _ = _CREDENTIALS.unpack(value)
        if len(fds) != 2 or pid <= 0:
            for fd in fds:
                os.close(fd)
            return None
        return Knock(pid, _message(data), fds[0], Line(socket.socket(fileno=fds[1])))


def loaded_agent() -> str:
    """A statement of Python that has the agent's functions in "scope".

    It has them as a text and not as a file, whose directory would be the first in which modules are looked
    for.
    """
    source = Path(__file__).with_name("_agent.py").read_text(encoding="utf-8")
    return (
        "scope = {'__name__': '_dirtytrack_agent', '__file__': '<dirtytrack>'}; "
        f"exec(compile({source!r}, '<dirtytrack>', 'exec'), scope)"
    )
